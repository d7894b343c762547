"""A folder of videos as a dataset.

    VIDEOS/<class>/*.mp4            classes are sub-folders; a fixed share of each class becomes the test split
    VIDEOS/<split>/<class>/*.mp4    the same with the splits given: train, validation (or val), test
    VIDEOS/*.mp4                    one unlabelled split, `all`

Which videos of a class are held out depends on a digest of their names alone: adding videos moves no other one.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from cache.errors import ManifestError
from cache.manifest import Clip, Dataset, Task
from pipeline.datasets.own.clips import PROTOCOL, SPLIT_NAMES, SPLIT_ORDER, TASK, class_prompts
from pipeline.datasets.videos import VIDEO_SUFFIXES, VideoFolder


def prepare_folder(
    videos: VideoFolder, *, name: str | None = None, prompt: str = "{}", test_fraction: float = 0.2
) -> Dataset:
    """Makes a dataset of all videos below a folder.

    Args:
        videos: the folder; it becomes the video root.
        name: the dataset's name, by default the folder's.
        prompt: template of the class prompts; `{}` is the class name with '_' as spaces.
        test_fraction: share of each class held out where the folder names no splits.

    Raises:
        ManifestError: no videos in it, or a mixture of the three layouts.
    """
    root = videos.root
    paths = sorted(Path(path) for path in videos.paths)
    if not paths:
        raise ManifestError(f"{root} holds no videos; known endings: {' '.join(sorted(VIDEO_SUFFIXES))}")
    depths = {len(path.parts) for path in paths}
    if depths == {1}:
        return _flat(root, paths, name)
    if depths == {2}:
        return _of_classes(root, paths, name, prompt, _held_out(paths, test_fraction))
    if depths == {3} and {path.parts[0] for path in paths} <= SPLIT_NAMES.keys():
        splits = {path: SPLIT_NAMES[path.parts[0]] for path in paths}
        return _of_classes(root, paths, name, prompt, splits)
    raise ManifestError(
        f"{root} mixes layouts (videos at depths {sorted(depths)}). Accepted: VIDEOS/*.mp4, VIDEOS/<class>/*.mp4, "
        f"or VIDEOS/<split>/<class>/*.mp4 with splits named {', '.join(SPLIT_NAMES)}"
    )


def _flat(root: Path, paths: Iterable[Path], name: str | None) -> Dataset:
    return Dataset(
        name=name or root.resolve().name,
        version="1",
        tasks=(),
        protocols={PROTOCOL: ("all",)},
        clips=tuple(Clip(id=path.as_posix(), video=path.as_posix(), splits={PROTOCOL: "all"}) for path in paths),
        video_root=root,
    )


def _of_classes(
    root: Path, paths: Iterable[Path], name: str | None, prompt: str, splits: Mapping[Path, str]
) -> Dataset:
    classes = tuple(sorted({path.parts[-2] for path in splits}))
    task = Task(
        name=TASK,
        kind="single",
        class_names=classes,
        prompts=class_prompts(classes, prompt),
    )
    clips = tuple(
        Clip(
            id=path.as_posix(),
            video=path.as_posix(),
            splits={PROTOCOL: splits[path]},
            labels={TASK: (path.parts[-2],)},
        )
        for path in paths
    )
    return Dataset(
        name=name or root.resolve().name,
        version="1",
        tasks=(task,),
        protocols={PROTOCOL: tuple(sorted(set(splits.values()), key=SPLIT_ORDER.index))},
        clips=clips,
        video_root=root,
    )


def _held_out(paths: Iterable[Path], test_fraction: float) -> dict[Path, str]:
    if not 0 <= test_fraction < 1:
        raise ManifestError(f"test fraction {test_fraction}: give a share of at least 0 and below 1")
    by_class: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_class[path.parts[0]].append(path)
    splits: dict[Path, str] = {}
    for members in by_class.values():
        ranked = sorted(
            members, key=lambda path: hashlib.sha256(path.as_posix().encode("utf-8", "surrogateescape")).digest()
        )
        num_test = round(test_fraction * len(members))
        splits |= {path: "test" if rank < num_test else "train" for rank, path in enumerate(ranked)}
    return splits
