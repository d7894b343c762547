"""What the loop keeps of a run that is stopped, also by a kill before the last batches are through."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cache import fingerprint
from cache.rows import ClipRows
from cache.sidecar import read_sidecar
from extract.config import ExtractConfig
from extract.shards.loop import WorkSettings, _Loop
from extract.shards.work import ShardTask
from tests.toys import toy_dataset, toy_fingerprint, visual_prompt_rows

STREAM = "visual_prompts"


class Killed(BaseException):
    """Stands in for a signal that nothing can catch."""


class Flushes:
    """A model with the clip `c` in a batch that is not full; `is_killed` while it runs that batch."""

    def __init__(self, cache: Path, *, is_killed: bool) -> None:
        self.cache, self.is_killed = cache, is_killed

    def flush(self) -> Iterator[ClipRows]:
        if self.is_killed:
            raise Killed
        yield visual_prompt_rows("c")


def committed(cache: Path) -> list[str]:
    sidecar = read_sidecar(cache / STREAM, 0)
    return [clip.id for clip in sidecar.clips] if sidecar else []


def loop_with(cache: Path, ready: Iterable[str], *, is_killed: bool) -> _Loop:
    """Of a shard of `abcd`, of which these clips are ready and `c` is in a batch."""
    mark = toy_fingerprint(STREAM)
    fingerprint.ensure(cache / STREAM, mark)
    streams: frozenset[str] = frozenset()  # of what is decoded: nothing here
    settings = WorkSettings(dataset=toy_dataset(), cache=cache, config=ExtractConfig(), streams=streams, workers=1)
    models = cast("Any", SimpleNamespace(visual_prompts=Flushes(cache, is_killed=is_killed)))
    loop = _Loop(settings, {STREAM: mark}, models, cast("Any", None))
    loop._collector.expect(ShardTask(number=0, missing={STREAM: frozenset("abcd")}))
    loop._batching.add(STREAM)
    for clip_id in ready:
        loop._collector.add(STREAM, visual_prompt_rows(clip_id))
    return loop


def test_a_kill_while_the_last_batches_run_loses_nothing_that_was_ready(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        loop_with(tmp_path, "ab", is_killed=True).keep_ready()
    assert committed(tmp_path) == ["a", "b"]


def test_a_stopped_run_keeps_what_was_ready_and_what_waited_for_a_full_batch(tmp_path: Path) -> None:
    loop_with(tmp_path, "ab", is_killed=False).keep_ready()
    assert committed(tmp_path) == ["a", "b", "c"]
