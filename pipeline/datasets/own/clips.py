"""What people wrote of their own clips, in a list or a table, becomes a dataset.

One task, `action`, and one protocol, `default`. Without a list of classes they are the names that training shows; the
decision to question: a name that only the test knows is refused, as it is a typing error far more often than a class.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from cache.errors import ManifestError
from cache.manifest import Clip, Dataset, Task
from pipeline.datasets.annotations import Place
from pipeline.datasets.own.class_list import ClassList, is_number
from pipeline.datasets.preparation import Preparation
from pipeline.datasets.videos import VideoFolder, is_video

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
    """What a person says beside the files."""

    classes: ClassList | None = None
    name: str | None = None
    """Of the dataset; by default the name of the videos' folder."""
    prompt: str = "{}"
    """Template of the class prompts; `{}` is the class name with '_' as spaces."""
    multi_label: bool = False


def make_dataset(entries: Sequence[Entry], videos: VideoFolder, wishes: Wishes) -> Preparation:
    """Makes a dataset of the entries, in their order.

    Raises:
        ManifestError: an id twice (the first ten with their lines), a label that is no class, a number without a list
            of classes, a path outside the videos' folder, or times that make no piece; with file and line.
    """
    labels = [_labels(entry, wishes.classes) for entry in entries]
    class_names = _class_names(entries, labels, wishes.classes)
    clips = [_clip(entry, names, videos) for entry, names in zip(entries, labels, strict=True)]
    _refuse_duplicates(entries, clips)
    dataset = Dataset(
        name=wishes.name or videos.root.resolve().name,
        version="1",
        tasks=(
            Task(
                name=TASK,
                kind="multi" if wishes.multi_label else "single",
                class_names=class_names,
                prompts=class_prompts(class_names, wishes.prompt),
            ),
        ),
        protocols={PROTOCOL: _splits(entries)},
        clips=tuple(clips),
        video_root=videos.root,
    )
    notes = (*_split_notes(dataset), *_ending_notes(entries, clips), *_place_notes(dataset, videos))
    return Preparation(dataset=dataset, notes=notes)


def class_prompts(class_names: Iterable[str], template: str) -> tuple[str, ...]:
    """The prompts of these classes; names of folders write blanks as '_'."""
    return tuple(template.replace("{}", name.replace("_", " ")) for name in class_names)


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


def _clip(entry: Entry, labels: tuple[str, ...] | None, videos: VideoFolder) -> Clip:
    listed = _relative(entry, videos)
    times = "" if entry.start_seconds is None and entry.end_seconds is None else _span(entry)
    try:
        return Clip(
            id=entry.id or f"{listed}{times}",
            video=_on_disk(listed, videos),
            start_seconds=entry.start_seconds,
            end_seconds=entry.end_seconds,
            splits={PROTOCOL: entry.split} if entry.split else {},
            labels={} if labels is None else {TASK: labels},
            groups=entry.groups,
        )
    except ManifestError as error:
        raise entry.place.error(str(error)) from error


def _relative(entry: Entry, videos: VideoFolder) -> str:
    path = PurePosixPath(entry.video)
    if not path.is_absolute():
        return path.as_posix() if path.parts else ""
    for root in (videos.root.absolute(), videos.root.resolve()):
        if path.is_relative_to(root.as_posix()):
            return path.relative_to(root.as_posix()).as_posix()
    raise entry.place.error(
        f"{entry.video!r} is not below --videos {videos.root}: shorten the paths, or give the folder they start from"
    )


def _on_disk(listed: str, videos: VideoFolder) -> str:
    """The listed path, with the ending that its file has: lists give none, or that of the original download."""
    if listed in videos:
        return listed
    stem = PurePosixPath(listed).with_suffix("").as_posix() if is_video(listed) else listed
    found = videos.find(stem)
    if found is not None and PurePosixPath(found).with_suffix("").as_posix() == stem:
        return found
    return listed


def _span(entry: Entry) -> str:
    start = "" if entry.start_seconds is None else f"{entry.start_seconds:g}"
    return f" {start}-" if entry.end_seconds is None else f" {start}-{entry.end_seconds:g}"


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


def _splits(entries: Sequence[Entry]) -> tuple[str, ...]:
    found = dict.fromkeys(entry.split for entry in entries if entry.split)
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


def _ending_notes(entries: Sequence[Entry], clips: Sequence[Clip]) -> list[str]:
    pairs = [(entry.video, clip.video) for entry, clip in zip(entries, clips, strict=True)]
    changed = [
        (listed, found)
        for listed, found in pairs
        if is_video(listed) and PurePosixPath(listed).suffix != PurePosixPath(found).suffix
    ]
    if not changed:
        return []
    return [f"clips with another ending than listed: {len(changed)} ({changed[0][0]} is {changed[0][1]})"]


def _place_notes(dataset: Dataset, videos: VideoFolder) -> list[str]:
    """Where most videos are missing but have namesakes elsewhere, --videos is probably the wrong folder."""
    listed_videos = {clip.video for clip in dataset.clips}
    missing = sorted(listed_videos - videos.paths)
    pairs = [(path, videos.find(PurePosixPath(path).stem)) for path in missing]
    elsewhere = [(path, found) for path, found in pairs if found is not None]
    if 2 * len(elsewhere) <= len(listed_videos):
        return []
    listed, found = elsewhere[0]
    return [
        f"missing videos with namesakes elsewhere: {len(elsewhere)} ({listed} is listed, {found} is there); "
        "--videos must be the folder that the paths start from"
    ]
