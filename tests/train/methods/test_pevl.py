"""PeVL from a cache: what is refused, what is trained, what is stored, and ablations that run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cache.errors import CacheError, ConfigError, DeconfoundError, FingerprintMismatch, WeightsError
from cache.manifest import Dataset
from cache.run import Run
from cache.skeletons import COCO_17
from tests.train.pose_runs import logits_table, pose_config, write_pose_toys
from tests.train.runs import run_training, weights_of
from tests.train.tiny_clip import reference, write_model
from train import trainer
from train.config import TrainConfig
from train.experiment import Experiment
from train.frames import normalise
from train.methods.pevl import PeVLMethod
from train.models.pevl import PeVL
from train.pose_data import PoseBatch
from train.predict import predict

CPU = torch.device("cpu")
PROJECTIONS = {f"{name}_projection.weight" for name in ("video", "pose", "text")}
FROZEN: dict[str, Any] = {"adapters": (), "p2v": "off", "v2p": False}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pose_toys(tmp_path)
    return tmp_path


def open_experiment(folder: Path, config: TrainConfig) -> Experiment:
    return Experiment.open(Dataset.read(folder / "dataset"), folder / "cache", config, splits=("train", "test"))


def model_and_batch(folder: Path, **changes: Any) -> tuple[Experiment, PeVL, PoseBatch]:  # noqa: ANN401
    experiment = open_experiment(folder, pose_config(folder, **changes))
    model = experiment.build_model()
    assert isinstance(model, PeVL)
    batch = next(experiment.sources(CPU, progress=False)["train"].batches([np.arange(6)], 0))
    return experiment, model, batch


def gradients_of(folder: Path, **changes: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """Gradients after one loss, with adapters that are no longer at zero."""
    experiment, model, batch = model_and_batch(folder, **changes)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
        assert parameter.requires_grad != name.startswith(("image_tower", "text_tower")), name
    model.eval()
    experiment.method.loss(model, batch).backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def test_a_run_trains_writes_logits_and_predicts_the_same_again(folder: Path) -> None:
    run = run_training(folder, pose_config(folder, epochs=6, drop_path=0.0, flip=0.0, crop_area=(1.0, 1.0)))
    found = run.predictions("test")
    assert found.logits.shape == (4, 3)
    assert set(found.fingerprints) == {"frames", "joints", "text", "image_encoder"}
    run.predictions_path("test").unlink()
    (again,) = predict(run.path)
    np.testing.assert_array_equal(again.logits, found.logits)
    losses = [row["loss"] for row in run.metrics()]
    assert losses[-1] < losses[0]


def test_a_stopped_run_continues_to_the_same_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_SAVES", 0.0)
    whole = run_training(folder, pose_config(folder), name="whole")
    plain, calls = trainer.Trainer._step, iter(range(100))

    def stopping(trainer: trainer.Trainer, *arguments: Any) -> None:  # noqa: ANN401
        if next(calls) == 3:
            raise KeyboardInterrupt
        plain(trainer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_training(folder, pose_config(folder), name="stopped")
    stopped = run_training(folder, pose_config(folder), name="stopped")
    expected, found = weights_of(whole), weights_of(stopped)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_checkpoints_hold_what_is_trained_and_no_frozen_tower(folder: Path) -> None:
    run = run_training(folder, pose_config(folder))
    names = set(weights_of(run))
    assert not any("tower" in name for name in names)
    assert PROJECTIONS | {"tau.log", "tau_r.log"} <= names


def test_gradients_reach_every_trained_part_and_no_other(folder: Path) -> None:
    found = gradients_of(folder, strength_text="live")
    experiment, model, _ = model_and_batch(folder)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    zero = {name for name in trained if not found.get(name, torch.zeros(1)).any()}
    assert not zero, sorted(zero)
    fast, factor = experiment.method.fast_parameters(model)
    assert trained - set(fast) == PROJECTIONS | {"tau.log"}
    assert factor == 10.0


@pytest.mark.parametrize("detach", [True, False])
def test_the_mask_carries_gradients_to_the_pose_encoder_unless_detached(folder: Path, detach: bool) -> None:
    """Invariant 41: with the video similarity alone, pose adapters can only be reached through M."""
    found = gradients_of(folder, similarities=("vs",), v2p=False, lambda_r=0.0, mask_detach=detach)
    pose = [value for name, value in found.items() if name.startswith("pose.blocks")]
    assert any(value.any() for value in pose) == (not detach)


@pytest.mark.parametrize(
    "changes",
    [
        {"p2v": "inside"},
        {"p2v": "outer"},
        {"p2v": "off"},
        {"v2p": False},
        {"v2p_group": "nearest"},
        {"lambda_r": 0.0},
        {"p2v": "off", "v2p": False},
        {"similarities": ("ps",)},
        {"similarities": ("vs", "fw")},
        {"strengths": "uniform"},
        {"strength_text": "live"},
        {"fusion": "concat", "p2v": "off", "v2p": False, "strengths": "uniform"},
        {"fusion": "concat"},
        {"adapters": ("text",)},
        {"adapters": ("video", "pose")},
        {"video_temporal": True},
        {"pose_pool": "cls+mean"},
        {"mask_dilate": 1},
        {"crops": 1},
        {"encoders": ("video", "text"), "adapters": ("video", "text"), "similarities": ("vs",), **FROZEN},
        {"encoders": ("pose", "text"), "similarities": ("ps", "fw"), **FROZEN},
        {"encoders": ("video",), **FROZEN},
        {"encoders": ("pose",), **FROZEN, "adapters": ("pose",)},
        {"encoders": ("pose",), **FROZEN, "adapters": ("pose",), "pose_input": "heatmaps"},
        {"encoders": ("video", "pose"), **FROZEN},
        {**FROZEN, "fusion": "concat"},
    ],
)
def test_every_ablation_of_the_paper_trains_and_predicts(folder: Path, changes: dict[str, Any]) -> None:
    run_training(folder, pose_config(folder, epochs=1, **changes))
    logits = logits_table(folder, "run")
    assert logits.shape == (4, 3)
    assert logits.std(axis=0).max() > 0


def test_without_adapters_tokens_are_cached_and_equal_what_the_tower_gives(folder: Path) -> None:
    experiment, model, batch = model_and_batch(folder, **FROZEN, fusion="concat")
    assert batch.tokens is not None
    assert batch.frames is None
    assert isinstance(experiment.method, PeVLMethod)
    live, _, seen = model_and_batch(folder, **(FROZEN | {"adapters": ("text",)}))
    view = next(live.sources(CPU, progress=False)["train"].batches([np.arange(6)], None))
    assert view.frames is not None
    assert seen.frames is not None
    pixels = normalise(view.frames[:, 1], live.config.pevl.mean, live.config.pevl.std)
    assert model.video is not None
    with torch.inference_mode():
        expected = model.video(model.image_tower, pixels)
    torch.testing.assert_close(batch.tokens[:, 0].float(), expected, atol=5e-3, rtol=5e-3)
    assert any("without augmentation" in notice for notice in experiment.notices)
    names = sorted(path.name for path in (folder / "cache" / "image_tokens").iterdir())
    assert len(names) == 1


def test_logits_of_a_clip_are_the_mean_over_its_crops(folder: Path) -> None:
    """Invariant 39 for crops that differ: six clips, then the same frames and joints as three crops of two clips."""
    experiment, model, batch = model_and_batch(folder)
    model.eval()
    predict_batch = experiment.method.predictor(model)
    assert batch.frames is not None
    assert batch.joints is not None
    crops = PoseBatch(
        targets=batch.targets[:2],
        frames=batch.frames.squeeze(1).unflatten(0, (2, 3)),
        joints=batch.joints.squeeze(1).unflatten(0, (2, 3)),
    )
    with torch.inference_mode():
        single = predict_batch(batch).unflatten(0, (2, 3))
        torch.testing.assert_close(predict_batch(crops), single.mean(dim=1), atol=1e-5, rtol=1e-5)
    assert single.std(dim=1).max() > 1e-2


def test_left_and_right_joints_change_places_in_a_mirrored_view(folder: Path) -> None:
    plain, mirrored = (model_and_batch(folder, flip=flip)[2].joints for flip in (0.0, 1.0))
    assert plain is not None
    assert mirrored is not None
    for name in COCO_17.joint_names:
        other = name.replace("left", "*").replace("right", "left").replace("*", "right")
        found = mirrored[..., COCO_17.joint_names.index(name), :]
        expected = plain[..., COCO_17.joint_names.index(other), :].clone()
        expected[..., 0] = torch.where(expected[..., 2] > 0, 32 - expected[..., 0], 0.0)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_predictions_do_not_depend_on_the_batch(folder: Path) -> None:
    experiment, model, batch = model_and_batch(folder)
    model.eval()
    predict_batch = experiment.method.predictor(model)
    assert batch.frames is not None
    assert batch.joints is not None
    first = PoseBatch(targets=batch.targets[:1], frames=batch.frames[:1], joints=batch.joints[:1])
    with torch.inference_mode():
        torch.testing.assert_close(predict_batch(first), predict_batch(batch)[:1], atol=1e-5, rtol=1e-5)


def test_a_multi_label_task_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"several labels a clip.*single-label task"):
        open_experiment(folder, pose_config(folder, task="atomic"))


def test_a_cache_without_joints_says_what_to_extract(folder: Path) -> None:
    (folder / "cache" / "joints").rename(folder / "elsewhere")
    with pytest.raises(CacheError, match=r"no stream 'joints'.*--streams joints"):
        open_experiment(folder, pose_config(folder))


def test_accumulation_is_refused_where_clips_are_contrasted(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"accumulate = 2.*contrasts the clips of a batch"):
        pose_config(folder, accumulate=2)
    pose_config(folder, accumulate=2, encoders=("pose",), **(FROZEN | {"adapters": ("pose",)}))


def test_another_activation_than_the_caches_is_refused(folder: Path) -> None:
    write_model(folder, quick_gelu=False)
    with pytest.raises(FingerprintMismatch, match="quick_gelu: True and False"):
        open_experiment(folder, pose_config(folder))


def test_other_weights_than_the_caches_are_refused(folder: Path) -> None:
    save_file(reference(seed=1).state_dict(), folder / "tiny-clip.safetensors")
    with pytest.raises(FingerprintMismatch, match=r"model\.weights"):
        open_experiment(folder, pose_config(folder))


def test_weights_of_another_width_are_refused_before_training(folder: Path) -> None:
    state = load_file(folder / "tiny-clip.safetensors")
    write_model(
        folder,
        name="wide.json",
        vision_cfg=json.loads((folder / "tiny-clip.json").read_text())["vision_cfg"] | {"width": 64},
    )
    experiment = open_experiment(folder, pose_config(folder))
    assert isinstance(experiment.method, PeVLMethod)
    save_file(state, folder / "wide.safetensors")
    config = pose_config(folder, clip=str(folder / "wide.json"), pretrained=str(folder / "wide.safetensors"))
    with pytest.raises((FingerprintMismatch, WeightsError)):
        open_experiment(folder, config)


@pytest.mark.parametrize(
    ("changes", "message"), [({"num_frames": 3}, "no multiple"), ({"pose_frames": 5}, "no multiple")]
)
def test_frames_that_do_not_meet_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pose_config(folder, **changes)


def test_too_few_cached_instants_are_refused(folder: Path) -> None:
    with pytest.raises(DeconfoundError, match="pose_frames = 16"):
        open_experiment(folder, pose_config(folder, pose_frames=16))


def test_nothing_is_left_behind_by_a_refused_run(folder: Path) -> None:
    with pytest.raises(ConfigError):
        run_training(folder, pose_config(folder, task="atomic"))
    assert not (folder / "run").exists()
    assert isinstance(Run.open(run_training(folder, pose_config(folder, epochs=1)).path), Run)
