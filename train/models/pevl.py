"""PeVL: pose-enhanced vision-language model for fine-grained action recognition (CVPR 2024), as in its figure.

    frames ─ adapted image tower ─ z_v ──┬─ P2V ─ z_v^R ─ V ──────── S_VS ─┐
                                   mask ─┤ (UCMR)                          │
    joints ─ adapted image tower ─ z_p ──┴─ V2P ─ z_p^R ─ P, F ──── S_PS, S_FW ─ S ─ semantic-guided loss
    class prompts ─ adapted text tower ─ sentences, words ─────────────────┘

One frozen CLIP carries all three; what is trained are adapters, joint tokens, the UCMR block, projections and
temperatures. Without text (Table 7) a linear classifier stands in for the similarities; before SGMC (Table 4) the
features of video and pose are joined by a linear layer and compared with the sentence.

Axis letters: n batch, L video frames, T pose frames, J joints, P patches, N_t text positions, C classes, m texts,
d tower width, D joint width.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.contrast import frame_word_similarity, negative_weights, pair_similarity, semantic_guided_loss
from train.encoders.adapted_clip import PoseEncoder, TextEncoder, VideoEncoder
from train.encoders.clip_tower import ClipShape, ClipTowers
from train.models.pevl_config import LARGEST_TAU, SMALLEST_TAU, PeVLConfig
from train.refinement import CrossModalRefinement, nt_xent, pose_frame_of, pose_mask

Part = TypeVar("Part")
_TEXTS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class VisualFeatures:
    """n clips after the towers; None where an encoder or a sub-block is off.

    video, pose (n, D); pose_frames (n, T, D); the unrefined ones are V and P before the UCMR block (n, D).
    """

    video: Tensor | None = None
    pose: Tensor | None = None
    pose_frames: Tensor | None = None
    unrefined_video: Tensor | None = None
    unrefined_pose: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class PeVLTrace:
    """Features and what refined them: joint_weights w (n, T, J) and mask M (n, L, P), None where nothing makes them."""

    features: VisualFeatures
    joint_weights: Tensor | None
    mask: Tensor | None


@dataclass(frozen=True, kw_only=True)
class TextEmbeddings:
    """m texts after the tower: sentence (m, D), words (m, N_t, D), mask (m, N_t), True at words."""

    sentence: Tensor
    words: Tensor
    mask: Tensor


class Temperature(nn.Module):
    """A learnable temperature, kept as its logarithm and between two bounds."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(start)))
        self.bounds = math.log(SMALLEST_TAU), math.log(LARGEST_TAU)

    def forward(self) -> Tensor:
        """The temperature; put back between its bounds first, so that it never sits where it has no gradient."""
        with torch.no_grad():
            self.log.clamp_(*self.bounds)
        return self.log.exp()


class PeVL(nn.Module):
    """Frames and joints of clips, and prompts of classes, to similarities and logits."""

    def __init__(
        self,
        config: PeVLConfig,
        *,
        towers: ClipTowers,
        shape: ClipShape,
        prompts: Tensor,
        word_mask: Tensor,
        frozen_sentences: Tensor,
        num_frames: int,
        num_joints: int,
    ) -> None:
        """Build the model around frozen towers.

        Args:
            config: switches and sizes.
            towers: the frozen CLIP.
            shape: its shape.
            prompts: (C, N_t) token ids.
            word_mask: (C, N_t), True at words.
            frozen_sentences: (C, D), the cache's sentence embeddings, which cached strengths compare.
            num_frames: L.
            num_joints: J; unused without a pose encoder.
        """
        super().__init__()
        self.config, self.shape, self.num_frames = config, shape, num_frames
        self.image_tower = towers.image
        self.text_tower = towers.text if config.is_contrastive else None
        self._add_encoders(num_joints)
        self._add_projections(len(prompts))
        self.tau = Temperature(config.tau)
        self.prompts: Tensor
        self.word_mask: Tensor
        self.text_similarity: Tensor
        self.frozen_text: Tensor | None
        self.register_buffer("prompts", prompts, persistent=False)
        self.register_buffer("word_mask", word_mask, persistent=False)
        sentences = F.normalize(frozen_sentences.float(), dim=-1)
        self.register_buffer("text_similarity", sentences @ sentences.T, persistent=False)  # (C, C)
        self.register_buffer("frozen_text", None, persistent=False)

    def _add_encoders(self, num_joints: int) -> None:
        config, shape = self.config, self.shape
        visual: dict[str, Any] = {"mlp_scale": config.mlp_scale, "drop_path": config.drop_path}
        visual["gradient_checkpointing"] = config.gradient_checkpointing
        textual = visual | {"ratio": config.text_ratio, "adapters": "text" in config.adapters}
        visual["ratio"] = config.ratio
        self.video: VideoEncoder | None = None
        self.pose: PoseEncoder | None = None
        if "video" in config.encoders:
            visual["adapters"] = "video" in config.adapters
            self.video = VideoEncoder(shape, num_frames=self.num_frames, temporal=config.video_temporal, **visual)
        if "pose" in config.encoders:
            visual |= {"adapters": "pose" in config.adapters, "pose_input": config.pose_input}
            self.pose = PoseEncoder(shape, num_frames=config.pose_frames, num_joints=num_joints, **visual)
        self.text = TextEncoder(shape, **textual) if "text" in config.encoders else None
        self.refinement: CrossModalRefinement | None = None
        self.tau_r: Temperature | None = None
        if config.refines:
            self.refinement = CrossModalRefinement(
                shape.width,
                shape.heads,
                p2v=config.p2v,
                v2p=config.v2p,
                v2p_group=config.v2p_group,
                v2p_radius=config.v2p_radius,
                patch_size=shape.patch_size,
            )
            self.tau_r = Temperature(config.tau_r)

    def _add_projections(self, num_classes: int) -> None:
        config, dim = self.config, self.shape.embed_dim
        text = self.text_tower
        self.video_projection = _projection(self.image_tower.proj) if self.video else None
        self.pose_projection = _projection(self.image_tower.proj) if self.pose else None
        self.text_projection = _projection(text.text_projection) if text is not None else None
        joins = self.video is not None and self.pose is not None and not (self.text and config.fusion == "sgmc")
        self.fusion = nn.Linear(2 * dim, dim) if joins else None
        if self.fusion is not None:
            nn.init.zeros_(self.fusion.bias)
            with torch.no_grad():
                self.fusion.weight.copy_(torch.cat([torch.eye(dim), torch.eye(dim)], dim=1) / 2)
        self.classifier = None if self.text else nn.Linear(dim, num_classes)

    @property
    def base_parameters(self) -> Iterator[str]:
        """Names of the trained parameters that CLIP has too: they learn at the paper's rate."""
        return (name for name, _ in self.named_parameters() if "_projection." in name or name == "tau.log")

    def forward(self, *, pixels: Tensor | None, tokens: Tensor | None, joints: Tensor | None) -> VisualFeatures:
        """Features of n clips.

        Args:
            pixels: (n, L, 3, S, S), normalised; None without a video encoder, or with `tokens`.
            tokens: (n, L, 1 + P, d), of the frozen image tower, in place of pixels.
            joints: (n, T, J, 3), x and y in pixels of the view, score; None without a pose encoder.
        """
        return self.trace(pixels=pixels, tokens=tokens, joints=joints).features

    def trace(self, *, pixels: Tensor | None, tokens: Tensor | None, joints: Tensor | None) -> PeVLTrace:
        """Features with the joint weights and the mask that they were refined by; arguments are those of `forward`."""
        video = self._video_tokens(pixels, tokens)  # z_v (n, L, 1 + P, d)
        pose, weights = self._pose_tokens(joints)  # z_p (n, T, 1 + J, d), w (n, T, J)
        if self.refinement is None:
            return PeVLTrace(features=self._features(video, pose), joint_weights=weights, mask=None)
        video, pose, weights, joints = _given(video), _given(pose), _given(weights), _given(joints)
        before = self._features(video, pose)
        index = pose_frame_of(self.num_frames, self.config.pose_frames).to(pose.device)
        mask = self._mask(weights[:, index], joints[:, index])  # M (n, L, P)
        refined_video, refined_pose = self.refinement(video, pose[:, index], mask, joints[:, index])
        after = self._features(refined_video, pose.index_copy(1, index, refined_pose.to(pose.dtype)))
        features = VisualFeatures(
            video=after.video,
            pose=after.pose,
            pose_frames=after.pose_frames,
            unrefined_video=before.video if self.config.p2v != "off" else None,
            unrefined_pose=before.pose if self.config.v2p else None,
        )
        return PeVLTrace(features=features, joint_weights=weights, mask=mask)

    def encode_texts(self, classes: Tensor) -> TextEmbeddings:
        """The prompts of some classes. classes: (m,) indices."""
        ids, mask = self.prompts[classes], self.word_mask[classes]
        is_trained = "text" in self.config.adapters
        hidden = _given(self.text)(_given(self.text_tower), ids) if is_trained else self._frozen_text()[classes]
        words = _given(self.text_projection)(hidden)  # (m, N_t, D)
        # The end-of-text token has the largest id.
        end = ids.argmax(dim=-1)[:, None, None].expand(-1, 1, words.shape[-1])
        return TextEmbeddings(sentence=words.gather(1, end).squeeze(1), words=words, mask=mask)

    def encode_classes(self) -> TextEmbeddings:
        """The prompts of all classes."""
        pieces = [self.encode_texts(piece) for piece in torch.arange(len(self.prompts)).split(_TEXTS_AT_ONCE)]
        return TextEmbeddings(
            sentence=torch.cat([piece.sentence for piece in pieces]),
            words=torch.cat([piece.words for piece in pieces]),
            mask=torch.cat([piece.mask for piece in pieces]),
        )

    def similarity(self, visual: VisualFeatures, texts: TextEmbeddings) -> Tensor:
        """S: every clip against every text. -> (n, m), cosines or means of them, fp32."""
        if self.config.fusion == "concat":
            return pair_similarity(self._joined(visual), texts.sentence)
        parts = {
            "vs": lambda: pair_similarity(_given(visual.video), texts.sentence),
            "ps": lambda: pair_similarity(_given(visual.pose), texts.sentence),
            "fw": lambda: frame_word_similarity(
                _given(visual.pose_frames),
                texts.words,
                texts.mask,
                temperature=self.config.tau_a,
                chunk=_TEXTS_AT_ONCE,
            ),
        }
        return torch.stack([parts[name]() for name in self.config.similarities]).mean(dim=0)

    def loss(self, visual: VisualFeatures, labels: Tensor) -> Tensor:
        """L = L_t + lambda_R L_R of a batch. labels: (n,)."""
        if self.text is None:
            assert self.classifier is not None
            matching = F.cross_entropy(self.classifier(self._joined(visual)).float(), labels)
        else:
            matching = self._contrast(visual, labels)
        if self.tau_r is None or not self.config.lambda_r:
            return matching
        return matching + self.config.lambda_r * self._refinement_loss(visual, self.tau_r())

    def logits(self, visual: VisualFeatures, classes: TextEmbeddings | None) -> Tensor:
        """S / tau against all classes, or the classifier's logits without text. -> (n, C)."""
        if classes is None:
            assert self.classifier is not None
            return self.classifier(self._joined(visual))
        return self.similarity(visual, classes) / self.tau()

    def _contrast(self, visual: VisualFeatures, labels: Tensor) -> Tensor:
        """L_t: the semantic-guided loss over the clips and texts of the batch."""
        present, place = labels.unique(return_inverse=True)
        texts = self.encode_texts(present)
        similarity = self.similarity(visual, texts)[:, place]  # (n, n): clip i with the text of clip j
        weights = torch.ones_like(similarity)
        if self.config.strengths == "semantic":
            weights = negative_weights(self._resemblance(texts, present)[place][:, place], labels)
        return semantic_guided_loss(similarity, labels, weights, self.tau())

    def _resemblance(self, texts: TextEmbeddings, present: Tensor) -> Tensor:
        """How alike the texts of the batch's classes are: (m, m) cosines, without a gradient."""
        if self.config.strength_text == "cached":
            return self.text_similarity[present][:, present]
        return pair_similarity(texts.sentence.detach(), texts.sentence.detach())

    def _refinement_loss(self, visual: VisualFeatures, tau: Tensor) -> Tensor:
        """L_R: NT-Xent between features before and after refinement, of the sub-blocks that are on."""
        pairs = [(visual.unrefined_video, visual.video), (visual.unrefined_pose, visual.pose)]
        terms = [nt_xent(before, after, tau) for before, after in pairs if before is not None and after is not None]
        return torch.stack(terms).sum()

    def _video_tokens(self, pixels: Tensor | None, tokens: Tensor | None) -> Tensor | None:
        if self.video is None:
            return None
        if tokens is not None:
            return tokens.float()
        return self.video(self.image_tower, _given(pixels))

    def _pose_tokens(self, joints: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        if self.pose is None:
            return None, None
        result = self.pose(self.image_tower, _given(joints))
        return result.tokens, result.weights

    def _mask(self, weights: Tensor, joints: Tensor) -> Tensor:
        """M: where the joints that matter are. weights: (n, L, J), joints: (n, L, J, 3) -> (n, L, P)."""
        return pose_mask(
            weights.detach() if self.config.mask_detach else weights,
            joints,
            image_size=self.shape.image_size,
            patch_size=self.shape.patch_size,
            dilate=self.config.mask_dilate,
        )

    def _features(self, video: Tensor | None, pose: Tensor | None) -> VisualFeatures:
        """Tokens to projected features: video (n, L, 1 + P, d), pose (n, T, 1 + J, d)."""
        frames = None if pose is None else self._pose_frames(pose)  # (n, T, d)
        return VisualFeatures(
            video=None
            if video is None
            else self._project(self._video_frames(video).mean(dim=1), self.video_projection),
            pose=None if frames is None else self._project(frames.mean(dim=1), self.pose_projection),
            pose_frames=None if frames is None else self._project(frames, self.pose_projection),
        )

    def _video_frames(self, video: Tensor) -> Tensor:
        """What stands for a video frame: its class token, or where p2v cannot change that its patches. -> (n, L, d)."""
        return video[:, :, 1:].mean(dim=2) if self.config.p2v == "outer" else video[:, :, 0]

    def _pose_frames(self, pose: Tensor) -> Tensor:
        """What stands for a pose frame: its class token, with the mean of its joints if asked. -> (n, T, d)."""
        if self.config.pose_pool == "cls":
            return pose[:, :, 0]
        return pose[:, :, 0] + pose[:, :, 1:].mean(dim=2)

    def _project(self, tokens: Tensor, projection: nn.Linear | None) -> Tensor:
        return _given(projection)(self.image_tower.ln_post(tokens))

    def _joined(self, visual: VisualFeatures) -> Tensor:
        """One vector per clip from the encoders that are on: (n, D)."""
        parts = [F.normalize(feature, dim=-1) for feature in (visual.video, visual.pose) if feature is not None]
        return parts[0] if self.fusion is None else self.fusion(torch.cat(parts, dim=-1))

    def _frozen_text(self) -> Tensor:
        """The text tower's output for all prompts, (C, N_t, text width), computed once: nothing in it is trained."""
        if self.frozen_text is None:
            text, tower = _given(self.text), _given(self.text_tower)
            off = torch.autocast(self.prompts.device.type, enabled=False)  # kept for predictions, which are fp32
            with torch.inference_mode(mode=False), torch.no_grad(), off:  # kept for training too
                pieces = self.prompts.split(_TEXTS_AT_ONCE)
                self.frozen_text = torch.cat([text(tower, piece) for piece in pieces])
        return self.frozen_text


def _projection(weights: Tensor) -> nn.Linear:
    """CLIP's projection (d, D) as a layer of our own, which is trained."""
    layer = nn.Linear(weights.shape[0], weights.shape[1], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weights.T)
    return layer


def _given(value: Part | None) -> Part:
    """What the configuration promises to be there."""
    assert value is not None
    return value
