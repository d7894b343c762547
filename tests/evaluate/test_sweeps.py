"""Curves over a setting: runs that differ in it alone, with the paper's own curve on the same benchmark."""

from pathlib import Path
from typing import Any

import pytest

from cache.run import Run
from evaluate.summary import summarise
from tests.evaluate import toy_runs

ACTIVITIES = toy_runs.class_names(10)


def run(folder: Path, **changes: Any) -> Run:  # noqa: ANN401
    """A run on Breakfast's activities whose [train] has these keys too."""
    cmdcl = changes.pop("cmdcl", {})
    made = toy_runs.run(
        folder,
        dataset="breakfast",
        class_names=ACTIVITIES,
        splits=("test",),
        seed=changes.pop("seed", 0),
        variant=changes.pop("variant", ""),
    )
    training = made.config["train"] | changes
    made.replace_config({"train": training | {"cmdcl": training["cmdcl"] | cmdcl}})
    return made


def found(*runs: Run) -> list[dict[str, Any]]:
    return summarise(runs, num_resamples=5)["sweeps"]


def test_runs_that_differ_in_their_layers_alone_become_a_curve_beside_the_papers(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / f"{layers}-{seed}", cmdcl={"sta_layers": layers}, seed=seed, variant=f"{layers} layers")
        for layers in (6, 0)
        for seed in (0, 1)
    ]
    (sweep,) = found(*runs)
    assert (sweep["key"], sweep["split"], sweep["metric"]) == ("train.cmdcl.sta_layers", "test", "acc1")
    assert [(point["x"], point["runs"]) for point in sweep["points"]] == [(0, ["0-0", "0-1"]), (6, ["6-0", "6-1"])]
    values = [item["splits"]["test"]["acc1"] for item in summarise(runs, num_resamples=5)["runs"]]
    assert sweep["points"][1]["mean"] == pytest.approx((values[0] + values[1]) / 2)
    assert sweep["points"][1]["sd"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    printed = [(row["x"], row["percent"]) for row in sweep["published"]]
    assert printed == [(0, 94.93), (2, 95.21), (4, 95.21), (6, 96.62), (8, 96.62), (10, 94.65)]


def test_frames_are_an_axis_of_their_own(tmp_path: Path) -> None:
    sweeps = found(*(run(tmp_path / str(frames), num_frames=frames) for frames in (8, 16, 64)))
    assert [(sweep["key"], len(sweep["points"])) for sweep in sweeps] == [("train.num_frames", 3)]
    assert sweeps[0]["points"][0]["sd"] is None
    assert [row["percent"] for row in sweeps[0]["published"]] == [90.14, 93.52, 93.52, 96.62]


def test_a_second_difference_makes_no_curve(tmp_path: Path) -> None:
    assert found(run(tmp_path / "a", num_frames=8), run(tmp_path / "b", num_frames=16, epochs=3)) == []
    assert found(run(tmp_path / "c", num_frames=8), run(tmp_path / "d", num_frames=8, seed=1)) == []
    other = run(tmp_path / "e", num_frames=16)
    other.update(fingerprints={"frames": "cd" * 32})
    assert found(run(tmp_path / "f", num_frames=8), other) == []
    other.update(fingerprints={"frames": "ab" * 32, "video_tokens": "cd" * 32})
    assert len(found(run(tmp_path / "g", num_frames=8), other)) == 1


def test_a_dataset_of_ones_own_has_no_printed_curve(tmp_path: Path) -> None:
    runs = []
    for frames in (8, 16):
        made = toy_runs.run(tmp_path / str(frames), splits=("test",))
        made.replace_config({"train": made.config["train"] | {"num_frames": frames}})
        runs.append(made)
    (sweep,) = found(*runs)
    assert sweep["published"] == []
