"""Batches for PeVL: views of cached frames, or image tokens of such views, with the joints of the same views.

A reader may ask why the instants of the video do not depend on whether there is a pose encoder: they are always taken
out of the T pose instants, so that every row of an ablation sees the same frames. Nothing is drawn in time: PeVL
samples uniformly, so training differs from testing in the view alone.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.errors import CacheError, ConfigError
from cache.rows import Joints
from cache.store import StreamReader
from train.clip_set import ClipSet, check_one_video, denser
from train.config import TrainConfig
from train.data import decode_frames
from train.read_ahead import read_ahead
from train.refinement import pose_frame_of
from train.row_table import RowTable, batches_of
from train.sampling import Indices, clip_generator, segment_centres
from train.transfer import host_tensor, moved, pinned
from train.views import Extent, View, crop_views, joints_on_picture, random_view, view_frames, view_joints


@dataclass(frozen=True, kw_only=True)
class PoseBatch:
    """n clips in V views: frames (n, V, L, 3, S, S) uint8 or tokens (n, V, L, 1 + P, d), and joints (n, V, T, J, 3).

    V is 1 in training. Tokens are float16, as the cache has them; joints float32: x and y in pixels of the view and
    the score, all 0 for a missing joint. What the encoders do not need is None.
    """

    targets: Tensor
    frames: Tensor | None = None
    tokens: Tensor | None = None
    joints: Tensor | None = None

    def to(self, device: torch.device) -> "PoseBatch":
        """The same batch on a device; a GPU's copy is in flight when this returns, and its kernels wait for it."""
        return PoseBatch(
            targets=moved(self.targets, device),
            frames=None if self.frames is None else moved(self.frames, device),
            tokens=None if self.tokens is None else moved(self.tokens, device),
            joints=None if self.joints is None else moved(self.joints, device),
        )


def pose_instants(num_cached: int, config: TrainConfig) -> Indices:
    """(T,) the cached instants of the pose frames: centres of T equal segments, all instants when F = T."""
    return segment_centres(num_cached, config.pevl.pose_frames)


def video_instants(num_cached: int, config: TrainConfig) -> Indices:
    """(L,) the cached instants of the video frames, each of them a pose instant."""
    positions = pose_frame_of(config.num_frames, config.pevl.pose_frames)
    return pose_instants(num_cached, config)[positions.numpy()]


def check_pose_instants(
    clip_set: ClipSet, config: TrainConfig, frames: StreamReader | None, joints: StreamReader | None
) -> None:
    """Refuses clips with fewer instants than T, and frames and joints that are not of the same instants.

    Raises:
        ConfigError: a clip has too few instants.
        CacheError: the streams disagree.
    """
    readers = [reader for reader in (joints, frames) if reader is not None]
    for clip in clip_set.clips:
        for reader in readers:
            _check_enough(reader, clip.id, config)
            check_one_video(readers[0], reader, clip.id)
            if not np.array_equal(reader.frame_index(clip.id), readers[0].frame_index(clip.id)):
                raise CacheError(
                    f"clip {clip.id!r}: frames and joints are not of the same instants; extract both again, with one "
                    "set of settings"
                )


def _check_enough(reader: StreamReader, clip_id: str, config: TrainConfig) -> None:
    rows, asked = reader.num_rows(clip_id), config.pevl.pose_frames
    if rows < asked:
        raise ConfigError(
            f"train.pevl.pose_frames = {asked}, but the cache holds {rows} instants of clip {clip_id!r}: use a "
            f"multiple of train.num_frames = {config.num_frames} that is at most {rows}, or extract into another "
            f"cache with {denser(reader, asked)}"
        )


def crops_of(reader: StreamReader, clip_id: str, config: TrainConfig, image_size: int) -> Tensor:
    """The test views of one clip, of which image tokens are computed: (V, L, 3, S, S) uint8, not normalised."""
    pictures = _pictures(reader, clip_id, config)
    height, width = pictures.shape[-2:]
    views = crop_views(height, width, size=image_size, crops=config.pevl.crops)
    return torch.stack([view_frames(pictures, view) for view in views])


class PoseSource:
    """Clips with what PeVL's encoders read; see `train.data.BatchSource`.

    One random view in training and the test views in testing. With image tokens, which are of the test views, training
    takes the middle one.
    """

    def __init__(
        self,
        clip_set: ClipSet,
        config: TrainConfig,
        *,
        image_size: int,
        frames: StreamReader | None,
        joints: StreamReader | None,
        flip_order: npt.NDArray[np.int64] | None,
        tokens: StreamReader | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            clip_set: the clips.
            config: the run's configuration.
            image_size: S.
            frames: JPEGs; None if there is no video encoder, or tokens take their place.
            joints: joints; None if there is no pose encoder.
            flip_order: (J,) the skeleton's; needed with joints.
            tokens: V * L rows (1 + P, d) a clip, of `crops_of` in this order.

        Raises:
            ValueError: frames and tokens are given, or nothing, or joints without their flip_order.
            CacheError: a clip has tokens of another number of views or frames.
        """
        readers = [reader for reader in (joints, tokens, frames) if reader is not None]
        if not readers or (frames is not None and tokens is not None):
            raise ValueError("give frames, tokens or joints; frames or tokens, not both")
        if joints is not None and flip_order is None:
            raise ValueError("joints need the flip_order of their skeleton")
        self.clip_set, self.device = clip_set, torch.device("cpu")
        self._config, self._image_size = config, image_size
        self._frames, self._tokens, self._sized = frames, tokens, readers[0]
        self._pose = None if joints is None or flip_order is None else (joints, flip_order)
        self._targets = torch.from_numpy(clip_set.targets)
        self._tables: dict[bool, tuple[RowTable, ...]] = {}
        if tokens is not None:
            _check_tokens(clip_set, config, tokens)

    def tables(self, *, training: bool) -> Sequence[RowTable]:
        """See BatchSource: image tokens, of the middle view in training, and the joints of their views."""
        if self._tokens is None:
            return ()
        if training not in self._tables:
            reads = {"image_tokens": self._token_rows} | ({} if self._pose is None else {"joints": self._joint_rows})
            count, epoch = len(self.clip_set), 0 if training else None
            self._tables[training] = tuple(RowTable(name, count, partial(read, epoch)) for name, read in reads.items())
        return self._tables[training]

    def batches(self, pieces: Iterable[Indices], epoch: int | None) -> Generator[PoseBatch]:
        """See BatchSource."""
        if self._tokens is not None:
            tables = self.tables(training=epoch is not None)
            self._targets = self._targets.to(self.device)  # numbers may be there
            yield from batches_of(tables, pieces, partial(self._of_tables, tables), self.device)
        else:
            with closing(read_ahead(pieces, partial(self._begin, epoch))) as read:
                yield from read

    def _of_tables(self, tables: Sequence[RowTable], numbers: Tensor) -> PoseBatch:
        rows = {table.name: pinned(table.take(numbers), self.device) for table in tables}
        return PoseBatch(targets=self._targets[numbers], tokens=rows["image_tokens"], joints=rows.get("joints"))

    def _begin(self, epoch: int | None, piece: Indices) -> tuple[PoseBatch, list[Callable[[], None]]]:
        """An empty batch, and a job for each of its clips."""
        num_views = self._config.pevl.crops if epoch is None else 1
        batch = PoseBatch(
            targets=self._targets[torch.from_numpy(piece)],
            frames=self._empty_frames(len(piece), num_views),
            joints=self._empty_joints(len(piece), num_views),
        )
        jobs: list[Callable[[], None]] = [
            partial(self._read, batch, position, number, epoch) for position, number in enumerate(piece.tolist())
        ]
        return batch, jobs

    def _empty_frames(self, num_clips: int, num_views: int) -> Tensor | None:
        if self._frames is None:
            return None
        shape = (num_clips, num_views, self._config.num_frames, 3, self._image_size, self._image_size)
        return host_tensor(shape, torch.uint8, self.device)

    def _empty_joints(self, num_clips: int, num_views: int) -> Tensor | None:
        if self._pose is None:
            return None
        _, flip_order = self._pose
        shape = (num_clips, num_views, self._config.pevl.pose_frames, len(flip_order), 3)
        return host_tensor(shape, torch.float32, self.device)

    def _read(self, batch: PoseBatch, position: int, number: int, epoch: int | None) -> None:
        """Fills in one clip."""
        clip_id = self.clip_set.clips[number].id
        pictures = None if self._frames is None else _pictures(self._frames, clip_id, self._config)
        source = _source_extent(self._sized, clip_id)
        extent = source if pictures is None else (pictures.shape[-2], pictures.shape[-1])
        views = self._views(number, epoch, extent)
        if pictures is not None and batch.frames is not None:
            for view, seen in zip(views, batch.frames[position], strict=True):
                seen.numpy()[...] = view_frames(pictures, view).numpy()
        if batch.joints is not None:
            batch.joints[position].numpy()[...] = self._read_joints(clip_id, source, extent, views).numpy()

    def _views(self, number: int, epoch: int | None, extent: Extent) -> tuple[View, ...]:
        pevl, size = self._config.pevl, self._image_size
        if epoch is None or self._tokens is not None:
            views = crop_views(*extent, size=size, crops=pevl.crops)
            return views if epoch is None else (views[pevl.crops // 2],)
        generator = clip_generator(self._config.seed, epoch, number)
        return (random_view(*extent, config=pevl, size=size, generator=generator),)

    def _token_rows(self, epoch: int | None, numbers: Sequence[int]) -> Tensor:
        """(n, V, L, 1 + P, d) of all test views, or of the middle one."""
        tokens, num_frames = self._tokens, self._config.num_frames
        assert tokens is not None
        ids = [self.clip_set.clips[number].id for number in numbers]
        if epoch is None:
            rows = tokens.batch(ids)
        else:
            start = self._config.pevl.crops // 2 * num_frames
            rows = np.stack([tokens[clip_id][start : start + num_frames] for clip_id in ids])
        return torch.from_numpy(rows).unflatten(1, (-1, num_frames))

    def _joint_rows(self, epoch: int | None, numbers: Sequence[int]) -> Tensor:
        """(n, V, T, J, 3) in the views that image tokens are of."""
        rows = []
        for number in numbers:
            clip_id = self.clip_set.clips[number].id
            extent = _source_extent(self._sized, clip_id)
            rows.append(self._read_joints(clip_id, extent, extent, self._views(number, epoch, extent)))
        return torch.stack(rows)

    def _read_joints(self, clip_id: str, source: Extent, extent: Extent, views: tuple[View, ...]) -> Tensor:
        """(V, T, J, 3); a cache without JPEGs serves too, the views then lie in the source frame."""
        assert self._pose is not None
        reader, flip_order = self._pose
        rows: Joints = reader[clip_id]
        instants = pose_instants(len(rows.score), self._config)
        cached = np.concatenate([rows.xy[instants], rows.score[instants, :, None]], axis=-1)
        joints = joints_on_picture(torch.from_numpy(cached), source, extent)
        min_score = self._config.pevl.min_score
        return torch.stack([view_joints(joints, view, flip_order=flip_order, min_score=min_score) for view in views])


def _pictures(reader: StreamReader, clip_id: str, config: TrainConfig) -> Tensor:
    return decode_frames(reader, clip_id, video_instants(reader.num_rows(clip_id), config))


def _source_extent(reader: StreamReader, clip_id: str) -> Extent:
    """Height and width of the clip's video, as displayed."""
    provenance = reader.provenance(clip_id)
    return provenance.height, provenance.width


def _check_tokens(clip_set: ClipSet, config: TrainConfig, tokens: StreamReader) -> None:
    expected = config.pevl.crops * config.num_frames
    for clip in clip_set.clips:
        rows = tokens.num_rows(clip.id)
        if rows != expected:
            raise CacheError(
                f"clip {clip.id!r}: {tokens.folder} holds {rows} frames of image tokens, expected {expected} (crops = "
                f"{config.pevl.crops}, num_frames = {config.num_frames}); delete the folder, they are computed again"
            )
