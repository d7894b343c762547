"""What the large encoders cost: TimeSformer, and the two towers of CLIP.

A reader may ask why the projection behind a tower counts as linear although it is no layer: it is a learned matrix, and
every counter of multiplications sees it as one.

Letters: L frames used, P patches per frame, N_t text positions, d width, D joint width.
"""

from train.encoders.clip_tower import ClipShape
from train.encoders.timesformer import TimeSformerConfig
from train.layer_costs import Cost, attention, bare, bare_matrix, feed_forward, linear, norm, total


def timesformer(config: TimeSformerConfig) -> Cost:
    """TimeSformer without head on L frames."""
    width, frames, patches = config.width, config.num_frames, config.num_patches
    in_time = attention(frames, frames, width).repeated(patches)
    in_space = attention(1 + patches, 1 + patches, width).repeated(frames)
    block = total(
        norm(width).stacked(3),
        in_time,
        linear(width, width, tokens=patches * frames),
        in_space,
        feed_forward(width, config.mlp_ratio * width, tokens=1 + patches * frames),
    )
    embeddings = bare((1 + (1 + patches) + frames) * width)
    return total(
        linear(3 * config.patch_size**2, width, tokens=patches * frames),
        embeddings,
        block.stacked(config.depth),
        norm(width),
    )


def image_tower(clip: ClipShape) -> Cost:
    """CLIP's image tower with its projection, on one image."""
    width, tokens = clip.width, 1 + clip.num_patches
    return total(
        linear(3 * clip.patch_size**2, width, tokens=clip.num_patches, bias=False),
        bare((1 + tokens) * width),
        norm(width).stacked(2),
        clip_block(width, clip.mlp_ratio, tokens=tokens).stacked(clip.depth),
        bare_matrix(width, clip.embed_dim, tokens=1),
    )


def text_tower(clip: ClipShape) -> Cost:
    """CLIP's text tower up to its last norm, on one prompt of full length; its projection as weights only."""
    width, length = clip.text_width, clip.context_length
    vocabulary = clip.vocab_size * width
    return total(
        Cost(params=vocabulary, trainable=vocabulary),
        bare(length * width),
        clip_block(width, clip.text_mlp_ratio, tokens=length).stacked(clip.text_depth),
        norm(width),
        bare_matrix(width, clip.embed_dim, tokens=0),
    )


def clip_block(width: int, mlp_ratio: float, *, tokens: int) -> Cost:
    """One block of either of CLIP's towers on one sequence."""
    hidden = int(width * mlp_ratio)
    return total(norm(width).stacked(2), attention(tokens, tokens, width), feed_forward(width, hidden, tokens=tokens))
