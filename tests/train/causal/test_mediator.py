"""Mediators of IVC: what they read and what moves them."""

import pytest
import torch
from torch import Tensor

from train.causal.mediator import Mediator, MediatorKind, frame_pyramid


@pytest.fixture
def text() -> Tensor:
    return torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def visual() -> Tensor:
    return torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))


def mediator(kind: MediatorKind) -> Mediator:
    torch.manual_seed(2)
    return Mediator(16, kind, heads=4, memory_size=7)


def test_the_text_itself_costs_nothing_and_is_not_touched(text: Tensor, visual: Tensor) -> None:
    module = mediator("text")
    assert list(module.parameters()) == []
    assert module(text, visual) is text


def test_what_the_text_reads_from_memory_depends_on_the_memory_and_not_on_the_frames(
    text: Tensor, visual: Tensor
) -> None:
    module = mediator("memory")
    assert module.bank is not None
    assert module.bank.shape == (7, 16)
    before = module(text, visual)
    assert before.shape == text.shape
    assert not torch.allclose(before, text, atol=0.1)
    assert torch.equal(module(text, visual.flip(2)), before)
    assert before.std(dim=1).mean() > 1e-2  # classes read different things from the start
    with torch.no_grad():
        module.bank[3] += 1
    assert not torch.allclose(module(text, visual), before, atol=1e-2)


def test_several_scales_read_the_frames(text: Tensor, visual: Tensor) -> None:
    module = mediator("multiscale")
    assert module.norm is not None
    assert module.read is not None
    expected = module.read(module.norm(text), frame_pyramid(visual))
    assert torch.equal(module(text, visual), expected)
    assert not torch.allclose(module(text, visual.flip(2)), expected, atol=1e-2)


@pytest.mark.parametrize("kind", ["memory", "multiscale"])
def test_gradients_reach_everything_that_is_read(kind: MediatorKind, text: Tensor, visual: Tensor) -> None:
    module = mediator(kind)
    text.requires_grad_()
    visual.requires_grad_()
    module(text, visual).square().sum().backward()
    assert text.grad is not None
    assert text.grad.abs().max() > 0
    assert (visual.grad is not None) == (kind == "multiscale")
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())


def test_the_pyramid_averages_neighbours_and_its_last_windows_may_be_short() -> None:
    ramp = torch.arange(7.0).reshape(1, 7, 1)
    expected = [0, 1, 2, 3, 4, 5, 6, *[0.5, 2.5, 4.5, 6], *[1.5, 5]]
    assert frame_pyramid(ramp).flatten().tolist() == expected
    assert frame_pyramid(ramp[:, :1]).flatten().tolist() == [0, 0, 0]


def test_the_queries_do_not_depend_on_the_scale_of_the_text(text: Tensor, visual: Tensor) -> None:
    module = mediator("memory")
    torch.testing.assert_close(module(0.1 * text, visual), module(text, visual), atol=1e-3, rtol=1e-3)


def test_an_unknown_mediator_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'audio' is unknown: use one of \('text', 'memory', 'multiscale'\)"):
        mediator("audio")  # type: ignore[arg-type]
