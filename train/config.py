"""Everything a person may choose about training: `[train]` in a recipe, `--set train.epochs=10`.

A reader may ask why `batch_size` counts clips of one optimiser step and not of one forward pass: the step is what the
result depends on, so a smaller GPU changes `accumulate` and nothing else.
"""

import dataclasses
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cache import settings
from train.encoders.timesformer import TimeSformerConfig
from train.models.causal_config import CausalConfig
from train.models.cmdcl import CMDCLConfig
from train.models.pcmci import PCMCIConfig
from train.models.pevl_config import PeVLConfig

Residency = Literal["auto", "memory_map", "ram", "device"]
METHODS = ("cmdcl", "pcmci", "pevl")
"""Names of the methods; each has a table of that name under [train]."""


@dataclass(frozen=True, kw_only=True)
class VideoEncoderConfig:
    """The TimeSformer: its shape, where its weights come from, and whether it is trained."""

    pretrained: str = "8x32_224_K400"
    """A tag of Facebook's releases, a path to a weights file, or `none` for random weights."""
    frozen: bool = False
    """Compute pooled tokens once and train the heads alone: segment centres, no augmentation."""
    seed: int = 0
    """Seeds random weights; unused otherwise."""
    image_size: int = 224
    """Height and width of a frame, in pixels."""
    patch_size: int = 16
    """Side of a patch, in pixels; must divide image_size."""
    width: int = 768
    """Token width d_v."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads; must divide width."""
    mlp_ratio: int = 4
    """Hidden width of a block's feed-forward layer, in multiples of width."""
    drop_path: float = 0.1
    """Probability of dropping a residual branch in the last block; grows linearly from 0 in the first."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""
    resize: int = 256
    """Test view: the frame's short side becomes this many pixels before the centre crop of image_size."""
    mean: tuple[float, ...] = (0.45, 0.45, 0.45)
    """Subtracted from RGB in [0, 1]. Facebook's TimeSformers were trained with 0.45 (not CLIP's mean)."""
    std: tuple[float, ...] = (0.225, 0.225, 0.225)
    """Divides RGB after the mean is subtracted."""

    def __post_init__(self) -> None:
        if not self.pretrained:
            raise ValueError("pretrained may not be empty; use pretrained = 'none' for random weights")
        if self.resize < self.image_size:
            raise ValueError(f"resize {self.resize} is smaller than image_size {self.image_size}: the crop cannot fit")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} take three numbers each, std positive ones")
        self.timesformer(1)  # checks the shape

    def timesformer(self, num_frames: int) -> TimeSformerConfig:
        """The encoder's shape for L = `num_frames`."""
        names = {entry.name for entry in dataclasses.fields(TimeSformerConfig)} - {"num_frames"}
        return TimeSformerConfig(num_frames=num_frames, **{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What the TimeSformer sees in training; one draw per clip, the same for all its frames.

    The defaults are those of MSQNet's code. Visual prompts come from the cache and are never augmented. PeVL has views
    of its own: [train.pevl].
    """

    instants: Literal["random", "centre"] = "random"
    """Which cached instant of each of the L segments: a random one, or the centre as in testing."""
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Sides of the square crop in multiples of the frame's short side, one drawn; its place is uniform."""
    flip: float = 0.5
    """Probability of mirroring left and right; 0 where classes name a side."""
    jitter: float = 0.8
    """Probability of changing the colours."""
    brightness: float = 0.4
    """Largest change of brightness, as a share."""
    contrast: float = 0.4
    """Largest change of contrast, as a share."""
    saturation: float = 0.2
    """Largest change of saturation, as a share."""
    hue: float = 0.1
    """Largest change of hue, in turns of the colour circle."""
    grey: float = 0.2
    """Probability of dropping colour."""

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ValueError(f"scales = {self.scales}: give one or more numbers in (0, 1]")
        for name in ("flip", "jitter", "brightness", "contrast", "saturation", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: it must lie between 0 and 1")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue = {self.hue}: it must lie between 0 and 0.5")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimiser and learning-rate schedule."""

    name: Literal["adam", "adamw"] = "adam"
    """Update rule; `adamw` decouples the weight decay."""
    learning_rate: float = 1e-5
    """Peak learning rate, the same for all parameters."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Decay of the two moments."""
    weight_decay: float = 0.0
    """On weights of linear and convolution layers, nothing else. Chosen: none, as the CMDCL paper names none."""
    grad_clip: float = 1.0
    """Largest norm of the whole gradient; 0 does not clip. Chosen: the paper does not say."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate over all steps after the warm-up: to 0 along half a cosine, or constant."""
    warmup_epochs: float = 0.0
    """Epochs in which the learning rate grows linearly from 0."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate = {self.learning_rate}: it must be positive")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas = {self.betas}: give two numbers in [0, 1)")
        for name in ("weight_decay", "grad_clip", "warmup_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: method, task, splits, schedule."""

    method: Literal["cmdcl", "pcmci", "pevl"] = "cmdcl"
    """Which model; its own settings are in the table of that name."""
    variant: str = ""
    """A name for this setting of the model's switches, shown in reports; empty means the full model."""
    task: str
    """The dataset's task to train on."""
    protocol: str = "default"
    """The dataset's protocol that says which clip is in which split."""
    train_split: str = "train"
    """Trained on."""
    validation_split: str = ""
    """Scored after every epoch to keep the best checkpoint; empty: there is none, the last checkpoint counts."""
    predict_splits: tuple[str, ...] = ("test",)
    """Splits whose logits are written at the end."""
    num_frames: int = 16
    """L: frames used per clip, drawn from the F cached ones; PeVL's T_v."""
    epochs: int = 80
    """Passes over the training split."""
    batch_size: int = 16
    """Clips per optimiser step, over all processes of a run. Chosen: the CMDCL paper does not say."""
    accumulate: int = 1
    """Forward passes that one batch is split into (of several processes: each one's share of it).

    Saves memory; changes nothing but rounding and dropout draws. PeVL needs pevl.gradient_cache for it.
    """
    seed: int = 0
    """Seeds initial heads, order of clips, sampled frames, augmentation and dropout."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of training; bf16 is autocast with softmax and losses in fp32. Predictions are always fp32."""
    compile: bool = False
    """Compile the model with torch.compile: minutes at the start, faster steps on most GPUs; changes rounding alone."""
    features: Residency = "auto"
    """Where visual prompts and tokens of a frozen encoder live in training: on disk behind a memory map, in RAM, or on
    the device. `auto` takes the nearest place of which they need at most half of what is free, and says which."""
    checkpoint_minutes: float = 15.0
    """Also save inside an epoch after this long; a stopped run loses no more. The result does not depend on it."""
    video_encoder: VideoEncoderConfig = field(default_factory=VideoEncoderConfig)
    """The TimeSformer of CMDCL and PCMCI."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Frame sampling and augmentation; unused with video_encoder.frozen."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser and schedule."""
    cmdcl: CMDCLConfig = field(default_factory=CMDCLConfig)
    """CMDCL's switches and sizes."""
    pcmci: PCMCIConfig = field(default_factory=PCMCIConfig)
    """PCMCI's switches and sizes."""
    pevl: PeVLConfig = field(default_factory=PeVLConfig)
    """PeVL's switches and sizes."""

    def __post_init__(self) -> None:
        for name in ("num_frames", "epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be at least 1")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate = {self.accumulate} is more than the {self.batch_size} clips of a batch")
        if not 0 <= self.seed < 2**63 or self.checkpoint_minutes <= 0:
            raise ValueError(f"seed = {self.seed} must not be negative, checkpoint_minutes must be positive")
        if not self.task or not self.train_split:
            raise ValueError("task and train_split may not be empty")
        if len(set(self.predict_splits)) != len(self.predict_splits):
            raise ValueError(f"predict_splits = {list(self.predict_splits)}: a split is named twice")
        if self.method == "pevl":
            self._check_pevl()
        else:
            self.check_parts(1)

    def check_parts(self, num_processes: int) -> None:
        """ValueError where a batch, split over processes and `accumulate`, leaves too few clips for a forward pass."""
        parts = self.accumulate * num_processes
        if self.smallest_part > 1 and self.batch_size < self.smallest_part * parts:
            raise ValueError(
                f"batch_size = {self.batch_size} in {parts} parts (accumulate = {self.accumulate}, {num_processes} "
                "processes): scene = 'exchanged' needs two clips or more in one forward pass; lower accumulate or "
                "raise batch_size"
            )

    def _check_pevl(self) -> None:
        if self.pevl.contrasts_clips and self.accumulate > 1 and not self.pevl.gradient_cache:
            raise ValueError(
                f"accumulate = {self.accumulate}: PeVL contrasts the clips of a batch with each other, so a split "
                "batch is another objective; set pevl.gradient_cache = true (two forward passes, the same objective) "
                "or accumulate = 1"
            )
        if self.smallest_batch > self.batch_size:
            raise ValueError(f"batch_size = {self.batch_size}: PeVL contrasts clips with each other, so give 2 or more")
        if self.pevl.pose_frames % self.num_frames:
            raise ValueError(
                f"pevl.pose_frames = {self.pevl.pose_frames} is no multiple of num_frames = {self.num_frames}: every "
                "video frame needs a pose frame of the same instant"
            )

    @property
    def smallest_batch(self) -> int:
        """Fewest clips that a batch can be trained on; a smaller rest of an epoch joins the batch before it."""
        return 2 if self.method == "pevl" and self.pevl.contrasts_clips else self.smallest_part

    @property
    def smallest_part(self) -> int:
        """Fewest clips of one forward pass in training: two where they exchange their scenes."""
        return 2 if self.method != "pevl" and self.causal.scene == "exchanged" else 1

    @property
    def causal(self) -> CausalConfig:
        """The section of CMDCL or PCMCI, whichever is trained; ValueError for PeVL."""
        if self.method == "pevl":
            raise ValueError("PeVL is not one of the causal models")
        return self.pcmci if self.method == "pcmci" else self.cmdcl


def to_json(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON values (tuples become lists), without the tables of other methods."""
    others = set(METHODS) - {config.method}
    return {key: _to_json(value) for key, value in dataclasses.asdict(config).items() if key not in others}


def from_json(body: Mapping[str, Any]) -> TrainConfig:
    """The inverse of `to_json`, as strict as the loader of recipes.

    Raises:
        ConfigError: an unknown key or a value that is refused.
    """
    return settings.build(TrainConfig, body, "train")


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same configuration with weights files named from the root: a run is read from other folders later."""
    encoder, pevl = config.video_encoder, config.pevl
    return dataclasses.replace(
        config,
        video_encoder=dataclasses.replace(encoder, pretrained=_absolute(encoder.pretrained)),
        pevl=dataclasses.replace(pevl, clip=_absolute(pevl.clip), pretrained=_absolute(pevl.pretrained)),
    )


def _absolute(given: str) -> str:
    """Tags and names stay as they are; a path has a folder or an ending."""
    path = Path(given).expanduser()
    is_path = len(path.parts) > 1 or path.suffix in (".json", ".safetensors", ".pt", ".pth", ".pyth", ".bin")
    return str(path.absolute()) if is_path else given


LOCATION_KEYS = frozenset({"train.video_encoder.pretrained", "train.pevl.clip", "train.pevl.pretrained"})
"""Where weights are: a trained run may find them elsewhere, as fingerprints say whether they are the same."""
FREE_KEYS = frozenset(
    {
        "train.accumulate",
        "train.checkpoint_minutes",
        "train.compile",
        "train.features",
        "train.video_encoder.gradient_checkpointing",
        "train.cmdcl.class_chunk",
        "train.pcmci.class_chunk",
        "train.pevl.gradient_cache",
        "train.pevl.gradient_checkpointing",
    }
)
"""What a run may be continued with other values of: memory and time, not the result."""


def differences(
    stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "train.", *, free: Set[str] = FREE_KEYS
) -> list[str]:
    """One readable line for every key that is not free in which two configurations (as JSON) differ."""
    lines = []
    for key in sorted(stored.keys() | asked.keys()):
        old, new = stored.get(key, "nothing"), asked.get(key, "nothing")
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{prefix}{key}.", free=free)
        elif old != new and prefix + key not in free:
            lines.append(f"{prefix}{key}: the run has {old!r}, asked for {new!r}")
    return lines


def _to_json(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value
