"""What a clip costs, part by part: each part alone on the machine, by the functions that the stage itself calls.

A part is counted in core-seconds: processor time of all its threads. Resizing runs on one thread as in the decode
processes, models on the threads that torch has here, as in the stage. Threads of a model spin while they wait for each
other, so on a machine that others use as well these figures grow: the report says what share of a core decoding had.
What comes between the parts (pipes, copies, shards, start-up) is in no part: that is what the bound is for.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cache.errors import VideoError
from cache.manifest import Clip, Dataset
from extract.config import ExtractConfig
from extract.decoding.clip_pixels import encode_jpeg
from extract.decoding.decode_process import ClipSpan, Prepared, PrepareSettings, VideoJob, prepare_video
from extract.frozen_models import FrozenModels
from extract.video.probe import unheard

if TYPE_CHECKING:
    import torch

DECODING, RESIZING, JPEG = "decoding", "resizing", "JPEG encoding"
IMAGE_ENCODER, DETECTOR = "image encoder", "person detector"
CROPPING, POSE_NETWORK, JOINTS = "cropping", "pose network", "joints from heatmaps"
MODELS = (IMAGE_ENCODER, DETECTOR, POSE_NETWORK)
ON_DEVICE = (*MODELS, CROPPING)

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Processor time of all threads, and time."""

    core_seconds: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(core_seconds=self.core_seconds + other.core_seconds, seconds=self.seconds + other.seconds)

    def __sub__(self, other: "Cost") -> "Cost":
        return self + other * -1

    def __mul__(self, factor: float) -> "Cost":
        return Cost(core_seconds=self.core_seconds * factor, seconds=self.seconds * factor)


def now() -> Cost:
    """The clocks of this process."""
    return Cost(core_seconds=time.process_time(), seconds=time.perf_counter())


class MeasuredClip:
    """What the parts of one clip cost and gave, by part."""

    def __init__(self, device: "torch.device") -> None:
        self.costs: dict[str, Cost] = {}
        self.results: dict[str, object] = {}
        self._device = device

    def run(self, part: str, work: Callable[[], Result]) -> Result:
        """Times one part."""
        self._synchronise()
        before = now()
        result = self.results[part] = work()
        self._synchronise()
        self.costs[part] = now() - before
        return result

    def _synchronise(self) -> None:
        """Waits for the device, which works on after a call has returned."""
        import torch

        if self._device.type != "cpu":
            torch.get_device_module(self._device).synchronize()


class Parts:
    """The parts of the stage, with the models loaded."""

    def __init__(self, config: ExtractConfig, device: str) -> None:
        """Loads the models.

        Raises:
            ConfigError: the device or a model does not exist.
            WeightsError: weights are absent.
        """
        self._config = config
        self.models = FrozenModels(config, device)
        self.models.load(frozenset(config.streams))
        self.settings = PrepareSettings(
            sampling=config.instants, decoding=config.decoding, frames=config.frames, encoder=None
        )

    def measure(self, dataset: Dataset, clip: Clip) -> MeasuredClip:
        """Runs every part on one clip.

        Raises:
            VideoError: the clip cannot be read.
        """
        measured = MeasuredClip(self.models.device)
        whole = frozenset({"joints"})  # whole frames are for joints
        prepared = measured.run(DECODING, lambda: self._decode(dataset, clip, whole.intersection(self._config.streams)))
        if not prepared.pixels:  # nobody keeps them in the stage, so keeping them is not part of decoding
            prepared = self._decode(dataset, clip, whole)
        images = prepared.pixels["images"]
        if "frames" in self._config.streams:
            measured.run(JPEG, lambda: [encode_jpeg(image, self._config.frames) for image in images])
        if "visual_prompts" in self._config.streams:
            self._measure_encoder(prepared, measured)
        if "joints" in self._config.streams:
            self._measure_pose(prepared, clip, measured)
        return measured

    def _decode(self, dataset: Dataset, clip: Clip, streams: frozenset[str]) -> Prepared:
        (prepared,) = prepare_video(job_of(dataset, clip, streams), self.settings, unheard)
        check_readable(prepared)
        return prepared

    def _measure_encoder(self, prepared: Prepared, measured: MeasuredClip) -> None:
        import torch

        from extract.decoding.resizing import preprocess

        prompts = self.models.visual_prompts
        with threads(1):
            inputs = measured.run(RESIZING, lambda: preprocess(prepared.pixels["images"], prompts.encoder.spec))
        size = prompts.batch.current
        batch = torch.cat([inputs] * math.ceil(size / len(inputs)))[:size].to(self.models.device)
        measured.run(IMAGE_ENCODER, lambda: prompts.encoder.encode(batch).cpu())
        measured.costs[IMAGE_ENCODER] *= passes_per_clip(len(inputs), size, shared=prompts.shares_batches)

    def _measure_pose(self, prepared: Prepared, clip: Clip, measured: MeasuredClip) -> None:
        joints, images = self.models.joints, prepared.pixels["images"]
        pose = joints.estimator
        if joints.detector is None:
            boxes = joints.boxes(prepared, clip).xyxy
        else:
            boxes = measured.run(DETECTOR, lambda: joints.boxes(prepared, clip)).xyxy
        crops = measured.run(CROPPING, lambda: pose.crops(images, boxes))
        inputs = whole_passes(crops, joints.batch.current) if joints.shares_batches else crops
        heatmaps = measured.run(POSE_NETWORK, lambda: pose.heatmaps(inputs))[: len(crops)]
        measured.costs[POSE_NETWORK] *= len(crops) / max(1, len(inputs))
        measured.run(JOINTS, lambda: pose.decode(heatmaps, boxes))


def check_readable(prepared: Prepared) -> None:
    """Refuses to measure speed on a video that fails.

    Raises:
        VideoError: it failed, and why.
    """
    if prepared.failure is not None:
        raise VideoError(
            prepared.failure.code, f"{prepared.clip_id} cannot be measured: {prepared.failure.message}. Leave it out"
        )


def job_of(dataset: Dataset, clip: Clip, streams: frozenset[str]) -> VideoJob:
    """The job that decodes one clip for these streams; for none it decodes and gives nothing."""
    span = ClipSpan(clip_id=clip.id, start_seconds=clip.start_seconds, end_seconds=clip.end_seconds)
    return VideoJob(path=dataset.video_path(clip), spans=(span,), streams=streams)


def passes_per_clip(num_images: int, batch_size: int, *, shared: bool) -> float:
    """Forward passes that a clip's images cost: a share of one where clips share batches, else whole ones, padded."""
    return num_images / batch_size if shared else math.ceil(num_images / batch_size)


def whole_passes(inputs: "torch.Tensor", size: int) -> "torch.Tensor":
    """A clip's (n, ...) inputs, again and again up to a multiple of `size`: as many as fill the passes they are in."""
    count = math.ceil(len(inputs) / size) * size
    return inputs.repeat(math.ceil(count / max(1, len(inputs))), *[1] * (inputs.ndim - 1))[:count]


def mean(costs: Sequence[Mapping[str, Cost]]) -> dict[str, Cost]:
    """Per part, over clips."""
    return {part: sum((clip[part] for clip in costs), Cost()) * (1 / len(costs)) for part in costs[0]}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, torch computes on so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
