"""One optimiser step looked at from inside: its gradient, its arithmetic, its modes."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from cache.manifest import Dataset
from tests.train.runs import run_training, tiny_config, write_toys
from train import run_directory
from train.config import OptimizerConfig, TrainConfig
from train.data import Batch
from train.experiment import Experiment
from train.losses import task_loss
from train.methods.causal import CausalMethod
from train.models.cmdcl import CMDCL
from train.predict import logits_of
from train.trainer import Trainer

CPU = torch.device("cpu")
NO_DROPOUT = replace(tiny_config().cmdcl, dropout=0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toys(tmp_path)
    return tmp_path


def open_experiment(folder: Path, config: TrainConfig) -> Experiment:
    return Experiment.open(Dataset.read(folder / "dataset"), folder / "cache", config, splits=("train", "test"))


def trainer_of(folder: Path, config: TrainConfig) -> Trainer:
    experiment = open_experiment(folder, config)
    run = run_directory.begin(experiment, folder / "run", dataset_folder=folder / "dataset", recipe="toy")
    return Trainer(experiment, run, experiment.sources(CPU, progress=False), experiment.build_model(), CPU)


def logits_on_test(experiment: Experiment, model: nn.Module) -> npt.NDArray[np.float32]:
    source = experiment.sources(CPU, progress=False)["test"]
    return logits_of(experiment.method, model, source, experiment.config, CPU)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def step_gradients(folder: Path, config: TrainConfig, shares: list[list[int]]) -> dict[str, Tensor]:
    """The gradients of one `Trainer._step` over clips in the given shares."""
    trainer = trainer_of(folder, config)
    trainer.model.train()
    batches = trainer.source.batches([np.array(share) for share in shares], None)
    trainer._step(batches, np.concatenate([np.array(share) for share in shares]))
    return gradients(trainer.model)


@pytest.mark.parametrize("task", ["activity", "atomic"])
@pytest.mark.parametrize("shares", [[[0, 1, 2, 3, 4, 5, 6, 7]], [[0, 1, 2], [3, 4, 5], [6, 7]]])
def test_a_step_follows_the_gradient_of_the_mean_loss_over_its_clips(
    folder: Path, task: str, shares: list[list[int]]
) -> None:
    config = tiny_config(
        frozen=True, task=task, cmdcl=NO_DROPOUT, batch_size=8, optimizer=OptimizerConfig(grad_clip=0.0)
    )
    experiment = open_experiment(folder, config)
    model = experiment.build_model()
    batch = next(experiment.sources(CPU, progress=False)["train"].batches([np.arange(8)], None))
    task_loss(experiment.task.kind, experiment.method.predictor(model)(batch), batch.targets).backward()
    expected, found = gradients(model), step_gradients(folder, config, shares)
    assert found.keys() == expected.keys()
    assert max(value.abs().max() for value in expected.values()) > 0.01
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("grad_clip", "is_clipped"), [(0.01, True), (0.0, False), (1e6, False)])
def test_the_norm_of_the_whole_gradient_is_clipped(folder: Path, grad_clip: float, is_clipped: bool) -> None:
    config = tiny_config(frozen=True, cmdcl=NO_DROPOUT, optimizer=OptimizerConfig(grad_clip=grad_clip))
    found = step_gradients(folder, config, [[0, 1, 2]])
    norm = float(torch.stack([value.norm() for value in found.values()]).norm())
    assert norm == pytest.approx(0.01, rel=1e-3) if is_clipped else norm > 0.1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_is_that_of_training_alone_and_predictions_are_fp32(folder: Path, precision: str) -> None:
    trainer = trainer_of(folder, tiny_config(frozen=True, precision=precision))
    seen: list[torch.dtype] = []
    trainer.model.get_submodule("frame_features.projection").register_forward_hook(
        lambda *given: seen.append(given[2].dtype)
    )
    trainer._step(trainer.source.batches([np.arange(3)], 0), np.arange(3))
    logits_of(trainer.experiment.method, trainer.model, trainer.source, trainer.config, CPU)
    assert seen[0] == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert set(seen[1:]) == {torch.float32}


def test_every_step_trains_with_dropout_also_after_validation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[bool] = []

    plain = CausalMethod.loss

    def recording(method: CausalMethod, model: nn.Module, batch: Batch) -> Tensor:
        modes.append(model.training and all(part.training for part in model.modules()))
        return plain(method, model, batch)

    monkeypatch.setattr(CausalMethod, "loss", recording)
    run_training(folder, tiny_config(frozen=True, validation_split="test"))
    assert modes == [True] * 9


def test_live_and_frozen_give_the_same_logits_for_the_same_weights(folder: Path) -> None:
    """The live path decodes, normalises and encodes in the step; the frozen one did so when tokens were made."""
    live, frozen = (open_experiment(folder, config) for config in (tiny_config(), tiny_config(frozen=True)))
    model = live.build_model()
    heads = copy.deepcopy(model)
    assert isinstance(heads, CMDCL)
    heads.frame_features.video_encoder = None
    expected = logits_on_test(frozen, heads)
    assert expected.std(axis=0).min() > 1e-4
    np.testing.assert_allclose(logits_on_test(live, model), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
def test_a_compiled_model_gives_the_same_gradient_under_the_same_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced whole, without a break, and run as traced: what code a compiler makes of it is torch's business."""
    config = tiny_config(frozen=True, cmdcl=NO_DROPOUT, optimizer=OptimizerConfig(grad_clip=0.0))
    expected = step_gradients(folder, config, [[0, 1, 2]])
    traced: list[nn.Module] = []
    plain = nn.Module.compile

    def trace(model: nn.Module) -> None:
        traced.append(model)
        plain(model, backend="eager", fullgraph=True)

    monkeypatch.setattr(nn.Module, "compile", trace)
    found = step_gradients(folder, replace(config, compile=True), [[0, 1, 2]])
    assert len(traced) == 1
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("frozen", [True, False])
def test_the_image_text_model_is_never_trained(folder: Path, frozen: bool) -> None:
    """Visual prompts carry no gradient graph, and every trained parameter is of the video side, the text or a head."""
    trainer = trainer_of(folder, tiny_config(frozen=frozen))
    batch: Batch = next(trainer.source.batches([np.arange(3)], 0))
    assert not batch.visual_prompts.requires_grad
    assert batch.visual_prompts.grad_fn is None
    trained = [value for group in trainer.optimizer.param_groups for value in group["params"]]
    names = {name.partition(".")[0] for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert names == {"text", "frame_features", "tci", "temporal", "vci", "decoder"}
    assert any("video_encoder" in name for name, _ in trainer.model.named_parameters()) == (not frozen)
    assert len(trained) == sum(value.requires_grad for value in trainer.model.parameters())
