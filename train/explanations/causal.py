"""Explanations of CMDCL and PCMCI: what interventions weigh, where the encoder looks, what the heads take from there.

With a frozen video encoder the frames go through it once more, since the cache holds pooled tokens alone. Its attention
is then the same for every run of one cache. What tells runs apart is `evidence`: the gradient of a class's logit at
each patch token, times what the token has beyond the clip's mean token: what the logit would lose, to first order, if
that patch looked like the average one. The mean is taken away because layer-normalised tokens have most in common.

Axis letters: n batch (here 1), L frames used, C classes, k classes shown, P patches, d_v width of the video encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from cache.explanation import Interventions, PatchMaps
from train.causal.joint_space import unit_prompts
from train.causal.trace import CausalTrace
from train.data import Batch, centre_frames
from train.encoders.timesformer import TimeSformer, pool_frames
from train.experiment import Experiment
from train.explanations.choice import shown_classes
from train.explanations.matching import match_texts
from train.explanations.parts import Array, Classes, Labels, Parts, SeenClip, stacked, stacked_or_none
from train.explanations.pictures import thumbnails
from train.frames import normalise
from train.methods.causal import CausalMethod
from train.models.cmdcl import CMDCL
from train.models.pcmci import PCMCI
from train.sampling import segment_centres
from train.video_tokens import build_encoder

NO_FRAMES = "no pictures and no maps on them: the cache has no frames"


@dataclass(frozen=True, kw_only=True)
class CausalClip(SeenClip):
    """One clip: trace of a batch of one; visual_prompts (L, D); attention (L, P) and evidence (k, L, P), or neither."""

    trace: CausalTrace
    visual_prompts: Tensor
    attention: Tensor | None
    evidence: Tensor | None


@dataclass(frozen=True, kw_only=True)
class CausalExplainer:
    """A trained CMDCL or PCMCI with what it takes to look inside; `encoder` is None where there are no frames."""

    experiment: Experiment
    model: CMDCL | PCMCI
    encoder: TimeSformer | None
    device: torch.device

    @classmethod
    def of(cls, experiment: Experiment, model: nn.Module, device: torch.device) -> "CausalExplainer":
        """Finds the video encoder.

        Raises:
            WeightsError: those of a frozen encoder are absent.
            FingerprintMismatch: they are not those of the run.
        """
        assert isinstance(model, CMDCL | PCMCI)
        assert isinstance(experiment.method, CausalMethod)
        encoder = model.frame_features.video_encoder
        if encoder is None and "frames" in experiment.store.streams:
            weights = experiment.method.encoder_weights()
            encoder = build_encoder(experiment.config, weights).to(device).eval()
        return cls(experiment=experiment, model=model, encoder=encoder, device=device)

    def see(self, clip_id: str, batch: Batch, targets: Labels) -> CausalClip:
        """See `Explainer`."""
        batch, look = batch.to(self.device), self.experiment.config.video_encoder
        frames = None if batch.frames is None else normalise(batch.frames, look.mean, look.std)
        trace = self.model.explain(batch.visual_prompts, frames=frames, frame_tokens=batch.frame_tokens)
        shown = shown_classes(trace.logits[0].cpu().numpy(), targets)
        prompts = unit_prompts(batch.visual_prompts, num_frames=self.model.num_frames, dim=self.model.config.dim)
        pictures: list[bytes] = []
        attention, evidence = None, None
        if self.encoder is not None:
            view = centre_frames(self.experiment.store.frames, clip_id, self.experiment.config)  # (L, 3, S, S)
            tokens, maps = self.encoder.look(normalise(view.to(self.device)[None], look.mean, look.std))
            pictures, attention = thumbnails(view), maps[0]
            evidence = self._evidence(batch.visual_prompts, tokens, shown)
        return CausalClip(
            logits=trace.logits[0],
            shown=shown,
            pictures=pictures,
            trace=trace,
            visual_prompts=prompts[0],
            attention=attention,
            evidence=evidence,
        )

    def times(self, clip_id: str) -> tuple[Array, Array]:
        """See `Explainer`."""
        reader = self.experiment.store.visual_prompts
        instants = segment_centres(reader.num_rows(clip_id), self.model.num_frames)
        return reader.pts_seconds(clip_id)[instants], reader.frame_index(clip_id)[instants]

    def parts(self, split: str, clip_ids: Sequence[str], seen: Sequence[CausalClip]) -> Parts:  # noqa: ARG002
        """See `Explainer`."""
        patches = _patches(seen)
        return Parts(
            notices=(NO_FRAMES,) if patches is None else (),
            interventions=self._interventions(seen),
            patches=patches,
            matching=match_texts(self.experiment, self.experiment.clip_sets[split], self.model, self.device),
        )

    def _interventions(self, seen: Sequence[CausalClip]) -> Interventions:
        cached = torch.from_numpy(self.experiment.method.text.sentence.copy())
        traces = [clip.trace for clip in seen]
        return Interventions(
            cached_text=F.normalize(cached, dim=-1).numpy(),
            text=self.model.text.detach().cpu().numpy(),
            corrected_text=stacked(trace.text[0] for trace in traces),
            visual_prompts=stacked(clip.visual_prompts for clip in seen),
            back_door=stacked_or_none(_only(trace.back_door) for trace in traces),
            is_plan=traces[0].is_plan,
            front_door=stacked_or_none(_only(trace.front_door) for trace in traces),
            relation_graphs=stacked_or_none(_only(trace.relation_graphs) for trace in traces),
        )

    def _evidence(self, visual_prompts: Tensor, tokens: Tensor, shown: Classes) -> Tensor:
        """Gradient times token beyond the mean, by class: tokens (1, 1 + P * L, d_v) -> (k, L, P)."""
        num_frames = self.model.num_frames
        with torch.enable_grad():
            leaf = tokens.detach().requires_grad_()
            pooled = pool_frames(leaf, num_frames, self.model.config.frame_pool)
            logits = self.model(visual_prompts, frame_tokens=pooled)[0]
            gradients = [torch.autograd.grad(logits[number], leaf, retain_graph=True)[0] for number in shown.tolist()]
        patches = tokens[0, 1:]
        products = (torch.stack(gradients)[:, 0, 1:] * (patches - patches.mean(dim=0))).sum(dim=-1)  # (k, P * L)
        return products.unflatten(1, (-1, num_frames)).transpose(1, 2)


def _patches(seen: Sequence[CausalClip]) -> PatchMaps | None:
    attention = stacked_or_none(clip.attention for clip in seen)
    evidence = stacked_or_none(clip.evidence for clip in seen)
    return None if attention is None or evidence is None else PatchMaps(attention=attention, evidence=evidence)


def _only(array: Tensor | None) -> Tensor | None:
    """The one clip of a batch."""
    return None if array is None else array[0]
