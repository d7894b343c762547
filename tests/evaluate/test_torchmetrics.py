"""The same metrics by another implementation, in float64 and without its binning of scores."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multilabel_average_precision,
)

from evaluate import metrics
from tests.evaluate import toy_runs

NUM_CLASSES = 8


def _chances(logits: npt.NDArray[np.float32]) -> torch.Tensor:
    """Between 0 and 1, which torchmetrics takes as they are, and too many digits to tie."""
    return torch.from_numpy(logits).double().sigmoid()


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("ties", [False, True])
def test_mean_average_precision_equals_torchmetrics(average: str, ties: bool) -> None:
    item = toy_runs.predictions(kind="multi", n=300)
    logits = np.round(item.logits) if ties else item.logits
    expected = multilabel_average_precision(
        _chances(logits),
        torch.from_numpy(item.targets).long(),
        num_labels=NUM_CLASSES,
        average=average,  # type: ignore[arg-type]  # one of its words
        thresholds=None,
    )
    assert getattr(metrics, f"map_{average}")(logits, item.targets) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(("name", "k"), [("acc1", 1), ("acc5", 5)])
def test_top_k_accuracy_equals_torchmetrics(name: str, k: int) -> None:
    item = toy_runs.predictions(n=300)
    expected = multiclass_accuracy(
        torch.from_numpy(item.logits).double(),
        torch.from_numpy(item.targets),
        num_classes=NUM_CLASSES,
        average="micro",
        top_k=k,
    )
    assert getattr(metrics, name)(item.logits, item.targets) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("absent", [False, True])
def test_the_mean_over_classes_equals_torchmetrics_in_the_form_that_says_so(absent: bool) -> None:
    item = toy_runs.predictions(n=300)
    kept = item.targets != 2 if absent else np.ones(300, dtype=bool)  # class 2 is predicted and never right
    logits, targets = item.logits[kept], item.targets[kept]
    expected = multiclass_accuracy(
        torch.from_numpy(logits).double(), torch.from_numpy(targets), num_classes=NUM_CLASSES, average="macro"
    )
    found = metrics.mean_class_accuracy_mmaction2(logits, targets)
    assert found == pytest.approx(float(expected), abs=1e-6)
    assert (metrics.mean_class_accuracy(logits, targets) == pytest.approx(found)) is not absent
