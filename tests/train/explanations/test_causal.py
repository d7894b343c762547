"""`predict` with explanations of CMDCL and PCMCI: logits as without, maps that are the model's own, honest gaps."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cache.errors import FingerprintMismatch
from cache.explanation import MATCHING_STAGES, Explanation
from cache.manifest import Dataset
from cache.run import Run
from tests.toys import ACTIVITY, ATOMIC
from tests.train.runs import run_training, tiny_config, weights_of, write_toys
from train.config import TrainConfig
from train.data import Batch, centre_frames
from train.encoders.timesformer import pool_frames
from train.experiment import Experiment
from train.explanations.causal import NO_FRAMES, CausalExplainer
from train.explanations.choice import Choice
from train.frames import normalise
from train.models.pcmci import PCMCIConfig
from train.predict import load_trained, predict

PCMCI_HEADS = PCMCIConfig(dim=16, bases=2, qformer_heads=2, qformer_ffn=32)
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toys(tmp_path)
    return tmp_path


def explained(run: Run, split: str = "test") -> Explanation:
    found = run.explanation(split)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        tiny_config(frozen=True, task="atomic"),
        tiny_config(frozen=True, method="pcmci", pcmci=PCMCI_HEADS, task="atomic"),
    ],
    ids=["cmdcl from frames", "cmdcl from tokens", "pcmci from tokens"],
)
def test_explaining_leaves_the_predictions_as_they_are_and_agrees_with_them(folder: Path, config: TrainConfig) -> None:
    run = run_training(folder, config)
    before = run.predictions_path("test").read_bytes()
    predict(run.path, explain=Choice(count=3))
    assert run.predictions_path("test").read_bytes() == before
    predictions, found = run.predictions("test"), explained(run)
    rows = [predictions.clip_ids.index(clip_id) for clip_id in found.clip_ids]
    np.testing.assert_allclose(found.logits, predictions.logits[rows], atol=1e-5)
    assert (found.method, found.task, found.split, found.run_name) == (config.method, config.task, "test", "run")
    task = ACTIVITY if config.task == "activity" else ATOMIC
    assert found.class_names == task.class_names
    assert len(found.clip_ids) == 3
    assert len(found.pictures) == 3 * config.num_frames
    assert found.frame_index[0].tolist() == [1, 3, 5, 7]  # the centres of four segments of eight instants
    assert found.pts_seconds[0].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert found.notices == ()
    parts, patches = found.interventions, found.patches
    assert parts is not None
    assert patches is not None
    assert parts.is_plan == (config.method == "pcmci")
    assert (parts.relation_graphs is None) == (config.method == "cmdcl")
    np.testing.assert_allclose(np.linalg.norm(parts.visual_prompts, axis=-1), 1, rtol=1e-5)
    assert patches.attention.shape == (3, config.num_frames, 4)
    assert patches.evidence.shape == (3, 3, config.num_frames, 4)


def test_scores_are_those_of_the_stored_text_and_prompts(folder: Path) -> None:
    run = run_training(folder, tiny_config(frozen=True))
    predict(run.path, explain=Choice(count=2))
    parts = explained(run).interventions
    assert parts is not None
    assert parts.back_door is not None
    text = parts.text / np.linalg.norm(parts.text, axis=-1, keepdims=True)
    scores = np.exp(np.einsum("cd,mld->mcl", text, parts.visual_prompts) / 0.01)
    np.testing.assert_allclose(parts.back_door, scores / scores.sum(axis=-1, keepdims=True), atol=1e-4)
    assert np.abs(parts.text - parts.cached_text).max() > 1e-3  # T was trained
    assert np.abs(parts.corrected_text - parts.text).max() > 1e-3


def opened(folder: Path, config: TrainConfig, run: Run) -> tuple[CausalExplainer, Batch, str]:
    experiment = Experiment.open(Dataset.read(folder / "dataset"), folder / "cache", config, splits=("test",))
    trained = load_trained(run.path / "checkpoints", "last", experiment, CPU)
    trained.model.eval()
    batch = next(experiment.sources(CPU, progress=False)["test"].batches([np.array([1])], None))
    clip_id = experiment.clip_sets["test"].clips[1].id
    return CausalExplainer.of(experiment, trained.model, CPU), batch, clip_id


def test_tokens_computed_again_are_the_cached_ones(folder: Path) -> None:
    config = tiny_config(frozen=True)
    explainer, batch, clip_id = opened(folder, config, run_training(folder, config))
    assert explainer.encoder is not None
    look = config.video_encoder
    frames = normalise(centre_frames(explainer.experiment.store.frames, clip_id, config)[None], look.mean, look.std)
    with torch.no_grad():
        tokens, _ = explainer.encoder.look(frames)
    assert batch.frame_tokens is not None
    torch.testing.assert_close(pool_frames(tokens, config.num_frames), batch.frame_tokens, rtol=1e-5, atol=1e-5)


def test_evidence_is_how_a_logit_changes_when_a_patch_fades(folder: Path) -> None:
    """Against central differences; the model computes in fp32 here and there."""
    config = tiny_config(frozen=True)
    explainer, batch, _ = opened(folder, config, run_training(folder, config))
    explainer.model.double()
    tokens = torch.randn(1, 1 + 4 * 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    prompts = batch.visual_prompts.double()
    shown = np.array([2, 0])
    evidence = explainer._evidence(prompts, tokens, shown)  # (k, L, P)
    assert evidence.shape == (2, 4, 4)
    mean = tokens[0, 1:].mean(dim=0)

    def logits(values: torch.Tensor) -> torch.Tensor:
        return explainer.model(prompts, frame_tokens=pool_frames(values, 4))[0]

    for frame, patch in ((0, 3), (2, 1)):
        place, step = 1 + patch * 4 + frame, torch.zeros_like(tokens)
        step[0, place] = 0.05 * (tokens[0, place] - mean)
        with torch.no_grad():
            change = (logits(tokens + step) - logits(tokens - step)) / 0.1
        torch.testing.assert_close(evidence[:, frame, patch], change[shown], rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize(  # of the test clips one has no action, and all show tea
    ("split", "expected_rows"), [("train", {"toast": 4, "egg": 4}), ("test", {"tea": 4})]
)
def test_matching_averages_over_every_clip_of_the_split_by_its_long_term_class(
    folder: Path, split: str, expected_rows: dict[str, int]
) -> None:
    run = run_training(folder, tiny_config(frozen=True, task="atomic"))
    predict(run.path, split=split, explain=Choice(count=1))
    found = explained(run, split)
    matching, parts = found.matching, found.interventions
    assert matching is not None
    assert parts is not None
    assert matching.row_task == "activity"
    assert dict(zip(matching.rows, matching.counts.tolist(), strict=True)) == expected_rows
    np.testing.assert_allclose(matching.probabilities.sum(axis=-1), 1, rtol=1e-5)
    dataset = Dataset.read(folder / "dataset")
    experiment = Experiment.open(dataset, folder / "cache", tiny_config(frozen=True, task="atomic"), splits=(split,))
    for stage, text in ((0, parts.cached_text), (1, parts.text)):
        unit = text / np.linalg.norm(text, axis=-1, keepdims=True)
        rows, own = [], []
        for clip in dataset.select("default", split):
            prompts = np.asarray(experiment.store.visual_prompts[clip.id], np.float64)[[1, 3, 5, 7]]
            scores = np.exp(prompts / np.linalg.norm(prompts, axis=-1, keepdims=True) @ unit.T / 0.01)
            mean = (scores / scores.sum(axis=-1, keepdims=True)).mean(axis=0)
            rows.append((clip.labels["activity"], mean))
            if clip.labels["atomic"]:
                own.append(sum(mean[ATOMIC.class_names.index(name)] for name in clip.labels["atomic"]))
        for number, name in enumerate(matching.rows):
            expected = np.mean([mean for labels, mean in rows if labels == (name,)], axis=0)
            np.testing.assert_allclose(matching.probabilities[stage, number], expected, atol=1e-4)
        assert matching.on_own is not None
        assert matching.on_own[stage] == pytest.approx(np.mean(own), abs=1e-4)
    assert len(MATCHING_STAGES) == len(matching.probabilities)


def test_without_tci_the_corrected_text_is_the_trained_one(folder: Path) -> None:
    config = tiny_config(frozen=True)
    config = replace(config, cmdcl=replace(config.cmdcl, tci=False))
    run = run_training(folder, config)
    predict(run.path, explain=Choice(count=1))
    found = explained(run)
    assert found.interventions is not None
    assert found.interventions.back_door is None
    assert found.matching is not None
    np.testing.assert_array_equal(found.matching.probabilities[1], found.matching.probabilities[2])


def test_a_cache_without_frames_gives_no_pictures_and_says_so(folder: Path) -> None:
    run = run_training(folder, tiny_config(frozen=True))
    shutil.rmtree(folder / "cache" / "frames")
    predict(run.path, explain=Choice(count=2))
    found = explained(run)
    assert (found.patches, found.pictures, found.notices) == (None, (), (NO_FRAMES,))
    assert found.interventions is not None


def test_maps_of_another_encoder_than_the_runs_are_refused(folder: Path) -> None:
    first = run_training(folder, tiny_config(epochs=1), name="first")
    prefix = "frame_features.video_encoder."
    encoder = {name.removeprefix(prefix): value for name, value in weights_of(first).items() if prefix in name}
    save_file(encoder, folder / "encoder.safetensors")
    config = tiny_config(frozen=True)
    given = replace(config.video_encoder, pretrained=str(folder / "encoder.safetensors"))
    run = run_training(folder, replace(config, video_encoder=given))
    save_file({name: value + 1 for name, value in encoder.items()}, folder / "encoder.safetensors")
    with pytest.raises(FingerprintMismatch, match="no longer the encoder of the run"):
        predict(run.path, explain=Choice(count=1))


def test_named_clips_are_explained_in_the_split_that_has_them(folder: Path) -> None:
    run = run_training(folder, tiny_config(frozen=True, predict_splits=("train", "test")))
    predict(run.path, explain=Choice(clip_ids=("clip-006",)))
    assert explained(run).clip_ids == ("clip-006",)
    assert run.explanation("train") is None


def test_an_explanation_does_not_depend_on_the_clips_beside_it(folder: Path) -> None:
    run = run_training(folder, tiny_config(frozen=True))
    predict(run.path, explain=Choice(count=4))
    together = explained(run)
    predict(run.path, explain=Choice(clip_ids=(together.clip_ids[2],)))
    alone = explained(run)
    arrays: Any = [item.interventions for item in (together, alone)]
    np.testing.assert_array_equal(arrays[0].back_door[2], arrays[1].back_door[0])
    np.testing.assert_array_equal(arrays[0].front_door[2], arrays[1].front_door[0])
