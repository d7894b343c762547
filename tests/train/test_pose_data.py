from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cache import fingerprint
from cache.errors import CacheError, ConfigError
from cache.manifest import Dataset
from cache.rows import ClipRows
from cache.shard import write_shard
from cache.skeletons import COCO_17
from cache.store import StreamReader
from extract.config import FramesConfig
from extract.decoding.clip_pixels import encode_jpeg
from tests.toys import ACTIVITY, PROVENANCE, joint_rows, toy_dataset, toy_fingerprint
from tests.train.runs import picture_rows
from train import frames
from train.clip_set import select_clips
from train.config import TrainConfig
from train.models.pevl_config import PeVLConfig
from train.pose_data import PoseBatch, PoseSource, check_pose_instants, crops_of, pose_instants, video_instants
from train.views import crop_views, view_frames

SIZE = 24
CONFIG = TrainConfig(
    method="pevl",
    task="activity",
    num_frames=2,
    pevl=PeVLConfig(pose_frames=4, encoders=("video", "pose"), adapters=("video", "pose")),
)
LEFT_WRIST, RIGHT_WRIST = (COCO_17.joint_names.index(f"{side}_wrist") for side in ("left", "right"))


def with_pevl(**changes: Any) -> TrainConfig:  # noqa: ANN401 (fields of PeVLConfig)
    return replace(CONFIG, pevl=replace(CONFIG.pevl, **changes))


def write_stream(folder: Path, stream: str, rows: Sequence[ClipRows]) -> StreamReader:
    mark = toy_fingerprint(stream)
    fingerprint.ensure(folder, mark)
    write_shard(folder, 0, stream, rows, fingerprint=mark)
    return StreamReader(folder)


class Toys:
    """The train split of the toy dataset with frames (8, 24 x 32) and joints (8, 17) in a 48 x 64 video."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self.folder = folder
        self.frames = self.write("frames", picture_rows)
        self.joints = self.write("joints", joint_rows)
        self.clips = select_clips(dataset, ACTIVITY, "default", "train", (self.frames, self.joints))

    def write(self, stream: str, rows: Callable[[str], ClipRows], *, name: str = "") -> StreamReader:
        clips = toy_dataset().clips
        return write_stream(self.folder / (name or stream), stream, [rows(clip.id) for clip in clips])

    def source(self, config: TrainConfig = CONFIG, **changes: Any) -> PoseSource:  # noqa: ANN401 (arguments)
        arguments: dict[str, Any] = {
            "image_size": SIZE,
            "frames": self.frames,
            "joints": self.joints,
            "flip_order": COCO_17.flip_order,
        }
        return PoseSource(self.clips, config, **(arguments | changes))


@pytest.fixture
def toys(tmp_path: Path) -> Toys:
    return Toys(tmp_path, toy_dataset())


def batch_of(source: PoseSource, epoch: int | None, numbers: Sequence[int] = tuple(range(8))) -> PoseBatch:
    return next(source.batches([np.array(numbers)], epoch))


def frames_of(batch: PoseBatch) -> torch.Tensor:
    assert batch.frames is not None
    return batch.frames


def joints_of(batch: PoseBatch) -> torch.Tensor:
    assert batch.joints is not None
    return batch.joints


def dotted(clip_id: str) -> tuple[npt.NDArray[np.int64], list[bytes]]:
    """Source pixels (8, 2) of a white square and the JPEGs, half as large, that extraction would write."""
    places = np.random.default_rng([*clip_id.encode()]).integers((22, 14), (42, 34), (8, 2))
    jpegs = []
    for x, y in places:
        pixels = np.zeros((48, 64, 3), np.uint8)
        pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
        jpegs.append(encode_jpeg(pixels, FramesConfig(short_side=24)))
    return places, jpegs


def dotted_frames(clip_id: str) -> ClipRows:
    return replace(picture_rows(clip_id), fields={"jpeg": dotted(clip_id)[1]})


def dotted_joints(clip_id: str) -> ClipRows:
    """Only the left wrist is visible: on the white square."""
    rows = joint_rows(clip_id)
    xy, score = np.full((8, 17, 2), np.nan, np.float32), np.zeros((8, 17), np.float32)
    xy[:, LEFT_WRIST], score[:, LEFT_WRIST] = dotted(clip_id)[0], 0.9
    fields = dict(rows.fields) | {"xy": xy, "score": score, "valid": np.ones(8, np.uint8)}
    return replace(rows, fields=fields | {"box": np.full((8, 4), 9, np.float32)})


def centre_of_light(frame: torch.Tensor) -> torch.Tensor:
    light = frame.float().mean(0)
    light = torch.where(light > 0.5 * light.max(), light, 0.0)
    positions = torch.arange(SIZE) + 0.5
    return torch.stack([(light.sum(axis) * positions).sum() / light.sum() for axis in (0, 1)])


def test_in_every_view_the_wrist_lies_on_the_dot_that_the_jpeg_shows(toys: Toys) -> None:
    config = with_pevl(pose_frames=2)
    source = toys.source(
        config,
        frames=toys.write("frames", dotted_frames, name="dotted"),
        joints=toys.write("joints", dotted_joints, name="wrists"),
    )
    rows = []
    for epoch in (None, 0, 1, 2):
        batch = batch_of(source, epoch)
        joints, pictures = joints_of(batch).flatten(0, 2), frames_of(batch).flatten(0, 2)
        assert set(joints[..., 2].nonzero()[:, 1].tolist()) <= {LEFT_WRIST, RIGHT_WRIST}
        for picture, seen in zip(pictures, joints, strict=True):
            for row in (LEFT_WRIST, RIGHT_WRIST):
                place = seen[row, :2]
                if seen[row, 2] and place.min() > 5 and place.max() < SIZE - 5:
                    assert torch.allclose(centre_of_light(picture), place, atol=1.0), (epoch, place)
                    rows.append((epoch, row))
    assert {row for epoch, row in rows if epoch is None} == {LEFT_WRIST}
    assert {row for epoch, row in rows if epoch is not None} == {LEFT_WRIST, RIGHT_WRIST}
    assert len(rows) > 40


@pytest.mark.parametrize(("cached", "asked"), [(48, 48), (64, 48), (64, 16)])
def test_video_instants_are_pose_instants_spread_over_the_clip(cached: int, asked: int) -> None:
    config = TrainConfig(method="pevl", task="activity", num_frames=16, pevl=PeVLConfig(pose_frames=asked))
    pose, video = pose_instants(cached, config), video_instants(cached, config)
    assert len(pose) == asked
    assert len(video) == 16
    assert (np.diff(video) > 0).all()
    positions = np.flatnonzero(np.isin(pose, video))
    assert positions.tolist() == [3 * frame + 1 if asked == 48 else frame for frame in range(16)]
    if cached == asked:
        assert pose.tolist() == list(range(48))
    assert pose.min() >= 0
    assert pose.max() < cached


def test_frames_and_joints_of_a_batch_are_those_of_the_instants(toys: Toys) -> None:
    assert pose_instants(8, CONFIG).tolist() == [1, 3, 5, 7]
    assert video_instants(8, CONFIG).tolist() == [3, 7]
    batch = batch_of(toys.source(), None)
    for number, clip in enumerate(toys.clips.clips):
        jpegs = toys.frames[clip.id]
        pictures = frames.decode([jpegs[3], jpegs[7]])
        expected = torch.stack([view_frames(pictures, view) for view in crop_views(24, 32, size=SIZE, crops=3)])
        assert torch.equal(frames_of(batch)[number], expected)
        assert torch.equal(crops_of(toys.frames, clip.id, CONFIG, SIZE), expected)
    nose = joints_of(batch)[:, 0, :, 0]  # toys: x = 0 and y = instant, in pixels twice as small as the JPEG's
    assert nose[0].tolist() == [[0.25, 0.75, 0.5], [0.25, 1.75, 0.5], [0.25, 2.75, 0.5], [0.0, 0.0, 0.0]]
    assert batch.targets.tolist() == toys.clips.targets.tolist()


def test_training_has_one_view_and_testing_has_all_crops(toys: Toys) -> None:
    train, test = (batch_of(toys.source(), epoch) for epoch in (0, None))
    assert frames_of(train).shape == (8, 1, 2, 3, SIZE, SIZE)
    assert joints_of(train).shape == (8, 1, 4, 17, 3)
    assert frames_of(test).shape == (8, 3, 2, 3, SIZE, SIZE)
    assert joints_of(test).shape == (8, 3, 4, 17, 3)
    assert frames_of(train).dtype == torch.uint8
    assert joints_of(train).dtype == torch.float32
    assert frames_of(batch_of(toys.source(with_pevl(crops=1)), None)).shape[1] == 1


def test_crops_shift_the_joints_and_drop_those_that_are_outside(toys: Toys) -> None:
    joints = joints_of(batch_of(toys.source(), None))[0, :, 0]  # (3, 17, 3), crops start at 0, 4 and 8
    left, centre, _right = joints
    assert left[:, 0].tolist() == pytest.approx([0.0 if joint == 3 else (joint + 0.5) / 2 for joint in range(17)])
    assert left[3].tolist() == [0.0, 0.0, 0.0]
    assert (centre[:, 2] > 0).tolist() == [joint >= 8 for joint in range(17)]
    assert torch.allclose(left[8:, 0] - centre[8:, 0], torch.tensor(4.0))
    assert torch.equal(left[8:, 1:], centre[8:, 1:])


def test_three_crops_of_square_frames_are_equal(toys: Toys) -> None:
    pictures = toys.write("frames", lambda clip_id: picture_rows(clip_id, height=32, width=32), name="square")
    batch = batch_of(toys.source(frames=pictures), None)
    for views in (frames_of(batch), joints_of(batch)):
        assert torch.equal(views[:, 0], views[:, 1])
        assert torch.equal(views[:, 0], views[:, 2])


def test_a_training_view_is_the_same_in_another_source_and_beside_other_clips(toys: Toys) -> None:
    together = batch_of(toys.source(), 3)
    for number in (5, 0):
        alone = batch_of(toys.source(), 3, [number])
        assert torch.equal(frames_of(alone)[0], frames_of(together)[number])
        assert torch.equal(joints_of(alone)[0], joints_of(together)[number])
    other = batch_of(toys.source(), 4)
    assert not torch.equal(frames_of(other), frames_of(together))
    assert not torch.equal(joints_of(other), joints_of(together))


def test_batches_come_in_order_and_each_piece_is_one(toys: Toys) -> None:
    pieces = [np.array([4, 1]), np.array([0]), np.array([2, 3, 7])]
    batches = list(toys.source().batches(pieces, None))
    for piece, batch in zip(pieces, batches, strict=True):
        assert batch.targets.tolist() == toys.clips.targets[piece].tolist()
        assert torch.equal(frames_of(batch), frames_of(batch_of(toys.source(), None, piece.tolist())))


def test_an_encoder_that_is_off_gets_nothing_and_no_jpeg_is_decoded_for_it(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, video = batch_of(toys.source(), 1), batch_of(toys.source(joints=None, flip_order=None), 1)
    assert video.joints is None
    assert torch.equal(frames_of(video), frames_of(both))
    monkeypatch.setattr(frames, "decode", lambda _: pytest.fail("a JPEG was decoded"))
    pose = batch_of(toys.source(frames=None), 1)
    assert pose.frames is None
    assert joints_of(pose).count_nonzero() > 90
    apart = (joints_of(pose) - joints_of(both))[joints_of(pose)[..., 2] * joints_of(both)[..., 2] > 0].abs()
    assert apart.max() < 2.5  # the same crop, rounded to other pixels: without JPEGs views lie in the source frame


def token_rows(clip_id: str, *, count: int = 6) -> ClipRows:
    """V * L = 6 rows of (1 + P, d) = (5, 4), a different number in each row."""
    number = int(clip_id[-3:])
    values = (10 * number + np.arange(count, dtype=np.float16))[:, None, None] * np.ones((1, 5, 4), np.float16)
    return ClipRows(
        clip_id=clip_id,
        fields={"image_tokens": values},
        pts_seconds=np.arange(count) / 8.0,
        frame_index=np.arange(count, dtype=np.int64),
        provenance=PROVENANCE,
    )


def test_tokens_come_per_view_and_training_reads_the_middle_one_with_its_joints(toys: Toys) -> None:
    tokens = toys.write("image_tokens", token_rows)
    source = toys.source(frames=None, tokens=tokens)
    train, test = batch_of(source, 5, [2]), batch_of(source, None, [2])
    assert test.frames is None
    assert test.tokens is not None
    assert train.tokens is not None
    assert test.tokens.shape == (1, 3, 2, 5, 4)
    first = 10 * int(toys.clips.clips[2].id[-3:])
    assert test.tokens[0, :, :, 0, 0].tolist() == [[first + 2 * view, first + 2 * view + 1] for view in range(3)]
    assert torch.equal(train.tokens, test.tokens[:, 1:2])
    assert torch.equal(joints_of(train), joints_of(test)[:, 1:2])
    assert torch.equal(joints_of(test), joints_of(batch_of(toys.source(), None, [2])))
    alone = batch_of(toys.source(frames=None, joints=None, flip_order=None, tokens=tokens), None, [2])
    assert alone.joints is None
    assert alone.tokens is not None
    assert torch.equal(alone.tokens, test.tokens)


@pytest.mark.parametrize("epoch", [0, None])
def test_tokens_and_joints_are_the_same_from_disk_and_from_memory(toys: Toys, epoch: int | None) -> None:
    tokens = toys.write("image_tokens", token_rows)
    disk, memory = (toys.source(frames=None, tokens=tokens) for _ in range(2))
    tables = memory.tables(training=epoch is not None)
    assert [table.name for table in tables] == ["image_tokens", "joints"]
    for table in tables:
        table.load(torch.device("cpu"))
    for numbers in ([3, 0, 3], [7]):
        found, expected = batch_of(memory, epoch, numbers), batch_of(disk, epoch, numbers)
        assert torch.equal(joints_of(found), joints_of(expected))
        assert found.tokens is not None
        assert expected.tokens is not None
        assert torch.equal(found.tokens, expected.tokens)
        assert torch.equal(found.targets, expected.targets)
    assert not toys.source().tables(training=True), "frames are another view in every epoch"


def test_tokens_of_another_number_of_views_are_refused(toys: Toys) -> None:
    tokens = toys.write("image_tokens", token_rows)
    with pytest.raises(CacheError, match=r"holds 6 frames of image tokens, expected 2 \(crops = 1, num_frames = 2\)"):
        toys.source(with_pevl(crops=1), frames=None, tokens=tokens)


def test_a_source_of_nothing_or_of_frames_beside_tokens_is_refused(toys: Toys) -> None:
    tokens = toys.write("image_tokens", token_rows)
    for changes in ({"frames": None, "joints": None}, {"tokens": tokens}):
        with pytest.raises(ValueError, match="give frames, tokens or joints"):
            toys.source(**changes)
    with pytest.raises(ValueError, match="flip_order"):
        toys.source(flip_order=None)


def test_more_pose_frames_than_cached_instants_are_refused(toys: Toys) -> None:
    check_pose_instants(toys.clips, with_pevl(pose_frames=8), toys.frames, toys.joints)
    for readers in ((toys.frames, toys.joints), (toys.frames, None), (None, toys.joints)):
        with pytest.raises(ConfigError, match=r"train.pevl.pose_frames = 10, but the cache holds 8 .*num_frames = 2"):
            check_pose_instants(toys.clips, with_pevl(pose_frames=10), *readers)


def test_frames_and_joints_of_different_instants_are_refused(toys: Toys) -> None:
    shifted = toys.write(
        "joints", lambda clip_id: replace(joint_rows(clip_id), frame_index=np.arange(8) + 1), name="later"
    )
    check_pose_instants(toys.clips, CONFIG, toys.frames, toys.joints)
    with pytest.raises(CacheError, match="not of the same instants"):
        check_pose_instants(toys.clips, CONFIG, toys.frames, shifted)


def test_a_batch_moves_to_a_device_with_all_its_parts() -> None:
    batch = PoseBatch(targets=torch.zeros(2), frames=torch.zeros(2), tokens=torch.zeros(2), joints=torch.zeros(2))
    moved = batch.to(torch.device("meta"))
    parts = (moved.targets, moved.frames, moved.tokens, moved.joints)
    assert all(part is not None and part.is_meta for part in parts)
    bare = PoseBatch(targets=torch.zeros(2)).to(torch.device("meta"))
    assert (bare.frames, bare.tokens, bare.joints) == (None, None, None)
