"""Scene exchange, ours and no paper's: what all frames of a video share is taken for the scene, and intervened on.

    V[l] = s + a[l],    s = mean_l V[l]        the video's scene, and what happens in its frames

    kept        V as it is; both papers
    removed     a[l]
    exchanged   in training, every second video at random gets the scene of another one of its forward pass, which
                holds two or more: a_i[l] + s_j

Exchanged scenes are drawn from P(s) whatever the label is, which is what the sum of the back-door formula asks for; the
other half of the videos teaches what a video as filmed looks like, so that testing needs no bank, no second pass and no
change. The decisions to question: s is all that is constant and additive, so an object that is there throughout counts
as scene, a scene that changes does not, and the average of what happens goes along with it; and with half of the videos
kept, the scene's hold on the label is halved and not gone. 0.8 and 1 in place of a half did not do better.

Axis letters: n batch, L frames used, D joint width.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

SceneMode = Literal["kept", "removed", "exchanged"]
EXCHANGED = 0.5
"""Probability that a training video gets another's scene."""


class Scene(nn.Module):
    """What becomes of a video's scene."""

    def __init__(self, mode: SceneMode) -> None:
        super().__init__()
        if mode not in get_args(SceneMode):
            raise ValueError(f"scene {mode!r} is unknown: use one of {', '.join(get_args(SceneMode))}")
        self.mode = mode

    def forward(self, visual: Tensor) -> Tensor:
        """visual: (n, L, D) -> (n, L, D). Draws come from torch's generator of the CPU."""
        if self.mode == "kept" or (self.mode == "exchanged" and not self.training):
            return visual
        precise = visual.float()  # a small difference of large vectors, also under autocast
        scene = precise.mean(dim=1, keepdim=True)
        if self.mode == "removed":
            return (precise - scene).to(visual.dtype)
        others = scene.roll(int(torch.randint(1, max(2, len(scene)), ())), dims=0)
        is_exchanged = (torch.rand(len(scene), 1, 1) < EXCHANGED).to(scene.device)
        return torch.where(is_exchanged, (precise - scene + others).to(visual.dtype), visual)
