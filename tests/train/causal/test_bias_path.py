"""Which bias corrects a text: equations by hand, a bank that forgets the oldest, and what each source cannot see."""

import pytest
import torch
from torch import Tensor

from train.causal.backdoor import TextualIntervention, TransportIntervention
from train.causal.bias_path import BiasBank, BiasPath, BiasSource
from train.causal.transport import TransportConfig

VIDEOS, CLASSES, FRAMES, WIDTH, SIZE = 3, 5, 7, 16, 4


@pytest.fixture
def text() -> Tensor:
    return torch.nn.functional.normalize(torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)


@pytest.fixture
def prompts() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(VIDEOS, FRAMES, WIDTH, generator=generator), dim=-1)


def path(source: BiasSource) -> BiasPath:
    return BiasPath(source, num_classes=CLASSES, dim=WIDTH, bank_size=SIZE)


def intervention(source: BiasSource | None) -> TextualIntervention:
    torch.manual_seed(2)
    module = TextualIntervention(
        WIDTH, temperature=0.1, approximator="residual_mlp", path=None if source is None else path(source)
    )
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def transport(source: BiasSource | None) -> TransportIntervention:
    torch.manual_seed(2)
    module = TransportIntervention(
        WIDTH,
        correction="add",
        weights="plan",
        transport=TransportConfig(eps=0.1),
        temperature=0.1,
        approximator="residual_mlp",
        path=None if source is None else path(source),
    )
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def test_the_videos_own_bias_is_the_papers_bit_for_bit(text: Tensor, prompts: Tensor) -> None:
    torch.testing.assert_close(intervention("video")(text, prompts), intervention(None)(text, prompts), atol=0, rtol=0)
    for one, other in zip(transport("video")(text, prompts), transport(None)(text, prompts), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_marginal_is_the_mean_of_the_correction_over_the_bank(text: Tensor, prompts: Tensor) -> None:
    module = intervention("marginal").eval()
    assert module.path is not None
    assert module.path.bank is not None
    module.path.bank.add(torch.randn(SIZE, CLASSES, WIDTH, generator=torch.Generator().manual_seed(3)))
    by_hand = [module.approximator(text, entry, residual=text) for entry in module.path.bank.entries]
    found = module(text, prompts)
    assert found.shape == (VIDEOS, CLASSES, WIDTH)
    torch.testing.assert_close(found[1], torch.stack(by_hand).mean(dim=0))
    torch.testing.assert_close(module(text, prompts.flip(2)), found)  # this video's frames have no say


def test_marginal_draws_another_videos_bias_in_training(text: Tensor, prompts: Tensor) -> None:
    module = intervention("marginal").train()
    assert module.path is not None
    assert module.path.bank is not None
    torch.manual_seed(5)
    found = module(text, prompts)
    torch.manual_seed(5)
    drawn = module.path.bank.entries[torch.randint(SIZE, (VIDEOS,))]
    torch.testing.assert_close(found, module.approximator(text, drawn, residual=text))


def test_transported_frames_can_take_a_banks_path(text: Tensor, prompts: Tensor) -> None:
    own, weights = transport("video")(text, prompts)
    marginal = transport("marginal").eval()
    per_video, same = marginal(text.expand(VIDEOS, -1, -1), prompts)
    torch.testing.assert_close(weights, same)
    assert not torch.allclose(own[0], own[1], atol=1e-3)
    assert per_video.shape == (VIDEOS, CLASSES, WIDTH)
    torch.testing.assert_close(per_video[0], per_video[1])


def test_permuting_classes_permutes_the_corrected_text(text: Tensor, prompts: Tensor) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    banked = intervention("marginal").train()
    banked(text, prompts)  # fills a part of the bank
    assert banked.path is not None
    assert banked.path.bank is not None
    before = banked.eval()(text, prompts)
    banked.path.bank.entries.copy_(banked.path.bank.entries[:, order].clone())
    torch.testing.assert_close(banked(text[order], prompts), before[:, order], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before[:, order], before, atol=1e-3)


def test_the_bank_forgets_the_oldest_video_first() -> None:
    bank = BiasBank(1, 1, size=3)
    for value in range(5):
        bank.add(torch.full((1, 1, 1), float(value)))
    assert sorted(bank.entries.flatten().tolist()) == [2.0, 3.0, 4.0]
    bank.add(torch.arange(10.0, 17.0).view(7, 1, 1))
    assert sorted(bank.entries.flatten().tolist()) == [14.0, 15.0, 16.0]


def test_the_bank_is_no_parameter_but_part_of_the_state() -> None:
    bank = BiasBank(CLASSES, WIDTH, size=SIZE)
    assert not list(bank.parameters())
    assert set(bank.state_dict()) == {"entries", "place"}
    gathered = torch.randn(2, CLASSES, WIDTH, requires_grad=True)
    bank.add(gathered)
    assert not bank.entries.requires_grad


def test_testing_leaves_the_bank_alone(text: Tensor, prompts: Tensor) -> None:
    module = intervention("marginal").eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module(text, prompts)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_an_unknown_source_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"video.*marginal"):
        BiasPath("own", num_classes=1, dim=1, bank_size=1)  # type: ignore[arg-type]
