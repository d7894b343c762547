"""The command around train/bench/rows.py: what is measured on, what is printed."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.commands.bench import bench
from tests.toys import toy_cache, toy_dataset
from train.bench import rows as rows_bench
from train.bench.row_files import StoredRows
from train.bench.rows import RowsBench, Timing

WAYS = {"store": 1.0, "memmap": 2.0, "h5py": 4.0, "ram": 3.0, "dataloader": 80.0}


class Asked:
    """Stands in for the measurement: what was asked for, and a report made by hand."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.options: dict[str, Any] = {}
        self.core_share = 1.0

    def bench_rows(self, rows: StoredRows, **options: Any) -> RowsBench:  # noqa: ANN401 (its options)
        self.shape, self.options = rows.raw.shape, options
        single = Timing(rounds=({name: spent for name, spent in WAYS.items() if name != "ram"},))
        facts = {"clips": 12, "frames": 8, "dim": 16, "bytes_per_clip": 10**9, "shards": 3, "batch_size": 5}
        return RowsBench(
            facts=facts | {"repeats": 1, "workers": 2, "device": "cpu"},
            single=single,
            batches=Timing(rounds=(WAYS,)),
            core_share=self.core_share,
        )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()
    monkeypatch.setattr(rows_bench, "bench_rows", found.bench_rows)
    return found


def run(*arguments: object) -> Result:
    words = ["cache", *(str(argument) for argument in arguments), "--device", "cpu"]
    return CliRunner().invoke(bench, words, catch_exceptions=False)


def test_without_a_cache_one_is_made_of_the_size_asked_for(asked: Asked) -> None:
    options = ("--clips", 10, "--frames", 3, "--dim", 4, "--batch-size", 5, "--repeats", 2, "--workers", 3)
    assert run(*options).exit_code == 0
    assert asked.shape == (10, 3, 4)
    assert (asked.options["batch_size"], asked.options["repeats"], asked.options["workers"]) == (5, 2, 3)
    assert str(asked.options["device"]) == "cpu"


def test_a_cache_gives_its_visual_prompts_and_its_own_sizes(asked: Asked, tmp_path: Path) -> None:
    cache = toy_cache(tmp_path, toy_dataset())
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert run(cache).exit_code == 0
    assert (asked.shape, asked.options["batch_size"]) == ((12, 8, 16), 12)
    run(cache, "--clips", 7, "--batch-size", 2)
    assert (asked.shape, asked.options["batch_size"]) == ((7, 8, 16), 2)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before, "nothing is written into the cache"
    assert "those of CACHE are what they are" in run(cache, "--dim", 4).output
    assert "is more than the 3 clips" in run(cache, "--clips", 3).output


def test_json_has_the_ratios_and_text_says_what_they_mean(asked: Asked) -> None:
    small = ("--clips", 8, "--frames", 1, "--dim", 1, "--batch-size", 2)
    body = json.loads(run(*small, "--json").stdout)
    assert (body["ratio_to_memmap"], body["batches"]["ratio_to_memmap"]) == (0.5, 0.5)
    assert (body["ratio_to_h5py"], body["ratio_to_dataloader"]) == (0.25, 1 / 80)
    assert body["batches"]["training"]["ram"]["ratio_to_memmap"] == 1.5
    text = run(*small).stdout
    assert "12 clips x (8, 16) in 3 shards" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["one", "by", "one,", "store", "1", "8", "1"] in lines  # clips, rows, GB a second
    assert ["one", "by", "one,", "store", "0.500", "0.500"] in lines
    assert ["batches", "of", "5,", "features", "=", "ram", "1.500", "1.500"] in lines
    assert ["batches", "of", "5,", "dataloader", "40", "40"] in lines
    assert "with 2 worker processes" in text
    assert "note:" not in text
    asked.core_share = 0.4
    assert "note: reading had 40% of a core" in run(*small).stdout
