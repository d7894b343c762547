"""Which video files may be read: those inside the dataset's video root, wherever links lead.

A dataset may come from somebody else, and a link in it to any file of this machine would put that file's frames into a
cache that is then shared. A folder of links is also how people share videos, so it is accepted when told to. The path
is resolved once before the file is opened: this guards against what a dataset holds, not against a race.
"""

from dataclasses import dataclass
from pathlib import Path

from cache.errors import FailureCode, VideoError
from cache.manifest import Dataset


@dataclass(frozen=True, kw_only=True)
class VideoFiles:
    """The videos of a dataset, each once and sorted: those that may be read, those not there, those outside."""

    present: tuple[Path, ...]
    missing: tuple[Path, ...]
    outside: tuple[Path, ...]


def check_inside(path: Path, root: Path) -> None:
    """Refuses a path that leads out of `root` by links, `..` or being absolute; the file itself is not touched.

    Raises:
        VideoError: OUTSIDE_ROOT, with where it leads.
    """
    try:
        target, folder = path.resolve(), root.resolve()
    except (OSError, RuntimeError, ValueError):  # a link to itself, say: opening the file tells the cause
        return
    if not target.is_relative_to(folder):
        raise VideoError(
            FailureCode.OUTSIDE_ROOT,
            f"leads to {target}, outside the videos' folder {folder}; --allow-outside accepts such files",
        )


def is_outside(path: Path, root: Path) -> bool:
    """True if `check_inside` refuses the path."""
    try:
        check_inside(path, root)
    except VideoError:
        return True
    return False


def video_files(dataset: Dataset, *, allow_outside: bool = False) -> VideoFiles:
    """Looks for the videos of a dataset; those outside its root are not even looked for, unless that is allowed."""
    paths = sorted({dataset.video_path(clip) for clip in dataset.clips})
    outside = set() if allow_outside else {path for path in paths if is_outside(path, dataset.video_root)}
    present = {path for path in paths if path not in outside and path.exists()}
    return VideoFiles(
        present=tuple(path for path in paths if path in present),
        missing=tuple(path for path in paths if path not in present | outside),
        outside=tuple(path for path in paths if path in outside),
    )
