"""Several seeds of one recipe: what is asked for, what is refused before the first training, what is printed."""

import json
from pathlib import Path

import numpy as np
import pytest

from cache.errors import ConfigError
from cache.manifest import Dataset
from cache.run import Run
from evaluate.metrics import evaluate
from pipeline.cli import cli
from pipeline.seeds import ScoredRun, over_runs, parse_seeds, plan_runs, seeds_document, seeds_to_text, train_all
from tests.evaluate import toy_runs
from tests.pipeline.test_ablate import TINY
from tests.train.runs import write_toys
from tests.train.test_parallel import torchrun
from tests.train.test_tensorboard_log import rows_as_scalars, scalars
from train.config import TrainConfig


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    write_toys(folder)
    (folder / "tiny.toml").write_text(TINY)
    return folder


def train(world: Path, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What `train` prints on stdout."""
    place = ("train", world / "dataset", "--cache", world / "cache", "--recipe", world / "tiny.toml")
    capsys.readouterr()
    cli.main([str(word) for word in (*place, "--device", "cpu", *words)], standalone_mode=False)
    return capsys.readouterr().out


def plan(world: Path, path: str, *overrides: str, seed: int | None = None, seeds: str | None = None) -> list[Path]:
    planned = plan_runs(str(world / "tiny.toml"), overrides, world / path, seed=seed, seeds=seeds)
    return [one.path.relative_to(world) for one in planned]


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (3,)), ("0-4", (0, 1, 2, 3, 4)), ("0,2", (0, 2)), ("5, 0-1", (5, 0, 1))]
)
def test_seeds_are_numbers_and_ranges(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "2-0", "-1", "1,,2", "0-2,1"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds"):
        parse_seeds(text)


def test_deviations_are_those_of_a_sample_and_absent_with_one_seed(tmp_path: Path) -> None:
    run = ScoredRun.of(toy_runs.run(tmp_path / "run"))
    runs = [
        ScoredRun(run=run.run, rule=run.rule, splits={"test": {"acc1": value}}, left_out={})
        for value in (0.2, 0.4, 0.9)
    ]
    found = over_runs(runs)["test"]["acc1"]
    assert found["mean"] == pytest.approx(0.5)
    assert found["sd"] == pytest.approx(np.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert found["values"] == [0.2, 0.4, 0.9]
    assert over_runs(runs[:1])["test"]["acc1"]["sd"] is None
    assert over_runs([]) == {}


def test_every_seed_has_a_run_of_its_own_below_the_folder(world: Path) -> None:
    assert plan(world, "runs", seeds="0-1,7") == [Path("runs/seed0"), Path("runs/seed1"), Path("runs/seed7")]
    assert plan(world, "runs", seed=7) == plan(world, "runs") == [Path("runs")]


def test_seeds_that_are_given_twice_are_refused(world: Path) -> None:
    with pytest.raises(ConfigError, match="--seed 1 and --seeds 0-4"):
        plan(world, "runs", seed=1, seeds="0-4")
    with pytest.raises(ConfigError, match=r"--set train\.seed and --seeds"):
        plan(world, "runs", "train.seed=1", seeds="0-4")


def test_a_run_is_no_folder_of_runs_and_a_folder_of_runs_is_no_run(world: Path) -> None:
    toy_runs.run(world / "one", seed=3)
    with pytest.raises(ConfigError, match=r"one is a run itself.*seed3"):
        plan(world, "one", seeds="0-4")
    toy_runs.run(world / "several" / "seed0")
    with pytest.raises(ConfigError, match=r"several seeds \(seed0\).*several/seed5"):
        plan(world, "several", seed=5)
    assert plan(world, "several/seed0") == [Path("several/seed0")]


def test_the_headline_of_every_seed_stands_above_mean_and_deviation(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("--run", world / "runs", "--seeds", "0,3", "--set", "train.predict_splits=['test', 'train']")
    text = train(world, capsys, *command)
    document = json.loads(train(world, capsys, *command, "--json"))
    runs = [Run.open(world / "runs" / f"seed{seed}") for seed in (0, 3)]
    assert [run.info.seed for run in runs] == document["seeds"] == [0, 3]
    assert document["runs"] == {"0": str(world / "runs" / "seed0"), "3": str(world / "runs" / "seed3")}
    lines = [line.split("  ") for line in text.splitlines()]
    for split in ("test", "train"):
        values = [evaluate(run.predictions(split))["acc1"] for run in runs]
        assert document["splits"][split]["acc1"] == {
            "mean": pytest.approx(np.mean(values)),
            "sd": pytest.approx(np.std(values, ddof=1)),
            "values": values,
        }
    table = [[cell.strip() for cell in line if cell] for line in lines if line[0] in ("seed", "0", "3", "mean ± sd")]
    (header, first, second, last) = [line for line in table if len(line) > 1]
    assert header == ["seed", "test", "train"]
    for line, place in ((first, 0), (second, 1)):
        assert line[1:] == [f"{100 * document['splits'][split]['acc1']['values'][place]:.1f}" for split in header[1:]]
    spreads = [document["splits"][split]["acc1"] for split in header[1:]]
    assert last[1:] == [f"{100 * spread['mean']:.1f} ± {100 * spread['sd']:.1f}" for spread in spreads]
    assert text.index("random weights") < text.index("Acc@1")


def test_the_same_command_trains_nothing_again_and_more_seeds_only_what_is_new(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(world, capsys, "--run", world / "more", "--seeds", "0-1")
    files = {path: path.stat().st_mtime_ns for path in (world / "more").rglob("*") if path.is_file()}
    text = train(world, capsys, "--run", world / "more", "--seeds", "0-2", "--tensorboard")
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert Run.open(world / "more" / "seed2").info.status == "finished"
    assert len(list((world / "more").glob("seed*/tensorboard/*tfevents*"))) == 3
    assert "mean ± sd" in text
    assert "±" not in train(world, capsys, "--run", world / "more", "--seeds", "2")


def test_a_run_of_another_configuration_is_refused_before_the_first_is_trained(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(world, capsys, "--run", world / "mixed" / "seed1", "--seed", 1, "--set", "train.epochs=1")
    with pytest.raises(ConfigError, match=r"seed1 is a run with another configuration:\n  train\.epochs"):
        train(world, capsys, "--run", world / "mixed", "--seeds", "0-1")
    assert not (world / "mixed" / "seed0").exists()


def test_a_seed_that_cannot_be_trained_is_named_and_those_before_it_stay(tmp_path: Path, world: Path) -> None:
    done = []

    def train_one(path: Path, config: TrainConfig) -> Run:
        if config.seed == 2:
            raise ConfigError("training diverged")
        done.append(path)
        return toy_runs.run(path, seed=config.seed)

    planned = plan_runs(str(world / "tiny.toml"), [], tmp_path, seed=None, seeds="0-4")
    with pytest.raises(ConfigError, match=r"^seed 2: training diverged"):
        list(train_all(planned, Dataset.read(world / "dataset"), train_one))
    assert done == [tmp_path / "seed0", tmp_path / "seed1"]


@pytest.mark.slow
def test_two_processes_train_seed_after_seed_and_the_first_one_speaks(world: Path) -> None:
    place = ("--cache", world / "cache", "--recipe", world / "tiny.toml", "--run", world / "two", "--device", "cpu")
    words = ("train", world / "dataset", *place, "--seeds", "0-1", "--tensorboard", "--json")
    spoken = torchrun("pipeline", "--", *map(str, words)).stdout
    assert json.loads(spoken)["seeds"] == [0, 1]
    for seed in (0, 1):
        run = Run.open(world / "two" / f"seed{seed}")
        assert run.info.status == "finished"
        assert scalars(run.path) == rows_as_scalars(run)


def test_one_training_says_its_scores_as_json_too(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(train(world, capsys, "--run", world / "alone", "--seed", 4, "--json"))
    assert (document["seeds"], document["runs"]) == ([4], {"4": str(world / "alone")})
    assert document["splits"]["test"]["acc1"]["sd"] is None
    assert document["splits"]["test"]["acc1"]["values"] == [
        evaluate(Run.open(world / "alone").predictions("test"))["acc1"]
    ]


def test_notices_remarks_and_the_rule_stand_beside_the_numbers(tmp_path: Path) -> None:
    names = toy_runs.class_names(31)
    runs = [
        toy_runs.run(
            tmp_path / f"seed{seed}", seed=seed, dataset="toyota_smarthome", class_names=names, splits=("iid",),
            notices=("best checkpoint chosen on 'iid', a split that is also reported",), num_official=65,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    document = seeds_document([ScoredRun.of(run) for run in runs])
    text = seeds_to_text(document)
    assert text.startswith("note: best checkpoint chosen on 'iid'")
    assert text.count("chosen on") == 1
    assert 'iid: 60 of 62 clips; left out: 2 for "truncated"; the benchmark has 65' in text
    assert "mean class accuracy, %" in text
    assert "Rule of Toyota Smarthome" in text
    assert f"deconfound evaluate {tmp_path}/seed* --report REPORT" in text
