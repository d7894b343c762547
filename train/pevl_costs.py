"""What PeVL costs for one view of one clip, part by part.

A reader may ask why the image tower is a part without work: video and pose share its frozen weights, so these are
counted once, and the work where it is done. Class prompts are counted at full length, and all of them: the papers add
them to a clip's cost, though testing encodes them once.

Letters: L video frames, T pose frames, J joints, P patches, N_t text positions, C classes, d width, D joint width.
"""

from collections.abc import Callable

from train.encoder_costs import clip_block, image_tower, text_tower
from train.encoders.clip_tower import ClipShape
from train.encoders.joint_tokens import HEATMAP_SHARE
from train.layer_costs import Cost, Part, attention, bare, bare_matrix, feed_forward, linear, products, total
from train.models.pevl_config import PeVLConfig


def pevl_parts(
    config: PeVLConfig, *, num_frames: int, num_classes: int, num_joints: int, clip: ClipShape
) -> dict[str, Part]:
    """Every part of PeVL, for one view of one clip.

    Args:
        config: switches and sizes.
        num_frames: L.
        num_classes: C, each with one prompt.
        num_joints: J.
        clip: the sizes of `config.clip`.
    """
    makers: dict[str, Callable[[], Cost]] = {
        "video": lambda: _video_encoder(config, num_frames, clip),
        "pose": lambda: _pose_encoder(config, num_joints, clip),
    }
    parts = {"image_tower": Part(image_tower(clip).frozen().weights(), note="frozen; video and pose share it")}
    parts |= {f"{name}_encoder": Part(make()) for name, make in makers.items() if name in config.encoders}
    if config.refines:
        parts["refinement"] = Part(_refinement(config, num_frames, num_joints, clip))
    parts["projections"] = Part(_projections(config, clip))
    if "text" in config.encoders:
        parts["text_encoder"] = _text_part(config, num_classes, clip)
    return parts | {"matching": Part(_matching(config, num_classes, clip))}


def text_encoder(config: PeVLConfig, clip: ClipShape) -> Cost:
    """The text tower with its adapters and the trained projection, on one prompt of full length."""
    width, length = clip.text_width, clip.context_length
    adapters = _adapter(width, config.text_ratio, tokens=length).stacked(2 * clip.text_depth)
    trained = adapters if "text" in config.adapters else Cost()
    return total(text_tower(clip).frozen(), trained, bare_matrix(width, clip.embed_dim, tokens=length))


def _text_part(config: PeVLConfig, num_classes: int, clip: ClipShape) -> Part:
    one = text_encoder(config, clip)
    return Part(
        one.repeated(num_classes),
        cached="text" not in config.adapters,
        note=f"{num_classes} x {one.with_attention / 1e9:.2f} per prompt; testing encodes them once",
    )


def _video_encoder(config: PeVLConfig, frames: int, clip: ClipShape) -> Cost:
    adapted = "video" in config.adapters
    patches = linear(3 * clip.patch_size**2, clip.width, tokens=clip.num_patches * frames).work()
    blocks = _adapted_blocks(
        config, clip, frames=frames, tokens=1 + clip.num_patches, adapted=adapted, temporal=config.video_temporal
    )
    return total(patches, blocks, bare(frames * clip.width) if adapted else Cost())


def _pose_encoder(config: PeVLConfig, joints: int, clip: ClipShape) -> Cost:
    width, frames, side = clip.width, config.pose_frames, clip.image_size // HEATMAP_SHARE // clip.patch_size
    class_and_time = bare(width + frames * width)
    if config.pose_input == "heatmaps":
        tokens = side**2
        embedding = linear(joints * clip.patch_size**2, width, tokens=tokens * frames) + bare(tokens * width)
        joint_weights = Cost()
    else:
        tokens = joints
        embedding = linear(2, width, tokens=joints * frames) + bare((joints + 1) * width)
        joint_weights = products(1, 1 + joints, width).repeated(frames)
    adapted = "pose" in config.adapters
    blocks = _adapted_blocks(config, clip, frames=frames, tokens=1 + tokens, adapted=adapted, temporal=True)
    return total(class_and_time, embedding, blocks, joint_weights)


def _adapted_blocks(
    config: PeVLConfig, clip: ClipShape, *, frames: int, tokens: int, adapted: bool, temporal: bool
) -> Cost:
    """Frozen blocks on `frames` x `tokens`, counted without their weights, and the adapters in them."""
    width = clip.width
    block = clip_block(width, clip.mlp_ratio, tokens=tokens).work().repeated(frames)
    if temporal:
        block += attention(frames, frames, width).work().repeated(tokens)
    if adapted:
        block += _adapter(width, config.ratio, tokens=frames * tokens).stacked(3 if temporal else 2)
    return block.stacked(clip.depth)


def _adapter(width: int, ratio: float, *, tokens: int) -> Cost:
    return feed_forward(width, max(1, round(width * ratio)), tokens=tokens)


def _refinement(config: PeVLConfig, frames: int, joints: int, clip: ClipShape) -> Cost:
    """UCMR. Masked attention has one key more, which stands for the indicator of Eq. 1."""
    width, patches = clip.width, clip.num_patches
    temperature = bare(1)
    mask = products(patches, 1, joints)
    cost = linear(width, width, tokens=patches, bias=False).stacked(2) + mask
    if config.p2v != "off":
        cost += linear(width, width, tokens=1 + patches, bias=False).stacked(2)
        cost += products(1 + patches, patches + 1, width) + products(1 + patches, patches, width)
    if config.v2p:
        keys = patches + (config.v2p_group == "nearest")
        cost += linear(width, width, tokens=joints, bias=False).stacked(2)
        cost += products(joints, keys, width) + products(joints, patches, width)
    return cost.repeated(frames) + temperature


def _projections(config: PeVLConfig, clip: ClipShape) -> Cost:
    """A clip's features, and those of every pose frame; with UCMR also of what was not refined, for its loss."""
    video = bare_matrix(clip.width, clip.embed_dim, tokens=1)
    pose = bare_matrix(clip.width, clip.embed_dim, tokens=1 + config.pose_frames)
    cost = total(*(one for name, one in (("video", video), ("pose", pose)) if name in config.encoders))
    return cost.repeated(2 if config.refines else 1)


def _matching(config: PeVLConfig, num_classes: int, clip: ClipShape) -> Cost:
    """Similarities with every class, or what stands for them; its learnable temperature."""
    dim = clip.embed_dim
    matched = "text" in config.encoders and config.fusion == "sgmc"
    joined = {"video", "pose"} <= set(config.encoders) and not matched
    cost = bare(1) + (linear(2 * dim, dim, tokens=1) if joined else Cost())
    if "text" not in config.encoders:
        return cost + linear(dim, num_classes, tokens=1)
    if config.fusion == "concat":
        return cost + products(1, num_classes, dim)
    words = num_classes * clip.context_length
    sizes = {"vs": (1, num_classes), "ps": (1, num_classes), "fw": (config.pose_frames, words)}
    return total(cost, *(products(*sizes[name], dim) for name in config.similarities))
