"""FineGym (Shao et al., 2020): elements of gymnastics, of 99 classes (Gym99) or of 288 (Gym288).

The official files are lists of elements with the `Clabel` of their class, two of them for training, and lists of names:

    gym99_train_element_v1.0.txt, gym99_train_element_v1.1.txt, gym99_val_element.txt      the same for gym288
        A0xAXXysHUo_E_002184_002237_A_0035_0036 93
    gym99_categories.txt    Clabel:  68; set: 34; Glabel: 336; (BB) round-off
    set_categories.txt      set: 34; BB_flight_handspring
    finegym_annotation_info_v1.1.json, optional: exact times in seconds, of events in their video and of elements in
        their event  {"0LtLS9wROrk": {"E_002407_002435": {"timestamps": [[2407.32, 2435.28]],
        "segments": {"A_0003_0005": {"stages": 1, "timestamps": [[3.45, 5.64]]}}}}}

An element's id is a YouTube id, which may hold '-' and '_', then its event and itself in whole seconds. Too coarse to
cut by (7 % begin and end in the same second): without the exact times only trimmed videos are used. A vault has three
stages and goes from the first one's start to the last one's end.

The decision to question: both tasks are one dataset, an element is one clip, and each task and version has protocols of
its own. Elements that validate Gym99 train Gym288: a score counts only under a protocol of its own task. Within a task
elements never repeat, but training and validation share source videos (group `video`); so the authors split.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.errors import ManifestError
from cache.manifest import Clip, Dataset, Task
from pipeline.datasets.annotations import AnnotationFolder, Line, read_json, read_lines
from pipeline.datasets.preparation import Benchmark, Preparation, Request
from pipeline.datasets.videos import VideoFolder

NUM_CLASSES = {"gym99": 99, "gym288": 288}
OFFICIAL = {
    "gym99-v1.0": {"train": 20484, "validation": 8521},
    "gym99-v1.1": {"train": 26320, "validation": 8521},
    "gym288-v1.0": {"train": 22671, "validation": 9646},
    "gym288-v1.1": {"train": 29334, "validation": 9646},
}
SOURCE = "sdolivia.github.io/FineGym (resources/dataset)"
_TIMES = ("finegym_annotation_info_v1.1.json", "finegym_annotation_info_v1.0.json", "annotation.json")
_APPARATUS = {"VT": "vault", "FX": "floor exercise", "BB": "balance beam", "UB": "uneven bars"}
_SET = re.compile(r"set: *(\d+); *(\S+)")
_CATEGORY = re.compile(r"Clabel: *(\d+); *set: *(\d+); *Glabel: *\d+; *\((\w+)\) *(\S.*)")
_ELEMENT = re.compile(r"(?P<video>[\w-]{11})_(?P<event>E_\d{6}_\d{6})_(?P<action>A_\d{4}_\d{4})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class _Class:
    apparatus: str
    group: str
    """The set in which the benchmark puts it: `BB_dismounts`."""
    text: str

    @property
    def name(self) -> str:
        return f"{self.group}: {self.text}"

    def describe(self, *, with_group: bool) -> str:
        """What a person would call it: the apparatus first, as long texts are cut at their end."""
        group = " ".join(self.group.split("_")[1:])
        return f"{self.apparatus}{f' {group}' if with_group else ''}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class _Lists:
    """The files of one task that can be made."""

    task: str
    classes: tuple[_Class, ...]
    train: Mapping[str, Path]
    """By protocol."""
    validation: Path


@dataclass(kw_only=True)
class _Element:
    apparatus: str
    splits: dict[str, str] = field(default_factory=dict)
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)


def prepare(request: Request) -> Preparation:
    """Reads the lists of the tasks that are there; every element is a clip, training elements first."""
    found = tuple(_find_lists(request.annotations))
    if not found:
        raise ManifestError(
            f"{request.annotations} holds no whole task. Gym99 takes gym99_categories.txt, gym99_val_element.txt and "
            f"gym99_train_element_v1.0.txt or gym99_train_element_v1.1.txt, Gym288 the same; they come from {SOURCE}"
        )
    elements: dict[str, _Element] = {}
    for lists in found:
        _read_elements(lists, elements)
    footage = _Footage(request.videos, request.annotations.find(*_TIMES))
    protocols = tuple(protocol for lists in found for protocol in lists.train)
    dataset = Dataset(
        name="finegym",
        version="v1",
        tasks=tuple(_task(lists, request) for lists in found),
        protocols=dict.fromkeys(protocols, ("train", "validation")),
        clips=tuple(footage.clip(name, element) for name, element in elements.items()),
        video_root=request.videos.root,
        official_counts={protocol: OFFICIAL[protocol] for protocol in protocols},
    )
    notes = (*_left_out(protocols), *_untrained(dataset), *footage.notes())
    return Preparation(dataset=dataset, notes=notes)


def _find_lists(folder: AnnotationFolder) -> Iterator[_Lists]:
    for task in NUM_CLASSES:
        train = {
            f"{task}-v1.0": folder.find(f"{task}_train_element_v1.0.txt", f"{task}_train_org.txt"),
            f"{task}-v1.1": folder.find(f"{task}_train_element_v1.1.txt"),
        }
        validation = folder.find(f"{task}_val_element.txt", f"{task}_val_org.txt")
        there = {protocol: path for protocol, path in train.items() if path is not None}
        if there and validation is not None:
            yield _Lists(task=task, classes=_read_classes(folder, task), train=there, validation=validation)


def _read_classes(folder: AnnotationFolder, task: str) -> tuple[_Class, ...]:
    """The classes in the order of their `Clabel`, which counts from 0."""
    groups = {}
    for line in read_lines(folder.require("set_categories.txt", source=SOURCE)):
        match = _SET.fullmatch(line.text)
        if match is None:
            raise line.error(f"expected a set like 'set: 21; FX_leap_jump_hop', got {line.text[:60]!r}")
        groups[match[1]] = match[2]
    path = folder.require(f"{task}_categories.txt", source=SOURCE)
    classes: list[_Class] = []
    for line in read_lines(path):
        match = _CATEGORY.fullmatch(line.text)
        if match is None or match[2] not in groups or match[3] not in _APPARATUS:
            raise line.error(
                f"expected 'Clabel: 6; set: 21; Glabel: 67; (FX) switch leap' with a set of set_categories.txt, "
                f"got {line.text[:60]!r}"
            )
        if int(match[1]) != len(classes):
            raise line.error(f"Clabel {match[1]} where {len(classes)} is next")
        text = " ".join(match[4].split())
        classes.append(_Class(apparatus=_APPARATUS[match[3]], group=groups[match[2]], text=text))
    if len(classes) != NUM_CLASSES[task]:
        raise ManifestError(f"{path} lists {len(classes)} classes; {task} has {NUM_CLASSES[task]}")
    return tuple(classes)


def _task(lists: _Lists, request: Request) -> Task:
    names = Counter((cls.apparatus, cls.text) for cls in lists.classes)
    texts = (cls.describe(with_group=names[cls.apparatus, cls.text] > 1) for cls in lists.classes)
    return Task(
        name=lists.task,
        kind="single",
        class_names=tuple(cls.name for cls in lists.classes),
        prompts=request.prompts(tuple(texts)),
    )


def _read_elements(lists: _Lists, elements: dict[str, _Element]) -> None:
    """Adds the elements of one task to those of the others."""
    for protocol, path in lists.train.items():
        _read_list(path, lists, {protocol: "train"}, elements)
    _read_list(lists.validation, lists, dict.fromkeys(lists.train, "validation"), elements)


def _read_list(path: Path, lists: _Lists, splits: Mapping[str, str], elements: dict[str, _Element]) -> None:
    for line in read_lines(path):
        name, cls = _parse(line, lists.classes)
        element = elements.setdefault(name, _Element(apparatus=cls.apparatus))
        again = splits.keys() & element.splits.keys()
        if again:
            raise line.error(f"element {name} was given before in split {element.splits[again.pop()]} of {lists.task}")
        if element.labels.setdefault(lists.task, (cls.name,)) != (cls.name,):
            raise line.error(f"element {name} is of class {element.labels[lists.task][0]!r} in another list")
        element.splits.update(splits)


def _parse(line: Line, classes: Sequence[_Class]) -> tuple[str, _Class]:
    parts = line.text.split()
    if len(parts) != 2 or _ELEMENT.fullmatch(parts[0]) is None or not parts[1].isdecimal():
        raise line.error(f"expected 'A0xAXXysHUo_E_002184_002237_A_0035_0036 93', got {line.text[:60]!r}")
    name, label = parts
    if int(label) >= len(classes):
        raise line.error(f"class {label} of element {name}: accepted are 0 to {len(classes) - 1}")
    return name, classes[int(label)]


class _Footage:
    """Where elements are to be seen: trimmed, within the video of their event, or within the whole one."""

    def __init__(self, videos: VideoFolder, times: Path | None) -> None:
        self._videos = videos
        self._path = times
        self._times = {} if times is None else read_json(times)
        self._num_untimed = 0

    def clip(self, name: str, element: _Element) -> Clip:
        video, start, end = self._place(name)
        return Clip(
            id=name,
            video=video,
            start_seconds=start,
            end_seconds=end,
            splits=element.splits,
            labels=element.labels,
            groups={"apparatus": element.apparatus, "video": name[:11]},
        )

    def notes(self) -> tuple[str, ...]:
        if not self._num_untimed:
            return ()
        return (
            f"{self._num_untimed} elements lie in videos of events or competitions, but nothing tells their exact "
            f"times: put {_TIMES[0]} beside the lists; it comes from {SOURCE}",
        )

    def _place(self, name: str) -> tuple[str, float | None, float | None]:
        match = _ELEMENT.fullmatch(name)
        assert match is not None
        trimmed = self._videos.find(f"subactions/{name}") or self._videos.find(name)
        if trimmed is not None:
            return trimmed, None, None
        event_name = f"{match['video']}_{match['event']}"
        event = self._videos.find(f"events/{event_name}") or self._videos.find(event_name)
        whole = self._videos.find(f"videos/{match['video']}") or self._videos.find(match["video"])
        longer = event or whole
        times = self._seconds(match) if longer is not None else None
        if longer is None or times is None:
            self._num_untimed += longer is not None
            return f"subactions/{name}.mp4", None, None
        offset, start, end = (0.0 if event else times[0]), times[1], times[2]
        return longer, round(offset + start, 3), round(offset + end, 3)

    def _seconds(self, element: re.Match[str]) -> tuple[float, float, float] | None:
        """The start of the event in its video, start and end of the element in its event; None if it is not there."""
        try:
            event = self._times.get(element["video"], {}).get(element["event"], {})
            segment: Any = (event.get("segments") or {}).get(element["action"])
            if segment is None:
                return None
            stages = segment["timestamps"]
            times = float(event["timestamps"][0][0]), float(stages[0][0]), float(stages[-1][1])
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise ManifestError(f"{self._path}: the times of {element[0]} are not of the documented form") from None
        if not (times[0] >= 0 and 0 <= times[1] < times[2] < float("inf")):
            raise ManifestError(
                f"{self._path}: {element[0]} goes from {times[1]} to {times[2]} s of an event at {times[0]} s; "
                f"correct it there, or put the trimmed video at subactions/{element[0]}.mp4"
            )
        return times


def _left_out(protocols: Sequence[str]) -> Iterator[str]:
    for task in NUM_CLASSES:
        absent = [protocol for protocol in OFFICIAL if protocol.startswith(f"{task}-") and protocol not in protocols]
        names = [f"{protocol.replace('-', '_train_element_')}.txt" for protocol in absent]
        if len(absent) > 1:
            yield f"{task} is left out: it takes {task}_val_element.txt and {' or '.join(names)}, from {SOURCE}"
        elif absent:
            yield f"protocol {absent[0]} is left out: there is no {names[0]}"


def _untrained(dataset: Dataset) -> Iterator[str]:
    """Version 1.0 of Gym288 has no training element for one class of its 288."""
    for protocol in dataset.protocols:
        task = dataset.task(protocol.split("-")[0])
        trained = {clip.labels[task.name][0] for clip in dataset.select(protocol, "train")}
        absent = [name for name in task.class_names if name not in trained]
        if absent:
            more = ", ..." if len(absent) > 1 else ""
            yield f"{protocol} has no training clip of {len(absent)} of {task.num_classes} classes: {absent[0]}{more}"


BENCHMARK = Benchmark(name="finegym", prompt="{}, a video of gymnastic action", prepare=prepare)
