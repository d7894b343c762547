"""What people wrote of their own clips, in a list or a table, becomes a dataset.

One task, `action`, and one protocol, `default`. Without a list of classes they are the names that training shows; the
decision to question: a name that only the test knows is refused, as it is a typing error far more often than a class.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cache.errors import ConfigError, ManifestError
from cache.manifest import Clip, Dataset, Task, TaskKind
from pipeline.datasets.annotations import Place
from pipeline.datasets.own.class_list import ClassList, is_number
from pipeline.datasets.own.listed_videos import ListedVideos, ending_notes
from pipeline.datasets.preparation import Preparation
from pipeline.datasets.videos import VideoFolder

TASK = "action"
PROTOCOL = "default"
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
SPLIT_ORDER = tuple(dict.fromkeys(SPLIT_NAMES.values()))
_MOST_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One clip as it was written down."""

    place: Place
    video: str
    labels: tuple[str, ...] | None
    """Names, or numbers of the list of classes; None where nothing is said."""
    split: str = ""
    """Empty: in none."""
    id: str = ""
    """Empty: the video's path, with the times where there are any."""
    start_seconds: float | None = None
    end_seconds: float | None = None
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a person says beside the files.

    Raises:
        ConfigError: the prompt has no `{}`.
    """

    classes: ClassList | None = None
    name: str | None = None
    """Of the dataset; by default the name of the videos' folder."""
    prompt: str = "{}"
    """Template of the class prompts; `{}` is the class name with '_' as spaces."""
    multi_label: bool = False

    def __post_init__(self) -> None:
        if "{}" not in self.prompt:
            raise ConfigError(f"--prompt {self.prompt!r}: it needs {{}}, where the name of the class goes")


def make_dataset(entries: Sequence[Entry], videos: VideoFolder, wishes: Wishes) -> Preparation:
    """Makes a dataset of the entries, in their order.

    Raises:
        ManifestError: an id twice (the first ten with their lines), a label that is no class, a number without a list
            of classes, a path outside the videos' folder, or times that make no piece; with file and line.
    """
    labels = [_labels(entry, wishes.classes) for entry in entries]
    class_names = _class_names(entries, labels, wishes.classes)
    listed = ListedVideos(videos)
    clips = [_clip(entry, names, listed) for entry, names in zip(entries, labels, strict=True)]
    _refuse_duplicates(entries, clips)
    dataset = build_dataset(clips, class_names, videos, wishes)
    endings = ending_notes([(entry.video, clip.video) for entry, clip in zip(entries, clips, strict=True)])
    notes = (*_split_notes(dataset), *endings, *listed.place_notes(clip.video for clip in clips))
    return Preparation(dataset=dataset, notes=notes)


def build_dataset(clips: Iterable[Clip], class_names: tuple[str, ...], videos: VideoFolder, wishes: Wishes) -> Dataset:
    """A dataset of these clips, with their splits and one task; without classes it has no task."""
    clips = tuple(clips)
    kind: TaskKind = "multi" if wishes.multi_label else "single"
    prompts = tuple(wishes.prompt.replace("{}", name.replace("_", " ")) for name in class_names)
    tasks = [Task(name=TASK, kind=kind, class_names=class_names, prompts=prompts)] if class_names else []
    return Dataset(
        name=wishes.name or videos.root.resolve().name,
        version="1",
        tasks=tuple(tasks),
        protocols={PROTOCOL: _splits(clips)},
        clips=clips,
        video_root=videos.root,
    )


def _labels(entry: Entry, classes: ClassList | None) -> tuple[str, ...] | None:
    if entry.labels is None:
        return None
    if classes is not None:
        names = tuple(classes.class_name(entry.place, label) for label in entry.labels)
    else:
        names = entry.labels
        number = next(filter(is_number, names), None)
        if number is not None:
            raise entry.place.error(
                f"label {number} is a number, and copies of a data set number its classes differently: say what the "
                "numbers mean with --classes FILE (a table 'id,name', or one name a line)"
            )
    if len(set(names)) != len(names):
        raise entry.place.error(f"a class is named twice: {', '.join(names)}")
    return names


def _class_names(
    entries: Sequence[Entry], labels: Sequence[tuple[str, ...] | None], classes: ClassList | None
) -> tuple[str, ...]:
    if classes is not None:
        return tuple(classes.names.values())
    teaching = [entry.split == "train" for entry in entries]
    if not any(teaching):
        teaching = [True] * len(entries)
    known = {name for names, teaches in zip(labels, teaching, strict=True) if teaches for name in names or ()}
    if not known:
        raise ManifestError(
            "no clip of the training split has a label, so there are no classes: name them by --classes"
        )
    for entry, names in zip(entries, labels, strict=True):
        for name in names or ():
            if name not in known:
                raise entry.place.error(
                    f"class {name!r} has no training clip: correct it, or list all classes with --classes FILE"
                )
    return tuple(sorted(known))


def _clip(entry: Entry, labels: tuple[str, ...] | None, videos: ListedVideos) -> Clip:
    listed = videos.relative(entry.place, entry.video)
    found = videos.on_disk(entry.place, listed)
    with entry.place.blamed():
        return Clip(
            id=entry.id or f"{listed}{_span(entry)}",
            video=found,
            start_seconds=entry.start_seconds,
            end_seconds=entry.end_seconds,
            splits={PROTOCOL: entry.split} if entry.split else {},
            labels={} if labels is None else {TASK: labels},
            groups=entry.groups,
        )


def _span(entry: Entry) -> str:
    """The times in full: rounded ones would give two pieces one id."""
    if entry.start_seconds is None and entry.end_seconds is None:
        return ""
    return f" {_seconds(entry.start_seconds)}-{_seconds(entry.end_seconds)}"


def _seconds(value: float | None) -> str:
    return "" if value is None else repr(float(value)).removesuffix(".0")


def _refuse_duplicates(entries: Sequence[Entry], clips: Sequence[Clip]) -> None:
    first: dict[str, Place] = {}
    repeated = []
    for entry, clip in zip(entries, clips, strict=True):
        place = first.setdefault(unicodedata.normalize("NFC", clip.id), entry.place)
        if place is not entry.place:
            repeated.append(f"{entry.place.path}, line {entry.place.number}: {clip.id!r}, as in {_told(place, entry)}")
    if repeated:
        more = f"\n  and {len(repeated) - _MOST_LISTED} more" if len(repeated) > _MOST_LISTED else ""
        raise ManifestError(
            f"clips given before: {len(repeated)}; keep one line of each, or give them ids of their own in a table:"
            + "".join(f"\n  {line}" for line in repeated[:_MOST_LISTED])
            + more
        )


def _told(place: Place, entry: Entry) -> str:
    same = place.path == entry.place.path
    return f"line {place.number}" if same else f"{place.path}, line {place.number}"


def _splits(clips: Sequence[Clip]) -> tuple[str, ...]:
    found = dict.fromkeys(split for clip in clips for split in clip.splits.values())
    return (*(name for name in SPLIT_ORDER if name in found), *(name for name in found if name not in SPLIT_ORDER))


def _split_notes(dataset: Dataset) -> list[str]:
    splits = Counter(clip.splits.get(PROTOCOL, "") for clip in dataset.clips)
    labelled = {clip.splits.get(PROTOCOL) for clip in dataset.clips if TASK in clip.labels}
    notes = []
    if splits[""]:
        notes.append(f"clips in no split: {splits['']}; features are extracted, nothing is trained or tested on them")
    for name in dataset.protocols[PROTOCOL]:
        if name not in SPLIT_ORDER:
            notes.append(f"split {name!r} is none of {', '.join(SPLIT_ORDER)}; it is kept under its own name")
        if name not in labelled:
            notes.append(f"no clip of split {name} has a label")
    return notes
