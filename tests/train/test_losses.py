"""Which loss a task gets, by the one property that tells them apart, and by hand."""

import math

import pytest
import torch

from cache.manifest import TaskKind
from train.losses import task_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]])
SINGLE = torch.tensor([0, 2])
MULTI = torch.tensor([[1, 0, 1], [0, 0, 1]], dtype=torch.uint8)


def test_a_constant_on_all_logits_leaves_the_single_label_loss_and_changes_the_multi_label_one() -> None:
    torch.testing.assert_close(task_loss("single", LOGITS + 3, SINGLE), task_loss("single", LOGITS, SINGLE))
    assert abs(task_loss("multi", LOGITS + 3, MULTI) - task_loss("multi", LOGITS, MULTI)) > 0.1


def test_the_single_label_loss_is_the_mean_negative_log_probability() -> None:
    first = math.log(sum(math.exp(x) for x in (2.0, -1.0, 0.5))) - 2.0
    second = math.log(2 + math.exp(3.0)) - 3.0
    assert task_loss("single", LOGITS, SINGLE).item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_the_multi_label_loss_is_the_mean_over_videos_and_classes() -> None:
    signs = [[1, -1, 1], [-1, -1, 1]]
    terms = [
        math.log1p(math.exp(-sign * logit))
        for row, sign_row in zip(LOGITS.tolist(), signs, strict=True)
        for logit, sign in zip(row, sign_row, strict=True)
    ]
    assert task_loss("multi", LOGITS, MULTI).item() == pytest.approx(sum(terms) / 6, abs=1e-6)


def test_half_precision_logits_give_a_full_precision_loss() -> None:
    for kind, targets in (("single", SINGLE), ("multi", MULTI)):
        loss = task_loss(kind, LOGITS.bfloat16(), targets)  # type: ignore[arg-type]
        assert loss.dtype == torch.float32


@pytest.mark.parametrize(("kind", "targets"), [("single", MULTI), ("multi", SINGLE)])
def test_targets_of_the_other_kind_are_refused(kind: TaskKind, targets: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=f"a {kind}-label task"):
        task_loss(kind, LOGITS, targets)
