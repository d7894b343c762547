"""What a cache holds, and whether it is what was committed: the figures behind `status` and `verify`.

`content_sha256` digests clip ids, row contents and failure codes in the order of ids, so it is the same for equal
content, however the work was cut into shards and wherever the videos were.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache import atomic, fingerprint
from cache.errors import CorruptShard
from cache.plan import Plan
from cache.rows import TOKEN_STREAMS, Failure
from cache.shard import clip_digests, read_shard
from cache.sidecar import Sidecar, read_sidecar, shard_numbers, sidecars
from cache.store import stream_folders
from cache.text import read_text_file


@dataclass(kw_only=True)
class StreamReport:
    """Counts of one stream: `rows` of all clips, clips `ok`, `failures` by clip, clips not done yet (`left`)."""

    rows: int = 0
    ok: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    left: int = 0
    num_bytes: int = 0
    random_weights: bool = False
    content_sha256: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def failed(self) -> Counter[str]:
        """Failed clips by code."""
        return Counter(failure.code.value for failure in self.failures.values())

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints for a stream."""
        body: dict[str, Any] = {
            "rows": self.rows,
            "ok": self.ok,
            "failed": dict(sorted(self.failed.items())),
            "failures": {clip_id: failure.message for clip_id, failure in sorted(self.failures.items())},
            "left": self.left,
            "bytes": self.num_bytes,
            "random_weights": self.random_weights,
            "problems": self.problems,
        }
        return body if self.content_sha256 is None else body | {"content_sha256": self.content_sha256}


def survey(cache: Path) -> dict[str, StreamReport]:
    """Counts per stream, from the plan and the sidecars alone: cheap at any size."""
    plan = Plan.load(cache)
    reports = {}
    for name, folder in stream_folders(cache).items():
        report = reports[name] = StreamReport()
        mark = fingerprint.load(folder)
        report.random_weights = mark.random_weights
        if mark.stream == "text":
            _survey_text(cache, report)
            continue
        committed = sidecars(folder)
        for sidecar in committed:
            _count(report, sidecar)
        if mark.stream not in TOKEN_STREAMS:  # tokens are made for the splits of a run, not for the plan
            done = {clip.id for sidecar in committed for clip in sidecar.clips}
            report.left = len(set(plan.clip_ids) - done)
    return reports


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
    for stream, report in reports.items():
        if stream == "text":
            _verify_text(cache, report, deep=deep)
        else:
            _verify_stream(cache / stream, report, deep, progress)
    return reports


def _verify_each(cache: Path, deep: bool, progress: Callable[[Path], None]) -> dict[str, StreamReport]:
    reports: dict[str, StreamReport] = {}
    for name, folder in stream_folders(cache).items():
        if name != "text":
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
        if clip.failure is None:
            report.ok += 1
        else:
            report.failures[clip.id] = clip.failure


def _text_sidecars(cache: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted((cache / "text").glob("*.json")):
        if path.name != fingerprint.FILE_NAME:
            yield path, atomic.read_json(path)


def _survey_text(cache: Path, report: StreamReport) -> None:
    for _, sidecar in _text_sidecars(cache):
        report.ok += 1
        report.rows += sidecar["num_classes"]
        report.num_bytes += sidecar["size_bytes"]


def _verify_text(cache: Path, report: StreamReport, *, deep: bool) -> None:
    digests = {}
    for path, sidecar in _text_sidecars(cache):
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
