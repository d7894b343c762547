"""Checkpoints that are whole after a kill at any point: versioned files, and one JSON that names them.

    checkpoints/last.json                               the commit: position, fingerprints, file names, sha256
    checkpoints/last-000012-000000.safetensors          weights after 12 epochs and 0 steps of the next
    checkpoints/last-000012-000000.optimizer.pt         optimiser state and random-number states
    checkpoints/best.json, best-....safetensors         the same without the optimiser

Replacing the JSON switches from one consistent set to the next; files that no JSON names are removed afterwards.
Weights that are not trained (a frozen CLIP) are not stored: they come from their own file, whose sha256 is in the
fingerprints.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from cache import atomic
from cache.errors import CacheError, CorruptShard
from train.divergence import check_finite_weights

Kind = Literal["last", "best"]


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run is: what the JSON of a checkpoint holds besides file names.

    `epoch` epochs are complete, and `step` optimiser steps of the next, whose loss sums to `loss_sum` over
    `num_clips` clips in `seconds`. `training_set` digests the training clips and targets.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    num_clips: int = 0
    seconds: float = 0.0
    best_score: float | None = None
    best_epoch: int | None = None
    training_set: str = ""
    task_kind: str = ""
    class_names: Sequence[str] = ()
    prompts: Sequence[str] = ()
    fingerprints: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """Part of the file names."""
        return f"{self.epoch:06d}-{self.step:06d}"


def save(
    folder: Path, kind: Kind, position: Position, model: nn.Module, optimizer: torch.optim.Optimizer | None
) -> None:
    """Commits a checkpoint and removes the one before it.

    Raises:
        ConfigError: a weight is NaN or infinite; the checkpoint before is untouched.
        StorageError: the disk refused; the checkpoint before is untouched.
    """
    frozen = frozen_state(model)
    state = {
        name: value.detach().cpu().contiguous() for name, value in model.state_dict().items() if name not in frozen
    }
    check_finite_weights(state)
    images = {f"{kind}-{position.tag}.safetensors": safetensors.torch.save(state)}
    if optimizer is not None:
        buffer = io.BytesIO()
        torch.save({"optimizer": optimizer.state_dict(), "random": random_states()}, buffer)
        images[f"{kind}-{position.tag}.optimizer.pt"] = buffer.getvalue()
    for name, image in images.items():
        atomic.write_bytes(folder / name, image)
    digests = {name: hashlib.sha256(image).hexdigest() for name, image in images.items()}
    atomic.write_json(folder / f"{kind}.json", {"files": digests, "position": asdict(position)})
    for path in folder.glob(f"{kind}-*"):
        if path.name not in images:
            path.unlink(missing_ok=True)


def frozen_state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that are not trained, as they are in the model now."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if not parameter.requires_grad}


def read_position(folder: Path, kind: Kind) -> Position | None:
    """How far the checkpoint is; None if there is none."""
    try:
        body = atomic.read_json(folder / f"{kind}.json")
    except FileNotFoundError:
        return None
    try:
        return Position(**body["position"])
    except (KeyError, TypeError) as error:
        raise CorruptShard(f"{folder / f'{kind}.json'} is not a checkpoint of this version: {error}") from error


def require_position(folder: Path, kind: Kind) -> Position:
    """How far the checkpoint is; CacheError if there is none."""
    position = read_position(folder, kind)
    if position is None:
        raise CacheError(f"{folder} has no {kind!r} checkpoint; run `deconfound train` first")
    return position


def load_weights(folder: Path, kind: Kind, model: nn.Module) -> Position:
    """Puts a checkpoint's weights into a model of the same configuration.

    Raises:
        CacheError: there is no such checkpoint.
        CorruptShard: a file is absent or damaged, or the weights are of another model.
    """
    position = require_position(folder, kind)
    path = _checked(folder, kind, ".safetensors")
    try:
        model.load_state_dict({**safetensors.torch.load_file(path), **frozen_state(model)})
    except (SafetensorError, RuntimeError) as error:
        raise CorruptShard(f"{path} does not fit the model of this run's config.json: {error}") from error
    return position


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restores the optimiser and the random-number states from the last checkpoint."""
    path = _checked(folder, "last", ".optimizer.pt")
    try:
        body = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CorruptShard(f"{path} cannot be read: {error}") from error
    optimizer.load_state_dict(body["optimizer"])
    restore_random_states(body["random"])


def random_states() -> dict[str, Tensor]:
    """States of torch's generators, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda:{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random_states(states: Mapping[str, Tensor]) -> None:
    """The inverse of `random_states`; devices that are not here are skipped."""
    torch.set_rng_state(states["cpu"])
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda:{index}" in states:
            torch.cuda.set_rng_state(states[f"cuda:{index}"], index)


def _checked(folder: Path, kind: Kind, ending: str) -> Path:
    """The file of a checkpoint with that ending, its sha256 checked."""
    digests = atomic.read_json(folder / f"{kind}.json")["files"]
    names = [Path(name).name for name in digests if name.endswith(ending)]
    if not names:
        raise CorruptShard(f"{folder / f'{kind}.json'} names no file that ends in {ending}")
    path = folder / names[0]
    if not path.exists() or atomic.sha256_file(path) != digests[names[0]]:
        raise CorruptShard(
            f"{path} is absent or does not match its sha256; delete the run {folder.parent} and train again"
        )
    return path
