"""Checkpoints that are whole after a kill at any point: versioned files, and one JSON that names them.

    checkpoints/last.json                               the commit: position, fingerprints, file names, sha256
    checkpoints/last-000012-000000.safetensors          weights after 12 epochs and 0 steps of the next
    checkpoints/optimizer-000012-000000.safetensors     optimiser state by parameter, random-number states by process
    checkpoints/best.json, best-....safetensors         the same without the optimiser

Replacing the JSON switches from one consistent set to the next; files that no JSON names are removed afterwards.
Weights that are not trained (a frozen CLIP) are not stored: they come from their own file, whose sha256 is in the
fingerprints.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn, optim

from cache import atomic
from cache.errors import CacheError, CorruptShard
from train.divergence import check_finite_weights

Kind = Literal["last", "best"]
_OPTIMIZER = "optimizer"
_RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run is: what the JSON of a checkpoint holds besides file names.

    `epoch` epochs are complete, and `step` optimiser steps of the next, whose loss sums to `loss_sum` over
    `num_clips` clips in `seconds`, of which `data_seconds` were spent waiting for data. `training_set` digests the
    training clips and targets.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    num_clips: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
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
    folder: Path,
    kind: Kind,
    position: Position,
    model: nn.Module,
    optimizer: optim.Optimizer | None,
    random: Sequence[Mapping[str, Tensor]] = (),
) -> None:
    """Commits a checkpoint and removes the one before it.

    Args:
        folder: of the checkpoints.
        kind: last or best.
        position: how far the run is.
        model: its weights.
        optimizer: its state; None for a checkpoint that is only predicted from.
        random: states of torch's generators, of each process of the run.

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
        moments = _optimizer_state(model, optimizer) | _random_tensors(random)
        images[f"{_OPTIMIZER}-{position.tag}.safetensors"] = safetensors.torch.save(moments)
    for name, image in images.items():
        atomic.write_bytes(folder / name, image)
    digests = {name: hashlib.sha256(image).hexdigest() for name, image in images.items()}
    atomic.write_json(folder / f"{kind}.json", {"files": digests, "position": asdict(position)})
    written = (kind,) if optimizer is None else (kind, _OPTIMIZER)
    for path in [path for family in written for path in folder.glob(f"{family}-*")]:
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
    path = _checked(folder, kind, kind)
    try:
        model.load_state_dict({**safetensors.torch.load_file(path), **frozen_state(model)})
    except (SafetensorError, RuntimeError) as error:
        raise CorruptShard(f"{path} does not fit the model of this run's config.json: {error}") from error
    return position


def load_optimizer(folder: Path, model: nn.Module, optimizer: optim.Optimizer) -> list[dict[str, Tensor]]:
    """Restores the optimiser from the last checkpoint.

    Returns:
        The states of torch's generators, of each process that saved.

    Raises:
        CorruptShard: the file is absent, damaged, or of another model.
    """
    path = _checked(folder, "last", _OPTIMIZER)
    try:
        stored = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise CorruptShard(f"{path} cannot be read: {error}") from error
    state: dict[int, dict[str, Tensor]] = {}
    places = _places(model, optimizer)
    random: dict[int, dict[str, Tensor]] = {}
    for key, value in stored.items():
        family, _, rest = key.partition("/")
        entry, _, name = rest.partition("/")
        if family == _RANDOM:
            random.setdefault(int(entry), {})[name] = value
        elif name in places:
            state.setdefault(places[name], {})[entry] = value
        else:
            raise CorruptShard(f"{path} holds the state of {name!r}, which the model of this run's config.json lacks")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return [random[rank] for rank in sorted(random)]


def _places(model: nn.Module, optimizer: optim.Optimizer) -> dict[str, int]:
    """Parameter name -> its number in the optimiser's state dict."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
    return {name: numbers[id(value)] for name, value in model.named_parameters() if id(value) in numbers}


def _optimizer_state(model: nn.Module, optimizer: optim.Optimizer) -> dict[str, Tensor]:
    """`optimizer/<moment>/<parameter>` -> tensor."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer/{moment}/{name}": value.detach().cpu().contiguous()
        for name, number in _places(model, optimizer).items()
        for moment, value in state.get(number, {}).items()
    }


def _random_tensors(random: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """`random/<rank>/<device>` -> tensor."""
    return {f"{_RANDOM}/{rank}/{device}": state for rank, own in enumerate(random) for device, state in own.items()}


def _checked(folder: Path, kind: Kind, family: str) -> Path:
    """The file of a checkpoint whose name begins with `family`, its sha256 checked."""
    digests = atomic.read_json(folder / f"{kind}.json")["files"]
    names = [Path(name).name for name in digests if name.startswith(f"{family}-")]
    if not names:
        raise CorruptShard(f"{folder / f'{kind}.json'} names no {family} file of this version: train a new run")
    path = folder / names[0]
    if not path.exists() or atomic.sha256_file(path) != digests[names[0]]:
        raise CorruptShard(
            f"{path} is absent or does not match its sha256; delete the run {folder.parent} and train again"
        )
    return path
