"""Frames, or tokens of a frozen video encoder, to one vector per frame in the joint width: V of CMDCL and PCMCI.

The projection is the only layer between the video encoder and the interventions, so that nothing of the image-text
model reaches V before the front door.

Axis letters: n batch, L frames used, D joint width, d_v width of the video encoder.
"""

from torch import Tensor, nn

from cache.errors import ConfigError
from train.causal.scene import Scene, SceneMode
from train.encoders.timesformer import FramePool, TimeSformer, pool_frames


class FrameFeatures(nn.Module):
    """The video encoder (unless it is frozen), pooling per frame, and the projection to D."""

    def __init__(
        self,
        dim: int,
        *,
        num_frames: int,
        video_width: int,
        video_encoder: TimeSformer | None,
        pool: FramePool,
        scene: SceneMode = "kept",
    ) -> None:
        """Build around a video encoder.

        Args:
            dim: D.
            num_frames: L.
            video_width: d_v.
            video_encoder: trained with the rest; None when frame tokens of a frozen one will be given.
            pool: how its tokens become one vector per frame.
            scene: what becomes of the mean over the video's frames.

        Raises:
            ConfigError: the video encoder has another width or frame count, or one frame has nothing but a scene.
        """
        super().__init__()
        if video_encoder is not None:
            _check_encoder(video_encoder, num_frames, video_width)
        if scene != "kept" and num_frames == 1:
            raise ConfigError(f'scene = "{scene}" needs two frames or more: one frame minus its mean is nothing')
        self.num_frames = num_frames
        self.scene = Scene(scene)
        self.pool: FramePool = pool
        self.video_encoder = video_encoder
        self.projection = nn.Linear(video_width, dim)

    def forward(self, *, frames: Tensor | None = None, frame_tokens: Tensor | None = None) -> Tensor:
        """Frame features V.

        Args:
            frames: (n, L, 3, H, W), for the video encoder, normalised.
            frame_tokens: (n, L, d_v), pooled tokens of a frozen video encoder, in place of `frames`.

        Returns:
            (n, L, D).

        Raises:
            ValueError: both or neither are given, another shape, or frames without a video encoder.
        """
        if (frames is None) == (frame_tokens is None):
            raise ValueError("give either frames or frame_tokens, and not both")
        if frame_tokens is None:
            return self.scene(self.projection(self._encode(frames)))
        if frame_tokens.ndim != 3 or frame_tokens.shape[1:] != (self.num_frames, self.projection.in_features):
            raise ValueError(
                f"frame_tokens have shape {tuple(frame_tokens.shape)}: expected "
                f"(n, {self.num_frames}, {self.projection.in_features})"
            )
        return self.scene(self.projection(frame_tokens))

    def _encode(self, frames: Tensor | None) -> Tensor:
        """One video-encoder vector per frame: (n, L, d_v)."""
        if self.video_encoder is None:
            raise ValueError("frames were given to a model without a video encoder: give frame_tokens")
        return pool_frames(self.video_encoder(frames), self.num_frames, self.pool)


def _check_encoder(video_encoder: TimeSformer, num_frames: int, video_width: int) -> None:
    """Refuse an encoder that does not fit, before any weight is made."""
    found = (video_encoder.config.width, video_encoder.config.num_frames)
    if found != (video_width, num_frames):
        raise ConfigError(
            f"the video encoder has width {found[0]} for {found[1]} frames; "
            f"the model asks for width {video_width} and {num_frames} frames"
        )
