"""The gradient of one step of each method, in one process or in each of several that torchrun starts.

    torchrun --nproc-per-node 2 -m tests.train.one_step FOLDER

writes FOLDER/<method>-<rank>-of-<count>.safetensors for clips in two sets: a whole batch, and one clip alone.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from cache.manifest import Dataset
from tests.train.pose_runs import pose_config
from tests.train.runs import HEADS, tiny_config
from train import parallel, run_directory
from train.config import OptimizerConfig, TrainConfig
from train.experiment import Experiment
from train.models.pcmci import PCMCIConfig
from train.parallel import Processes
from train.sampling import Indices
from train.trainer import Trainer

CPU = torch.device("cpu")
NUM_CLIPS = 24
"""Of which two thirds train: a batch of 16."""


def configs(folder: Path, *, accumulate: int = 1) -> dict[str, TrainConfig]:
    """Every method without dropout and DropPath, all of its parts on; batches of 16."""
    plain = replace(tiny_config().video_encoder, drop_path=0.0)
    causal: dict[str, Any] = {"video_encoder": plain, "batch_size": 16, "accumulate": accumulate}
    pcmci = PCMCIConfig(dim=16, bases=2, qformer_heads=2, qformer_ffn=32, dropout=0.0)
    joint: dict[str, Any] = {"drop_path": 0.0, "gradient_cache": True, "strength_text": "live"}
    found = {
        "cmdcl": tiny_config(cmdcl=replace(HEADS, dropout=0.0), **causal),
        "pcmci": tiny_config(method="pcmci", task="atomic", pcmci=pcmci, **causal),
        "pevl": pose_config(folder / "pose", **joint, batch_size=16, accumulate=accumulate),
    }
    # Clipping would hide a gradient that is a multiple of the right one.
    return {name: replace(config, optimizer=OptimizerConfig(grad_clip=0.0)) for name, config in found.items()}


def trainer_of(folder: Path, config: TrainConfig, processes: Processes) -> Trainer:
    """A trainer on the toys under `folder` (PeVL: `folder/pose`), no parameter of whose model is at zero."""
    folder = folder / "pose" if config.method == "pevl" else folder
    experiment = Experiment.open(Dataset.read(folder / "dataset"), folder / "cache", config, splits=("train", "test"))
    if processes.is_first:
        run_directory.begin(
            experiment,
            folder / f"step-{config.method}{config.variant}",
            dataset_folder=folder / "dataset",
            recipe="toy",
        )
    processes.wait()
    run = run_directory.existing_run(folder / f"step-{config.method}{config.variant}", config, experiment.dataset)
    assert run is not None
    model = experiment.build_model()
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return Trainer(experiment, run, experiment.sources(CPU, progress=False), model, CPU, processes)


def gradients(trainer: Trainer, piece: Indices) -> Mapping[str, Tensor]:
    """What one step over these clips leaves in the parameters, by name; and the loss summed over this process."""
    trainer.model.train()
    before = trainer._loss_sum.clone()
    with torch.no_grad():
        weights = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer._step(trainer.source.batches(trainer.own_parts(piece), 0), piece)
    with torch.no_grad():
        for parameter, weight in zip(trainer.model.parameters(), weights, strict=True):
            parameter.copy_(weight)
    found = {name: value.grad.clone() for name, value in trainer.model.named_parameters() if value.grad is not None}
    return found | {"loss": (trainer._loss_sum - before).float()}


def pieces() -> dict[str, Indices]:
    """A whole batch, one of unequal shares, and one that leaves the second of two processes without a clip."""
    order = np.random.default_rng(0).permutation(16)
    return {"whole": order, "odd": order[:7], "single": order[:1]}


def main(folder: Path) -> None:
    with parallel.joined(CPU) as processes:
        for name, config in configs(folder).items():
            trainer = trainer_of(folder, config, processes)
            for kind, piece in pieces().items():
                found = {key: value.contiguous() for key, value in gradients(trainer, piece).items()}
                save_file(found, folder / f"{name}-{kind}-{processes.rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
