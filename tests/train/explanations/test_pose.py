"""`predict` with explanations of PeVL: masks, joints and words are those that the model used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.explanation import Explanation
from cache.manifest import Dataset
from cache.run import Run
from cache.skeletons import SKELETONS
from tests.train.pose_runs import pose_config, write_pose_toys
from tests.train.runs import run_training
from train.clip_weights import token_words, tokenize
from train.encoders.clip_tower import ClipShape
from train.experiment import Experiment
from train.explanations.choice import Choice
from train.models.pevl import PeVL
from train.predict import load_trained, predict
from train.refinement import pose_frame_of

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pose_toys(tmp_path)
    return tmp_path


def explain(folder: Path, count: int = 3, **changes: Any) -> tuple[Run, Explanation]:  # noqa: ANN401
    run = run_training(folder, pose_config(folder, epochs=1, **changes))
    before = run.predictions_path("test").read_bytes()
    predict(run.path, explain=Choice(count=count))
    assert run.predictions_path("test").read_bytes() == before
    found = run.explanation("test")
    assert found is not None
    return run, found


def test_masks_sum_to_one_where_somebody_is_and_logits_are_those_of_the_predictions(folder: Path) -> None:
    run, found = explain(folder)
    predictions = run.predictions("test")
    rows = [predictions.clip_ids.index(clip_id) for clip_id in found.clip_ids]
    np.testing.assert_allclose(found.logits, predictions.logits[rows], atol=1e-4)
    assert found.pose is not None
    assert found.pose.mask is not None
    seen = (found.pose.joints[..., 2] > 0).any(axis=-1)
    np.testing.assert_allclose(found.pose.mask.sum(axis=-1), seen, atol=1e-5)
    assert found.pose.joint_names == SKELETONS["coco_17"].joint_names
    assert found.pose.joints[..., :2].max() < 1
    assert not found.pose.joints[:, :, 3].any()  # the joint that is always missing
    assert len(found.pictures) == found.pts_seconds.size == 3 * 2
    assert found.interventions is None


def test_mask_and_joint_weights_are_those_that_refined_the_features(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found = explain(folder, crops=3)
    config = pose_config(folder, epochs=1, crops=3)
    experiment = Experiment.open(Dataset.read(folder / "dataset"), folder / "cache", config, splits=("test",))
    model = load_trained(run.path / "checkpoints", "last", experiment, CPU).model.eval()
    assert isinstance(model, PeVL)
    assert model.refinement is not None
    used: list[torch.Tensor] = []
    plain = model.refinement.forward

    def spy(video: Any, pose: Any, mask: Any, joints: Any) -> Any:  # noqa: ANN401
        used.append(mask)
        return plain(video, pose, mask, joints)

    monkeypatch.setattr(model.refinement, "forward", spy)
    source = experiment.sources(CPU, progress=False)["test"]
    number = [clip.id for clip in experiment.clip_sets["test"].clips].index(found.clip_ids[1])
    batch = next(source.batches([np.array([number])], None))
    with torch.no_grad():
        experiment.method.predictor(model)(batch)
    assert found.pose is not None
    assert found.pose.mask is not None
    np.testing.assert_allclose(found.pose.mask[1], used[0][1].numpy(), atol=1e-6)  # the middle one of three crops
    assert batch.joints is not None
    shared = pose_frame_of(2, 4)
    expected = batch.joints[0, 1, shared, :, :2] / model.shape.image_size
    np.testing.assert_allclose(found.pose.joints[1, ..., :2], expected.numpy(), atol=1e-6)


def test_words_are_those_of_the_prompts_and_padding_is_zero(folder: Path) -> None:
    _, found = explain(folder)
    assert found.frame_words is not None
    assert found.frame_words.words == (("tea",), ("toast",), ("egg",))
    assert found.frame_words.cosines.shape == (3, 3, 4, 1)
    assert np.abs(found.frame_words.cosines).max() <= 1 + 1e-6
    assert found.frame_words.pose_seconds.shape == (3, 4)
    shape = ClipShape(
        image_size=32, patch_size=8, width=8, depth=1, heads=1, mlp_ratio=1.0, text_width=8, text_depth=1,
        text_heads=1, context_length=16, vocab_size=49408, embed_dim=8,
    )  # fmt: skip
    words = token_words(*tokenize(["inward dive, 1.5 turns", "tea"], shape))
    assert words == (("in", "ward", "dive", ",", "1", ".", "5", "turns"), ("tea",))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"p2v": "off"}, {"mask": False, "pose": True, "words": True}),
        ({"p2v": "off", "v2p": False}, {"mask": False, "pose": True, "words": True}),
        ({"similarities": ("vs", "ps")}, {"mask": True, "pose": True, "words": False}),
        ({"encoders": ("video", "pose"), "adapters": ("video",)}, {"mask": True, "pose": True, "words": False}),
        (
            {
                "encoders": ("video", "text"), "adapters": (), "p2v": "off", "v2p": False, "similarities": ("vs",),
            },
            {"mask": False, "pose": False, "words": False},
        ),
    ],
)  # fmt: skip
def test_what_a_setting_does_not_have_is_not_explained(
    folder: Path, changes: dict[str, Any], parts: dict[str, bool]
) -> None:
    _, found = explain(folder, 1, **changes)
    assert (found.pose is not None) == parts["pose"]
    assert (found.pose is not None and found.pose.mask is not None) == parts["mask"]
    assert (found.frame_words is not None) == parts["words"]
    assert found.pictures
