"""Everything a person may choose about PeVL: `[train.pevl]` in a recipe. The model is in train/models/pevl.py.

Which switches belong to which table of the paper stands with each. Where the paper is silent, the field says what was
chosen; the reasons are those of the code it builds on (AIM for adapters, X-CLIP of Ma et al. for the attention over
the frame-word matrix).
"""

from dataclasses import dataclass
from typing import Literal, get_args

Encoder = Literal["video", "pose", "text"]
Similarity = Literal["vs", "ps", "fw"]
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SMALLEST_TAU, LARGEST_TAU = 0.01, 1.0
"""Learnable temperatures stay between these."""


@dataclass(frozen=True, kw_only=True)
class PeVLConfig:
    """Every switch and size of PeVL; the defaults are the full model with ViT-B/16."""

    clip: str = "ViT-B-16-quickgelu"
    """open_clip's model name or a configuration file in its format; must be the CLIP of the cache's text."""
    pretrained: str = "openai"
    """A tag known to open_clip, a path to a weights file, or `none` for random weights."""
    seed: int = 0
    """Seeds random CLIP weights; unused otherwise."""
    crop_area: tuple[float, ...] = (0.08, 1.0)
    """Training view: smallest and largest share of the frame's area in the crop."""
    crop_aspect: tuple[float, ...] = (0.75, 1.3333333333333333)
    """Training view: smallest and largest width / height of the crop."""
    flip: float = 0.5
    """Training view: probability of mirroring frames and joints; left and right joints change places."""
    crops: int = 3
    """Crops of the test view, along the longer side: 1 (centre) or 3; their similarities are averaged."""
    mean: tuple[float, ...] = CLIP_MEAN
    """Subtracted from RGB in [0, 1]: CLIP's."""
    std: tuple[float, ...] = CLIP_STD
    """Divides RGB after the mean is subtracted: CLIP's."""
    pose_frames: int = 48
    """T: pose frames, a multiple of train.num_frames (T_v) or equal to it."""
    min_score: float = 0.3
    """A joint with a lower score counts as missing, as does one outside the crop."""
    pose_input: Literal["coordinates", "heatmaps"] = "coordinates"
    """What the pose encoder reads: a token per joint, or patches of 112-pixel heatmaps (Table 9)."""
    encoders: tuple[Encoder, ...] = ("video", "pose", "text")
    """Modalities (Tables 4 and 7); without text, a linear classifier with cross-entropy replaces the similarities."""
    adapters: tuple[Encoder, ...] = ("video", "pose", "text")
    """Encoders that have adapters (Tables 4 and 8); the others are the frozen CLIP."""
    cache_tokens: bool = True
    """Without any adapter: compute image tokens once, of the test views, and train on them without augmentation."""
    gradient_checkpointing: bool = False
    """Recompute each block of the towers in the backward pass: much less memory, about a third more time."""
    gradient_cache: bool = False
    """With train.accumulate: features of all shares first, then their loss, then each share once more (two passes).

    The loss is that of the whole batch, every clip against every other; without it a split batch is refused.
    """
    ratio: float = 0.25
    """Bottleneck of video and pose adapters, as a share of the width."""
    text_ratio: float = 0.5
    """Bottleneck of text adapters. Chosen: no ratio fits the paper's parameter counts exactly."""
    mlp_scale: float = 0.5
    """Weight of the adapters beside the feed-forward layers (AIM)."""
    video_temporal: bool = False
    """Attention over time in the video encoder, as in AIM. Chosen: none, from the published parameter count."""
    drop_path: float = 0.2
    """Stochastic depth of the temporal and feed-forward adapters' branches (AIM on Diving48)."""
    p2v: Literal["key", "inside", "outer", "off"] = "key"
    """Pose-to-video refinement: how the pose mask enters Eq. 1. Chosen: it masks keys; `inside` is Eq. 1 as printed.

    With `outer` (queries and keys) class tokens never change, so that V is the mean of the patches there.
    """
    v2p: bool = True
    """Video-to-pose refinement (Eq. 2)."""
    v2p_group: Literal["none", "nearest"] = "none"
    """Which patches a joint reads: all (Eq. 2 as printed), or those to which it is the nearest joint."""
    v2p_radius: int = 2
    """Largest distance of v2p_group = "nearest", in patches."""
    mask_dilate: int = 0
    """Patches by which a joint's weight spreads in the mask; 0 as in the paper."""
    mask_detach: bool = False
    """Stop the gradient from the mask to the pose encoder; the paper trains end to end."""
    pose_pool: Literal["cls", "cls+mean"] = "cls"
    """What stands for a pose frame: its class token, or that plus the mean of its joints."""
    lambda_r: float = 0.1
    """Weight of the refinement loss."""
    fusion: Literal["sgmc", "concat"] = "sgmc"
    """Matching of videos and texts: by similarities, or (Table 4 before SGMC) by features that a linear layer joins."""
    similarities: tuple[Similarity, ...] = ("vs", "ps", "fw")
    """Video-sentence, pose-sentence, frame-word: their mean (Table 6). Only with text and fusion = "sgmc"."""
    strengths: Literal["semantic", "uniform"] = "semantic"
    """Strength of a negative: by how little its text resembles the positive's, or the same for all (vanilla)."""
    strength_text: Literal["cached", "live"] = "cached"
    """Texts that strengths compare: the frozen embeddings of the cache, or those of the adapted tower."""
    tau: float = 0.01
    """Where the learnable temperature of the similarities starts: CLIP's. It stays between 0.01 and 1."""
    tau_a: float = 0.01
    """Temperature of the attention over the frame-word matrix (X-CLIP, Ma et al. 2022)."""
    tau_r: float = 0.07
    """Where the learnable temperature of the refinement loss starts; it stays between 0.01 and 1."""
    new_lr_mult: float = 10.0
    """Learning rate of new modules, in multiples of the projections'; 1 is the paper to the letter."""

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_ranges()
        self._check_combination()

    def _check_choices(self) -> None:
        for name, choices in (("encoders", Encoder), ("adapters", Encoder), ("similarities", Similarity)):
            values = getattr(self, name)
            if len(set(values)) != len(values) or not set(values) <= set(get_args(choices)):
                raise ValueError(f"{name} = {list(values)}: give each of {', '.join(get_args(choices))} at most once")
        if not self.clip or not self.pretrained:
            raise ValueError("clip and pretrained may not be empty; use pretrained = 'none' for random weights")
        if self.crops not in (1, 3):
            raise ValueError(f"crops = {self.crops}: give 1 or 3")

    def _check_ranges(self) -> None:
        for name in ("pose_frames", "v2p_radius"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be at least 1")
        for name in ("ratio", "text_ratio", "tau_a", "new_lr_mult"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be positive")
        for name in ("mask_dilate", "lambda_r", "mlp_scale"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be 0 or more")
        for name in ("flip", "min_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: it must lie between 0 and 1")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path = {self.drop_path}: it must lie in [0, 1)")
        self._check_temperatures()
        self._check_view()

    def _check_temperatures(self) -> None:
        for name in ("tau", "tau_r"):
            if not SMALLEST_TAU <= getattr(self, name) <= LARGEST_TAU:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: it must lie between {SMALLEST_TAU} and {LARGEST_TAU:g}"
                )

    def _check_view(self) -> None:
        for name in ("crop_area", "crop_aspect"):
            values = getattr(self, name)
            if len(values) != 2 or not 0 < values[0] <= values[1]:
                raise ValueError(f"{name} = {list(values)}: give the smallest and the largest, both positive")
        if self.crop_area[1] > 1:
            raise ValueError(f"crop_area = {list(self.crop_area)}: shares of the frame's area are at most 1")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} take three numbers each, std positive ones")

    def _check_combination(self) -> None:
        if not {"video", "pose"} & set(self.encoders):
            raise ValueError(f"encoders = {list(self.encoders)}: give video, pose or both")
        absent = set(self.adapters) - set(self.encoders)
        if absent:
            raise ValueError(f"adapters = {list(self.adapters)}, but encoders lack {', '.join(sorted(absent))}")
        if self.refines and not {"video", "pose"} <= set(self.encoders):
            raise ValueError("p2v and v2p join video and pose: with one of them, set p2v = 'off' and v2p = false")
        if self.refines and self.pose_input == "heatmaps":
            raise ValueError("p2v and v2p need joint tokens: with heatmaps, set p2v = 'off' and v2p = false")
        self._check_fusion()

    def _check_fusion(self) -> None:
        if self.fusion != "sgmc" or "text" not in self.encoders:
            return
        if not self.similarities:
            raise ValueError("similarities may not be empty: give one or more of vs, ps, fw")
        needs = {"vs": "video", "ps": "pose", "fw": "pose"}
        wrong = [name for name in self.similarities if needs[name] not in self.encoders]
        if wrong:
            raise ValueError(f"similarities = {list(self.similarities)}: {', '.join(wrong)} need encoders that are off")

    @property
    def contrasts_clips(self) -> bool:
        """Whether the clips of a batch are each other's negatives: then a part of a batch is another objective."""
        return self.is_contrastive or (self.refines and self.lambda_r > 0)

    @property
    def is_contrastive(self) -> bool:
        """Whether clips are matched with texts; else a linear classifier takes their place."""
        return "text" in self.encoders

    @property
    def refines(self) -> bool:
        """Whether the UCMR block has a part that is on."""
        return self.p2v != "off" or self.v2p
