"""Transport plans: marginals, limits, symmetries, and Python Optimal Transport as another implementation."""

import math

import ot
import pytest
import torch
from torch import Tensor

from train.causal.transport import TransportConfig, transport_plan

VIDEOS, CLASSES, FRAMES = 3, 5, 7


@pytest.fixture
def cosines() -> Tensor:
    """Spread as CLIP's are within one video."""
    generator = torch.Generator().manual_seed(0)
    return 0.25 + 0.03 * torch.randn(VIDEOS, CLASSES, FRAMES, generator=generator, dtype=torch.float64)


def synthetic(spread: float, *, classes: int, frames: int, videos: int = VIDEOS) -> Tensor:
    """Cosines of CLIP's mean and spread, in the precision in which models compute them."""
    generator = torch.Generator().manual_seed(5)
    return 0.25 + spread * torch.randn(videos, classes, frames, generator=generator)


def plan_of_pot(similarity: Tensor, eps: float) -> Tensor:
    """Python Optimal Transport's plans, in double precision and iterated to the end."""
    masses = [[1 / count] * count for count in similarity.shape[1:]]
    plans = [
        ot.sinkhorn(
            *masses, (1 - video).numpy(), eps, method="sinkhorn_log", stopThr=1e-13, numItermax=5000, warn=False
        )
        for video in similarity.double()
    ]
    return torch.stack([torch.from_numpy(plan) for plan in plans])


def plan_of(similarity: Tensor, *, eps: float = 0.01, iters: int = 200, tolerance: float = 1e-12) -> Tensor:
    return transport_plan(similarity, eps=eps, iters=iters, tolerance=tolerance)


def test_rows_sum_to_one_over_classes_and_columns_to_one_over_frames(cosines: Tensor) -> None:
    plan = transport_plan(cosines.float(), eps=0.01, iters=50, tolerance=1e-5)
    assert plan.dtype == torch.float32
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(dim=2), torch.full((VIDEOS, CLASSES), 1 / CLASSES), atol=1e-6, rtol=0)
    torch.testing.assert_close(plan.sum(dim=1), torch.full((VIDEOS, FRAMES), 1 / FRAMES), atol=1e-5, rtol=0)
    assert plan.std() > 0.01  # not the uniform plan, which would pass as well


@pytest.mark.parametrize("eps", [0.005, 0.01, 0.1])
def test_the_plan_equals_that_of_python_optimal_transport(eps: float, cosines: Tensor) -> None:
    masses = [1 / CLASSES] * CLASSES, [1 / FRAMES] * FRAMES
    for ours, video in zip(plan_of(cosines, eps=eps, iters=2000), cosines, strict=True):
        theirs = ot.sinkhorn(*masses, (1 - video).numpy(), eps, method="sinkhorn_log", stopThr=1e-12, numItermax=5000)
        torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-6, rtol=0)


@pytest.mark.parametrize("eps", [0.05, 0.1])
@pytest.mark.parametrize(("classes", "frames"), [(5, 7), (48, 64)])
def test_shipped_iterations_in_single_precision_equal_python_optimal_transport(
    eps: float, classes: int, frames: int
) -> None:
    """To 1e-5 of each entry if all are run; stopped at the shipped tolerance, every entry is within that tolerance."""
    cosines, shipped = synthetic(0.03, classes=classes, frames=frames), TransportConfig()
    expected = plan_of_pot(cosines, eps)
    all_run = transport_plan(cosines, eps=eps, iters=shipped.iters, tolerance=1e-12)
    stopped = transport_plan(cosines, eps=eps, iters=shipped.iters, tolerance=shipped.tolerance)
    assert all_run.dtype == torch.float32
    torch.testing.assert_close(all_run.double(), expected, atol=0, rtol=1e-5)
    torch.testing.assert_close(stopped.double(), expected, atol=1e-5, rtol=0)


def marginal_errors(plan: Tensor) -> tuple[float, float]:
    """How far the worst row and the worst column are from their mass."""
    _, classes, frames = plan.shape
    rows, columns = plan.sum(dim=2) - 1 / classes, plan.sum(dim=1) - 1 / frames
    return rows.abs().max().item(), columns.abs().max().item()


@pytest.mark.parametrize("spread", [0.02, 0.03, 0.05])
def test_enough_iterations_reach_both_marginals_at_48_classes_and_64_frames(spread: float) -> None:
    cosines = synthetic(spread, classes=48, frames=64)
    plan = transport_plan(cosines, eps=0.01, iters=500, tolerance=1e-12)
    assert (plan >= 0).all()
    rows, columns = marginal_errors(plan)
    assert 48 * rows <= 1e-6
    assert 64 * columns <= 1e-4
    assert marginal_errors(transport_plan(cosines, eps=0.01, iters=1, tolerance=1e-12))[1] > 1e-3


@pytest.mark.parametrize(
    ("classes", "frames", "spread", "within"),
    [
        (48, 64, 0.02, 1e-5),
        (48, 64, 0.03, 1e-5),
        (48, 64, 0.05, 1e-5),
        (10, 16, 0.03, 1e-5),
        (10, 16, 0.05, 4e-4),  # 50 iterations are not enough for 3 of 100 such videos
    ],
)
def test_the_shipped_settings_leave_rows_exact_and_columns_within_what_was_measured(
    classes: int, frames: int, spread: float, within: float
) -> None:
    shipped, cosines = TransportConfig(), synthetic(spread, classes=classes, frames=frames, videos=100)
    plan = transport_plan(cosines, eps=shipped.eps, iters=shipped.iters, tolerance=shipped.tolerance)
    rows, columns = marginal_errors(plan)
    assert classes * rows <= 1e-6
    assert columns <= within + 5e-7  # and the rounding of the sum


def test_strong_regularisation_gives_the_uniform_plan(cosines: Tensor) -> None:
    uniform = torch.full_like(cosines, 1 / (CLASSES * FRAMES))
    torch.testing.assert_close(plan_of(cosines, eps=1e6), uniform, atol=1e-8, rtol=0)
    assert not torch.allclose(plan_of(cosines, eps=0.01), uniform, atol=1e-3)


def test_weak_regularisation_gives_the_best_assignment() -> None:
    cosines = torch.eye(4)[None, [2, 0, 3, 1]] * 0.5
    torch.testing.assert_close(plan_of(cosines, eps=0.01, tolerance=1e-6), cosines / 2, atol=1e-6, rtol=0)


def test_permuting_classes_or_frames_permutes_the_plan(cosines: Tensor) -> None:
    classes, frames = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([6, 2, 0, 1, 5, 3, 4])
    permuted = plan_of(cosines[:, classes][:, :, frames])
    torch.testing.assert_close(permuted, plan_of(cosines)[:, classes][:, :, frames])


def test_constants_of_a_class_or_a_frame_change_nothing(cosines: Tensor) -> None:
    """A softmax over frames does change with a constant per frame: what tells ICH from CMDCL's TCI."""
    per_class, per_frame = torch.linspace(-0.1, 0.1, CLASSES)[:, None], torch.linspace(-0.1, 0.1, FRAMES)
    expected = plan_of(cosines, iters=5000)
    torch.testing.assert_close(plan_of(cosines + per_class, iters=5000), expected, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(plan_of(cosines + per_frame, iters=5000), expected, atol=1e-9, rtol=1e-6)
    softmax = (cosines / 0.01).softmax(dim=-1)
    assert not torch.allclose(((cosines + per_frame) / 0.01).softmax(dim=-1), softmax, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_extreme_cosines_and_a_tiny_eps_stay_finite(dtype: torch.dtype) -> None:
    cosines = torch.ones(2, CLASSES, FRAMES, dtype=dtype)
    cosines[0, :, 1:] = -1
    cosines[1, 2:] = -1
    cosines.requires_grad_()
    plan = transport_plan(cosines, eps=1e-3, iters=50, tolerance=1e-5)
    assert plan.dtype == torch.float32
    torch.testing.assert_close(plan.sum(dim=2), torch.full((2, CLASSES), 1 / CLASSES))
    plan.square().sum().backward()
    assert cosines.grad is not None
    assert torch.isfinite(cosines.grad).all()


def test_a_video_has_the_same_plan_alone_and_beside_slower_ones(cosines: Tensor) -> None:
    quick = 0.01 * cosines[:1]
    beside = plan_of(torch.cat([quick, 3 * cosines[1:]]), tolerance=1e-3)
    assert torch.equal(beside[:1], plan_of(quick, tolerance=1e-3))
    assert not torch.equal(beside[:1], plan_of(quick))


def test_iterations_stop_when_the_columns_are_within_the_tolerance(cosines: Tensor) -> None:
    errors = {}
    for tolerance in (1e-2, 1e-4):
        plan = plan_of(3 * cosines, tolerance=tolerance, iters=1000)
        errors[tolerance] = (plan.sum(dim=1) - 1 / FRAMES).abs().max().item()
        assert errors[tolerance] <= tolerance
    assert errors[1e-2] > 1e-4  # stopped early
    one, many = plan_of(3 * cosines, iters=1), plan_of(3 * cosines, iters=1000)
    assert not torch.allclose(one, many, atol=1e-3)
    torch.testing.assert_close(one.sum(dim=2), many.sum(dim=2))  # rows are exact at any time


def test_plans_are_computed_in_full_precision_under_autocast(cosines: Tensor) -> None:
    expected = plan_of(cosines.float(), tolerance=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(plan_of(cosines.float(), tolerance=1e-5), expected)


def test_the_gradient_equals_finite_differences() -> None:
    similarity = torch.rand(1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    similarity.requires_grad_()
    assert torch.autograd.gradcheck(lambda cosines: plan_of(cosines, eps=0.2, iters=30), similarity)


@pytest.mark.parametrize("changes", [{"eps": 0.0}, {"tolerance": 0.0}, {"iters": 0}, {"eps": math.nan}])
def test_settings_that_cannot_work_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        TransportConfig(**changes)  # type: ignore[arg-type]
