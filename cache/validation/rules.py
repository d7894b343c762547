"""What must hold between the clips of a dataset, rule by rule; each adds what it finds and goes on.

The decision to question: which file a clip comes from is its path in the manifest, not what a link leads to, and two
clips of one file share seconds unless their times say otherwise. Trimmed clips of one source are known only by their
group `video`.
"""

import bisect
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from cache.manifest import Clip, Task
from cache.validation.findings import MOST_LISTED, Findings, listed

SOURCE_GROUP = "video"
"""The group that names the video a trimmed clip was cut from (Diving48, FineGym, HAA500, or a column of a table)."""


class NumberedClip(NamedTuple):
    """A clip and its line in `clips.jsonl`."""

    line: int
    clip: Clip


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What could be read of `dataset.json`."""

    name: str
    tasks: tuple[Task, ...]
    task_names: frozenset[str]
    """With those of tasks that contradict themselves: their labels are not checked."""
    protocols: Mapping[str, tuple[str, ...]] | None
    """None if they could not be read."""
    video_root: str | None
    official_counts: Mapping[str, Mapping[str, int]]


Clips = Sequence[NumberedClip]


def check_ids(clips: Clips, _outline: Outline, findings: Findings) -> None:
    """Ids are unique, also for those who write `é` as two characters."""
    first: dict[str, NumberedClip] = {}
    for line, clip in clips:
        earlier = first.setdefault(unicodedata.normalize("NFC", clip.id), NumberedClip(line, clip))
        if earlier.line != line:
            form = "" if earlier.clip.id == clip.id else f", as {earlier.clip.id!r} in another Unicode form"
            findings.add("duplicate_id", f"{clip.id!r} was given in line {earlier.line}{form}", lines=[line])


def check_splits(clips: Clips, outline: Outline, findings: Findings) -> None:
    """Every protocol and split of a clip is one of the dataset's."""
    if outline.protocols is None:
        return
    unplaced = []
    for line, clip in clips:
        for protocol, split in clip.splits.items():
            accepted = outline.protocols.get(protocol)
            if accepted is None:
                findings.add("unknown_protocol", f"{clip.id!r}: protocol {protocol!r}", lines=[line])
            elif split not in accepted:
                findings.add("unknown_split", f"{clip.id!r}: split {split!r} of {protocol!r}", lines=[line])
        if not clip.splits:
            unplaced.append(line)
    if unplaced:
        findings.add("in_no_split", f"{len(unplaced)} of {len(clips)} clips", lines=unplaced, number=len(unplaced))


def check_labels(clips: Clips, outline: Outline, findings: Findings) -> None:
    """Every label is a class of its task, and single-label tasks have one."""
    tasks = {task.name: (task, frozenset(task.class_names)) for task in outline.tasks}
    for line, clip in clips:
        for name, labels in clip.labels.items():
            if name not in outline.task_names:
                findings.add("unknown_task", f"{clip.id!r}: task {name!r}", lines=[line])
            if name not in tasks:
                continue
            task, classes = tasks[name]
            unknown = [label for label in labels if label not in classes]
            if unknown:
                findings.add("unknown_label", f"{clip.id!r}: {listed(unknown)} in task {name!r}", lines=[line])
            if len(set(labels)) != len(labels) or (task.kind == "single" and len(labels) != 1):
                findings.add("label_count", f"{clip.id!r}: {list(labels)[:MOST_LISTED]} in task {name!r}", lines=[line])


def check_counts(clips: Clips, outline: Outline, findings: Findings) -> None:
    """Splits have clips, as many as the benchmark has."""
    members = _members(clips, outline)
    for (protocol, split), group in members.items():
        official = outline.official_counts.get(protocol, {}).get(split)
        if not group:
            findings.add("empty_split", f"{protocol}/{split}")
        elif official is not None and official != len(group):
            findings.add("official_count", f"{protocol}/{split}: {len(group)} clips, officially {official}")


def check_classes(clips: Clips, outline: Outline, findings: Findings) -> None:
    """Every class has clips, in training too; clips without labels are counted."""
    members = _members(clips, outline)
    for task in outline.tasks:
        overall = _class_counts(clips, task)
        empty = [name for name in task.class_names if not overall[name]]
        if empty:
            findings.add("empty_class", f"task {task.name!r}: {listed(empty)}", number=len(empty))
        _check_unlabelled(task, members, findings)
        _check_presence(task, members, overall, findings)


def _check_unlabelled(task: Task, members: Mapping[tuple[str, str], Clips], findings: Findings) -> None:
    """Counted where the protocol labels any clip for the task: a protocol of another task says nothing."""
    asked = {place[0] for place, group in members.items() if any(task.name in clip.labels for _, clip in group)}
    counted: dict[str, set[int]] = defaultdict(set)
    for (protocol, split), group in members.items():
        if protocol not in asked:
            continue
        bare = [line for line, clip in group if task.name not in clip.labels]
        none = [line for line, clip in group if task.kind == "multi" and clip.labels.get(task.name) == ()]
        for code, lines in (("unlabelled", bare), ("none_of_the_classes", none)):
            if lines:
                text = f"task {task.name!r}, {protocol}/{split}: {len(lines)} of {len(group)} clips"
                findings.add(code, text, lines=lines, number=len(set(lines) - counted[code]))
                counted[code].update(lines)


def _check_presence(
    task: Task, members: Mapping[tuple[str, str], Clips], overall: Counter[str], findings: Findings
) -> None:
    present = {place: set(_class_counts(group, task)) for place, group in members.items()}
    for (protocol, split), classes in present.items():
        if not classes:
            continue
        trained = present.get((protocol, "train")) or classes
        where = f"task {task.name!r}, {protocol}/{split}"
        untaught = [name for name in task.class_names if name in classes - trained]
        absent = [name for name in task.class_names if overall[name] and name not in classes]
        if untaught:
            findings.add("class_not_in_train", f"{where}: {listed(untaught)}", number=len(untaught))
        if absent:
            findings.add("class_absent", f"{where}: {listed(absent)}", number=len(absent))


def check_pieces(clips: Clips, outline: Outline, findings: Findings) -> None:
    """No seconds of a video are in training and in another split; no piece is there twice."""
    by_video: dict[str, list[NumberedClip]] = defaultdict(list)
    for line, clip in clips:
        by_video[PurePosixPath(clip.video).as_posix()].append(NumberedClip(line, clip))
    for video, group in by_video.items():
        if len(group) > 1:
            _check_repeated(video, group, findings)
            for protocol in outline.protocols or {}:
                _check_shared(video, protocol, group, findings)


def _check_repeated(video: str, group: Clips, findings: Findings) -> None:
    first: dict[tuple[float, float], NumberedClip] = {}
    for line, clip in group:
        earlier = first.setdefault(_span(clip), NumberedClip(line, clip))
        together = clip.splits.items() & earlier.clip.splits.items() or not (clip.splits or earlier.clip.splits)
        if earlier.line != line and together:
            text = f"{clip.id!r} is {earlier.clip.id!r} of line {earlier.line}: {video!r}"
            findings.add("same_piece", text, lines=[line])


def _check_shared(video: str, protocol: str, group: Clips, findings: Findings) -> None:
    by_split: dict[str, list[NumberedClip]] = defaultdict(list)
    for line, clip in group:
        if protocol in clip.splits:
            by_split[clip.splits[protocol]].append(NumberedClip(line, clip))
    if len(by_split) < 2:
        return
    others = [item for split, items in by_split.items() if split != "train" for item in items]
    overlaps = list(_overlaps(by_split.get("train", []), others))
    for (line, clip), training in overlaps:
        text = f"{protocol}: {clip.id!r} ({clip.splits[protocol]}) and line {training.line} (train): {video!r}"
        findings.add("train_overlap", text, lines=[line])
    if not overlaps:
        lines = sorted(item.line for items in by_split.values() for item in items)
        findings.add("shared_video", f"{protocol}: {video!r} in {', '.join(sorted(by_split))}", lines=lines)


def _overlaps(training: Clips, others: Clips) -> Iterator[tuple[NumberedClip, NumberedClip]]:
    """Each other clip with the training clip, of those that begin before its end, that ends last, if they overlap."""
    ordered = sorted(training, key=lambda item: _span(item.clip))
    starts = [_span(item.clip)[0] for item in ordered]
    last: list[NumberedClip] = []  # of the first 1, 2, ... the one that ends last
    for item in ordered:
        last.append(item if not last or _span(item.clip)[1] > _span(last[-1].clip)[1] else last[-1])
    for other in others:
        start, end = _span(other.clip)
        before = bisect.bisect_left(starts, end)
        if before and _span(last[before - 1].clip)[1] > start:
            yield other, last[before - 1]


def check_sources(clips: Clips, outline: Outline, findings: Findings) -> None:
    """Counts the source videos whose trimmed clips are in several splits: some benchmarks are split so."""
    by_source: dict[str, list[NumberedClip]] = defaultdict(list)
    for line, clip in clips:
        if SOURCE_GROUP in clip.groups:
            by_source[clip.groups[SOURCE_GROUP]].append(NumberedClip(line, clip))
    for protocol in outline.protocols or {}:
        for source, group in by_source.items():
            members = [item for item in group if protocol in item.clip.splits]
            splits = {item.clip.splits[protocol] for item in members}
            files = {PurePosixPath(item.clip.video) for item in members}
            if len(splits) > 1 and len(files) > 1:  # one file in several splits is told as such
                text = f"{protocol}: {source!r} in {', '.join(sorted(splits))}"
                findings.add("shared_source", text, lines=[item.line for item in members])


def check_spelling(clips: Clips, _outline: Outline, findings: Findings) -> None:
    """Paths that some file systems take for the same."""
    spellings: dict[str, dict[str, int]] = defaultdict(dict)
    for line, clip in clips:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", clip.video).casefold())
        spellings[key].setdefault(clip.video, line)
    for found in spellings.values():
        if len(found) > 1:
            text = ", ".join(ascii(video) if not video.isascii() else repr(video) for video in found)
            findings.add("video_spelling", text, lines=list(found.values()))


RULES: tuple[Callable[[Clips, Outline, Findings], None], ...] = (
    check_ids,
    check_splits,
    check_labels,
    check_counts,
    check_classes,
    check_pieces,
    check_sources,
    check_spelling,
)


def _members(clips: Clips, outline: Outline) -> dict[tuple[str, str], list[NumberedClip]]:
    """(protocol, split) -> its clips, in the order of `dataset.json`."""
    protocols = outline.protocols or {}
    members: dict[tuple[str, str], list[NumberedClip]] = {
        (protocol, split): [] for protocol, splits in protocols.items() for split in splits
    }
    for line, clip in clips:
        for place in clip.splits.items():
            if place in members:
                members[place].append(NumberedClip(line, clip))
    return members


def _class_counts(clips: Clips, task: Task) -> Counter[str]:
    return Counter(name for _, clip in clips for name in clip.labels.get(task.name, ()))


def _span(clip: Clip) -> tuple[float, float]:
    """Half-open, in seconds."""
    return clip.start_seconds or 0.0, math.inf if clip.end_seconds is None else clip.end_seconds
