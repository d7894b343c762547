"""The videos that are really there, wherever an archive was unpacked: looked up once, by the end of their paths.

Benchmarks come in several layouts (flat, by class, inside the archive's own folder), so a video is asked for by the
part of its path that identifies it, without its ending: `P03/cam01/P03_cereals` is found below any folder.
"""

from collections import defaultdict
from pathlib import Path, PurePosixPath

from cache.errors import ManifestError
from pipeline.datasets.files import walk_files

VIDEO_SUFFIXES = frozenset(
    [".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm"]
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
        for path in sorted(found, key=lambda path: (path.count("/"), path)):
            self._by_stem[_without_suffix(path).rsplit("/", 1)[-1]].append(path)

    def __repr__(self) -> str:
        return f"VideoFolder({str(self.root)!r}, {len(self.paths)} videos)"

    def __contains__(self, path: str) -> bool:
        return path in self.paths

    def find(self, end: str) -> str | None:
        """The shallowest video whose path, without its ending, is `end` or ends with '/' and `end`."""
        for path in self._by_stem.get(end.rsplit("/", 1)[-1], ()):
            if f"/{_without_suffix(path)}".endswith(f"/{end}"):
                return path
        return None

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


def _without_suffix(path: str) -> str:
    return path[: -len(PurePosixPath(path).suffix)]
