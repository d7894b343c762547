"""Everything a person may choose about extraction: `[extract]` in a recipe, `--set extract.num_frames=16`.

A reader may ask why person boxes have no default: the three honest answers (the whole frame, boxes from a file, a
detector) give different joints, and a silent choice would end up in a paper. Asking for joints without choosing is
refused.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from cache.errors import ConfigError
from extract.video.sampling import Sampling

Stream = Literal["frames", "visual_prompts", "joints", "text"]
BoxSource = Literal["whole_frame", "file", "detector"]
DetectorName = Literal[
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "keypointrcnn_resnet50_fpn",
    "ssdlite320_mobilenet_v3_large",
]
SamplingPolicy = Literal["uniform", "fps", "every_nth"]


def _require_at_least(minimum: float, **values: float) -> None:
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"{name} = {value}: it must be at least {minimum}")


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig:
    """The frozen CLIP image tower (and the text tower that goes with it)."""

    model: str = "ViT-B-16-quickgelu"
    """open_clip's model name. Weights released by OpenAI need the `-quickgelu` variant."""
    pretrained: str = "openai"
    """A tag known to open_clip, a path to a weights file, or `none` for random weights."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass. bf16 is faster and is part of the fingerprint."""
    batch_size: int = 64
    """Images per forward pass: constant, the last batch is padded."""
    seed: int = 0
    """Seeds random weights; unused otherwise."""

    def __post_init__(self) -> None:
        _require_at_least(1, batch_size=self.batch_size)
        if not self.model or not self.pretrained:
            raise ValueError("model and pretrained may not be empty; use pretrained = 'none' for random weights")


@dataclass(frozen=True, kw_only=True)
class PoseConfig:
    """The frozen HRNet and where its person boxes come from."""

    model: Literal["hrnet_w32", "hrnet_w48", "hrnet_w8_tiny"] = "hrnet_w32"
    """Width of the network."""
    weights: str = "hrnet_w32_coco_256x192"
    """A known tag, a path to an official or mmpose checkpoint, or `none` for random weights."""
    boxes: BoxSource | None = None
    """Where person boxes come from. There is no default: `whole_frame`, `file` or `detector`."""
    boxes_file: str = ""
    """The file of person boxes; needed when boxes = 'file'."""
    detector: DetectorName = "fasterrcnn_resnet50_fpn"
    """torchvision's name of the detector; this and the next five have an effect only where people are followed."""
    detector_weights: str = ""
    """Empty for the weights that torchvision released for it, a path to a file of them, or `none` for random ones."""
    detect_every: int = 1
    """Kept frames from one that the detector sees to the next; between them the box is interpolated."""
    min_box_score: float = 0.5
    """Boxes below are not followed. Fast or upside-down people score low."""
    min_box_area: float = 0.002
    """Smallest share of the frame that a followed box covers."""
    max_gap: int = 10
    """Farthest two sightings between which the box is interpolated: in kept frames, or in frames of the boxes file."""
    input_height: int = 256
    """Pixels of the network's input."""
    input_width: int = 192
    """Pixels of the network's input."""
    codec: Literal["msra", "udp", "dark"] = "msra"
    """How heatmaps become coordinates; it must be the one that the weights were trained with."""
    flip_test: bool = False
    """Average with the mirrored image, as the published numbers do; doubles the cost."""
    batch_size: int = 64
    """Person crops per forward pass: constant, the last batch is padded."""
    seed: int = 0
    """Seeds random weights; unused otherwise."""

    def __post_init__(self) -> None:
        _require_at_least(1, batch_size=self.batch_size)
        for name, value in (("input_height", self.input_height), ("input_width", self.input_width)):
            if value < 32 or value % 32:
                raise ValueError(f"{name} = {value}: it must be a positive multiple of 32")
        if self.boxes == "file" and not self.boxes_file:
            raise ValueError("boxes = 'file' needs boxes_file = PATH")
        self._check_following()

    def _check_following(self) -> None:
        _require_at_least(1, detect_every=self.detect_every, max_gap=self.max_gap)
        for name, value in (("min_box_score", self.min_box_score), ("min_box_area", self.min_box_area)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} = {value}: it must lie between 0 and 1")
        if self.detect_every > self.max_gap:
            raise ValueError(
                f"detect_every = {self.detect_every}, but boxes are interpolated over at most max_gap = {self.max_gap} "
                "frames: nobody would be found between two looks"
            )


@dataclass(frozen=True, kw_only=True)
class FramesConfig:
    """The JPEGs that training fine-tunes a video encoder on."""

    short_side: int = 256
    """Pixels of the shorter side; the aspect is kept and smaller videos are not enlarged."""
    quality: int = 95
    """JPEG quality, with 4:2:0 chroma."""

    def __post_init__(self) -> None:
        _require_at_least(16, short_side=self.short_side)
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality = {self.quality}: it must lie between 1 and 100")


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """When a decoder counts as stuck, and when a damaged video counts as failed."""

    timeout_seconds: float = 120.0
    """Longest silence of a decoder: one that reads no packet, frame or clip for so long is killed."""
    max_pixels: int = 33_177_600
    """Largest frame, height x width; the default is 8K."""
    max_clip_bytes: int = 4 << 30
    """Most bytes that one clip may hold at once: its JPEGs and resized images, and whole frames for `joints`."""
    min_decodable: float = 0.9
    """Smallest decodable share of a video that ends early; below it the video counts as truncated."""
    recycle_after: int = 500
    """Videos per decode process; decoders leak a little with every broken file."""

    def __post_init__(self) -> None:
        _require_at_least(1, max_pixels=self.max_pixels, recycle_after=self.recycle_after)
        _require_at_least(1, max_clip_bytes=self.max_clip_bytes)
        if not self.timeout_seconds > 0:
            raise ValueError(f"timeout_seconds = {self.timeout_seconds}: it must be positive")
        if not 0 <= self.min_decodable <= 1:
            raise ValueError(f"min_decodable = {self.min_decodable}: it must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """What to extract from every clip."""

    streams: tuple[Stream, ...] = ("frames", "visual_prompts", "text")
    """Products to make; `joints` also needs pose.boxes."""
    sampling: SamplingPolicy = "uniform"
    """Which instants of a clip are kept: `uniform` takes num_frames, `fps` and `every_nth` the key of their name."""
    num_frames: int = 64
    """F of `uniform`: the centres of F equal segments of the clip. Without effect otherwise."""
    fps: float = 0.0
    """Of `fps`: rows per second of the clip. 0: not given."""
    every_nth: int = 0
    """Of `every_nth`: displayed frames from one row to the next, the clip's first frame included. 0: not given."""
    shard_size: int = 64
    """Clips per shard: the unit of restart."""
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    """The frozen CLIP."""
    pose: PoseConfig = field(default_factory=PoseConfig)
    """The frozen HRNet."""
    frames: FramesConfig = field(default_factory=FramesConfig)
    """The stored JPEGs."""
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    """Limits on decoding."""

    def __post_init__(self) -> None:
        _require_at_least(1, num_frames=self.num_frames, shard_size=self.shard_size)
        self._check_sampling()
        known = get_args(Stream)
        unknown = [stream for stream in self.streams if stream not in known]
        if unknown or not self.streams:
            raise ValueError(f"streams = {list(self.streams)}: choose one or more of {', '.join(known)}")
        if len(set(self.streams)) != len(self.streams):
            raise ValueError(f"streams = {list(self.streams)}: a stream is named twice")
        if "joints" in self.streams and self.pose.boxes is None:
            raise ConfigError(
                "the stream `joints` needs person boxes and there is no default: say --whole-frame, --boxes FILE or "
                "--detector NAME, or set extract.pose.boxes to "
                f"{' or '.join(repr(choice) for choice in get_args(BoxSource))}"
            )

    def _check_sampling(self) -> None:
        if self.sampling not in get_args(SamplingPolicy):
            raise ValueError(f"sampling = {self.sampling!r}: choose one of {', '.join(get_args(SamplingPolicy))}")
        for name, value in (("fps", self.fps), ("every_nth", self.every_nth)):
            if value < 0 or not math.isfinite(value):
                raise ValueError(f"{name} = {value}: it must be a positive number, or 0 for not given")
            if self.sampling == name and not value:
                raise ValueError(f"sampling = {name!r} needs {name}, a positive number")
            if self.sampling != name and value:
                raise ValueError(
                    f"{name} = {value}, but sampling = {self.sampling!r}: set sampling = {name!r}, or {name} = 0"
                )

    @property
    def instants(self) -> Sampling:
        """Which instants of a clip are kept."""
        if self.sampling == "fps":
            return Sampling(fps=float(self.fps))
        if self.sampling == "every_nth":
            return Sampling(every_nth=self.every_nth)
        return Sampling(num_frames=self.num_frames)
