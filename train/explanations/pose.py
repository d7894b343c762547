"""Explanations of PeVL: where joints send the video encoder, and which words meet which pose frames.

Of several test crops the middle one is shown; the logits are the mean over all of them.

Axis letters: n batch (here 1), V views, L video frames, T pose frames, J joints, P patches, k classes shown, W words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cache.explanation import FrameWords, PoseMask
from cache.skeletons import SKELETONS
from train.clip_weights import token_words
from train.contrast import frame_word_matrix
from train.experiment import Experiment
from train.explanations.choice import shown_classes
from train.explanations.parts import Array, Classes, Labels, Parts, SeenClip, stacked, stacked_or_none
from train.explanations.pictures import thumbnails
from train.frames import normalise
from train.models.pevl import PeVL, PeVLTrace, TextEmbeddings
from train.pose_data import PoseBatch, crops_of, pose_instants, video_instants
from train.refinement import pose_frame_of

NO_FRAMES = "no pictures: the cache has no frames"


@dataclass(frozen=True, kw_only=True)
class PoseClip(SeenClip):
    """One clip: joints (L, J, 3) in shares of the view, weights (L, J), mask (L, P), cosines (k, T, W); or None."""

    joints: Tensor | None
    weights: Tensor | None
    mask: Tensor | None
    cosines: Tensor | None


@dataclass(frozen=True, kw_only=True)
class PeVLExplainer:
    """A trained PeVL with the class prompts encoded once; `classes` is None without text."""

    experiment: Experiment
    model: PeVL
    classes: TextEmbeddings | None
    device: torch.device

    @classmethod
    def of(cls, experiment: Experiment, model: nn.Module, device: torch.device) -> "PeVLExplainer":
        """Encodes the class prompts."""
        assert isinstance(model, PeVL)
        classes = model.encode_classes() if model.config.is_contrastive else None
        return cls(experiment=experiment, model=model, classes=classes, device=device)

    def see(self, clip_id: str, batch: PoseBatch, targets: Labels) -> PoseClip:
        """See `Explainer`."""
        batch, model = batch.to(self.device), self.model
        middle = model.config.crops // 2
        logits = self.experiment.method.predictor(model)(batch)[0]
        shown = shown_classes(logits.cpu().numpy(), targets)
        trace = self._trace(batch, middle)
        shared = pose_frame_of(model.num_frames, model.config.pose_frames).to(self.device)
        weights, mask = trace.joint_weights, trace.mask
        return PoseClip(
            logits=logits,
            shown=shown,
            pictures=self._pictures(clip_id, middle),
            joints=None
            if batch.joints is None
            else _in_shares(batch.joints[0, middle, shared], model.shape.image_size),
            weights=None if weights is None else weights[0, shared],
            mask=None if mask is None or model.config.p2v == "off" else mask[0],
            cosines=self._cosines(trace, shown),
        )

    def times(self, clip_id: str) -> tuple[Array, Array]:
        """See `Explainer`."""
        reader = self.experiment.method.readers[0]
        instants = video_instants(reader.num_rows(clip_id), self.experiment.config)
        return reader.pts_seconds(clip_id)[instants], reader.frame_index(clip_id)[instants]

    def parts(self, split: str, clip_ids: Sequence[str], seen: Sequence[PoseClip]) -> Parts:  # noqa: ARG002
        """See `Explainer`."""
        return Parts(
            notices=() if seen[0].pictures else (NO_FRAMES,),
            pose=self._pose(seen),
            frame_words=self._frame_words(clip_ids, seen),
        )

    def _trace(self, batch: PoseBatch, middle: int) -> PeVLTrace:
        """What the model does with one of the views."""
        pevl = self.experiment.config.pevl
        frames, tokens, joints = (
            None if part is None else part[:, middle] for part in (batch.frames, batch.tokens, batch.joints)
        )
        pixels = None if frames is None else normalise(frames, pevl.mean, pevl.std)
        return self.model.trace(pixels=pixels, tokens=tokens, joints=joints)

    def _pictures(self, clip_id: str, middle: int) -> list[bytes]:
        store, config = self.experiment.store, self.experiment.config
        if "frames" not in store.streams:
            return []
        return thumbnails(crops_of(store.frames, clip_id, config, self.model.shape.image_size)[middle])

    def _cosines(self, trace: PeVLTrace, shown: Classes) -> Tensor | None:
        """A of the shown classes, (k, T, W), where frames and words decide at all."""
        config, frames = self.model.config, trace.features.pose_frames
        if self.classes is None or frames is None or config.fusion != "sgmc" or "fw" not in config.similarities:
            return None
        classes = torch.from_numpy(shown).to(self.device)
        matrix = frame_word_matrix(frames, self.classes.words[classes])[0]  # (k, T, N_t)
        masks = self.classes.mask
        columns = masks.any(dim=0)  # words of the longest prompt: position 0 begins a text
        return (matrix * masks[classes].unsqueeze(1))[..., columns]

    def _pose(self, seen: Sequence[PoseClip]) -> PoseMask | None:
        joints = stacked_or_none(clip.joints for clip in seen)
        weights = stacked_or_none(clip.weights for clip in seen)
        if joints is None or weights is None:
            return None
        skeleton = SKELETONS[str(self.experiment.store.joints.fingerprint.model["skeleton"])]
        mask = stacked_or_none(clip.mask for clip in seen)
        return PoseMask(joint_names=skeleton.joint_names, joints=joints, joint_weights=weights, mask=mask)

    def _frame_words(self, clip_ids: Sequence[str], seen: Sequence[PoseClip]) -> FrameWords | None:
        cosines = stacked_or_none(clip.cosines for clip in seen)
        if cosines is None:
            return None
        reader, config = self.experiment.store.joints, self.experiment.config
        at = {clip_id: pose_instants(reader.num_rows(clip_id), config) for clip_id in clip_ids}
        return FrameWords(
            pose_seconds=stacked(reader.pts_seconds(clip_id)[instants] for clip_id, instants in at.items()),
            words=token_words(self.model.prompts, self.model.word_mask),
            cosines=cosines,
        )


def _in_shares(joints: Tensor, image_size: int) -> Tensor:
    """Pixels of the view as shares of its side. joints: (L, J, 3) -> same, scores as they are."""
    return torch.cat([joints[..., :2] / image_size, joints[..., 2:]], dim=-1)
