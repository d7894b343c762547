"""What a run cost: from rows that know little or much, and from the weights of its checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cache import atomic
from cache.run import Run
from evaluate.costs import costs
from tests.toys import toy_run_info


def _run(folder: Path, *rows: dict[str, float]) -> Run:
    run = Run.create(folder, toy_run_info(), {})
    for number, row in enumerate(rows):
        run.append_metrics({"epoch": number, **row})
    return run


def test_seconds_are_summed_and_rates_weighted_by_time(tmp_path: Path) -> None:
    rows = [
        {"seconds": 10.0, "data_seconds": 1.0, "clips_per_second": 100.0, "peak_memory_bytes": 2e9},
        {"seconds": 30.0, "data_seconds": 0.5, "clips_per_second": 20.0, "peak_memory_bytes": 3e9},
    ]
    assert costs(_run(tmp_path / "run", *rows)) == {
        "epochs": 2.0,
        "seconds": 40.0,
        "seconds_per_epoch": 20.0,
        "data_seconds": 1.5,
        "clips_per_second": 40.0,
        "peak_memory_gigabytes": 3.0,
    }


def test_what_no_row_knows_is_left_out(tmp_path: Path) -> None:
    assert costs(_run(tmp_path / "a", {"loss": 1.0})) == {"epochs": 1.0}
    assert costs(_run(tmp_path / "b")) == {}


def test_parameters_are_counted_in_the_weights_that_the_last_checkpoint_names(tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    folder = run.path / "checkpoints"
    folder.mkdir()
    save_file({"a": np.zeros((3, 4), np.float16), "b": np.zeros(5, np.float32)}, folder / "last-1.safetensors")
    save_file({"a": np.zeros(1000, np.float32)}, folder / "optimizer-1.safetensors")
    atomic.write_json(folder / "last.json", {"files": {"last-1.safetensors": "x", "optimizer-1.safetensors": "y"}})
    assert costs(run) == {"parameters": 17.0}


@pytest.mark.parametrize("content", ["{}", json.dumps({"files": {"gone.safetensors": "x"}}), "not json"])
def test_a_checkpoint_that_cannot_be_read_costs_nothing_but_the_number(tmp_path: Path, content: str) -> None:
    run = _run(tmp_path / "run", {"loss": 1.0})
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / "last.json").write_text(content)
    assert costs(run) == {"epochs": 1.0}
