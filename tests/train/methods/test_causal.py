"""PCMCI on a cache: trained, continued and predicted by frames and by frozen tokens; what it shares with CMDCL."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cache.errors import ConfigError
from cache.manifest import Dataset
from cache.run import Run
from tests.train.runs import HEADS as CMDCL_HEADS
from tests.train.runs import run_training, stop_after, tiny_config, weights_of, write_toys
from train import trainer, video_tokens
from train.config import TrainConfig
from train.data import Batch
from train.experiment import Experiment
from train.losses import task_loss
from train.methods.causal import CausalMethod
from train.models.cmdcl import CMDCL
from train.models.pcmci import PCMCI, PCMCIConfig
from train.predict import predict

CPU = torch.device("cpu")
HEADS = PCMCIConfig(dim=16, bases=2, qformer_heads=2, qformer_ffn=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toys(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _save_after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_SAVES", 0.0)


def pcmci_config(heads: Mapping[str, Any] | None = None, **changes: Any) -> TrainConfig:  # noqa: ANN401
    return tiny_config(method="pcmci", pcmci=replace(HEADS, **(heads or {})), **changes)


def open_experiment(folder: Path, config: TrainConfig) -> Experiment:
    return Experiment.open(Dataset.read(folder / "dataset"), folder / "cache", config, splits=("train", "test"))


def method_of(folder: Path, config: TrainConfig) -> CausalMethod:
    method = open_experiment(folder, config).method
    assert isinstance(method, CausalMethod)
    return method


def model_and_batch(folder: Path, config: TrainConfig) -> tuple[CausalMethod, PCMCI, Batch]:
    """A model without dropout, and the first six training clips."""
    experiment = open_experiment(folder, config)
    method, model = experiment.method, experiment.build_model().eval()
    assert isinstance(method, CausalMethod)
    assert isinstance(model, PCMCI)
    return method, model, next(experiment.sources(CPU, progress=False)["train"].batches([np.arange(6)], 0))


def logits_of(run: Run) -> np.typing.NDArray[np.float32]:
    return run.predictions("test").logits


@pytest.mark.parametrize("frozen", [True, False])
def test_a_run_trains_every_part_of_pcmci_and_predicts_the_same_again(folder: Path, frozen: bool) -> None:
    config = pcmci_config(frozen=frozen)
    start = open_experiment(folder, config).build_model().state_dict()
    run = run_training(folder, config)
    trained = weights_of(run)
    assert trained.keys() == start.keys()
    changed = {name.split(".")[0] for name in trained if not torch.equal(trained[name], start[name])}
    assert changed == {"text", "frame_features", "ich", "ici", "temporal", "ivc", "decoder"}
    assert any(name.startswith("frame_features.video_encoder") for name in trained) != frozen
    before = logits_of(run)
    run.predictions_path("test").unlink()
    (again,) = predict(run.path)
    np.testing.assert_array_equal(again.logits, before)
    assert run.info.method == "pcmci"


@pytest.mark.parametrize("frozen", [True, False])
def test_a_stopped_run_continues_to_the_same_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    config = pcmci_config({"ivc_align": 0.1}, frozen=frozen, task="atomic")
    whole = run_training(folder, config, name="whole")
    stop_after(folder, config, 4, monkeypatch)
    continued = run_training(folder, config, name="stopped")
    old, new = weights_of(whole), weights_of(continued)
    assert all(torch.equal(old[name], new[name]) for name in old)
    np.testing.assert_array_equal(logits_of(continued), logits_of(whole))


def test_class_chunk_may_change_when_a_run_continues_and_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, chunked = (
        pcmci_config({"ivc": "elementwise", "class_chunk": classes}, frozen=True, task="atomic") for classes in (64, 1)
    )
    expected = logits_of(run_training(folder, whole, name="whole"))
    stop_after(folder, whole, 4, monkeypatch)
    with pytest.raises(ConfigError, match=r"train\.pcmci\.ivc: the run has 'elementwise', asked for 'relation'"):
        run_training(folder, pcmci_config(frozen=True, task="atomic"), name="stopped")
    run = run_training(folder, chunked, name="stopped")
    assert run.config["train"]["pcmci"]["class_chunk"] == 1
    np.testing.assert_allclose(logits_of(run), expected, atol=1e-4)


def plain_loss(method: CausalMethod, model: PCMCI, batch: Batch, kind: Any) -> Tensor:  # noqa: ANN401
    return task_loss(kind, method.predictor(model)(batch), batch.targets)


@pytest.mark.parametrize(("task", "kind", "frozen"), [("activity", "single", False), ("atomic", "multi", True)])
def test_the_alignment_is_added_to_the_loss_with_its_weight(folder: Path, task: str, kind: str, frozen: bool) -> None:
    method, model, batch = model_and_batch(folder, pcmci_config({"ivc_align": 0.5}, frozen=frozen, task=task))
    trace = model.trace(batch.visual_prompts, **method._pixels(batch))
    assert trace.alignment is not None
    assert trace.alignment > 1e-4
    expected = plain_loss(method, model, batch, kind) + 0.5 * trace.alignment
    torch.testing.assert_close(method.loss(model, batch), expected, atol=1e-7, rtol=1e-6)


def test_without_a_weight_the_loss_is_that_of_the_task_alone(folder: Path) -> None:
    method, model, batch = model_and_batch(folder, pcmci_config(frozen=True))
    aligned, _, _ = model_and_batch(folder, pcmci_config({"ivc_align": 0.5}, frozen=True))
    loss = method.loss(model, batch)
    torch.testing.assert_close(loss, plain_loss(method, model, batch, "single"), atol=1e-7, rtol=1e-6)
    model.config = aligned.config.pcmci
    assert aligned.loss(model, batch) > loss + 1e-5


@pytest.mark.parametrize(("task", "kind"), [("activity", "single"), ("atomic", "multi")])
def test_evidence_has_a_loss_of_its_own_and_a_learning_rate(folder: Path, task: str, kind: Any) -> None:  # noqa: ANN401
    config = tiny_config(frozen=True, task=task, cmdcl=replace(CMDCL_HEADS, evidence=True, evidence_learning_rate=0.07))
    experiment = open_experiment(folder, config)
    method, model = experiment.method, experiment.build_model().eval()
    assert isinstance(method, CausalMethod)
    assert isinstance(model, CMDCL)
    batch = next(experiment.sources(CPU, progress=False)["train"].batches([np.arange(6)], 0))
    fits = model.evidence_fits(batch.visual_prompts)
    parts = [task_loss(kind, logits, batch.targets) for logits in (method.predictor(model)(batch), *fits)]
    assert len(parts) == 3
    torch.testing.assert_close(method.loss(model, batch), torch.stack(parts).sum())
    names, factor = method.fast_parameters(model)
    assert set(names) == {f"evidence.{name}" for name in ("evidence_bias", "match_bias", "log_gain")}
    assert factor * config.optimizer.learning_rate == pytest.approx(0.07)


def test_cmdcl_and_pcmci_share_the_tokens_of_one_pooling(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_experiment(folder, tiny_config(frozen=True)).sources(CPU, progress=False)

    def refuse(*_: object) -> None:
        raise AssertionError("the encoder was built though all tokens are cached")

    monkeypatch.setattr(video_tokens, "build_encoder", refuse)
    open_experiment(folder, pcmci_config(frozen=True)).sources(CPU, progress=False)


def test_the_pooling_that_counts_is_that_of_the_method_in_use(folder: Path) -> None:
    bins, mean = {"frame_pool": "msqnet_bins"}, {"frame_pool": "patch_mean"}
    cmdcl = {name: replace(tiny_config().cmdcl, frame_pool=name) for name in ("msqnet_bins", "patch_mean")}
    folders = [
        token_cache.folder
        for token_cache in (
            method_of(folder, tiny_config(frozen=True, cmdcl=cmdcl["msqnet_bins"])).token_cache,
            method_of(folder, pcmci_config(bins, frozen=True, cmdcl=cmdcl["patch_mean"])).token_cache,
            method_of(folder, tiny_config(frozen=True, cmdcl=cmdcl["patch_mean"])).token_cache,
            method_of(folder, pcmci_config(mean, frozen=True, cmdcl=cmdcl["msqnet_bins"])).token_cache,
        )
        if token_cache is not None
    ]
    assert folders[0] == folders[1]
    assert folders[2] == folders[3]
    assert folders[0] != folders[2]
