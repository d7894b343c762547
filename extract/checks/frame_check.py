"""`verify --frames`: random clips of the stream `frames` are decoded again by another decoder and compared.

Checksums say that a row is what was written, not that the right frame was written: decoders give wrong frames without
a word. The videos are decoded in the processes of extraction, which can be killed: a file that was harmless to one
decoder may hang another. A video that is gone or is another file now is told apart from one whose frames are wrong.
"""

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cache.errors import CacheError, CorruptShard, VideoError
from cache.manifest import Dataset
from cache.rows import Provenance
from cache.store import FeatureStore, StreamReader
from extract.checks.frame_comparison import Finding, FrameRow, compare
from extract.checks.referees import Referee, find_ffmpeg, referee_for
from extract.config import DecodingConfig, FramesConfig
from extract.decoding.decode_process import ClipSpan, Prepared, PrepareSettings, VideoJob
from extract.decoding.workers import DecodePool
from extract.video.sampling import Sampling
from extract.video.source_file import check_file, source_identity

Outcome = Literal["equal", "close", "wrong", "unreadable", "not checked"]
_STREAM = "frames"
_UNUSED = Sampling(num_frames=1)  # rows are looked up by their own times
_NUM_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class ClipCheck:
    """What came of one clip.

    Attributes:
        outcome: `equal`: all rows have the pixels that were decoded again; `close`: other pixels of the same frames;
            `wrong`: times or frames are wrong; `unreadable`: the same video cannot be decoded again; `not checked`:
            the video is gone or is another file.
        decoder: that made the rows.
        referee: that decoded them again.
        worst_difference: greatest mean difference of a row from its frame, in grey levels.
        worst_seconds: greatest distance in time of a row from the nearest frame.
        message: the reason, or the first wrong row.
    """

    clip_id: str
    outcome: Outcome
    decoder: str = ""
    referee: str = ""
    num_rows: int = 0
    num_equal: int = 0
    num_wrong: int = 0
    worst_difference: float = 0.0
    worst_seconds: float = 0.0
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class FrameReport:
    """What came of all chosen clips, in the order of their ids."""

    seed: int
    clips: tuple[ClipCheck, ...]

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of clips by outcome."""
        counts = Counter(clip.outcome for clip in self.clips)
        return {outcome: counts[outcome] for outcome in get_args(Outcome)}

    @property
    def problems(self) -> list[str]:
        """A line per clip with wrong frames or none; also if nothing could be checked. Empty: all is well."""
        found = [f"{clip.clip_id}: {clip.message}" for clip in self.clips if clip.outcome in ("wrong", "unreadable")]
        if all(clip.outcome == "not checked" for clip in self.clips):
            reason = self.clips[0].message if self.clips else "none was asked for"
            found.append(f"not one clip could be checked ({reason}); say where the videos are with --videos FOLDER")
        return found

    @property
    def num_rows(self) -> int:
        """Rows that were compared."""
        return sum(clip.num_rows for clip in self.clips)

    @property
    def worst_difference(self) -> float:
        """Greatest of all clips, in grey levels."""
        return max((clip.worst_difference for clip in self.clips), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """The object that `verify --frames --json` prints under `frames`."""
        return {
            "seed": self.seed,
            "num_rows": self.num_rows,
            "outcomes": self.outcomes,
            "worst_difference": self.worst_difference,
            "clips": [asdict(clip) for clip in self.clips],
            "problems": self.problems,
        }

    def to_text(self) -> str:
        """Counts, the decoders that were compared, and every clip that is not fine."""
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items() if count)
        lines = [
            f"frames: {len(self.clips)} random clips (seed {self.seed}), {self.num_rows} rows: {counts or 'none'}; "
            f"greatest difference {self.worst_difference:.2f} of 255 grey levels"
        ]
        pairs = Counter((clip.decoder, clip.referee) for clip in self.clips if clip.referee)
        lines += [f"  {decoder} against {referee}: {count}" for (decoder, referee), count in sorted(pairs.items())]
        absent = [
            f"  not checked: {clip.clip_id}: {clip.message}" for clip in self.clips if clip.outcome == "not checked"
        ]
        lines += absent[:_NUM_LISTED]
        if len(absent) > _NUM_LISTED:
            lines.append(f"  ... and {len(absent) - _NUM_LISTED} more")
        return "\n".join([*lines, *(f"problem: {problem}" for problem in self.problems)])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Checked(Prepared):
    """What a process sends back in place of pixels."""

    check: ClipCheck | None = None


def check_frames(
    cache: Path,
    dataset: Dataset,
    *,
    num_clips: int,
    seed: int = 0,
    workers: int = 1,
    decoding: DecodingConfig | None = None,
    progress: Callable[[], None] = lambda: None,
) -> FrameReport:
    """Decodes random clips of the stream `frames` again, sequentially from the first frame of the file, and compares.

    Args:
        cache: the cache folder.
        dataset: says where the videos are.
        num_clips: how many clips to take; all if there are fewer.
        seed: of the choice.
        workers: processes.
        decoding: limits; the timeout is that of a decoder's silence.
        progress: called after every clip.

    Raises:
        CacheError: the cache has no frames, or none of clips of this dataset.
    """
    reader = FeatureStore.open(cache).frames
    clips = {clip.id: clip for clip in dataset.clips}
    known = sorted(clips.keys() & set(reader.clip_ids))
    if not known:
        raise CacheError(f"{reader.folder} holds frames of {len(reader)} clips, none is of dataset {dataset.name!r}")
    chosen = sorted(random.Random(seed).sample(known, min(num_clips, len(known))))
    jobs = [
        VideoJob(
            path=dataset.video_path(clips[clip_id]), spans=(ClipSpan(clip_id=clip_id),), streams=frozenset({_STREAM})
        )
        for clip_id in chosen
    ]
    prepare = functools.partial(recheck_video, reader.folder, find_ffmpeg())
    checks = {}
    with DecodePool(jobs, _settings(reader, decoding), workers=workers, prepare=prepare) as pool:
        for delivery in pool:
            checks[delivery.clip.clip_id] = _outcome_of(delivery.clip)
            delivery.release()
            progress()
    return FrameReport(seed=seed, clips=tuple(checks[clip_id] for clip_id in chosen))


def recheck_video(
    folder: Path, ffmpeg: Referee | None, job: VideoJob, settings: PrepareSettings, alive: Callable[[], None]
) -> Iterator[Prepared]:
    """What a process does with a video: every clip of it is compared. `folder` is that of the stream `frames`."""
    for span in job.spans:
        check = _check_clip(_reader(folder), span.clip_id, job.path, ffmpeg, settings, alive)
        yield _Checked(clip_id=span.clip_id, check=check)


@functools.cache
def _reader(folder: Path) -> StreamReader:
    return StreamReader(folder)


def _check_clip(
    reader: StreamReader,
    clip_id: str,
    path: Path,
    ffmpeg: Referee | None,
    settings: PrepareSettings,
    alive: Callable[[], None],
) -> ClipCheck:
    try:
        source, rows = reader.provenance(clip_id), _rows(reader, clip_id)
    except CorruptShard as error:
        return ClipCheck(clip_id=clip_id, outcome="wrong", message=str(error))
    reason = _why_not(path, source)
    if reason:
        return ClipCheck(clip_id=clip_id, outcome="not checked", decoder=source.decoder, message=reason)
    referee = referee_for(source.decoder, ffmpeg)
    look = functools.partial(referee.frames, path, alive, timeout_seconds=settings.decoding.timeout_seconds)
    named = f"{referee.name} (the same library, but sequential)" if referee.shares_library else referee.name
    try:
        findings = compare(look, rows, settings.frames)
    except VideoError as error:
        message = f"decoded by {source.decoder}, but {named} says: {error.message}"
        return ClipCheck(clip_id=clip_id, outcome="unreadable", decoder=source.decoder, referee=named, message=message)
    return _judge(clip_id, source.decoder, named, findings)


def _judge(clip_id: str, decoder: str, referee: str, findings: list[Finding]) -> ClipCheck:
    wrong = [finding for finding in findings if finding.fault]
    num_equal = sum(not finding.fault and finding.difference == 0 for finding in findings)
    more = f" (and {len(wrong) - 1} more of {len(findings)} rows)" if len(wrong) > 1 else ""
    is_equal = num_equal == len(findings)
    return ClipCheck(
        clip_id=clip_id,
        outcome="wrong" if wrong else "equal" if is_equal else "close",
        decoder=decoder,
        referee=referee,
        num_rows=len(findings),
        num_equal=num_equal,
        num_wrong=len(wrong),
        worst_difference=max(finding.difference for finding in findings),
        worst_seconds=max(finding.seconds_off for finding in findings),
        message=f"row {wrong[0].row.number} {wrong[0].fault}{more}" if wrong else "",
    )


def _rows(reader: StreamReader, clip_id: str) -> list[FrameRow]:
    seconds, index = reader.pts_seconds(clip_id).tolist(), reader.frame_index(clip_id).tolist()
    rows = enumerate(zip(seconds, index, reader[clip_id], strict=True))
    return [FrameRow(number=number, seconds=time, index=at, jpeg=jpeg) for number, (time, at, jpeg) in rows]


def _why_not(path: Path, source: Provenance) -> str:
    """Why a clip cannot be checked; empty if its video is the file that was decoded."""
    if not source.source_sha256:
        return "its rows do not say which file they were made from"
    try:
        check_file(path)
        _, sha256 = source_identity(path)
    except VideoError as error:
        return f"{path}: {error.message}"
    return "" if sha256 == source.source_sha256 else f"{path} is another file than the one that was decoded"


def _settings(reader: StreamReader, decoding: DecodingConfig | None) -> PrepareSettings:
    made = reader.fingerprint.preprocessing
    frames = FramesConfig(short_side=made["short_side"], quality=made["quality"])
    return PrepareSettings(sampling=_UNUSED, decoding=decoding or DecodingConfig(), frames=frames, encoder=None)


def _outcome_of(result: Prepared) -> ClipCheck:
    if isinstance(result, _Checked) and result.check is not None:
        return result.check
    assert result.failure is not None  # the pool ended a process
    return ClipCheck(clip_id=result.clip_id, outcome="unreadable", message=result.failure.message)
