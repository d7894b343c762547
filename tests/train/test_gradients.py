"""A step's gradient does not depend on the forward passes that its batch is split into."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.train.one_step import NUM_CLIPS, configs, gradients, pieces, trainer_of
from tests.train.pose_runs import logits_table, pose_config, write_pose_toys
from tests.train.runs import run_training, stop_after, weights_of, write_toys
from train import trainer
from train.methods.pevl import PeVLMethod
from train.parallel import ALONE
from train.pose_data import PoseBatch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    write_toys(folder, num_clips=NUM_CLIPS)
    (folder / "pose").mkdir()
    write_pose_toys(folder / "pose", num_clips=NUM_CLIPS)
    return folder


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Equal to 1e-5, of gradients that are large enough for that to say something."""
    assert found.keys() == expected.keys()
    assert max(value.abs().max() for value in expected.values()) > 0.01
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("method", ["cmdcl", "pcmci", "pevl"])
@pytest.mark.parametrize("kind", ["whole", "odd"])
def test_four_forward_passes_give_the_gradient_of_one(folder: Path, method: str, kind: str) -> None:
    piece = pieces()[kind]
    one = gradients(trainer_of(folder, configs(folder)[method], ALONE), piece)
    split = gradients(trainer_of(folder, configs(folder, accumulate=4)[method], ALONE), piece)
    assert_close(split, one)


def test_one_forward_pass_of_a_contrast_gives_the_gradient_of_its_loss(folder: Path) -> None:
    """Cutting the graph at the features changes nothing: against the loss of the batch, taken in one piece."""
    made = trainer_of(folder, configs(folder)["pevl"], ALONE)
    found = gradients(made, pieces()["whole"])
    made.optimizer.zero_grad()
    (batch,) = made.source.batches([pieces()["whole"]], 0)
    loss = made.experiment.method.loss(made.model, batch)
    loss.backward()
    expected = {name: value.grad for name, value in made.model.named_parameters() if value.grad is not None}
    assert_close(found, expected | {"loss": (loss.detach() * 16).float()})


def test_without_the_gradient_cache_a_split_contrast_is_another_objective(folder: Path) -> None:
    """What the cache is for: the mean of the shares' own losses has another gradient."""
    made = trainer_of(folder, configs(folder, accumulate=4)["pevl"], ALONE)
    found = gradients(made, pieces()["whole"])
    made.optimizer.zero_grad()
    for batch in made.source.batches(made.own_parts(pieces()["whole"]), 0):
        (made.experiment.method.loss(made.model, batch) / 4).backward()
    apart = made.model.get_parameter("video_projection.weight").grad
    assert apart is not None
    assert (apart - found["video_projection.weight"]).abs().max() > 1e-3


def test_both_passes_of_the_gradient_cache_draw_the_same_dropout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of the second pass equal those that the loss saw, and the next draw is neither's."""
    config = configs(folder, accumulate=4)["pevl"]
    config = replace(config, variant="-dropout", pevl=replace(config.pevl, drop_path=0.5))
    made = trainer_of(folder, config, ALONE)
    seen: list[tuple[Tensor, Tensor]] = []
    plain = PeVLMethod.features

    def recording(method: PeVLMethod, model: nn.Module, batch: PoseBatch) -> dict[str, Tensor]:
        found = plain(method, model, batch)
        seen.append((found["video"].detach().clone(), torch.get_rng_state()))
        return found

    monkeypatch.setattr(PeVLMethod, "features", recording)
    gradients(made, pieces()["whole"])
    first, second = seen[:4], seen[4:]
    assert len(second) == 4
    assert all(torch.equal(old[0], new[0]) for old, new in zip(first, second, strict=True))
    assert not torch.equal(first[0][0][0], first[1][0][0])
    # After the step the generator stands behind all draws of the loss, not behind the last replay.
    assert not torch.equal(torch.get_rng_state(), second[0][1])
    gradients(made, pieces()["whole"])
    assert not torch.equal(seen[8][0], first[0][0])


def test_a_stopped_run_with_a_gradient_cache_continues_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pose_toys(tmp_path)
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_SAVES", 0.0)
    config = pose_config(tmp_path, gradient_cache=True, accumulate=2, checkpoint_minutes=1e-9)
    whole = run_training(tmp_path, config, name="whole")
    stop_after(tmp_path, config, 3, monkeypatch)
    torch.manual_seed(99)
    stopped = run_training(tmp_path, config, name="stopped")
    expected, found = weights_of(whole), weights_of(stopped)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert (logits_table(tmp_path, "whole") == logits_table(tmp_path, "stopped")).all()


def test_a_split_contrast_is_refused_without_its_cache(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"set pevl\.gradient_cache = true"):
        pose_config(folder / "pose", accumulate=2)
    assert pose_config(folder / "pose", accumulate=2, gradient_cache=True).accumulate == 2
