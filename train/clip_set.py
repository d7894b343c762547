"""Which clips of a split can be used, and whether their streams fit together.

What is left out is named and counted, never dropped in silence: metrics later say on how many clips they stand.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import CacheError, ConfigError
from cache.manifest import Clip, Dataset, Task
from cache.store import StreamReader
from train.sampling import segment_centres


@dataclass(frozen=True, kw_only=True)
class ClipSet:
    """The usable clips of one split with their targets, (n,) int64 or (n, C) uint8, and why others are not usable."""

    split: str
    clips: tuple[Clip, ...]
    targets: npt.NDArray[np.int64] | npt.NDArray[np.uint8]
    skipped: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        return f"ClipSet({self.split!r}, {len(self)} clips, {len(self.skipped)} skipped)"

    def multi_hot(self, num_classes: int) -> npt.NDArray[np.uint8]:
        """(n, C): 1 at the true classes, whatever the kind of the task."""
        if self.targets.ndim == 2:
            return self.targets.astype(np.uint8)
        return np.eye(num_classes, dtype=np.uint8)[self.targets]

    @property
    def reasons(self) -> dict[str, int]:
        """Reason for skipping -> number of clips, the most frequent first."""
        return dict(Counter(self.skipped.values()).most_common())

    @property
    def notice(self) -> str:
        """How many clips are not used, and why."""
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self.reasons.items())
        return f"split {self.split}: {len(self)} clips, {len(self.skipped)} skipped: {reasons}"

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group name -> one value per clip, "" where unknown."""
        names = sorted({name for clip in self.clips for name in clip.groups})
        return {name: tuple(clip.groups.get(name, "") for clip in self.clips) for name in names}


def select_clips(
    dataset: Dataset,
    task: Task,
    protocol: str,
    split: str,
    readers: Iterable[StreamReader],
    *,
    labelled: bool = True,
) -> ClipSet:
    """The clips of a split that have rows in every stream, and a label for the task.

    Args:
        dataset: the manifest.
        task: what to recognise.
        protocol: of the dataset.
        split: of the protocol.
        readers: the streams.
        labelled: leave out clips without a label; else they stay, and all targets are zero.

    Raises:
        ManifestError: no such protocol or split.
        ConfigError: no clip is left; counts the reasons.
    """
    readers = tuple(readers)
    usable, skipped = [], {}
    for clip in dataset.select(protocol, split):
        reason = _why_unusable(clip, task if labelled else None, readers)
        if reason is None:
            usable.append(clip)
        else:
            skipped[clip.id] = reason
    if not usable:
        counts = dict(Counter(skipped.values()).most_common(5))
        raise ConfigError(
            f"split {split!r} of protocol {protocol!r} has no usable clip for task {task.name!r}: {len(skipped)} "
            f"clips, skipped for {counts}"
        )
    targets = dataset.targets(task, usable) if labelled else np.zeros(len(usable), np.int64)
    return ClipSet(split=split, clips=tuple(usable), targets=targets, skipped=skipped)


def _why_unusable(clip: Clip, task: Task | None, readers: Iterable[StreamReader]) -> str | None:
    if task is not None and task.name not in clip.labels:
        return f"no label for task {task.name}"
    for reader in readers:
        if clip.id not in reader:
            failure = reader.failures.get(clip.id)
            return f"{reader.stream}: {failure.code.value if failure else 'not extracted'}"
    return None


def check_instants(clip_set: ClipSet, num_frames: int, visual_prompts: StreamReader, other: StreamReader) -> None:
    """Refuses clips with fewer instants than L, and streams whose rows are not the same instants.

    Args:
        clip_set: the clips.
        num_frames: L.
        visual_prompts: F rows a clip.
        other: frames with F rows a clip, or video tokens with L.
    """
    for clip in clip_set.clips:
        rows = visual_prompts.num_rows(clip.id)
        if rows < num_frames:
            raise ConfigError(
                f"train.num_frames = {num_frames}, but the cache holds {rows} instants of clip {clip.id!r}: use at "
                f"most {rows}, or extract into another cache with {denser(visual_prompts, num_frames)}"
            )
        expected, found = visual_prompts.frame_index(clip.id), other.frame_index(clip.id)
        if other.stream == "video_tokens":
            expected = expected[segment_centres(rows, num_frames)]
        else:
            check_one_video(visual_prompts, other, clip.id)
        if not np.array_equal(expected, found):
            raise CacheError(
                f"clip {clip.id!r}: {other.stream} and visual_prompts are not of the same instants; extract both "
                "again, with one set of settings"
            )


def check_one_video(first: StreamReader, second: StreamReader, clip_id: str) -> None:
    """Refuses rows of a clip that come from two files, as after one stream was made again from a changed video.

    Raises:
        CacheError: they do.
    """
    sources = first.source_sha256(clip_id), second.source_sha256(clip_id)
    if all(sources) and sources[0] != sources[1]:
        raise CacheError(
            f"clip {clip_id!r}: {first.stream} and {second.stream} were made from different videos under one id; run "
            "`deconfound extract --overwrite` with all streams"
        )


def denser(reader: StreamReader, num_frames: int) -> str:
    """The key that gives more rows a clip; where they follow from the clip's length, the shortest clip decides."""
    sampling = reader.fingerprint.sampling
    if "fps" in sampling:
        return f"a higher extract.fps than {sampling['fps']:g}, or leave out clips that are too short"
    if "every_nth" in sampling:
        return f"a lower extract.every_nth than {sampling['every_nth']}, or leave out clips that are too short"
    return f"extract.num_frames of at least {num_frames}"
