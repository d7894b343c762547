"""How fast extraction is on this machine, against what its parts allow and against the bare model.

    ratio_to_bound             core-seconds of all parts, each alone, over cores x seconds that the stage takes. On a
                               GPU: the slower of the device's seconds and the processor's core-seconds over cores,
                               over the seconds of the stage. 1: nothing is lost between the parts.
    ratio_to_bare_model        clips a second of the stage over those of the models on tensors that lie ready on the
                               same device.
    ratio_two_workers          clips a second that two decode processes decode, over those of one; nothing else runs.
    ratio_to_bound_with_startup  the first one with all seconds of a run, from its call to its end.

Seconds per clip are those of the steady part: a run over all videos and a run over the first few are timed, and what
the longer one takes more is what its other clips cost. What is left of the longer run is `startup_seconds`: spawning,
imports, loading weights, and the first and last clips, at which a part of the machine waits. The parts are measured on
the same other clips. Every ratio is the median over rounds, each of which measures everything once, in turn.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from cache.errors import ConfigError, FailureCode, VideoError
from cache.manifest import Clip, Dataset
from extract.bench.parts import DECODING, MODELS, ON_DEVICE, Cost, Parts, check_readable, job_of, mean, now
from extract.config import ExtractConfig
from extract.decoding.workers import DecodePool
from extract.extractor import ExtractionSummary, extract

NUM_STEPS = 4
"""Of one round: two decode processes, one, the parts, the stage."""


@dataclass(frozen=True, kw_only=True)
class Steady:
    """A run without its beginning and its end: `per_clip`, and what the whole run took besides."""

    per_clip: Cost
    startup: Cost
    num_clips: int
    """Of the longer run."""

    @property
    def whole_per_clip(self) -> Cost:
        """With the start-up spread over the clips."""
        return self.per_clip + self.startup * (1 / self.num_clips)


@dataclass(frozen=True, kw_only=True)
class Round:
    """Everything measured once. Ratios are None without a model."""

    parts: Mapping[str, Cost]
    stage: Steady
    one_worker: Steady
    two_workers: Steady
    cores: int
    is_gpu: bool

    @property
    def bound_seconds(self) -> float:
        """Fewest seconds per clip that the parts allow if they overlap without loss."""
        if not self.is_gpu:
            return sum(cost.core_seconds for cost in self.parts.values()) / self.cores
        on_cores = sum(cost.core_seconds for part, cost in self.parts.items() if part not in ON_DEVICE)
        on_device = sum(cost.seconds for part, cost in self.parts.items() if part in ON_DEVICE)
        return max(on_cores / self.cores, on_device)

    @property
    def ratios(self) -> dict[str, float | None]:
        """By the keys of the report."""
        bare = sum(cost.seconds for part, cost in self.parts.items() if part in MODELS)
        seconds = self.stage.per_clip.seconds
        return {
            "ratio_to_bound": self.bound_seconds / seconds,
            "ratio_to_bound_with_startup": self.bound_seconds / self.stage.whole_per_clip.seconds,
            "ratio_to_bare_model": bare / seconds if bare else None,
            "ratio_two_workers": self.one_worker.per_clip.seconds / self.two_workers.per_clip.seconds,
        }


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """All rounds, and what they were measured with."""

    rounds: tuple[Round, ...]
    facts: Mapping[str, Any]

    @property
    def ratios(self) -> dict[str, float | None]:
        """Medians over the rounds."""
        return {key: _median([entry.ratios[key] for entry in self.rounds]) for key in self.rounds[0].ratios}

    @property
    def parts(self) -> dict[str, Cost]:
        """Medians over the rounds."""
        return {part: _median_cost([entry.parts[part] for entry in self.rounds]) for part in self.rounds[0].parts}

    @property
    def stage(self) -> Cost:
        """Of one clip in the steady part; its core-seconds are those of all processes."""
        return _median_cost([entry.stage.per_clip for entry in self.rounds])

    @property
    def startup(self) -> Cost:
        """Of one run."""
        return _median_cost([entry.stage.startup for entry in self.rounds])

    @property
    def core_share(self) -> float:
        """Share of a core that decoding got, which needs one: below 1 others run here too, or the disk is slow."""
        return self.parts[DECODING].core_seconds / self.parts[DECODING].seconds

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            **self.ratios,
            "core_share": self.core_share,
            "clips_per_second": 1 / self.stage.seconds,
            "startup_seconds": self.startup.seconds,
            "stage": asdict(self.stage),
            "parts": {part: asdict(cost) for part, cost in self.parts.items()},
            "rounds": [entry.ratios for entry in self.rounds],
            **self.facts,
        }


def bench_extract(
    videos: Sequence[Path],
    config: ExtractConfig,
    folder: Path,
    *,
    workers: int,
    device: str = "cpu",
    repeats: int = 3,
    progress: Callable[[], None] = lambda: None,
) -> BenchReport:
    """Measures extraction and its parts.

    Args:
        videos: files that can be read; each is one clip.
        config: streams and settings.
        folder: where caches are made and removed.
        workers: decode processes of the stage.
        device: where the models run.
        repeats: rounds.
        progress: called NUM_STEPS times in every round.

    Raises:
        ConfigError: too few videos, the stream `text`, or a model or device that does not exist.
        VideoError: a video cannot be read.
    """
    num_few = max(2, workers)
    if "text" in config.streams or len(videos) <= num_few:
        raise ConfigError(
            f"{len(videos)} videos, streams {', '.join(config.streams)}: give more videos than workers and than two, "
            "and streams that are made of videos"
        )
    bench = _Bench(_dataset(videos), config, folder, workers, device, num_few)
    rounds = tuple(bench.run_round(number, progress) for number in range(repeats))
    return BenchReport(rounds=rounds, facts=bench.facts())


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def steady(num_few: int, few: Cost, num_many: int, many: Cost) -> Steady:
    """From a run over few clips and a longer one over more, which begins and ends in the same way.

    Raises:
        ConfigError: the longer run took no longer.
    """
    per_clip = (many - few) * (1 / (num_many - num_few))
    if per_clip.seconds <= 0:
        raise ConfigError(
            f"{num_many} clips took {many.seconds:.2f} s and {num_few} clips {few.seconds:.2f} s: too few or too short "
            "videos to measure speed on, or too much else going on"
        )
    return Steady(per_clip=per_clip, startup=many - per_clip * num_many, num_clips=num_many)


class _Bench:
    def __init__(
        self, dataset: Dataset, config: ExtractConfig, folder: Path, workers: int, device: str, num_few: int
    ) -> None:
        self._dataset, self._config, self._folder = dataset, config, folder
        self._workers, self._device, self._num_few = workers, device, num_few
        self._parts = Parts(config, device)
        first = self._parts.measure(dataset, dataset.clips[0])  # the first pass of a model is slower than all others
        prepared: Any = first.results[DECODING]
        self._decoder = prepared.provenance.decoder

    def run_round(self, number: int, progress: Callable[[], None]) -> Round:
        """Measures everything once; every second round in the reverse order, against drifts of the clock rate."""
        steps: dict[str, Callable[[], Any]] = {
            "two_workers": lambda: self._steady(lambda clips: self._decode(clips, workers=2)),
            "one_worker": lambda: self._steady(lambda clips: self._decode(clips, workers=1)),
            "parts": self._measure_parts,
            "stage": lambda: self._steady(self._extract),
        }
        names = list(steps) if number % 2 == 0 else list(steps)[::-1]
        results = {}
        for name in names:
            results[name] = steps[name]()
            progress()
        is_gpu = self._parts.models.device.type != "cpu"
        return Round(**results, cores=available_cores(), is_gpu=is_gpu)

    def facts(self) -> dict[str, Any]:
        """What was measured, on what."""
        import torch

        config, models = self._config, self._parts.models
        facts: dict[str, Any] = {
            "device": str(models.device),
            "decoder": self._decoder,
            "cores": available_cores(),
            "torch_threads": torch.get_num_threads(),
            "workers": self._workers,
            "num_videos": len(self._dataset.clips),
            "sampling": config.instants.to_json(),
            "streams": list(config.streams),
        }
        if "visual_prompts" in config.streams:
            batch = {"batch_size": models.visual_prompts.batch.current, "shared": models.visual_prompts.shares_batches}
            facts["image_encoder"] = {"model": config.image_encoder.model, **batch}
        if "joints" in config.streams:
            batch = {"batch_size": models.joints.batch.current, "shared": models.joints.shares_batches}
            facts["pose_network"] = {"model": config.pose.model, **batch}
        return facts

    def _steady(self, run: Callable[[Sequence[Clip]], Cost]) -> Steady:
        clips = self._dataset.clips
        few = run(clips[: self._num_few])
        return steady(self._num_few, few, len(clips), run(clips))

    def _measure_parts(self) -> dict[str, Cost]:
        clips = self._dataset.clips[self._num_few :]
        return mean([self._parts.measure(self._dataset, clip).costs for clip in clips])

    def _decode(self, clips: Sequence[Clip], *, workers: int) -> Cost:
        jobs = [job_of(self._dataset, clip, frozenset()) for clip in clips]
        before = _now_with_children()
        with DecodePool(jobs, self._parts.settings, workers=workers) as pool:
            for delivery in pool:
                check_readable(delivery.clip)
                delivery.release()
        return _now_with_children() - before

    def _extract(self, clips: Sequence[Clip]) -> Cost:
        """The whole stage, into a new cache."""
        cache = self._folder / f"cache-{os.getpid()}"
        dataset = replace(self._dataset, clips=tuple(clips))
        before = _now_with_children()
        try:
            summary = extract(dataset, cache, self._config, workers=self._workers, device=self._device)
            return _checked(_now_with_children() - before, summary)
        finally:
            shutil.rmtree(cache, ignore_errors=True)


def _median(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return median(numbers) if numbers else None


def _median_cost(costs: Sequence[Cost]) -> Cost:
    return Cost(
        core_seconds=median(cost.core_seconds for cost in costs), seconds=median(cost.seconds for cost in costs)
    )


def _checked(spent: Cost, summary: ExtractionSummary) -> Cost:
    failed = {code: count for stream in summary.streams.values() for code, count in stream.failed.items()}
    for code, count in failed.items():
        raise VideoError(FailureCode(code), f"{count} clips failed ({code}): speed is measured on clips that do not")
    return spent


def _now_with_children() -> Cost:
    """The clocks of this process, with the processor time of its children that have ended."""
    times = os.times()
    return now() + Cost(core_seconds=times.children_user + times.children_system)


def _dataset(videos: Sequence[Path]) -> Dataset:
    paths = [path.absolute() for path in videos]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    clips = (
        Clip(id=f"{number:05d} {path.name}", video=path.relative_to(root).as_posix())
        for number, path in enumerate(paths)
    )
    return Dataset(name="bench", version="1", tasks=(), protocols={}, clips=tuple(clips), video_root=root)
