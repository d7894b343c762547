"""The demo's three frozen models: how they are made, shipped, and handed to the code that loads public weights.

    pipeline/demo/weights/     fp16 safetensors, under 4 MB in all, and a card for each
    FOLDER/weights/            the same as full standard files: what `pretrained` and `weights` keys point at

Shipped are only tensors that were learned: the image encoder's token embedding is rebuilt from its seed when the
standard file is written. Nothing here is special to loading: from FOLDER/weights on, these are weights like any other.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cache import atomic
from cache.errors import WeightsError
from cache.progress import Progress
from extract.pose.hrnet import HRNetPose, load_checkpoint
from pipeline.demo import model_cards
from pipeline.demo.tiny_image_encoder import (
    MODEL_CONFIG,
    MODEL_NAME,
    TOKEN_EMBEDDING,
    token_embedding,
    train_image_encoder,
)
from pipeline.demo.tiny_pose import VARIANT, pose_errors, train_pose
from pipeline.demo.tiny_video_encoder import FrameClassifier, frame_accuracy, train_video_encoder

logger = logging.getLogger(__name__)
Model = TypeVar("Model", bound=nn.Module)

SHIPPED = Path(__file__).parent / "weights"
IMAGE_ENCODER, POSE, VIDEO_ENCODER = MODEL_NAME, VARIANT, "timesformer_p8_tiny"
MAX_BYTES = 4 << 20
_IMAGE_ENCODER_STEPS, _POSE_STEPS, _VIDEO_ENCODER_STEPS = 850, 500, 1100


@dataclass(frozen=True, kw_only=True)
class FrozenModels:
    """Paths of full standard files."""

    image_encoder: Path
    """open_clip's layout, image and text tower."""
    image_encoder_architecture: Path
    """open_clip's configuration file for it."""
    pose: Path
    """The official HRNet layout."""
    video_encoder: Path
    """Facebook's TimeSformer layout."""


def unpack(folder: Path, *, source: Path = SHIPPED) -> FrozenModels:
    """Writes the standard files into FOLDER/weights, fp32; files that hold the right bytes stay.

    Raises:
        WeightsError: a shipped file is absent: the installation is not complete.
    """
    target = folder / "weights"
    image_encoder = _load(source, IMAGE_ENCODER)
    image_encoder[TOKEN_EMBEDDING] = token_embedding()
    architecture = target / MODEL_CONFIG.name
    atomic.write_bytes(architecture, MODEL_CONFIG.read_bytes())
    return FrozenModels(
        image_encoder_architecture=architecture,
        image_encoder=_write_once(target / f"{IMAGE_ENCODER}.safetensors", image_encoder),
        pose=_write_once(target / f"{POSE}.safetensors", _load(source, POSE)),
        video_encoder=_write_once(target / f"{VIDEO_ENCODER}.safetensors", _load(source, VIDEO_ENCODER)),
    )


def pack(state: Mapping[str, Tensor], path: Path) -> None:
    """Writes learned tensors as fp16 safetensors.

    Raises:
        ValueError: a value does not fit into fp16.
    """
    halves = {name: tensor.detach().half().contiguous() for name, tensor in state.items()}
    too_large = [name for name, tensor in halves.items() if not torch.isfinite(tensor).all()]
    if too_large:
        raise ValueError(f"{path.name}: {too_large[:3]} do not fit into fp16")
    atomic.write_bytes(path, save(halves))


def train_all(folder: Path, *, seed: int = 0, quick: bool = False) -> Path:
    """Trains the three models again and checks them: about fifteen minutes on one core.

    Args:
        folder: models and cards go into FOLDER/frozen-models, laid out as those that are shipped.
        seed: of initial weights and of the corpus; 0 gives those that are shipped.
        quick: a few steps only, for tests of the road; such models know nothing.

    Returns:
        FOLDER/frozen-models.

    Raises:
        WeightsError: a trained model fails its check.
    """
    out = folder / "frozen-models"
    part = 0.005 if quick else 1.0
    pose = _with_bar(partial(train_pose, seed=seed), "pose network", _POSE_STEPS, part)
    pack(official_names(pose), out / f"{POSE}.safetensors")
    video_encoder = _with_bar(partial(train_video_encoder, seed=seed), "video encoder", _VIDEO_ENCODER_STEPS, part)
    pack(video_encoder.encoder.state_dict(), out / f"{VIDEO_ENCODER}.safetensors")
    image_encoder = _with_bar(partial(train_image_encoder, seed=seed), "image encoder", _IMAGE_ENCODER_STEPS, part)
    pack(learned_tensors(image_encoder), out / f"{IMAGE_ENCODER}.safetensors")
    cards = write_cards(out, unpack(folder / "frozen-models-checked", source=out), pose, video_encoder)
    failed = [line for card in cards.values() for line in card.failed]
    if failed and not quick:
        raise WeightsError(f"the models in {out} fail their checks: {'; '.join(failed)}; train with another seed")
    return out


def write_cards(
    out: Path, models: FrozenModels, pose: HRNetPose, video_encoder: FrameClassifier
) -> dict[str, model_cards.ModelCard]:
    """Measures the models as they will be loaded, rounded to fp16 and back, and writes a card for each."""
    load_checkpoint(pose, models.pose)
    video_encoder.encoder.load_state_dict(load_file(models.video_encoder))
    cards = {
        POSE: model_cards.pose_card(*pose_errors(pose)),
        VIDEO_ENCODER: model_cards.video_encoder_card(frame_accuracy(video_encoder)),
        IMAGE_ENCODER: model_cards.image_encoder_card(models.image_encoder_architecture, models.image_encoder),
    }
    for name, card in cards.items():
        atomic.write_bytes(out / f"{name}.md", card.text.encode())
    return cards


def official_names(pose: nn.Module) -> dict[str, Tensor]:
    """The pose network's tensors under the names of official checkpoints, without BatchNorm's unused counters."""
    state = {name.removeprefix("backbone."): tensor for name, tensor in pose.state_dict().items()}
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def learned_tensors(image_encoder: nn.Module) -> dict[str, Tensor]:
    """The image encoder's tensors under open_clip's names, without the token embedding."""
    return {name: tensor for name, tensor in image_encoder.state_dict().items() if name != TOKEN_EMBEDDING}


def _with_bar(train: Callable[..., Model], name: str, steps: int, part: float) -> Model:
    steps = max(2, round(steps * part))
    with Progress(steps, name, unit="step") as progress:
        return train(steps=steps, progress=lambda _, text: progress.advance(now=text))


def _load(source: Path, name: str) -> dict[str, Tensor]:
    path = source / f"{name}.safetensors"
    if not path.exists():
        raise WeightsError(
            f"{path} does not exist: the demo's weights come with the package; install it again, or make them with "
            "`deconfound demo --train-frozen-models`"
        )
    return {key: tensor.float() for key, tensor in load_file(path).items()}


def _write_once(path: Path, state: Mapping[str, Tensor]) -> Path:
    data = save(dict(state))
    if not path.exists() or path.read_bytes() != data:
        atomic.write_bytes(path, data)
    return path
