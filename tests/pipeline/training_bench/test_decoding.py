"""Training without a cache sees what training from the cache sees: batches of both, side by side, on real videos."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import FailureCode, VideoError
from extract.bench.parts import CROPPING, DECODING, IMAGE_ENCODER, JOINTS, POSE_NETWORK
from extract.extractor import extract
from pipeline.training_bench import bench
from pipeline.training_bench.decoding import VIDEO_ENCODER, DecodingSource, measure_parts
from pipeline.training_bench.made_cache import MadeCache, made_dataset, make_cache, streams_of, without_weights
from tests.pipeline.training_bench.tiny import NUM_FRAMES, NUM_POSE_FRAMES, causal_recipe, pose_recipe, tiny_videos
from train.bench.steps import StepBench
from train.config import AugmentConfig, TrainConfig
from train.experiment import Experiment

CPU = torch.device("cpu")
PIECE = np.array([2, 0])
STILL = AugmentConfig(flip=0, jitter=0, grey=0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return tiny_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def made(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> MadeCache:
    """One cache for both methods, with the streams of both."""
    folder = tmp_path_factory.mktemp("made")
    recipe = pose_recipe(folder, task="activity")
    config = without_weights(recipe.extract, ("frames", "visual_prompts", "joints", "text"))
    dataset = made_dataset(videos, recipe.train, 3)
    extract(dataset, folder / "cache", config)
    return MadeCache(dataset=dataset, folder=folder / "cache", extract=config, seconds_per_clip=1.0)


def side_by_side(cache: MadeCache, config: TrainConfig, folder: Path) -> tuple[StepBench, bench._Baselines]:
    """A trainer with the source of the cache, and those that do without it."""
    config = bench._bench_config(config)
    experiment = Experiment.open(cache.dataset, cache.folder, config, splits=["train"], token_root=folder / "tokens")
    steps = StepBench(experiment, folder / "run", CPU, recipe="tiny")
    return steps, bench._Baselines(cache, experiment, steps, CPU)


def one_batch(source: Any) -> Any:  # noqa: ANN401 (a batch of the method)
    (batch,) = source.batches([PIECE], 3)
    return batch


def test_frames_and_visual_prompts_are_those_of_the_cache_at_the_same_random_instants(
    made: MadeCache, tmp_path: Path
) -> None:
    config = replace(causal_recipe(tmp_path).train, augment=STILL)
    steps, baselines = side_by_side(made, config, tmp_path)
    cached, decoded = one_batch(steps.source), one_batch(baselines.everything)
    assert torch.equal(decoded.targets, cached.targets)
    torch.testing.assert_close(decoded.visual_prompts, cached.visual_prompts, atol=2e-3, rtol=2e-3)  # fp16
    assert decoded.frames.shape == cached.frames.shape == (2, NUM_FRAMES, 3, 16, 16)
    assert decoded.frames.dtype == torch.uint8
    apart = (decoded.frames.float() - cached.frames.float()).abs().mean()  # JPEG's loss
    other = (decoded.frames.float() - cached.frames.flip(0).float()).abs().mean()
    assert apart < 6 < 2 * 6 < other
    assert baselines.with_tokens is None


def test_frozen_tokens_are_those_of_the_cache_computed_again_or_taken_from_it(made: MadeCache, tmp_path: Path) -> None:
    steps, baselines = side_by_side(made, causal_recipe(tmp_path, frozen=True).train, tmp_path)
    cached, again, kept = (one_batch(way) for way in (steps.source, baselines.everything, baselines.with_tokens))
    for batch in (again, kept):
        torch.testing.assert_close(batch.visual_prompts, cached.visual_prompts, atol=2e-3, rtol=2e-3)
        assert torch.equal(batch.targets, cached.targets)
    assert torch.equal(kept.frame_tokens, cached.frame_tokens)
    apart = (again.frame_tokens - cached.frame_tokens).abs().mean()  # of frames that were JPEGs, and of those that not
    assert 0 < apart < 0.3 * (cached.frame_tokens - cached.frame_tokens.flip(0)).abs().mean()


def test_joints_and_views_are_those_of_the_cache(made: MadeCache, tmp_path: Path) -> None:
    steps, baselines = side_by_side(made, pose_recipe(tmp_path, task="activity").train, tmp_path)
    cached, decoded = one_batch(steps.source), one_batch(baselines.everything)
    assert decoded.joints.shape == (2, 1, NUM_POSE_FRAMES, 17, 3)
    torch.testing.assert_close(decoded.joints, cached.joints, atol=1e-3, rtol=1e-3)
    assert decoded.frames.shape == cached.frames.shape
    assert (decoded.frames.float() - cached.frames.float()).abs().mean() < 6
    assert torch.equal(decoded.targets, cached.targets)


def test_image_tokens_without_adapters_are_computed_again_too(made: MadeCache, tmp_path: Path) -> None:
    steps, baselines = side_by_side(made, pose_recipe(tmp_path, task="activity", pevl__adapters="[]").train, tmp_path)
    cached, again, kept = (one_batch(way) for way in (steps.source, baselines.everything, baselines.with_tokens))
    assert again.frames is None
    assert again.tokens.shape == cached.tokens.shape
    assert again.tokens.dtype == cached.tokens.dtype
    assert torch.equal(kept.tokens, cached.tokens)
    apart = (again.tokens.float() - cached.tokens.float()).abs().mean()
    assert 0 < apart < 0.3 * (cached.tokens.float() - cached.tokens.flip(0).float()).abs().mean()
    torch.testing.assert_close(again.joints, cached.joints, atol=1e-3, rtol=1e-3)


def test_training_takes_a_step_on_every_way(made: MadeCache, tmp_path: Path) -> None:
    for recipe in (
        causal_recipe(tmp_path, frozen=True, precision="bf16"),
        pose_recipe(tmp_path, task="activity", precision="bf16"),
    ):
        steps, baselines = side_by_side(made, recipe.train, tmp_path / recipe.train.method)
        for source in (steps.source, baselines.everything, baselines.with_tokens or steps.source):
            found = steps.train_on(source, 1)
            assert found.seconds_per_clip > found.model_seconds_per_clip > 0


def parts_of(source: DecodingSource[Any, Any]) -> set[str]:
    costs = measure_parts(source, [PIECE, PIECE], CPU)
    assert all(cost.seconds > 0 for cost in costs.values())
    return set(costs)


def test_every_part_that_a_cache_saves_is_measured_alone(made: MadeCache, tmp_path: Path) -> None:
    _, tuned = side_by_side(made, causal_recipe(tmp_path).train, tmp_path / "tuned")
    assert parts_of(tuned.everything) == {DECODING, IMAGE_ENCODER}
    _, fixed = side_by_side(made, causal_recipe(tmp_path, frozen=True).train, tmp_path / "fixed")
    assert parts_of(fixed.everything) == {DECODING, IMAGE_ENCODER, VIDEO_ENCODER}
    _, pose = side_by_side(made, pose_recipe(tmp_path, task="activity").train, tmp_path / "pose")
    assert parts_of(pose.everything) == {DECODING, CROPPING, POSE_NETWORK, JOINTS}


def test_a_method_is_given_the_streams_that_it_reads(tmp_path: Path) -> None:
    assert streams_of(causal_recipe(tmp_path).train) == ("frames", "visual_prompts", "text")
    assert streams_of(pose_recipe(tmp_path).train) == ("frames", "joints", "text")
    keys = {"encoders": '["pose", "text"]', "adapters": '["pose"]', "p2v": "off", "v2p": "false"}
    keys |= {"similarities": '["ps"]'}
    alone = pose_recipe(tmp_path, **{f"pevl__{key}": value for key, value in keys.items()})
    assert streams_of(alone.train) == ("joints", "text")


def test_a_video_that_cannot_be_read_is_no_measure_of_speed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video\n" * 100)
    recipe = pose_recipe(tmp_path)
    with pytest.raises(VideoError, match="speed is measured on clips that do not") as caught:
        make_cache([broken], tmp_path / "cache", recipe.extract, recipe.train, num_classes=3, workers=1, device="cpu")
    assert caught.value.code == FailureCode.NOT_A_VIDEO
