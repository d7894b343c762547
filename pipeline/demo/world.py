"""Makes the controlled world on disk: real .mp4 files and a dataset folder, as any other data set.

    FOLDER/world.json          the settings (but for counts); a folder made with others is refused
    FOLDER/videos/<split>/<number>.mp4
    FOLDER/dataset/            dataset.json and clips.jsonl

A question a reader will ask: why files, when frames could go straight into the models? The demo has to walk the road
that real videos walk: compressed, decoded, sampled by timestamp. Files that stand are not made again.
"""

import dataclasses
import io
import logging
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt

from cache import atomic
from cache.errors import ConfigError
from cache.manifest import Clip, Dataset, Task
from cache.progress import Progress
from pipeline.demo.renderer import SIZE, Mode, render
from pipeline.demo.scripts import (
    ACTIONS,
    ACTIVITIES,
    BACKGROUNDS,
    CO_OCCURRING_ACTIONS,
    DISTRACTORS,
    FRAMES_PER_SECOND,
    SHIRTS,
    SPLITS,
    Recording,
    Split,
    WorldConfig,
    draw_recording,
)

logger = logging.getLogger(__name__)

PROTOCOL = "default"
ACTIVITY = Task(name="activity", kind="single", class_names=ACTIVITIES, prompts=ACTIVITIES)
ATOMIC = Task(name="atomic", kind="multi", class_names=ACTIONS, prompts=ACTIONS)
PROBES: Mapping[str, tuple[Split, Mode]] = {
    "probe_covered": ("test_iid", "masked"),
    "probe_neutral": ("test_iid", "neutral"),
}
"""Splits that film the first videos of another again: person and object covered, or before a grey wall."""
Shot = tuple[str, int]
"""A split or probe, and a number in it."""
_ENCODING = {"preset": "ultrafast", "crf": "18", "threads": "1"}


def make_world(folder: Path, config: WorldConfig, *, name: str = "dataset", workers: int = 2) -> Dataset:
    """Writes the videos that are missing and the manifest.

    A world of fewer videos is the beginning of a larger one: both can stand in one folder, with a manifest each.

    Args:
        folder: where the world stands or shall stand.
        config: its settings.
        name: folder of the manifest, inside `folder`.
        workers: processes that render and encode.

    Raises:
        ConfigError: the folder holds a world with other settings.
        StorageError: the disk is full.
    """
    _claim(folder, config)
    root = folder / "videos"
    shots: list[Shot] = [(split, number) for split in SPLITS for number in range(config.num_videos(split))]
    shots += [(probe, number) for probe in PROBES for number in range(config.num_probes)]
    missing = [shot for shot in shots if not (root / video_name(*shot)).exists()]
    if missing:
        logger.info("rendering %d of %d videos into %s", len(missing), len(shots), root)
        _write_videos(root, config, missing, workers)
    dataset = _manifest(root, config, shots)
    dataset.write(folder / name)
    return dataset


def video_name(split: str, number: int) -> str:
    """Path of a video inside the video root."""
    return f"{split}/{number:04d}.mp4"


def write_video(path: Path, frames: npt.NDArray[np.uint8]) -> None:
    """Writes (frames, 64, 64, 3) RGB as H.264 in MP4; the file is whole or absent.

    Raises:
        StorageError: the disk is full.
    """
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=_ENCODING)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    atomic.write_bytes(path, buffer.getbuffer())


def _claim(folder: Path, config: WorldConfig) -> None:
    settings: dict[str, Any] = dataclasses.asdict(config)
    settings = {key: value for key, value in settings.items() if not key.startswith("num_")}
    if atomic.create_bytes(folder / "world.json", atomic.encode_json(settings)):
        return
    stored = atomic.read_json(folder / "world.json")
    if stored != settings:
        keys = sorted(key for key in settings.keys() | stored.keys() if settings.get(key) != stored.get(key))
        lines = "; ".join(f"{key}: there {stored.get(key)!r}, asked for {settings.get(key)!r}" for key in keys)
        raise ConfigError(f"{folder} holds a world made with other settings ({lines}): choose another folder")


def _write_videos(root: Path, config: WorldConfig, shots: list[Shot], workers: int) -> None:
    with Progress(len(shots), "videos", unit="video") as progress:
        for done in _in_processes(root, config, shots, workers):
            progress.advance(done)


def _in_processes(root: Path, config: WorldConfig, shots: list[Shot], workers: int) -> Iterator[int]:
    """Number of videos written, chunk by chunk."""
    chunks = [shots[start : start + 20] for start in range(0, len(shots), 20)]
    if workers < 2 or len(chunks) < 2:
        for chunk in chunks:
            yield _write_chunk(root, config, chunk)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks), os.cpu_count() or 1), mp_context=context) as pool:
        yield from pool.map(_write_chunk, *zip(*((root, config, chunk) for chunk in chunks), strict=True))


def _write_chunk(root: Path, config: WorldConfig, shots: list[Shot]) -> int:
    for shot in shots:
        recording, mode = _filmed(config, shot)
        write_video(root / video_name(*shot), render(recording, mode))
    return len(shots)


def _manifest(root: Path, config: WorldConfig, shots: list[Shot]) -> Dataset:
    return Dataset(
        name="controlled world",
        version="1",
        tasks=(ACTIVITY, ATOMIC),
        protocols={PROTOCOL: tuple(dict.fromkeys(split for split, _ in shots))},
        clips=tuple(_clip(config, shot) for shot in shots),
        video_root=root,
    )


def _filmed(config: WorldConfig, shot: Shot) -> tuple[Recording, Mode]:
    """What is seen in a shot, and how."""
    place, number = shot
    split, mode = PROBES[place] if place in PROBES else (cast("Split", place), "plain")
    return draw_recording(config, split, number), mode


def _clip(config: WorldConfig, shot: Shot) -> Clip:
    split, number = shot
    recording, _ = _filmed(config, shot)
    extra = recording.co_occurring
    return Clip(
        id=f"{split}-{number:04d}",
        video=video_name(split, number),
        splits={PROTOCOL: split},
        labels={ATOMIC.name: recording.actions}
        | ({} if recording.activity is None else {ACTIVITY.name: (recording.activity,)}),
        groups={
            "background": BACKGROUNDS[recording.background],
            "shirt": SHIRTS[recording.shirt],
            "distractor": DISTRACTORS[recording.distractor],
            "co_occurring": "none" if extra is None else CO_OCCURRING_ACTIONS[extra],
        },
    )
