"""From the paths that a person's list has to the files below --videos, and what to say where they do not fit.

The decision to question: a video is taken from where its path says and nowhere else. Only its ending and the Unicode
form of its name may differ (lists give none, or that of the original download); namesakes in other folders are a hint.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from unicodedata import normalize

from pipeline.datasets.annotations import Place
from pipeline.datasets.videos import VideoFolder, is_video


class ListedVideos:
    """The videos of a folder by the paths that lists give them.

    Args:
        videos: the folder that the paths start from.
    """

    def __init__(self, videos: VideoFolder) -> None:
        self._videos = videos
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for path in sorted(videos.paths):
            self._by_stem[_stem(path)].append(path)

    def relative(self, place: Place, video: str) -> str:
        """The path from the folder on, as it was listed otherwise.

        Raises:
            ManifestError: an absolute path to somewhere else, with its place.
        """
        path = PurePosixPath(video)
        if not path.is_absolute():
            return path.as_posix() if path.parts else ""
        root = self._videos.root
        for start in (root.absolute(), root.resolve()):
            if path.is_relative_to(start.as_posix()):
                return path.relative_to(start.as_posix()).as_posix()
        raise place.error(
            f"{video!r} is not below --videos {root}: shorten the paths, or give the folder they start from"
        )

    def on_disk(self, place: Place, listed: str) -> str:
        """The listed path with the ending and in the Unicode form that its file has; as it is if there is no file.

        Raises:
            ManifestError: several files differ by their endings alone, with the place of the path.
        """
        if listed in self._videos:
            return listed
        stem = _stem(listed) if is_video(listed) else normalize("NFC", listed)
        found = self._by_stem.get(stem, [])
        same_ending = [path for path in found if PurePosixPath(path).suffix == PurePosixPath(listed).suffix]
        if len(same_ending or found) > 1:
            raise place.error(f"{listed!r} may be {' or '.join((same_ending or found)[:5])}: write the ending")
        return (same_ending or found or [listed])[0]

    def place_notes(self, used: Iterable[str]) -> list[str]:
        """Where most videos are missing but have namesakes elsewhere, --videos is probably the wrong folder."""
        used = set(used)
        by_name: dict[str, str] = {}
        for path in sorted(self._videos.paths):
            by_name.setdefault(PurePosixPath(path).stem, path)
        missing = sorted(used - self._videos.paths)
        elsewhere = [path for path in missing if PurePosixPath(path).stem in by_name]
        if 2 * len(elsewhere) <= len(used):
            return []
        return [
            f"missing videos with namesakes elsewhere: {len(elsewhere)} ({elsewhere[0]} is listed, "
            f"{by_name[PurePosixPath(elsewhere[0]).stem]} is there); "
            "--videos must be the folder that the paths start from"
        ]


def ending_notes(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """How many of (listed, found) differ by an ending that the list does give."""
    changed = [
        (listed, found)
        for listed, found in pairs
        if is_video(listed) and PurePosixPath(listed).suffix != PurePosixPath(found).suffix
    ]
    if not changed:
        return []
    return [f"clips with another ending than listed: {len(changed)} ({changed[0][0]} is {changed[0][1]})"]


def _stem(path: str) -> str:
    return normalize("NFC", path[: -len(PurePosixPath(path).suffix)])
