"""What `prepare` made of a benchmark, beside what the benchmark should be: counts, what is missing, and why.

Clips whose video is missing stay in the manifest, so that later every metric says on how many of the official clips it
stands. The decision to question: a clip that the benchmark lists but cannot label (Toyota-Smarthome's 32nd class) stays
too, without a label; nothing is trained or tested on it, and it is counted.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache import atomic
from cache.manifest import Clip, Dataset
from pipeline.datasets.annotations import AnnotationFolder
from pipeline.datasets.videos import VideoFolder
from pipeline.tables import format_table

MISSING_FILE = "missing_videos.txt"
_MOST_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A dataset and what a person should know of how it was made."""

    dataset: Dataset
    notes: tuple[str, ...] = ()
    """What differs from the benchmark as published, and why; each a sentence."""
    known_broken: Mapping[str, str] = field(default_factory=dict)
    """Clip id -> what others found wrong with it. Such clips stay."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """How the official files of one benchmark become a dataset."""

    name: str
    """Of the dataset; reports find the benchmark's rules and printed figures by it."""
    prompt: str
    """Template of the class prompts, as the paper that reports on it has it; `{}` is the class text."""
    prepare: Callable[["Request"], Preparation]
    versions: tuple[str, ...] = ()
    """Accepted by --version, the default first."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asked for."""

    annotations: AnnotationFolder
    videos: VideoFolder
    prompt: str
    version: str = ""

    def prompts(self, class_texts: tuple[str, ...]) -> tuple[str, ...]:
        """The prompts of these classes."""
        return tuple(self.prompt.replace("{}", text) for text in class_texts)


def describe(preparation: Preparation, videos: VideoFolder) -> dict[str, Any]:
    """The object that `prepare --json` prints.

    `protocols.<name>.<split>` holds `clips` (in the manifest), `official` (null if unknown), `missing_videos` and
    `unlabelled` {task: clips}.
    """
    dataset = preparation.dataset
    missing = {clip.video for clip in dataset.clips} - videos.paths
    ids = {clip.id for clip in dataset.clips}
    return {
        "dataset": dataset.name,
        "version": dataset.version,
        "clips": len(dataset.clips),
        "videos": len({clip.video for clip in dataset.clips}),
        "protocols": {
            protocol: {split: _count(dataset, protocol, split, missing) for split in splits}
            for protocol, splits in dataset.protocols.items()
        },
        "tasks": {task.name: {"kind": task.kind, "classes": task.num_classes} for task in dataset.tasks},
        "missing_videos": sorted(missing),
        "unused_videos": len(videos.paths - {clip.video for clip in dataset.clips}),
        "known_broken": {name: why for name, why in preparation.known_broken.items() if name in ids},
        "notes": list(preparation.notes),
    }


def to_text(description: Mapping[str, Any]) -> str:
    """The same for people: counts beside the official ones, then what differs and why."""
    lines = [_table(description)]
    lines += [
        f"task {name}: {task['classes']} classes, {task['kind']} label" for name, task in description["tasks"].items()
    ]
    lines += _unlabelled(description)
    lines += [f"note: {note}" for note in description["notes"]]
    lines += _known_broken(description)
    missing = description["missing_videos"]
    if missing:
        share = f"{len(missing)} of {description['videos']}"
        lines.append(f"missing: {share} videos; their clips stay in the manifest; run this again when there are more")
        lines += [f"  {path}" for path in missing[:_MOST_LISTED]]
        if len(missing) > _MOST_LISTED:
            lines.append(f"  and {len(missing) - _MOST_LISTED} more, all in {MISSING_FILE} of the dataset")
    if description["unused_videos"]:
        lines.append(f"{description['unused_videos']} other videos below the folder belong to no clip")
        if len(missing) == description["videos"]:
            lines.append("not one video of the dataset is there: is --videos the right folder?")
    return "\n".join(lines)


def write(preparation: Preparation, videos: VideoFolder, folder: Path) -> dict[str, Any]:
    """Writes the dataset and the list of its missing videos; returns the description."""
    description = describe(preparation, videos)
    preparation.dataset.write(folder)
    listed = "".join(f"{path}\n" for path in description["missing_videos"])
    atomic.write_bytes(folder / MISSING_FILE, listed.encode("utf-8", "backslashreplace"))
    return description


def _count(dataset: Dataset, protocol: str, split: str, missing: set[str]) -> dict[str, Any]:
    clips = dataset.select(protocol, split)
    return {
        "clips": len(clips),
        "official": dataset.official_counts.get(protocol, {}).get(split),
        "missing_videos": len({clip.video for clip in clips} & missing),
        "unlabelled": {task.name: _num_unlabelled(clips, task.name) for task in dataset.tasks},
    }


def _labels_some(splits: Mapping[str, Any], task: str) -> bool:
    return any(count["unlabelled"][task] < count["clips"] for count in splits.values())


def _num_unlabelled(clips: tuple[Clip, ...], task: str) -> int:
    return sum(task not in clip.labels for clip in clips)


def _table(description: Mapping[str, Any]) -> str:
    """Clips per split; beside them the benchmark's, where any split's number is known."""
    counts = [
        (protocol, split, count)
        for protocol, splits in description["protocols"].items()
        for split, count in splits.items()
    ]
    is_known = any(count["official"] is not None for _, _, count in counts)
    official = ("official", "difference") if is_known else ()
    rows = [
        (protocol, split, count["clips"], *(_compared(count) if is_known else ()), count["missing_videos"])
        for protocol, split, count in counts
    ]
    return format_table(("protocol", "split", "clips", *official, "missing videos"), rows)


def _known_broken(description: Mapping[str, Any]) -> list[str]:
    clips_of: dict[str, list[str]] = defaultdict(list)
    for clip_id, why in description["known_broken"].items():
        clips_of[why].append(clip_id)
    return [f"known trouble: {', '.join(clip_ids)}: {why}" for why, clip_ids in clips_of.items()]


def _compared(count: Mapping[str, Any]) -> tuple[str, str]:
    if count["official"] is None:
        return "-", "-"
    difference = count["clips"] - count["official"]
    return str(count["official"]), f"{difference:+d}" if difference else "none"


def _unlabelled(description: Mapping[str, Any]) -> list[str]:
    """A line for each task that leaves clips of a protocol without a label, and labels others of it."""
    lines = []
    for task in description["tasks"]:
        found = [
            f"{protocol} {split} {count['unlabelled'][task]}"
            for protocol, splits in description["protocols"].items()
            for split, count in splits.items()
            if count["unlabelled"][task] and _labels_some(splits, task)
        ]
        if found:
            lines.append(f"clips without a label for task {task}: {', '.join(found)}")
    return lines
