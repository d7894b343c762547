"""A dataset as Deconfound sees it: which piece of which video, its labels, its place in every protocol.

On disk a folder of two files: `dataset.json` (name, tasks, protocols, video root) and `clips.jsonl` (one clip a line).
Labels are class names, never integers: integers of somebody's copy are the classic way to train on the wrong classes.
"""

import json
import math
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from cache import atomic
from cache.errors import ManifestError
from cache.manifest_json import CLIPS_FILE, HEADER_FILE, clip_rows, counts, mapping, read_header, text_lists, texts

TaskKind = Literal["single", "multi"]
SCHEMA_VERSION = 1
VIDEOS_VARIABLE = "DECONFOUND_VIDEOS"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One question asked of clips: exactly one class of C (`single`) or any subset (`multi`)."""

    name: str
    kind: TaskKind
    class_names: tuple[str, ...]
    prompts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ManifestError(f"task name {self.name!r}: give a non-empty text")
        if self.kind not in ("single", "multi"):
            raise ManifestError(f"task {self.name!r}: kind is {self.kind!r}; accepted: 'single', 'multi'")
        if not self.class_names:
            raise ManifestError(f"task {self.name!r} has no classes")
        if len(set(self.class_names)) != len(self.class_names):
            twice = sorted({name for name in self.class_names if self.class_names.count(name) > 1})
            raise ManifestError(f"task {self.name!r}: class names appear twice: {twice[:10]}")
        if len(self.prompts) != len(self.class_names):
            raise ManifestError(
                f"task {self.name!r}: {len(self.class_names)} classes but {len(self.prompts)} prompts; give one a class"
            )

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A piece of one video. A task missing in `labels` means unlabelled; an empty tuple means: none of its classes."""

    id: str
    video: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not isinstance(self.video, str):
            raise ManifestError(f"clip id {self.id!r} and video {self.video!r} must be texts")
        if not self.id or "\0" in self.id:
            raise ManifestError(f"clip id {self.id!r}: give a non-empty text without NUL")
        path = PurePosixPath(self.video)
        if (
            not self.video
            or not path.parts
            or path.is_absolute()
            or ".." in path.parts
            or "\\" in self.video
            or ":" in path.parts[0]
        ):
            raise ManifestError(
                f"clip {self.id!r}: video {self.video!r} must be a path in the video root, with '/' and without '..', "
                "a backslash, or a ':' in its first part"
            )
        start, end = self.start_seconds, self.end_seconds
        if any(value is not None and not math.isfinite(value) for value in (start, end)):
            raise ManifestError(f"clip {self.id!r}: start and end must be finite seconds, not {start} and {end}")
        if (start is not None and start < 0) or (end is not None and end <= (start or 0.0)):
            raise ManifestError(f"clip {self.id!r}: start {start} and end {end} seconds do not make a piece of video")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Tasks, protocols (each a tuple of split names) and clips, in a fixed order."""

    name: str
    version: str
    tasks: tuple[Task, ...]
    protocols: Mapping[str, tuple[str, ...]]
    clips: tuple[Clip, ...]
    video_root: Path
    official_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Protocol -> split -> clips that the benchmark has there; nothing where that is not known. A copy of it with fewer
    clips must not pass for the whole: metrics are given beside this number."""

    def __post_init__(self) -> None:
        tasks = {task.name: task for task in self.tasks}
        if len(tasks) != len(self.tasks):
            raise ManifestError(f"dataset {self.name!r}: task names appear twice: {[t.name for t in self.tasks]}")
        classes = {name: frozenset(task.class_names) for name, task in tasks.items()}
        seen: dict[str, str] = {}
        for line, clip in enumerate(self.clips, start=1):
            where = f"clip {clip.id!r} (number {line})"
            normal = unicodedata.normalize("NFC", clip.id)
            if normal in seen:
                raise ManifestError(f"{where}: its id was given before, as {seen[normal]!r}; ids must be unique")
            seen[normal] = clip.id
            self._check_splits(clip, where)
            for name, labels in clip.labels.items():
                _check_labels(where, name, labels, tasks, classes)

    def _check_splits(self, clip: Clip, where: str) -> None:
        for protocol, split in clip.splits.items():
            accepted = self.protocols.get(protocol)
            if accepted is None:
                raise ManifestError(f"{where}: protocol {protocol!r} is not one of {sorted(self.protocols)}")
            if split not in accepted:
                raise ManifestError(f"{where}: split {split!r} is not one of {list(accepted)} of protocol {protocol!r}")

    def task(self, name: str) -> Task:
        """The task of that name; ManifestError lists what there is."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise ManifestError(f"dataset {self.name!r} has no task {name!r}; it has {[task.name for task in self.tasks]}")

    def clip(self, clip_id: str) -> Clip:
        """The clip of that id."""
        for clip in self.clips:
            if clip.id == clip_id:
                return clip
        raise ManifestError(f"dataset {self.name!r} has no clip {clip_id!r} among its {len(self.clips)}")

    def select(self, protocol: str, split: str) -> tuple[Clip, ...]:
        """All clips of one split, in manifest order."""
        splits = self.protocols.get(protocol)
        if splits is None:
            raise ManifestError(f"dataset {self.name!r} has no protocol {protocol!r}; it has {sorted(self.protocols)}")
        if split not in splits:
            raise ManifestError(f"protocol {protocol!r} of {self.name!r} has no split {split!r}; it has {list(splits)}")
        return tuple(clip for clip in self.clips if clip.splits.get(protocol) == split)

    def video_path(self, clip: Clip) -> Path:
        """Where the clip's video should be on this machine (it need not exist)."""
        return self.video_root / clip.video

    def targets(self, task: Task, clips: Iterable[Clip]) -> npt.NDArray[np.int64] | npt.NDArray[np.uint8]:
        """Targets of labelled clips.

        Returns:
            (n,) int64 class indices for a single-label task, (n, C) uint8 of 0 and 1 for a multi-label one.

        Raises:
            ManifestError: a clip has no label for this task.
        """
        index = {name: number for number, name in enumerate(task.class_names)}
        rows = [[index[name] for name in _labels_of(clip, task)] for clip in clips]
        if task.kind == "single":
            return np.array([row[0] for row in rows], dtype=np.int64)
        targets = np.zeros((len(rows), task.num_classes), dtype=np.uint8)
        for target, row in zip(targets, rows, strict=True):
            target[row] = 1
        return targets

    def write(self, folder: Path) -> None:
        """Writes `dataset.json` and `clips.jsonl`; a root inside or beside the folder is stored relative to it."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(_clip_to_json(clip)) for clip in self.clips]
        atomic.write_bytes(folder / CLIPS_FILE, "".join(line + "\n" for line in lines).encode())
        body = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "version": self.version,
            "video_root": _portable_root(self.video_root, folder),
            "tasks": [
                {
                    "name": task.name,
                    "kind": task.kind,
                    "class_names": list(task.class_names),
                    "prompts": list(task.prompts),
                }
                for task in self.tasks
            ],
            "protocols": {name: list(splits) for name, splits in self.protocols.items()},
        }
        if self.official_counts:
            body["official_counts"] = {name: dict(splits) for name, splits in self.official_counts.items()}
        text = json.dumps(body, indent=1) + "\n"
        atomic.write_bytes(folder / HEADER_FILE, text.encode())

    @classmethod
    def read(cls, folder: Path, *, videos: Path | None = None) -> Self:
        """Reads a dataset folder.

        Args:
            folder: where `dataset.json` and `clips.jsonl` are.
            videos: the video root on this machine; otherwise DECONFOUND_VIDEOS, otherwise the stored one.

        Raises:
            ManifestError: a file is absent, is not the format, or contradicts itself (with file and line).
        """
        body = read_header(folder / HEADER_FILE, SCHEMA_VERSION)
        override = videos or (Path(os.environ[VIDEOS_VARIABLE]) if os.environ.get(VIDEOS_VARIABLE) else None)
        try:
            tasks = tuple(
                Task(
                    name=task["name"],
                    kind=task["kind"],
                    class_names=texts(task["class_names"], f"class_names of task {task['name']!r}"),
                    prompts=texts(task["prompts"], f"prompts of task {task['name']!r}"),
                )
                for task in body["tasks"]
            )
            return cls(
                name=str(body["name"]),
                version=str(body["version"]),
                tasks=tasks,
                protocols=text_lists(body["protocols"], "protocols"),
                clips=tuple(_read_clips(folder / CLIPS_FILE)),
                video_root=override or folder / body["video_root"],
                official_counts=counts(body.get("official_counts", {}), "official_counts"),
            )
        except (KeyError, TypeError) as error:
            raise ManifestError(f"{folder / HEADER_FILE}: missing or malformed key {error}") from error


def _check_labels(
    where: str,
    task_name: str,
    labels: Sequence[str],
    tasks: Mapping[str, Task],
    classes: Mapping[str, frozenset[str]],
) -> None:
    if task_name not in tasks:
        raise ManifestError(f"{where}: label for task {task_name!r}, but the tasks are {sorted(tasks)}")
    unknown = [name for name in labels if name not in classes[task_name]]
    if unknown:
        raise ManifestError(f"{where}: {unknown[:10]} are not classes of task {task_name!r}")
    if tasks[task_name].kind == "single" and len(labels) != 1:
        raise ManifestError(f"{where}: task {task_name!r} takes exactly one class, not {list(labels)}")
    if len(set(labels)) != len(labels):
        raise ManifestError(f"{where}: task {task_name!r} names a class twice: {list(labels)}")


def _labels_of(clip: Clip, task: Task) -> tuple[str, ...]:
    try:
        return clip.labels[task.name]
    except KeyError:
        raise ManifestError(f"clip {clip.id!r} has no label for task {task.name!r}") from None


def _portable_root(root: Path, folder: Path) -> str:
    root, folder = root.absolute(), folder.absolute()
    if root.is_relative_to(folder.parent):
        return Path(os.path.relpath(root, folder)).as_posix()
    return root.as_posix()


def _clip_to_json(clip: Clip) -> dict[str, Any]:
    optional = {
        "start_seconds": clip.start_seconds,
        "end_seconds": clip.end_seconds,
        "splits": dict(clip.splits),
        "labels": {task: list(names) for task, names in clip.labels.items()},
        "groups": dict(clip.groups),
    }
    return {"id": clip.id, "video": clip.video} | {
        key: value for key, value in optional.items() if value not in (None, {})
    }


def clip_from_json(row: Mapping[str, Any]) -> Clip:
    """One line of `clips.jsonl`.

    Raises:
        ManifestError: a key is unknown, missing or of the wrong kind, or the clip contradicts itself.
    """
    values = dict(row)
    try:
        labels = text_lists(values.pop("labels", {}), "labels")
        for key in ("splits", "groups"):
            texts(list(mapping(values.get(key, {}), key).values()), key)
        return Clip(labels=labels, **values)
    except (TypeError, OverflowError) as error:
        raise ManifestError(str(error)) from error


def _read_clips(path: Path) -> list[Clip]:
    clips = []
    for number, row in clip_rows(path):
        try:
            clips.append(clip_from_json(row))
        except ManifestError as error:
            raise ManifestError(f"{path}, line {number}: {error}") from error
    return clips
