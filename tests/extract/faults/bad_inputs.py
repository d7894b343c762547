"""A table of bad and odd inputs: what each of them is, and what extraction must say: `ok`, or a failure's code.

All files go through one run of the command line, so that each is also a trial of its neighbours. As a program this
makes them, runs them, and prints the table in Markdown: python -m tests.extract.faults.bad_inputs FOLDER
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cache.errors import ManifestError
from cache.manifest import Clip, Dataset
from cache.store import FeatureStore
from extract.decoding.workers import DecodePool
from tests.extract.decoding.prepares import stuck_by_name
from tests.extract.decoding.test_workers import job, settings
from tests.extract.faults import odd_files
from tests.extract.faults.odd_files import Make, changed, cut, edited, holding, huge, picture, put, video
from tests.extract.videos import make_sound

ROOT = Path(__file__).parents[3]
NUM_FRAMES = 4


@dataclass(frozen=True)
class BadInput:
    """One file; `make` is given its path, in a folder where it may leave others."""

    name: str
    what: str
    make: Make
    outcome: str = "ok"
    start_seconds: float | None = None
    end_seconds: float | None = None


class Row(NamedTuple):
    """A line of the table."""

    name: str
    what: str
    expected: str
    outcome: str
    message: str


FASTSTART: dict[str, Any] = {"container_options": {"movflags": "faststart"}}
FRAGMENTS: dict[str, Any] = {"container_options": {"movflags": "frag_keyframe+empty_moov"}}
NO_DURATION = {b"mvhd": put(16, 0), b"tkhd": put(20, 0), b"mdhd": put(16, 0)}
LONG_GROUP: dict[str, Any] = {"num_frames": 120, "gop": 120}
VARIABLE = [33 * index if index < 40 else 1320 + 200 * (index - 40) for index in range(60)]

INPUTS = (
    BadInput("zero.mp4", "zero bytes", holding(b""), "empty"),
    BadInput("text.mp4", "text", holding("hello\n" * 500), "not_a_video"),
    BadInput("noise.mp4", "random bytes", holding(np.random.default_rng(0).bytes(5000)), "not_a_video"),
    BadInput("zeros.mp4", "a gigabyte of zeros, sparse", odd_files.sparse, "not_a_video"),
    BadInput("hdf5.mp4", "an HDF5 file", odd_files.hdf5, "not_a_video"),
    BadInput("playlist.mp4", "an m3u8 playlist", holding("#EXTM3U\n#EXTINF:1,\nplain.mp4\n"), "not_a_video"),
    BadInput("concat.mp4", "a concat playlist", holding("ffconcat version 1.0\nfile plain.mp4\n"), "not_a_video"),
    BadInput("missing.mp4", "no such file", lambda _: None, "missing"),
    BadInput("dangling.mp4", "a link to nothing", lambda path: path.symlink_to("nothing.mp4"), "missing"),
    BadInput("loop.mp4", "a link to itself", lambda path: path.symlink_to(path.name), "loop"),
    BadInput("outside.mp4", "a link out of the root", lambda path: path.symlink_to("/etc/hostname"), "outside_root"),
    BadInput("folder.mp4", "a directory", Path.mkdir, "not_a_file"),
    BadInput("file/x.mp4", "a path through a file", lambda path: path.parent.write_text("file"), "missing"),
    BadInput("pipe.mp4", "a FIFO", os.mkfifo, "not_a_file"),
    BadInput("socket.mp4", "a socket", lambda path: os.mknod(path, 0o140600), "not_a_file"),
    BadInput("device.mp4", "a device", odd_files.device, "not_a_file"),
    BadInput("secret.mp4", "no permission", odd_files.secret, "permission"),
    BadInput("sound.mp4", "only sound", make_sound, "no_video_stream"),
    BadInput("cover.m4a", "sound and a cover picture", odd_files.cover, "no_video_stream"),
    BadInput("words.mkv", "only subtitles", odd_files.words, "no_video_stream"),
    BadInput("gif.mp4", "a GIF", picture("gif", 5), "unsupported_codec"),
    BadInput("png.mp4", "a PNG", picture("png"), "unsupported_codec"),
    BadInput("apng.mp4", "an animated PNG", picture("png", 5), "unsupported_codec"),
    BadInput("jpeg.mp4", "a JPEG", picture("jpeg"), "not_a_video"),
    BadInput("raw.h264", "H.264 without a container", odd_files.raw, "not_a_video"),
    BadInput("no_index.mp4", "MP4, cut before its index", cut(0.5), "truncated"),
    BadInput("cut_10.mp4", "MP4, index first, 10 % of it", cut(0.1, **FASTSTART), "truncated"),
    BadInput("cut_50.mp4", "MP4, index first, 50 % of it", cut(0.5, **FASTSTART), "truncated"),
    BadInput("cut_95.mp4", "MP4, index first, 95 % of it", cut(0.95, **FASTSTART), "ok", 0.0, 1.5),
    BadInput("cut.mkv", "half an MKV", cut(0.5, suffix=".mkv"), "truncated"),
    BadInput("cut.avi", "half an AVI", cut(0.5, suffix=".avi", codec="mpeg4"), "truncated"),
    BadInput("cut.ts", "half a transport stream, which promises nothing", cut(0.5, suffix=".ts")),
    BadInput("cut_fragments.mp4", "half a fragmented MP4", cut(0.5, **FRAGMENTS), "truncated"),
    BadInput("rot.mp4", "200 random bytes in the middle", changed(odd_files.damage_middle, **LONG_GROUP), "corrupt"),
    BadInput("rot.mkv", "the same in MKV", changed(odd_files.damage_middle, suffix=".mkv", **LONG_GROUP), "truncated"),
    BadInput(
        "rot_codec.mp4", "random bytes around the codec's name", changed(odd_files.damage_codec), "unsupported_codec"
    ),
    BadInput("rot_index.mp4", "random bytes in the table of sizes", changed(odd_files.damage_index), "truncated"),
    BadInput("erased.mp4", "a good index, the frames zeroed", changed(odd_files.erase_frames), "corrupt"),
    BadInput("encrypted.mp4", "encrypted (CENC)", odd_files.encrypted, "corrupt"),
    BadInput("more_frames.mp4", "the index promises twice the frames", edited(odd_files.MORE_FRAMES), "truncated"),
    BadInput("more_times.mp4", "as many times as for twice the frames", edited(odd_files.MORE_TIMES), "truncated"),
    BadInput("longer.mp4", "the header says ten times the length", edited({b"mdhd": put(16, 307_200)})),
    BadInput("no_duration.mp4", "the header says zero length", edited(NO_DURATION)),
    BadInput("sizes.ts", "the frame size changes", odd_files.two_sizes, "resolution_change"),
    BadInput("too_large.mp4", "above max_pixels", huge(4320, 8192), "too_large"),
    BadInput("late.mp4", "a clip after the end", video(), "too_short", 99.0, 100.0),
    BadInput("end_late.mp4", "a clip that ends after the end", video(), "ok", 1.0, 99.0),
    BadInput("blink.mp4", "a clip of a millisecond", video(), "ok", 1.0, 1.001),
    BadInput("plain.mp4", "nothing odd", video()),
    BadInput("8k.mp4", "8K", huge(4320, 7680)),
    BadInput("one.mp4", "one frame", video(num_frames=1)),
    BadInput("long_group.mp4", "600 frames, one key frame", video(num_frames=600, gop=600)),
    BadInput("edit_list.mp4", "cut without decoding: an edit list", odd_files.edit_list),
    BadInput("variable.mp4", "variable rate", video(times_ms=VARIABLE)),
    BadInput("turned_90.mp4", "rotated by 90 degrees", video(rotation=90)),
    BadInput("turned_180.mp4", "rotated by 180 degrees", video(rotation=180)),
    BadInput("turned_270.mp4", "rotated by 270 degrees", video(rotation=270)),
    BadInput("ten_bit.mp4", "10 bits", video(pixel_format="yuv420p10le")),
    BadInput("gray.mp4", "gray", video(pixel_format="gray")),
    BadInput("odd_444.mp4", "4:4:4 of odd size", video(pixel_format="yuv444p", size=(97, 131))),
    BadInput("alpha.webm", "VP9 with transparency", video(".webm", codec="libvpx-vp9", pixel_format="yuva420p")),
    BadInput("wide.mp4", "pixels twice as wide as high", video(options={"x264-params": "sar=2\\:1"})),
    BadInput("interlaced.mp4", "interlaced", video(options={"x264-params": "interlaced=1"})),
    BadInput("open_gop.mp4", "open groups of pictures", video(options={"x264-params": "open-gop=1:keyint=12"})),
    BadInput("fragments.mp4", "fragmented MP4", video(**FRAGMENTS)),
    BadInput("av1.mp4", "AV1", odd_files.av1),
    BadInput("hevc.mp4", "H.265", video(codec="libx265", options={"x265-params": "log-level=none"})),
    BadInput("bframes.avi", "AVI with B-frames", video(".avi", codec="mpeg4")),
    BadInput("mpeg.mpg", "MPEG program stream", video(".mpg", codec="mpeg2video")),
    BadInput("flash.flv", "FLV", video(".flv")),
    BadInput("two.mkv", "two video streams", odd_files.two_streams),
    BadInput("subtitled.mkv", "a subtitle stream first", odd_files.subtitled),
    BadInput("a b.mp4", "a space in the name", video()),
    BadInput("煮る.mp4", "Japanese", video()),
    BadInput("new\nline.mp4", "a line break in the name", video()),
    BadInput("-dash.mp4", "a leading dash", video()),
    BadInput("odd/50%d:%s.mp4", "percent signs and a colon", video()),
    BadInput(os.fsdecode(b"bad\xff.mp4"), "a name that is not UTF-8", video()),
    BadInput(f"{'n' * 251}.mp4", "a name of 255 bytes", video()),
    BadInput("no_suffix", "no suffix", video()),
    BadInput("wrong.avi", "MP4 named .avi", video()),
)
STUCK = {
    "hold.mp4": ("the decoder spins with the GIL in its hands", "timeout"),
    "sleep.mp4": ("the decoder sleeps", "timeout"),
    "die.mp4": ("the decoder ends the process", "decoder_died"),
    "memory.mp4": ("the decoder finds no memory", "out_of_memory"),
}
REFUSED: dict[str, dict[str, object]] = {
    "a clip that ends before it begins": {"start_seconds": 2.0, "end_seconds": 1.0},
    "a clip that begins before 0 s": {"start_seconds": -1.0},
    "a clip of NaN seconds": {"start_seconds": float("nan")},
    "a clip without end: infinity": {"end_seconds": float("inf")},
    "a path with ..": {"video": "../x.mp4"},
    "an absolute path": {"video": "/etc/passwd"},
    "a NUL in the id": {"id": "a\0b"},
}


def make_inputs(folder: Path) -> tuple[BadInput, ...]:
    """Makes the files in `folder/videos` and the dataset that names them; good ones first, odd ids included."""
    videos = folder / "videos"
    (videos / "odd").mkdir(parents=True)
    given = [one for one in INPUTS if one.name != "secret.mp4" or may_be_kept_out()]
    given.sort(key=lambda one: one.outcome != "ok")
    clips = []
    for number, one in enumerate(given):
        one.make(videos / one.name)
        clip = Clip(
            id=f"{number:02d} {one.name}",
            video=one.name,
            start_seconds=one.start_seconds,
            end_seconds=one.end_seconds,
        )
        clips.append(clip)
    dataset = Dataset(name="bad", version="1", tasks=(), protocols={}, clips=tuple(clips), video_root=videos)
    dataset.write(folder / "dataset")
    return tuple(given)


def may_be_kept_out() -> bool:
    """root reads every file, unless it gives up the right to."""
    return os.geteuid() != 0 or shutil.which("setpriv") is not None


def run_command(*words: object) -> "subprocess.CompletedProcess[str]":
    """A `deconfound` command as somebody who may not read every file."""
    humble = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*(humble if may_be_kept_out() else []), sys.executable, "-m", "pipeline", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )


def run_extraction(folder: Path) -> "subprocess.CompletedProcess[str]":
    """All inputs in one run with two decode processes, into `folder/cache`."""
    options = [f"num_frames={NUM_FRAMES}", "shard_size=16", "decoding.timeout_seconds=10"]
    return run_command(
        *("extract", folder / "dataset", "--cache", folder / "cache", "--streams", "frames", "--workers", 2),
        *(word for option in options for word in ("--set", f"extract.{option}")),
    )


def file_rows(given: tuple[BadInput, ...], cache: Path) -> list[Row]:
    """What the cache says of every input."""
    reader = FeatureStore.open(cache).frames
    rows = []
    for number, one in enumerate(given):
        clip_id = f"{number:02d} {one.name}"
        failure = reader.failures.get(clip_id)
        if failure is None:
            place = reader.provenance(clip_id)
            message = f"{place.decoder}: {place.decoded_num_frames} of {place.nominal_num_frames} frames"
            rows.append(Row(one.name, one.what, one.outcome, "ok", message))
        else:
            rows.append(Row(one.name, one.what, one.outcome, failure.code.value, failure.message))
    return rows


def stuck_rows() -> list[Row]:
    """Decoders that misbehave on purpose; `job` numbers the clips."""
    names = list(STUCK)
    rows = []
    with DecodePool(
        [job(number, name) for number, name in enumerate(names)],
        settings(timeout=2.0),
        workers=2,
        prepare=stuck_by_name,
    ) as pool:
        for delivery in pool:
            name = names[int(delivery.clip.clip_id.split("-")[-1])]
            failure = delivery.clip.failure
            outcome, message = (failure.code.value, failure.message) if failure else ("ok", "")
            rows.append(Row(name, *STUCK[name], outcome, message))
            delivery.release()
    return sorted(rows)


def refused_rows() -> list[Row]:
    """Lines of a manifest that are refused before anything is decoded."""
    rows = []
    for what, fields in REFUSED.items():
        try:
            Clip(**{"id": "a", "video": "a.mp4", **fields})  # type: ignore[arg-type]
            rows.append(Row("clips.jsonl", what, "refused", "ok", ""))
        except ManifestError as error:
            rows.append(Row("clips.jsonl", what, "refused", "refused", str(error)))
    return rows


def markdown(rows: list[Row]) -> str:
    """The table, with names that print."""
    lines = ["| file | what | outcome | message |", "|---|---|---|---|"]
    for row in rows:
        name = json.dumps(row.name)[1:-1] if len(row.name) < 100 else f"{row.name[:8]}..."
        message = row.message.encode("ascii", "backslashreplace").decode().replace("|", "/").replace("\n", " ")
        lines.append(f"| {name} | {row.what} | {row.outcome} | {message[:120]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    inputs = make_inputs(Path(sys.argv[1]))
    ended = run_extraction(Path(sys.argv[1]))
    sys.stderr.write(ended.stderr)
    sys.stdout.write(markdown(file_rows(inputs, Path(sys.argv[1]) / "cache") + stuck_rows() + refused_rows()) + "\n")
