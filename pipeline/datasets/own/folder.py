"""A folder of videos as a dataset.

    VIDEOS/<class>/*.mp4            classes are sub-folders; a fixed share of each class becomes the test split
    VIDEOS/<split>/<class>/*.mp4    the same with the splits given: train, validation (or val), test
    VIDEOS/*.mp4                    one unlabelled split, `all`

Of each class those videos are held out whose names have the smallest digests: the same ones on every machine. The
decision to question: the share is kept exactly, so that small classes have test clips too; each video that is added
to a class can therefore move one other of that class. Splits that must never move are given as folders.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from cache.errors import ConfigError, ManifestError
from cache.manifest import Clip
from pipeline.datasets.own.clips import PROTOCOL, SPLIT_NAMES, TASK, Wishes, build_dataset
from pipeline.datasets.preparation import Preparation
from pipeline.datasets.videos import VIDEO_SUFFIXES, VideoFolder

TEST_FRACTION = 0.2
_MOST_LISTED = 10
_LAYOUTS = "VIDEOS/*.mp4, VIDEOS/<class>/*.mp4, VIDEOS/<split>/<class>/*.mp4"


def prepare_folder(videos: VideoFolder, wishes: Wishes, *, test_fraction: float | None = None) -> Preparation:
    """Makes a dataset of all videos below a folder.

    Args:
        videos: the folder; it becomes the video root.
        wishes: name and prompt; the classes are the folders.
        test_fraction: share of each class held out where the folder names no splits; by default TEST_FRACTION.

    Raises:
        ManifestError: no videos in it, a mixture of the three layouts, or splits without classes.
        ConfigError: a fraction that is none, or one where nothing is held out.
    """
    paths = sorted(map(PurePosixPath, videos.paths))
    if not paths:
        raise ManifestError(f"{videos.root} holds no videos; known endings: {_endings()}")
    depth = _depth(paths, videos.root)
    splits = _splits(paths, depth, test_fraction)
    classes = tuple(sorted({path.parent.name for path in paths})) if depth > 1 else ()
    dataset = build_dataset([_clip(path, splits[path]) for path in paths], classes, videos, wishes)
    notes = [*_empty_folders(videos, depth), *(_untested(splits) if classes else ())]
    return Preparation(dataset=dataset, notes=tuple(notes))


def _depth(paths: Sequence[PurePosixPath], root: Path) -> int:
    """How deep all videos lie, if that is one of the layouts: 1 to 3."""
    examples = {len(path.parts): path for path in paths}
    if len(examples) > 1:
        found = ", ".join(str(path) for _, path in sorted(examples.items()))
        raise ManifestError(f"{root} mixes layouts ({found}). Accepted is one of {_LAYOUTS}")
    (depth,) = examples
    if depth > 3:
        raise ManifestError(f"{root}: videos lie too deep ({paths[0]}). Accepted: {_LAYOUTS}")
    tops = sorted({path.parts[0] for path in paths})
    strange = [name for name in tops if name.lower() not in SPLIT_NAMES]
    if depth == 3 and strange:
        raise ManifestError(
            f"{root}: {_listed(strange)} would be splits ({paths[0]}), but splits are named {', '.join(SPLIT_NAMES)}. "
            f"Accepted: {_LAYOUTS}"
        )
    if depth == 2 and not strange:
        raise ManifestError(
            f"{root}: {_listed(tops)} would be classes, but these are names of splits: put the videos of a split into "
            "folders of their classes (VIDEOS/<split>/<class>/*.mp4), or give the labels in a file to `deconfound "
            "prepare lists` or `deconfound prepare table`"
        )
    return depth


def _clip(path: PurePosixPath, split: str) -> Clip:
    labels = {TASK: (path.parent.name,)} if len(path.parts) > 1 else {}
    return Clip(id=str(path), video=str(path), splits={PROTOCOL: split}, labels=labels)


def _splits(paths: Sequence[PurePosixPath], depth: int, test_fraction: float | None) -> dict[PurePosixPath, str]:
    if depth == 2:
        return _hold_out(paths, TEST_FRACTION if test_fraction is None else test_fraction)
    if test_fraction is not None:
        why = "the folders say which split a video is in" if depth == 3 else "without folders there are no classes"
        raise ConfigError(f"--test-fraction {test_fraction}: {why}; leave the option out")
    return {path: SPLIT_NAMES[path.parts[0].lower()] if depth == 3 else "all" for path in paths}


def _hold_out(paths: Sequence[PurePosixPath], fraction: float) -> dict[PurePosixPath, str]:
    """The split of each video; at least one of a class stays in training."""
    if not 0 <= fraction < 1:
        raise ConfigError(f"--test-fraction {fraction}: give a share of at least 0 and below 1")
    by_class: dict[str, list[PurePosixPath]] = defaultdict(list)
    for path in paths:
        by_class[path.parts[0]].append(path)
    held_out: set[PurePosixPath] = set()
    for members in by_class.values():
        ranked = sorted(members, key=_digest)
        held_out.update(ranked[: min(round(fraction * len(members)), len(members) - 1)])
    return {path: "test" if path in held_out else "train" for path in paths}


def _digest(path: PurePosixPath) -> bytes:
    return hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).digest()


def _untested(splits: Mapping[PurePosixPath, str]) -> list[str]:
    tested = {path.parent.name for path, split in splits.items() if split == "test"}
    untested = sorted({path.parent.name for path in splits} - tested)
    if not tested:
        return ["no test split: hold out a larger share (--test-fraction), or name a folder `test`"]
    return [f"classes without a test clip: {len(untested)} ({_listed(untested)})"] if untested else []


def _empty_folders(videos: VideoFolder, depth: int) -> list[str]:
    """Folders that would be classes, or splits, if they had videos."""
    filled = {parent for path in videos.paths for parent in PurePosixPath(path).parents}
    empty: list[PurePosixPath] = []
    for pattern in ("*", "*/*")[: max(1, depth - 1)]:
        for folder in sorted(videos.root.glob(pattern)):
            path = PurePosixPath(folder.relative_to(videos.root))
            is_left_out = any(part.startswith(".") or part == "lost+found" for part in path.parts)
            is_known = str(path) in videos or path in filled or path.parent in empty
            if not is_left_out and not is_known and folder.is_dir():
                empty.append(path)
    if not empty:
        return []
    names = _listed([str(path) for path in empty])
    return [f"folders without videos: {len(empty)} ({names}); known endings: {_endings()}"]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_LISTED]) + (", ..." if len(names) > _MOST_LISTED else "")


def _endings() -> str:
    return " ".join(sorted(VIDEO_SUFFIXES))
