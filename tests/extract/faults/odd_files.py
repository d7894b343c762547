"""Makers of odd and broken files: each is a function that is given the path where its file shall be.

They are small enough to make eighty of in seconds, and odd in one way each. What extraction must say of each is in
bad_inputs.py.
"""

import contextlib
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
from PIL import Image

from tests.extract.ffmpeg_program import convert
from tests.extract.videos import copy_from, make_sound, make_video

Make = Callable[[Path], object]


def holding(content: bytes | str) -> Make:
    """A file of these bytes."""
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def video(suffix: str = ".mp4", **options: Any) -> Make:  # noqa: ANN401 (as make_video)
    """An ordinary video with some properties; made under a plain name, because muxers take odd ones for patterns."""

    def make(path: Path) -> None:
        make_video(path.parent / f"making{suffix}", **options).rename(path)

    return make


def cut(share: float, **options: Any) -> Make:  # noqa: ANN401 (as make_video)
    """The first part of a video."""

    def make(path: Path) -> None:
        video(**options)(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return make


def changed(change: Callable[[bytearray], None], **options: Any) -> Make:  # noqa: ANN401 (as make_video)
    """A video with some bytes changed."""

    def make(path: Path) -> None:
        video(**options)(path)
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)

    return make


def noise(content: bytearray, start: int, length: int) -> None:
    content[start : start + length] = np.random.default_rng(0).bytes(length)


def damage_middle(content: bytearray) -> None:
    noise(content, len(content) // 3, 200)


def damage_codec(content: bytearray) -> None:
    noise(content, content.index(b"stsd") - 60, 120)


def damage_index(content: bytearray) -> None:
    noise(content, content.index(b"stsz") + 12, 120)


def erase_frames(content: bytearray) -> None:
    start = content.index(b"mdat") + 4
    length = content.index(b"moov") - 4 - start
    content[start : start + length] = bytes(length)


Edits = Mapping[bytes, Callable[[bytes], bytes]]
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def edited(edits: Edits) -> Make:
    """An MP4 file with other contents in some boxes of its index, which stands at the end and may grow."""

    def make(path: Path) -> None:
        video()(path)
        path.write_bytes(_edit_boxes(path.read_bytes(), edits))

    return make


def _edit_boxes(content: bytes, edits: Edits) -> bytes:
    result, position = b"", 0
    while position < len(content):
        size, kind = struct.unpack_from(">I4s", content, position)
        body = content[position + 8 : position + size]
        if kind in _PARENTS:
            body = _edit_boxes(body, edits)
        elif kind in edits:
            body = edits[kind](body)
        result += struct.pack(">I4s", len(body) + 8, kind) + body
        position += size
    return result


def put(offset: int, value: int) -> Callable[[bytes], bytes]:
    """Sets a 32-bit number of a box."""
    return lambda body: body[:offset] + struct.pack(">I", value) + body[offset + 4 :]


def add(offset: int, value: int) -> Callable[[bytes], bytes]:
    """Adds to a 32-bit number of a box; a negative offset counts from its end."""

    def edit(body: bytes) -> bytes:
        at = offset % len(body)
        return put(at, struct.unpack_from(">I", body, at)[0] + value)(body)

    return edit


def more_sizes(count: int) -> Callable[[bytes], bytes]:
    """Promises `count` more frames of 500 bytes."""
    return lambda body: add(8, count)(body) + struct.pack(">I", 500) * count


MORE_FRAMES = {b"stsz": more_sizes(60), b"stts": add(8, 60), b"stsc": add(-8, 60)}
MORE_TIMES = {b"stts": add(8, 60)}


def two_sizes(path: Path) -> None:
    """Two sizes one after the other in one transport stream."""
    parts = []
    for size in ((96, 128), (192, 256)):
        make_video(path.parent / "part.ts", size=size)
        parts.append((path.parent / "part.ts").read_bytes())
    (path.parent / "part.ts").unlink()
    path.write_bytes(b"".join(parts))


def edit_list(path: Path) -> None:
    source = make_video(path.parent / "source.mp4", gop=60)
    copy_from(source, path, 0.5)
    source.unlink()


def encrypted(path: Path) -> None:
    key = "00112233445566778899aabbccddeeff"
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    make_video(path, container_options=options)


def made_by_ffmpeg(*arguments: str, **others: Make) -> Make:
    """Made by the ffmpeg program from other files, each given as `{its_name}` with a dot for the underscore."""

    def make(path: Path) -> None:
        files = {name: path.parent / name.replace("_", ".") for name in others}
        for name, file in files.items():
            others[name](file)
        convert(*(argument.format(**files) for argument in arguments), path)
        for file in files.values():
            file.unlink()

    return make


def picture(kind: str, num_frames: int = 1) -> Make:
    images = [Image.new("RGB", (32, 32), (40 * number, 0, 0)) for number in range(num_frames)]

    def make(path: Path) -> None:
        images[0].save(path, format=kind, save_all=num_frames > 1, append_images=images[1:])

    return make


COPY = ("-map", "0", "-map", "1", "-c", "copy")
SUBTITLES = holding("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
words = made_by_ffmpeg("-i", "{words_srt}", words_srt=SUBTITLES)
subtitled = made_by_ffmpeg(
    *("-i", "{words_srt}", "-i", "{silent_mp4}", "-map", "0", "-map", "1", "-c:v", "copy"),
    words_srt=SUBTITLES,
    silent_mp4=video(),
)
raw = made_by_ffmpeg("-i", "{boxed_mp4}", "-c", "copy", boxed_mp4=video())
av1 = made_by_ffmpeg("-i", "{whole_mp4}", "-c:v", "libsvtav1", "-preset", "12", whole_mp4=video())
two_streams = made_by_ffmpeg(
    "-i", "{large_mp4}", "-i", "{small_mp4}", *COPY, large_mp4=video(seed=5), small_mp4=video(size=(48, 64))
)
cover = made_by_ffmpeg(
    *("-i", "{tune_mp4}", "-i", "{cover_png}", *COPY, "-disposition:v:0", "attached_pic"),
    tune_mp4=make_sound,
    cover_png=picture("png"),
)


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(1000)


def device(path: Path) -> None:
    """A device if this user may make one, or a link to one."""
    with contextlib.suppress(PermissionError):
        os.mknod(path, 0o20666, os.makedev(1, 5))
        return
    path.symlink_to("/dev/zero")


def secret(path: Path) -> None:
    video()(path)
    path.chmod(0)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)


def huge(height: int, width: int) -> Make:
    def make(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for index in range(2):
                frame = av.VideoFrame.from_ndarray(np.full((height * 3 // 2, width), 60 * index, np.uint8), "yuv420p")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return make


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)
