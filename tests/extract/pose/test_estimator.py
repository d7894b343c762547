import itertools
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cache.errors import FailureCode, VideoError, WeightsError
from extract.config import PoseConfig
from extract.pose.estimator import HRNET_SOURCES, PoseEstimator, pose_fingerprint_model, pose_weights
from extract.pose.heatmaps import REFINEMENTS
from extract.pose.hrnet import HRNetPose
from tests.extract.pose.test_hrnet import random_network

TINY = PoseConfig(
    model="hrnet_w8_tiny", weights="none", boxes="whole_frame", input_height=64, input_width=64, batch_size=4
)
CPU = torch.device("cpu")
CODECS: tuple[str, ...] = get_args(get_type_hints(PoseConfig)["codec"])


def random_frames(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 48, 80, 3), dtype=np.uint8)


def boxes(count: int) -> npt.NDArray[np.float32]:
    return np.tile(np.array([10, 5, 60, 45], np.float32), (count, 1))


def changed(config: PoseConfig, **values: object) -> PoseConfig:
    return PoseConfig(**{**vars(config), **values})


def estimator(**values: object) -> PoseEstimator:
    return PoseEstimator(changed(TINY, **values), random_network(), CPU)


@pytest.mark.parametrize("flip_test", [False, True])
def test_rows_do_not_depend_on_how_clips_share_batches(flip_test: bool) -> None:
    pose = estimator(flip_test=flip_test)
    first, second = random_frames(3), random_frames(6)
    alone = [pose.estimate(frames, boxes(len(frames))) for frames in (first, second)]
    crops = torch.cat([pose.crops(first, boxes(3)), pose.crops(second, boxes(6))])
    heatmaps = pose.heatmaps(crops)
    for (xy, score), maps in zip(alone, (heatmaps[:3], heatmaps[3:]), strict=True):
        other_xy, other_score = pose.decode(maps, boxes(len(maps)))
        np.testing.assert_array_equal(xy, other_xy)
        np.testing.assert_array_equal(score, other_score)


def test_frames_with_nobody_stay_in_place_as_nan() -> None:
    pose = estimator()
    frames, where = random_frames(3), boxes(3)
    where[1] = np.nan
    xy, score = pose.estimate(frames, where)
    assert xy.shape == (3, 17, 2)
    assert np.isnan(xy[1]).all()
    assert (score[1] == 0).all()
    assert (np.isnan(xy).any(axis=-1) == (score == 0)).all()
    alone, _ = pose.estimate(frames[2:], where[2:])
    np.testing.assert_array_equal(xy[2:], alone)


def test_a_clip_with_nobody_needs_no_network() -> None:
    xy, score = estimator().estimate(random_frames(2), np.full((2, 4), np.nan, np.float32))
    assert np.isnan(xy).all()
    assert (score == 0).all()


def test_the_flip_test_changes_the_joints() -> None:
    frames = random_frames(2)
    assert not np.array_equal(
        estimator().estimate(frames, boxes(2))[1], estimator(flip_test=True).estimate(frames, boxes(2))[1]
    )


def test_a_network_that_gives_nan_is_a_failed_video() -> None:
    model = HRNetPose("hrnet_w8_tiny")
    torch.nn.init.constant_(model.final_layer.weight, float("nan"))
    with pytest.raises(VideoError) as caught:
        PoseEstimator(TINY, model, CPU).estimate(random_frames(1), boxes(1))
    assert caught.value.code is FailureCode.NON_FINITE


def test_loading_a_file_and_loading_random_weights(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    torch.save(random_network().state_dict(), path)
    frames = random_frames(2)
    loaded = PoseEstimator.load(changed(TINY, weights=str(path)), CPU).estimate(frames, boxes(2))
    expected = estimator().estimate(frames, boxes(2))
    np.testing.assert_array_equal(loaded[0], expected[0])
    seeds = [PoseEstimator.load(changed(TINY, seed=seed), CPU).estimate(frames, boxes(2))[1] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(seeds[0], seeds[1])
    assert not np.array_equal(seeds[0], seeds[2])


def test_random_weights_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    PoseEstimator.load(TINY, CPU)
    assert torch.equal(torch.rand(1), expected)


def test_the_fingerprint_follows_what_changes_joints(tmp_path: Path) -> None:
    path = tmp_path / "boxes.jsonl"
    path.write_text("")
    base = pose_fingerprint_model(TINY)
    assert base[0] == {
        "name": "hrnet_w8_tiny",
        "skeleton": "coco_17",
        "weights": "none",
        "weights_name": "none",
        "seed": 0,
    }
    for values in (
        {"seed": 1},
        {"flip_test": True},
        {"codec": "dark"},
        {"codec": "udp"},
        {"input_width": 96},
        {"boxes": "file", "boxes_file": str(path)},
    ):
        assert pose_fingerprint_model(changed(TINY, **values)) != base
    assert pose_fingerprint_model(changed(TINY, batch_size=9)) == base
    listed = pose_fingerprint_model(changed(TINY, boxes="file", boxes_file=str(path)))
    path.write_text('{"clip": "a", "boxes": []}')
    assert pose_fingerprint_model(changed(TINY, boxes="file", boxes_file=str(path))) != listed


@pytest.mark.parametrize("flip_test", [False, True])
def test_every_codec_crops_and_decodes_in_its_own_way(flip_test: bool) -> None:
    frames = random_frames(3)
    found = {codec: estimator(codec=codec, flip_test=flip_test).estimate(frames, boxes(3)) for codec in CODECS}
    for first, second in itertools.combinations(found.values(), 2):
        assert not np.array_equal(first[0], second[0])
    np.testing.assert_array_equal(found["msra"][1], found["dark"][1])  # the same crop, the same maximum
    assert not np.array_equal(found["msra"][1], found["udp"][1])


def test_codecs_are_those_of_the_configuration() -> None:
    assert set(CODECS) == set(REFINEMENTS)


def test_names_that_contradict_the_configuration_are_refused(tmp_path: Path) -> None:
    cases = {
        "hrnet_w48_coco_256x192.pth": "not the network asked for",
        "hrnet_w32_coco_384x288.pth": "input_height = 384",
        "hrnet_w32_coco_256x192_udp-aba0be42.pth": "codec 'udp'",
        "hrnet_w32_coco_256x192_dark.pth": "codec 'dark'",
    }
    for name, message in cases.items():
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(WeightsError, match=message):
            pose_weights(PoseConfig(weights=str(tmp_path / name)))
    with pytest.raises(WeightsError, match="input_height = 384"):
        pose_weights(PoseConfig(weights="hrnet_w32_coco_384x288"))


def test_released_weights_are_refused_for_the_codec_that_none_was_trained_for(tmp_path: Path) -> None:
    for source in HRNET_SOURCES.values():
        model = source.name.partition("_coco")[0]
        height, width = (int(side) for side in source.name.rpartition("_")[2].split("x"))
        (tmp_path / source.filename).write_bytes(b"x")
        for weights in (source.name, str(tmp_path / source.filename)):
            config = PoseConfig(model=model, weights=weights, input_height=height, input_width=width, codec="udp")  # type: ignore[arg-type]
            with pytest.raises(WeightsError, match="trained without UDP"):
                pose_weights(config)
        pose_weights(changed(config, codec="dark"))
    mine = tmp_path / "mine.pth"
    mine.write_bytes(b"x")
    pose_weights(PoseConfig(weights=str(mine), codec="udp"))


def test_every_released_weight_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert "hrnet_w32_coco_256x192" in HRNET_SOURCES
    with pytest.raises(WeightsError, match=r"download\.openmmlab\.com.*extract\.pose\.weights=PATH"):
        pose_weights(PoseConfig(), offline=True)
