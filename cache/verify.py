"""What a cache holds, and whether it is what was committed: the figures behind `status` and `verify`.

Streams that `extract --overwrite` is building are among them, as `next/<stream>`, with their own counts.
The rate of a stream is read off the times at which its sidecars were written, so it needs no process to ask; copying a
cache without its times resets it.

`content_sha256` digests clip ids, row contents and failure codes in the order of ids, so it is the same for equal
content, however the work was cut into shards and wherever the videos were.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache import atomic, fingerprint
from cache.errors import CorruptShard
from cache.folder_check import folder_problems
from cache.plan import Plan
from cache.rows import TOKEN_STREAMS, Failure
from cache.shard import clip_digests, read_shard
from cache.sidecar import Sidecar, read_sidecar, shard_numbers, sidecar_path, sidecars
from cache.store import stream_folders
from cache.stream_swap import NEXT, finish_swaps, under_construction
from cache.text import read_text_file

_RATE_WINDOW_SECONDS = 3600.0


@dataclass(kw_only=True)
class StreamReport:
    """Counts of one stream: `rows` of all clips, clips `ok`, `failures` by clip, clips not done yet (`left`)."""

    rows: int = 0
    ok: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    left: int = 0
    num_bytes: int = 0
    clips_per_second: float | None = None
    """Over the last hour of the stream's commits, failed clips too; None if it has fewer than two commits."""
    random_weights: bool = False
    reduced: int = 0
    """Clips that were made with a smaller batch after running out of memory."""
    content_sha256: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def failed(self) -> Counter[str]:
        """Failed clips by code."""
        return Counter(failure.code.value for failure in self.failures.values())

    @property
    def seconds_left(self) -> float | None:
        """How long the clips that are left take at that rate; None where the rate is not known."""
        return None if self.clips_per_second is None else self.left / self.clips_per_second

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints for a stream."""
        body: dict[str, Any] = {
            "rows": self.rows,
            "ok": self.ok,
            "failed": dict(sorted(self.failed.items())),
            "failures": {clip_id: failure.message for clip_id, failure in sorted(self.failures.items())},
            "left": self.left,
            "clips_per_second": self.clips_per_second,
            "seconds_left": self.seconds_left,
            "bytes": self.num_bytes,
            "random_weights": self.random_weights,
            "reduced": self.reduced,
            "problems": self.problems,
        }
        return body if self.content_sha256 is None else body | {"content_sha256": self.content_sha256}


def survey(cache: Path) -> dict[str, StreamReport]:
    """Counts per stream, from the plan and the sidecars alone: cheap at any size.

    A swap of streams that was interrupted is finished first.
    """
    plan = Plan.load(cache)
    finish_swaps(cache)
    reports = {}
    for name, folder in _folders(cache).items():
        report = reports[name] = StreamReport()
        mark = fingerprint.load(folder)
        report.random_weights = mark.random_weights
        if mark.stream == "text":
            _survey_text(folder, report)
            continue
        committed = sidecars(folder)
        for sidecar in committed:
            _count(report, sidecar)
        report.clips_per_second = _rate(folder, committed)
        if mark.stream not in TOKEN_STREAMS:  # tokens are made for the splits of a run, not for the plan
            done = {clip.id for sidecar in committed for clip in sidecar.clips}
            report.left = len(set(plan.clip_ids) - done)
    return reports


def _folders(cache: Path) -> dict[str, Path]:
    """All streams by their paths in the cache, those under construction last."""
    building = {f"{NEXT}/{stream}": folder for stream, folder in under_construction(cache).items()}
    return stream_folders(cache) | building


def _rate(folder: Path, committed: list[Sidecar]) -> float | None:
    """Clips of the last hour's commits by the time between them; the first one's were made before that time."""
    commits = []
    for sidecar in committed:
        with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
            commits.append((sidecar_path(folder, sidecar.number).stat().st_mtime, len(sidecar.clips)))
    newest = max(commits, default=(0.0, 0))[0]
    recent = sorted(commit for commit in commits if newest - commit[0] <= _RATE_WINDOW_SECONDS)
    if len(recent) < 2 or newest == recent[0][0]:
        return None
    return sum(num_clips for _, num_clips in recent[1:]) / (newest - recent[0][0])


def verify(
    cache: Path, *, deep: bool = False, progress: Callable[[Path], None] = lambda _: None
) -> dict[str, StreamReport]:
    """Checks every committed file of a cache; problems are collected in the reports, not raised.

    Args:
        cache: the cache folder.
        deep: hash every file, check every row's crc32, and give each stream its `content_sha256`; otherwise sidecars,
            sizes and layouts only.
        progress: called with each file before it is read.
    """
    try:
        reports = survey(cache)
    except CorruptShard as error:
        return {"plan": StreamReport(problems=[str(error)])} | _verify_each(cache, deep, progress)
    for name, report in reports.items():
        if (cache / name).name == "text":
            _verify_text(cache / name, report, deep=deep)
        else:
            _verify_stream(cache / name, report, deep, progress)
    problems = folder_problems(cache)
    return ({"cache": StreamReport(problems=problems)} if problems else {}) | reports


def _verify_each(cache: Path, deep: bool, progress: Callable[[Path], None]) -> dict[str, StreamReport]:
    reports: dict[str, StreamReport] = {}
    for name, folder in _folders(cache).items():
        if folder.name != "text":
            reports[name] = StreamReport()
            _verify_stream(folder, reports[name], deep, progress)
    return reports


def _verify_stream(folder: Path, report: StreamReport, deep: bool, progress: Callable[[Path], None]) -> None:
    digests: dict[str, str] = {}
    try:
        mark = fingerprint.load(folder)
    except CorruptShard as error:
        report.problems.append(str(error))
        return
    for sidecar in _readable_sidecars(folder, report):
        progress(folder / sidecar.file)
        try:
            if sidecar.fingerprint_sha256 != mark.sha256:
                raise CorruptShard(
                    f"{folder / sidecar.file} was made with other settings than its stream's fingerprint"
                )
            if deep:
                digests |= clip_digests(folder, sidecar)
            else:
                read_shard(folder, sidecar)
        except CorruptShard as error:
            report.problems.append(str(error))
    if deep and not report.problems:
        report.content_sha256 = _digest(digests)


def _readable_sidecars(folder: Path, report: StreamReport) -> Iterator[Sidecar]:
    for number in shard_numbers(folder):
        try:
            sidecar = read_sidecar(folder, number)
        except CorruptShard as error:
            report.problems.append(str(error))
            continue
        if sidecar is not None:
            yield sidecar


def _count(report: StreamReport, sidecar: Sidecar) -> None:
    report.num_bytes += sidecar.size_bytes
    for clip in sidecar.clips:
        report.rows += clip.num_rows
        report.reduced += clip.reduced_batch > 0
        if clip.failure is None:
            report.ok += 1
        else:
            report.failures[clip.id] = clip.failure


def _text_sidecars(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(folder.glob("*.json")):
        if path.name != fingerprint.FILE_NAME:
            yield path, atomic.read_json(path)


def _survey_text(folder: Path, report: StreamReport) -> None:
    for _, sidecar in _text_sidecars(folder):
        report.ok += 1
        report.rows += sidecar["num_classes"]
        report.num_bytes += sidecar["size_bytes"]


def _verify_text(folder: Path, report: StreamReport, *, deep: bool) -> None:
    digests = {}
    for path, sidecar in _text_sidecars(folder):
        try:
            features = read_text_file(path, sidecar)
        except CorruptShard as error:
            report.problems.append(str(error))
            continue
        digest = hashlib.sha256(repr((features.task, features.class_names, features.prompts)).encode())
        for array in (features.sentence, features.word, features.word_mask):
            digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
        digests[path.stem] = digest.hexdigest()
    if deep and not report.problems:
        report.content_sha256 = _digest(digests)


def _digest(digests: dict[str, str]) -> str:
    total = hashlib.sha256()
    for key in sorted(digests):
        total.update(f"{digests[key]}\n".encode())
    return total.hexdigest()
