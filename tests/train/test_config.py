from dataclasses import replace
from typing import Any

import pytest

from cache.errors import ConfigError
from tests.train.runs import HEADS, tiny_config
from train.config import (
    AugmentConfig,
    OptimizerConfig,
    TrainConfig,
    VideoEncoderConfig,
    differences,
    from_json,
    to_json,
)


def test_the_defaults_are_those_of_the_cmdcl_paper() -> None:
    config = TrainConfig(task="activity")
    assert (config.epochs, config.num_frames, config.optimizer.learning_rate) == (80, 16, 1e-5)
    assert (config.optimizer.name, config.optimizer.schedule, config.optimizer.weight_decay) == ("adam", "cosine", 0.0)
    assert config.video_encoder.pretrained == "8x32_224_K400"
    assert config.video_encoder.timesformer(16).num_patches == 196


def test_json_and_back_is_the_same_configuration() -> None:
    config = tiny_config(frozen=True, predict_splits=("a", "b"), accumulate=2)
    assert from_json(to_json(config)) == config


def test_a_stored_configuration_with_an_unknown_key_is_refused() -> None:
    body = to_json(tiny_config())
    body["optimizer"]["momentum"] = 0.9
    with pytest.raises(ConfigError, match="momentum"):
        from_json(body)


def test_differences_name_the_key_and_both_values() -> None:
    old, new = tiny_config(), tiny_config(optimizer=OptimizerConfig(learning_rate=0.5), epochs=9)
    assert differences(to_json(old), to_json(new)) == [
        "train.epochs: the run has 3, asked for 9",
        "train.optimizer.learning_rate: the run has 0.01, asked for 0.5",
    ]
    assert differences(to_json(old), to_json(old)) == []


def test_settings_of_memory_and_time_are_no_difference() -> None:
    config = tiny_config()
    cheaper = replace(
        config,
        accumulate=3,
        checkpoint_minutes=1.0,
        video_encoder=replace(config.video_encoder, gradient_checkpointing=True),
        cmdcl=replace(config.cmdcl, class_chunk=1),
    )
    assert differences(to_json(config), to_json(cheaper)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs = 0"),
        ({"accumulate": 4}, "more than the 3 clips"),
        ({"seed": -1}, "seed = -1"),
        ({"task": ""}, "task and train_split"),
        ({"predict_splits": ("test", "test")}, "named twice"),
        ({"accumulate": 2, "cmdcl": replace(HEADS, scene="exchanged")}, "needs two clips or more in one forward pass"),
    ],
)
def test_impossible_training_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


def test_impossible_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="resize 200 is smaller"):
        VideoEncoderConfig(resize=200)
    with pytest.raises(ValueError, match="does not divide"):
        VideoEncoderConfig(patch_size=15)
    with pytest.raises(ValueError, match="three numbers"):
        VideoEncoderConfig(mean=(0.5,))
    with pytest.raises(ValueError, match="scales"):
        AugmentConfig(scales=())
    with pytest.raises(ValueError, match="flip"):
        AugmentConfig(flip=1.5)
    with pytest.raises(ValueError, match="learning_rate"):
        replace(OptimizerConfig(), learning_rate=0.0)
    with pytest.raises(ValueError, match="betas"):
        OptimizerConfig(betas=(0.9,))
