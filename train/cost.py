"""What a configuration's model costs: parameters and multiply-accumulates of every part, from the configuration alone.

`deconfound cost` prints it. Two conventions stand side by side, because the papers use both under the name "GFLOPs":
multiply-accumulates of linear layers and convolutions alone (CMDCL, PCMCI), and the same with attention's products
(PeVL, after AIM). All counts are of one forward pass for one clip, or for PeVL one view of it.
"""

from collections.abc import Mapping

from train.causal_costs import causal_parts
from train.config import TrainConfig
from train.encoders.clip_tower import ClipShape
from train.layer_costs import Cost, Part, linear, total
from train.pevl_costs import pevl_parts


def model_parts(config: TrainConfig, *, num_classes: int, num_joints: int, clip: ClipShape) -> dict[str, Part]:
    """Every part of the configured model, by name, in the order of computation.

    Args:
        config: the configuration of any method.
        num_classes: C.
        num_joints: J, of PeVL's pose encoder.
        clip: the CLIP whose features CMDCL and PCMCI read from the cache, or that PeVL adapts.
    """
    if config.method != "pevl":
        return causal_parts(config, num_classes=num_classes, clip=clip)
    return pevl_parts(
        config.pevl, num_frames=config.num_frames, num_classes=num_classes, num_joints=num_joints, clip=clip
    )


def sum_of(parts: Mapping[str, Part]) -> Cost:
    """All parts together: what one clip costs when nothing is cached."""
    return total(*(part.cost for part in parts.values()))


def sum_in_training(parts: Mapping[str, Part]) -> Cost:
    """The parts that a training step runs: those whose results are not cached."""
    return total(*(part.cost for part in parts.values() if not part.cached))


def text4vis(frames: int = 16, positions: int = 77) -> Cost:
    """Text4Vis and BIKE as a counter hooked to modules sees them: the proof of which counter CMDCL's table used.

    OpenAI's CLIP ViT-L/14 at 224 pixels, one prompt, and six temporal layers of width 768. nn.MultiheadAttention is
    invisible to such a counter, and so are biases and norms: what is left are convolution and feed-forward layers.
    """
    patches = 16**2
    return total(
        linear(3 * 14**2, 1024, tokens=frames * patches, bias=False),
        _unbiased_feed_forward(1024, tokens=frames * (1 + patches)).stacked(24),
        _unbiased_feed_forward(768, tokens=positions).stacked(12),
        _unbiased_feed_forward(768, tokens=frames).stacked(6),
    )


def _unbiased_feed_forward(width: int, *, tokens: int) -> Cost:
    hidden = 4 * width
    return linear(width, hidden, tokens=tokens, bias=False) + linear(hidden, width, tokens=tokens, bias=False)
