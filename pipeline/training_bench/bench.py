"""`bench train`: a cache is made, and training from it is measured against its parts and against doing without it.

The order matters for memory: its peak is taken before the frozen models of the baseline are loaded. In every second
round everything runs in the reverse order, against drifts of the clock rate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from extract.bench.parts import Cost
from extract.bench.stage import available_cores
from extract.image_encoder import ImageEncoder
from extract.pose.estimator import PoseEstimator
from pipeline.config import Recipe
from pipeline.training_bench.causal_decoding import CausalDecoding
from pipeline.training_bench.decoding import DecodingSource, Recordings, measure_parts
from pipeline.training_bench.made_cache import MadeCache, make_cache
from pipeline.training_bench.pose_decoding import PoseDecoding
from pipeline.training_bench.report import Round, TrainingReport
from train import image_tokens, video_tokens
from train.bench.memory import peak_memory
from train.bench.steps import StepBench, Steps
from train.clip_weights import clip_shape, find_clip_weights
from train.config import TrainConfig
from train.device import resolve_device
from train.experiment import Experiment
from train.methods.causal import find_video_encoder

NUM_LEGS = 6
"""Of one round; the leg with frozen tokens takes no time where there are none."""
_NEVER = 1e9
_MEMORY_STEPS = 1


@dataclass(frozen=True, kw_only=True)
class BenchSizes:
    """How much is measured."""

    steps: int = 10
    """From the cache, and of the bare model, in every round."""
    decoding_steps: int = 3
    """Of training that decodes."""
    repeats: int = 3
    """Rounds."""
    num_classes: int = 10
    """C."""


def bench_train(
    recipe: Recipe,
    videos: Sequence[Path],
    folder: Path,
    sizes: BenchSizes,
    *,
    device: str = "cpu",
    progress: Callable[[], None] = lambda: None,
) -> TrainingReport:
    """Measures a recipe's training.

    Args:
        recipe: its [extract] and [train] sections, with changes; weights are not used.
        videos: files in one folder; each is one clip.
        folder: an empty one, where the cache and a run are made.
        sizes: steps and rounds.
        device: where the models run.
        progress: called NUM_LEGS times in every round.

    Raises:
        ConfigError: a recipe that cannot be trained, or a device or model that does not exist.
        VideoError: a video cannot be read.
    """
    target = resolve_device(device)
    config = _bench_config(recipe.train)
    made = make_cache(
        videos,
        folder / "cache",
        recipe.extract,
        config,
        num_classes=sizes.num_classes,
        workers=available_cores(),
        device=str(target),
    )
    bench = _Bench(made, config, folder, sizes, target, recipe.name)
    memory = peak_memory(target, lambda: bench.steps.train_on(bench.steps.source, _MEMORY_STEPS))
    rounds = tuple(bench.run_round(number, progress) for number in range(sizes.repeats))
    return TrainingReport(rounds=rounds, memory=memory, facts=bench.facts())


def _bench_config(config: TrainConfig) -> TrainConfig:
    """Random weights, one split, and no checkpoint between steps."""
    return replace(
        config,
        validation_split="",
        checkpoint_minutes=_NEVER,
        video_encoder=replace(config.video_encoder, pretrained="none"),
        pevl=replace(config.pevl, pretrained="none"),
    )


class _Bench:
    def __init__(
        self, made: MadeCache, config: TrainConfig, folder: Path, sizes: BenchSizes, device: torch.device, recipe: str
    ) -> None:
        self._made, self._config, self._sizes, self._device, self._recipe = made, config, sizes, device, recipe
        self._experiment = Experiment.open(made.dataset, made.folder, config, splits=[config.train_split])
        self.steps = StepBench(self._experiment, folder / "run", device, recipe=recipe)

    @cached_property
    def _baselines(self) -> "_Baselines":
        return _Baselines(self._made, self._experiment, self.steps, self._device)

    def run_round(self, number: int, progress: Callable[[], None]) -> Round:
        """Measures everything once."""
        sizes, steps, baselines = self._sizes, self.steps, self._baselines
        legs: dict[str, Callable[[], Any]] = {
            "loading": lambda: steps.load(sizes.steps),
            "cached": lambda: steps.train_on(steps.source, sizes.steps),
            "bare": lambda: steps.bare(sizes.steps),
            "parts": lambda: self._parts(baselines.everything),
            "decoding": lambda: steps.train_on(baselines.everything, sizes.decoding_steps),
            "with_tokens": lambda: self._with_tokens(baselines),
        }
        assert len(legs) == NUM_LEGS
        found = {}
        for name in list(legs) if number % 2 == 0 else list(legs)[::-1]:
            found[name] = legs[name]()
            progress()
        return Round(**found, cores=available_cores(), is_gpu=self._device.type != "cpu")

    def _with_tokens(self, baselines: "_Baselines") -> Steps | None:
        kept = baselines.with_tokens
        return None if kept is None else self.steps.train_on(kept, self._sizes.decoding_steps)

    def _parts(self, source: DecodingSource[Any, Any]) -> dict[str, Cost]:
        return measure_parts(source, self.steps.forward_passes(self._sizes.decoding_steps), self._device)

    def facts(self) -> dict[str, Any]:
        """What was measured, on what."""
        config = self._config
        return {
            "recipe": self._recipe,
            "method": config.method,
            "device": str(self._device),
            "cores": available_cores(),
            "torch_threads": torch.get_num_threads(),
            "precision": config.precision,
            "num_frames": config.num_frames,
            "batch_size": config.batch_size,
            "accumulate": config.accumulate,
            "tokens": "frozen" if self._baselines.with_tokens is not None else "none",
            "num_classes": self._sizes.num_classes,
            "num_videos": len(self._made.dataset.clips),
            "cached": {"sampling": self._made.extract.instants.to_json(), "streams": list(self._made.extract.streams)},
            "cache_seconds_per_clip": self._made.seconds_per_clip,
            "steps": self._sizes.steps,
            "decoding_steps": self._sizes.decoding_steps,
            "trained_parameters": sum(
                value.numel() for value in self.steps.trainer.model.parameters() if value.requires_grad
            ),
        }


class _Baselines:
    """Training without a cache, and for frozen tokens also with them alone."""

    def __init__(self, made: MadeCache, experiment: Experiment, steps: StepBench, device: torch.device) -> None:
        self._made, self._experiment, self._device = made, experiment, device
        self._config, self._source = experiment.config, steps.source
        self._recordings = Recordings(made.dataset, self._source.clip_set.clips, made.extract.instants)
        build = self._pose if self._config.method == "pevl" else self._causal
        self.everything, self.with_tokens = build()

    def _causal(self) -> tuple[CausalDecoding, CausalDecoding | None]:
        config, device = self._config, self._device
        settings = replace(self._made.extract.image_encoder, precision=config.precision)
        shared = (self._source.clip_set, self._recordings, config, ImageEncoder.load(settings, device))
        if self._experiment.method.token_cache is None:
            return CausalDecoding(*shared), None
        weights = find_video_encoder(config)
        encoder = video_tokens.frozen_encoder(self._experiment.store.frames, config, weights, device)
        return CausalDecoding(*shared, video_encoder=encoder.encode), CausalDecoding(*shared, tokens=self._source)

    def _pose(self) -> tuple[PoseDecoding, PoseDecoding | None]:
        config, device, pevl = self._config, self._device, self._config.pevl
        shape = clip_shape(pevl.clip)
        has_pose = "pose" in pevl.encoders
        shared: dict[str, Any] = {
            "image_size": shape.image_size,
            "pose": PoseEstimator.load(self._made.extract.pose, device) if has_pose else None,
        }
        build = self._source.clip_set, self._recordings, config, device
        if self._experiment.method.token_cache is None:
            return PoseDecoding(*build, **shared), None
        weights = find_clip_weights(pevl.clip, pevl.pretrained)
        encoder = image_tokens.frozen_encoder(self._experiment.store.frames, config, shape, weights, device)
        return (
            PoseDecoding(*build, **shared, image_encoder=encoder.encode),
            PoseDecoding(*build, **shared, tokens=self._source),
        )
