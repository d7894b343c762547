"""`verify CACHE --against CACHE2`: are two caches the same, clip by clip and field by field, within a tolerance?

The question after another device, a smaller batch or a new library: rows must exist for the same clips, at the same
times, with values that differ by at most `atol`. Settings that differ are listed and are no fault: they are what one
compares. JPEGs are compared by their bytes; by their pixels only if the caller can unpack them, because this floor
reads no pictures.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache import atomic, fingerprint
from cache.rows import Array, Joints
from cache.store import FeatureStore, StreamReader, stream_folders
from cache.text import TextFeatures, read_text_file

_TEXT = "text"
_NUM_NAMED = 5

UnpackJpeg = Callable[[bytes], Array | None]
"""Gives the pixels of a JPEG, None if it is none."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Greatest absolute difference of a field, and the clip that has it.

    It is infinite where one side has no number (NaN), another shape, or JPEGs of other bytes that nobody unpacked.
    """

    value: float
    clip_id: str
    num_clips: int = 1
    """Clips that differ at all."""


@dataclass(kw_only=True)
class StreamComparison:
    """One stream of two caches; for text, tasks stand for clips."""

    atol: float
    num_compared: int = 0
    """Clips with equally many rows on both sides."""
    num_equal: int = 0
    """Of these, the ones that are equal bit by bit."""
    only_here: list[str] = field(default_factory=list)
    only_there: list[str] = field(default_factory=list)
    other_status: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Clip -> `ok` or failure code here and there."""
    other_rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Clip -> number of rows here and there."""
    other_times: list[str] = field(default_factory=list)
    differences: dict[str, Difference] = field(default_factory=dict)
    """By field; only fields that differ."""
    settings: list[str] = field(default_factory=list)
    """A line for every setting that differs."""

    @property
    def worst(self) -> tuple[str, Difference] | None:
        """The field that differs most, with its clip."""
        return max(self.differences.items(), key=lambda entry: entry[1].value, default=None)

    @property
    def problems(self) -> list[str]:
        """A line per kind of difference beyond the tolerance."""
        lines = [f"{_count(self.only_here)} only here"] if self.only_here else []
        lines += [f"{_count(self.only_there)} only in the other cache"] if self.only_there else []
        status = [f"{clip_id} ({here}, there {there})" for clip_id, (here, there) in self.other_status.items()]
        lines += [f"{_count(status)} with another status"] if status else []
        rows = [f"{clip_id} ({here}, there {there})" for clip_id, (here, there) in self.other_rows.items()]
        lines += [f"{_count(rows)} with another number of rows"] if rows else []
        lines += [f"{_count(self.other_times)} with other times or frames"] if self.other_times else []
        beyond = {name: entry for name, entry in self.differences.items() if entry.value > self.atol}
        return lines + [
            f"{name} differs by {_show(entry.value)} (atol {self.atol:g}) in clip {entry.clip_id!r}; "
            f"{entry.num_clips} clips differ"
            for name, entry in beyond.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """The object of one stream in `verify --against --json`; a difference that is no number is null."""
        worst = self.worst
        return {
            "num_compared": self.num_compared,
            "num_equal": self.num_equal,
            "only_here": self.only_here,
            "only_there": self.only_there,
            "other_status": {clip_id: list(pair) for clip_id, pair in self.other_status.items()},
            "other_rows": {clip_id: list(pair) for clip_id, pair in self.other_rows.items()},
            "other_times": self.other_times,
            "differences": {name: _number(entry.value) for name, entry in self.differences.items()},
            "worst_clip": worst[1].clip_id if worst else None,
            "settings": self.settings,
            "problems": self.problems,
        }


@dataclass(frozen=True, kw_only=True)
class CacheComparison:
    """All streams that both caches have, and those that only one has."""

    atol: float
    streams: Mapping[str, StreamComparison]
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        """Empty if the caches are the same within the tolerance."""
        lines = [f"stream {name} is only here" for name in self.only_here]
        lines += [f"stream {name} is only in the other cache" for name in self.only_there]
        return lines + [f"{name}: {line}" for name, stream in self.streams.items() for line in stream.problems]

    def to_json(self) -> dict[str, Any]:
        """The object that `verify --against --json` prints under `against`."""
        return {
            "atol": self.atol,
            "streams": {name: stream.to_json() for name, stream in self.streams.items()},
            "only_here": list(self.only_here),
            "only_there": list(self.only_there),
            "problems": self.problems,
        }

    def to_text(self) -> str:
        """A line per stream, its settings that differ, and the problems."""
        lines = []
        for name, stream in self.streams.items():
            worst = stream.worst
            told = f", greatest difference {_show(worst[1].value)} ({worst[0]} of {worst[1].clip_id})" if worst else ""
            lines.append(f"{name}: {stream.num_compared} compared, {stream.num_equal} equal bit by bit{told}")
            lines += [f"  settings: {line}" for line in stream.settings]
        return "\n".join([*lines, *(f"problem: {problem}" for problem in self.problems)])


def compare(
    here: Path,
    there: Path,
    *,
    atol: float = 0.0,
    unpack_jpeg: UnpackJpeg | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> CacheComparison:
    """Compares two caches; nothing is written.

    Args:
        here: a cache folder.
        there: another one.
        atol: greatest absolute difference of a value that counts as none, in the unit of its field (for JPEGs, grey
            levels). Times, frame numbers, and fields of whole numbers must be equal.
        unpack_jpeg: gives the pixels of a JPEG; None: other bytes are a difference without a number.
        progress: called with every clip id.

    Raises:
        CacheError: one of them is not a cache.
        CorruptShard: a file is damaged.
    """
    ours, theirs = (stream_folders(FeatureStore.open(folder).folder) for folder in (here, there))
    both = {name: (ours[name], theirs[name]) for name in ours if name in theirs}
    streams = {}
    for name, (first, second) in both.items():
        comparison = streams[name] = StreamComparison(atol=atol)
        lines = fingerprint.load(first).difference(fingerprint.load(second))
        comparison.settings = [line.replace(", asked for ", ", the other ") for line in lines]
        if name == _TEXT:
            _compare_texts(comparison, _texts(first), _texts(second))
        else:
            _compare_clips(comparison, StreamReader(first), StreamReader(second), unpack_jpeg, progress)
    return CacheComparison(
        atol=atol,
        streams=streams,
        only_here=tuple(name for name in ours if name not in theirs),
        only_there=tuple(name for name in theirs if name not in ours),
    )


def _compare_clips(
    comparison: StreamComparison,
    here: StreamReader,
    there: StreamReader,
    unpack_jpeg: UnpackJpeg | None,
    progress: Callable[[str], None],
) -> None:
    ours, theirs = _statuses(here), _statuses(there)
    for clip_id in _in_both(comparison, ours, theirs):
        progress(clip_id)
        if ours[clip_id] != theirs[clip_id]:
            comparison.other_status[clip_id] = (ours[clip_id], theirs[clip_id])
        elif clip_id in here:
            counts = here.num_rows(clip_id), there.num_rows(clip_id)
            if counts[0] != counts[1]:
                comparison.other_rows[clip_id] = counts
                continue
            same_times = np.array_equal(here.pts_seconds(clip_id), there.pts_seconds(clip_id)) and np.array_equal(
                here.frame_index(clip_id), there.frame_index(clip_id)
            )
            if not same_times:
                comparison.other_times.append(clip_id)
            is_equal = _compare_fields(
                comparison, clip_id, _fields(here, clip_id), _fields(there, clip_id), unpack_jpeg
            )
            comparison.num_compared += 1
            comparison.num_equal += is_equal and same_times


def _compare_texts(
    comparison: StreamComparison, ours: Mapping[str, TextFeatures], theirs: Mapping[str, TextFeatures]
) -> None:
    for name in _in_both(comparison, ours, theirs):
        first, second = (
            {"sentence": text.sentence, "word": text.word, "word_mask": text.word_mask.astype(np.uint8)}
            for text in (ours[name], theirs[name])
        )
        comparison.num_compared += 1
        comparison.num_equal += _compare_fields(comparison, name, first, second, None)


def _in_both(comparison: StreamComparison, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    comparison.only_here = sorted(ours.keys() - theirs.keys())
    comparison.only_there = sorted(theirs.keys() - ours.keys())
    return sorted(ours.keys() & theirs.keys())


def _compare_fields(
    comparison: StreamComparison,
    clip_id: str,
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    unpack_jpeg: UnpackJpeg | None,
) -> bool:
    """True if all fields are equal bit by bit."""
    is_equal = True
    for name, first in ours.items():
        value = _difference_of(first, theirs[name], unpack_jpeg)
        if value is not None:
            is_equal = False
            before = comparison.differences.get(name)
            num_clips = 1 if before is None else before.num_clips + 1
            worst = before if before is not None and before.value >= value else Difference(value=value, clip_id=clip_id)
            comparison.differences[name] = Difference(value=worst.value, clip_id=worst.clip_id, num_clips=num_clips)
    return is_equal


def _difference_of(first: Any, second: Any, unpack_jpeg: UnpackJpeg | None) -> float | None:  # noqa: ANN401
    """None if they are the same; both are arrays, or both lists of JPEGs."""
    if isinstance(first, np.ndarray):
        return _array_difference(first, second)
    pairs = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
    if not pairs:
        return None
    if unpack_jpeg is None:
        return math.inf
    return max(_pixel_difference(unpack_jpeg(bytes(ours)), unpack_jpeg(bytes(theirs))) for ours, theirs in pairs)


def _pixel_difference(first: Array | None, second: Array | None) -> float:
    if first is None or second is None:
        return math.inf
    return _array_difference(first.astype(np.float32), second.astype(np.float32)) or 0.0


def _array_difference(first: Array, second: Array) -> float | None:
    if first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes():
        return None
    if first.shape != second.shape or not np.array_equal(np.isnan(first), np.isnan(second)):
        return math.inf
    if first.dtype.kind in "iu" and not np.array_equal(first, second):
        return math.inf
    gaps = np.abs(first.astype(np.float64) - second.astype(np.float64))
    return float(np.nanmax(gaps, initial=0.0))


def _fields(reader: StreamReader, clip_id: str) -> dict[str, Any]:
    rows = reader[clip_id]
    if isinstance(rows, Joints):
        return dict(vars(rows))
    return {"jpeg" if reader.stream == "frames" else reader.stream: rows}


def _statuses(reader: StreamReader) -> dict[str, str]:
    failed = {clip_id: failure.code.value for clip_id, failure in reader.failures.items()}
    return {clip_id: "ok" for clip_id in reader.clip_ids} | failed


def _texts(folder: Path) -> dict[str, TextFeatures]:
    """By task and what was embedded for it: files of other prompts are other entries."""
    texts = {}
    for path in sorted(folder.glob("*.json")):
        if path.name != fingerprint.FILE_NAME:
            text = read_text_file(path, atomic.read_json(path))
            words = hashlib.sha256(repr((text.class_names, text.prompts)).encode()).hexdigest()
            texts[f"{text.task} ({len(text.prompts)} prompts, {words[:8]})"] = text
    return texts


def _count(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NUM_NAMED else ""
    return f"{len(names)} {'clip' if len(names) == 1 else 'clips'} ({', '.join(names[:_NUM_NAMED])}{more})"


def _show(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "more than a number can say"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
