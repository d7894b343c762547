"""What the streams need of one clip's frames, made piece by piece, so that the frames themselves can be let go.

Joints are the exception: whole frames are what the pose network's crops are cut from, so they are kept, and a limit
says how many. The limit counts everything that is kept, and where the packet table already tells that it will be
exceeded, nothing is decoded.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from cache.encoder_spec import ImageEncoderSpec
from cache.errors import FailureCode, VideoError
from extract.config import FramesConfig
from extract.video.pieces import Images, Piece
from extract.video.probe import VideoInfo
from extract.video.sampling import Seconds, frames_on_screen

_CHROMA_420 = 2


class ClipPixels:
    """JPEGs, resized images and whole frames of one clip, as far as its streams need them.

    Attributes:
        error: why nothing is kept any more; None if all is well.
        jpegs: U files, for `frames`.
    """

    def __init__(
        self,
        info: VideoInfo,
        instants: Seconds,
        *,
        joints: bool,
        frames: FramesConfig | None,
        encoder: ImageEncoderSpec | None,
        max_bytes: int,
    ) -> None:
        """An empty collection.

        Args:
            info: the video.
            instants: (F,) of the clip.
            joints: keep whole frames.
            frames: how JPEGs are made; None: no JPEGs.
            encoder: the image encoder to resize for; None: no resized images.
            max_bytes: most bytes of everything together.

        Raises:
            VideoError: TOO_LARGE, whole frames and resized images alone will be more than that.
        """
        self.error: VideoError | None = None
        self.jpegs: list[bytes] = []
        self._jpeg_bytes = 0
        self._joints, self._frames, self._encoder, self._max_bytes = joints, frames, encoder, max_bytes
        self._expected = len(np.unique(frames_on_screen(info.frame_seconds, instants)))
        self._images, self._inputs = _Stack(self._expected), _Stack(self._expected)
        whole = info.height * info.width * 3 if joints else 0
        resized = 3 * encoder.image_size**2 if encoder is not None else 0
        self._check(self._expected * (whole + resized))

    @property
    def pixels(self) -> Mapping[str, Images]:
        """`images` (U, H, W, 3) as displayed, `inputs` (U, 3, S, S)."""
        named = {"images": self._images} if self._joints else {}
        named |= {"inputs": self._inputs} if self._encoder is not None else {}
        return {name: stack.images for name, stack in named.items()}

    def add(self, piece: Piece) -> None:
        """Makes what is needed of some frames; once there is an error, nothing."""
        if piece.first == 0:
            self._drop()
        if self.error is not None:
            return
        if self._joints:
            self._images.add(piece.images)
        if self._encoder is not None:
            self._inputs.add(_encoder_inputs(piece.images, self._encoder))
        if self._frames is not None:
            jpegs = [encode_jpeg(image, self._frames) for image in piece.images]
            self.jpegs += jpegs
            self._jpeg_bytes += sum(map(len, jpegs))
        try:
            self._check(self._jpeg_bytes + self._images.num_bytes + self._inputs.num_bytes)
        except VideoError as error:
            self.error = error
            self._drop()

    def _drop(self) -> None:
        self.jpegs.clear()
        self._jpeg_bytes = 0
        self._images, self._inputs = _Stack(self._expected), _Stack(self._expected)

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise VideoError(
                FailureCode.TOO_LARGE,
                f"what is kept of the clip's {self._expected} frames takes {num_bytes / 1e9:.3g} GB or more, above "
                f"extract.decoding.max_clip_bytes = {self._max_bytes}: take fewer frames (extract.num_frames, "
                "extract.fps, extract.every_nth), use smaller videos, or raise it",
            )


class _Stack:
    """Images that go to their final place as they come; joining them in the end would hold all of them twice."""

    def __init__(self, expected: int) -> None:
        self._expected, self._count = expected, 0
        self._room: Images = np.empty((0,), np.uint8)

    def add(self, images: Images) -> None:
        """Appends (u, ...) images."""
        stop = self._count + len(images)
        if stop > len(self._room):
            room = np.empty((max(self._expected, stop), *images.shape[1:]), np.uint8)
            if self._count:  # more than the packet table said
                room[: self._count] = self.images
            self._room = room
        self._room[self._count : stop] = images
        self._count = stop

    @property
    def images(self) -> Images:
        """(U, ...) what has come."""
        return self._room[: self._count]

    @property
    def num_bytes(self) -> int:
        """Of what has come."""
        return self.images.nbytes


def encode_jpeg(image: Images, config: FramesConfig) -> bytes:
    """A JPEG of an (H, W, 3) image, its short side reduced to `config.short_side`."""
    picture = Image.fromarray(image)
    scale = config.short_side / min(picture.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=config.quality, subsampling=_CHROMA_420)
    return file.getvalue()


def _encoder_inputs(images: Images, spec: ImageEncoderSpec) -> Images:
    from extract.decoding.resizing import preprocess

    inputs: Any = preprocess(images, spec)
    return inputs.numpy()
