"""The videos that are really there, wherever an archive was unpacked: looked up once, by the end of their paths.

Benchmarks come in several layouts (flat, by class, inside the archive's own folder), so a video is asked for by the
part of its path that identifies it, without its ending: `P03/cam01/P03_cereals` is found below any folder. The decision
to question: what is there twice (RGB beside optical flow, a backup) is refused and not chosen between.
"""

import unicodedata
from collections import defaultdict
from pathlib import Path, PurePosixPath

from cache.errors import ManifestError
from pipeline.datasets.files import walk_files

VIDEO_SUFFIXES = frozenset(
    (
        *(".3gp", ".asf", ".avi", ".divx", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg"),
        *(".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    )
)


class VideoFolder:
    """All videos below a folder.

    Args:
        root: the folder; it becomes the dataset's video root.

    Raises:
        ManifestError: it is not a folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ManifestError(f"{root} is not a folder; --videos takes the folder that holds the videos")
        self.root = root
        found = [path for path in walk_files(root) if is_video(path)]
        self.paths = frozenset(found)
        """Relative to the root, with '/'."""
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for path in sorted(found):
            self._by_stem[_key(path[: -len(PurePosixPath(path).suffix)]).rsplit("/", 1)[-1]].append(path)

    def __repr__(self) -> str:
        return f"VideoFolder({str(self.root)!r}, {len(self.paths)} videos)"

    def __contains__(self, path: str) -> bool:
        return path in self.paths

    def find(self, end: str) -> str | None:
        """The video whose path, without its ending, is `end` or ends with '/' and `end`.

        Raises:
            ManifestError: there are several.
        """
        end = _key(end)
        stems = self._by_stem.get(end.rsplit("/", 1)[-1], ())
        found = [path for path in stems if f"/{_key(path)}".rpartition(".")[0].endswith(f"/{end}")]
        if len(found) > 1:
            listed = ", ".join(found[:5])
            raise ManifestError(
                f"{self.root} holds {end} {len(found)} times ({listed}): give --videos the folder of one, or move the "
                "others away"
            )
        return found[0] if found else None

    def locate(self, *ends: str, suffix: str = ".mp4") -> str:
        """The first of these that is there; where none is, the first with `suffix`: the path it should have had."""
        for end in ends:
            path = self.find(end)
            if path is not None:
                return path
        return ends[0] + suffix


def is_video(name: str) -> bool:
    """True for the names of video files."""
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def _key(path: str) -> str:
    """Names in one Unicode form: some file systems keep accents as signs of their own."""
    return unicodedata.normalize("NFC", path)
