"""What CMDCL and PCMCI cost for one clip, part by part.

A reader may ask why CLIP's image tower is a part, where training never runs it: the papers count it, since without
cached features every clip costs it. It is marked `cached`, and so is a frozen TimeSformer.

Letters: L frames used, P patches per frame, C classes, D joint width, d width of an encoder.
"""

from collections.abc import Mapping

from train.causal.approximator import ApproximatorKind
from train.causal.mediator import SCALES
from train.config import TrainConfig
from train.encoder_costs import image_tower, timesformer
from train.encoders.clip_tower import ClipShape
from train.layer_costs import Cost, Part, attention, bare, feed_forward, linear, norm, products, total
from train.models.causal_config import CausalConfig
from train.models.cmdcl import CMDCLConfig
from train.models.pcmci import PCMCIConfig


def causal_parts(config: TrainConfig, *, num_classes: int, clip: ClipShape) -> dict[str, Part]:
    """Every part of CMDCL or PCMCI, for one clip.

    Args:
        config: a configuration of either.
        num_classes: C.
        clip: the CLIP whose features are cached.
    """
    settings, num_frames, encoder = config.causal, config.num_frames, config.video_encoder
    video = timesformer(encoder.timesformer(num_frames))
    text = bare(num_classes * settings.dim)
    heads = (
        _pcmci_heads(settings, num_frames, num_classes)
        if isinstance(settings, PCMCIConfig)
        else _cmdcl_heads(config.cmdcl, num_frames, num_classes)
    )
    return {
        "video_encoder": Part(video.frozen() if encoder.frozen else video, cached=encoder.frozen),
        "image_tower": Part(image_tower(clip).frozen().repeated(num_frames), cached=True),
        "frame_projection": Part(linear(encoder.width, settings.dim, tokens=num_frames)),
        "class_embeddings": Part(text if settings.train_text else text.frozen()),
        **{name: Part(cost) for name, cost in heads.items()},
        "classifier": Part(bare(num_classes * (settings.dim + 1))),
    }


def _cmdcl_heads(config: CMDCLConfig, frames: int, classes: int) -> Mapping[str, Cost]:
    dim, heads = config.dim, {}
    if config.tci:
        heads["tci"] = _gathering(frames, classes, dim) + _approximator(dim, config.approx, classes)
    if config.evidence:
        heads["evidence"] = products(classes, frames, dim) + bare(2 * classes + 1)
    if config.prompt_control:
        heads["prompt_projection"] = linear(dim, dim, tokens=frames, bias=False)
    if config.vci or config.temporal_control:
        layer = attention(frames, frames, dim, unseen=True) + norm(dim)
        if config.sta_ffn:
            layer += feed_forward(dim, 4 * dim, tokens=frames) + norm(dim)
        heads["temporal_layers"] = bare(frames * dim) + layer.stacked(config.sta_layers)
    if config.vci:
        heads["vci"] = _approximator(dim, config.approx, classes)
    return heads | {"decoder": _decoder(config, classes, memory=classes if config.vci else frames)}


def _pcmci_heads(config: PCMCIConfig, frames: int, classes: int) -> Mapping[str, Cost]:
    stages = {
        "ich": _ich(config, frames, classes),
        "ici": _relations(config, classes, layers=config.ici_layers, over_classes=True),
        "ivc": _ivc(config, frames, classes),
    }
    heads = {stage: stages[stage] for stage in config.stages}
    return heads | {"decoder": _decoder(config, classes, memory=classes if "ivc" in config.stages else frames)}


def _ich(config: PCMCIConfig, frames: int, classes: int) -> Cost:
    dim = config.dim
    correction = (
        norm(dim) + linear(dim, dim, tokens=classes, bias=False)
        if config.ich == "add"
        else _approximator(dim, config.approx, classes)
    )
    return _gathering(frames, classes, dim) + correction


def _ivc(config: PCMCIConfig, frames: int, classes: int) -> Cost:
    dim = config.dim
    over_frames = bare(frames * dim) + _relations(config, frames, layers=config.ivc_layers, over_classes=False)
    across = norm(dim) + attention(classes, frames, dim, unseen=True) if config.ivc == "relation" else Cost()
    return total(over_frames, _mediator(config, frames, classes), across, _approximator(dim, config.approx, classes))


def _mediator(config: PCMCIConfig, frames: int, classes: int) -> Cost:
    if config.mediator == "text":
        return Cost()
    read_from = config.memory_size if config.mediator == "memory" else sum(-(-frames // scale) for scale in SCALES)
    read = norm(config.dim) + attention(classes, read_from, config.dim, unseen=True)
    return read + bare(config.memory_size * config.dim) if config.mediator == "memory" else read


def _relations(config: PCMCIConfig, tokens: int, *, layers: int, over_classes: bool) -> Cost:
    """R over classes, or F over frames; `sum` gives each basis values of full width."""
    dim, extra = config.dim, (config.bases - 1) * config.dim
    layer = norm(dim) + attention(tokens, tokens, dim, unseen=True)
    if config.ici_agg == "sum":
        layer += linear(dim, extra, tokens=tokens) + products(tokens, tokens, extra)
    if config.ici_ffn and over_classes:
        layer += norm(dim) + feed_forward(dim, 4 * dim, tokens=tokens)
    if config.ici_prior and over_classes:
        layer += bare(config.bases)
    return layer.stacked(layers)


def _gathering(frames: int, classes: int, dim: int) -> Cost:
    """Cosines of classes and frames, and the frames weighted by what became of them."""
    return products(classes, frames, dim).stacked(2)


def _approximator(dim: int, kind: ApproximatorKind, classes: int) -> Cost:
    if kind == "linear":
        return linear(2 * dim, dim, tokens=classes)
    return norm(2 * dim) + linear(2 * dim, dim, tokens=classes) + linear(dim, dim, tokens=classes)


def _decoder(config: CausalConfig, classes: int, *, memory: int) -> Cost:
    dim = config.dim
    layer = total(
        attention(classes, classes, dim, unseen=True),
        attention(classes, memory, dim, unseen=True),
        feed_forward(dim, config.qformer_ffn, tokens=classes),
        norm(dim).stacked(3),
    )
    return layer.stacked(config.qformer_layers)
