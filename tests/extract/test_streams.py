"""Fingerprints that are remembered, weights that are replaced, and refused commands that leave no trace."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cache import fingerprint
from cache.errors import DeconfoundError, FingerprintMismatch
from cache.fingerprint import Fingerprint
from cache.manifest import Clip, Dataset
from cache.settings import build
from cache.store import stream_settings
from cache.weights_file import WeightsFile
from extract import streams
from extract.config import ExtractConfig, PoseConfig
from extract.extractor import extract
from extract.pose.estimator import HRNET_SOURCES
from extract.pose.hrnet import HRNetPose
from extract.streams import Resolver
from tests.extract.videos import make_video

TAGGED = ExtractConfig(streams=("joints",), num_frames=2, pose=PoseConfig(boxes="whole_frame"))
SIDE = 32


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    for name in "ab":
        make_video(tmp_path / f"{name}.mp4", num_frames=6)
    clips = tuple(Clip(id=name, video=f"{name}.mp4") for name in "ab")
    return Dataset(name="two", version="1", tasks=(), protocols={}, clips=clips, video_root=tmp_path)


def save_weights(path: Path, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.save(HRNetPose("hrnet_w8_tiny").state_dict(), path)


def pose_config(weights: str, **changes: Any) -> ExtractConfig:  # noqa: ANN401 (values of many fields)
    pose = PoseConfig(
        model="hrnet_w8_tiny", weights=weights, boxes="whole_frame", input_height=SIDE, input_width=SIDE, batch_size=2
    )
    return replace(ExtractConfig(streams=("joints",), num_frames=2, shard_size=1, pose=pose), **changes)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights_of(resolver: Resolver) -> str:
    return str(resolver.marks()["joints"].model["weights"])


def test_weights_replaced_under_a_tag_are_noticed_without_loading_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    file = tmp_path / "torch/hub/checkpoints" / HRNET_SOURCES["hrnet_w32_coco_256x192"].filename
    file.parent.mkdir(parents=True)
    file.write_bytes(b"one")
    first = Resolver(TAGGED, tmp_path)
    one = weights_of(first)
    first.remember()
    file.write_bytes(b"another file")
    assert weights_of(Resolver(TAGGED, tmp_path)) != one
    file.unlink()
    assert weights_of(Resolver(TAGGED, tmp_path)) == one  # finished work needs no weights


def test_what_is_remembered_belongs_to_one_version_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(replace(TAGGED, streams=("frames",)), tmp_path)
    resolver.marks()
    resolver.remember()
    resolved: list[str] = []
    truth = streams._resolve

    def counting(config: ExtractConfig, stream: str) -> tuple[Fingerprint, WeightsFile | None]:
        resolved.append(stream)
        return truth(config, stream)

    monkeypatch.setattr(streams, "_resolve", counting)
    Resolver(replace(TAGGED, streams=("frames",)), tmp_path).marks()
    assert resolved == []
    for name, value in (("SCHEMA_VERSION", 99), ("_package_version", lambda: "99.0")):
        with monkeypatch.context() as patch:
            patch.setattr(streams, name, value)
            Resolver(replace(TAGGED, streams=("frames",)), tmp_path).marks()
    assert resolved == ["frames", "frames"]


def test_weights_replaced_with_size_and_date_kept_are_refused_when_they_are_loaded(
    tmp_path: Path, dataset: Dataset
) -> None:
    weights, cache = tmp_path / "weights.pth", tmp_path / "cache"
    save_weights(weights, seed=0)
    config, status = pose_config(str(weights)), weights.stat()
    extract(replace(dataset, clips=dataset.clips[:1]), cache, config)
    before = files(cache)
    save_weights(weights, seed=1)
    assert weights.stat().st_size == status.st_size
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(FingerprintMismatch, match=r"joints\.model\.weights: the cache has"):
        extract(dataset, cache, config)
    assert files(cache) == before


@pytest.mark.parametrize(
    ("changes", "sampling", "keys"),
    [
        ({}, {"instants": "centres of equal segments", "num_frames": 2}, {"num_frames": 2}),
        ({"sampling": "fps", "fps": 2}, {"fps": 2.0}, {"sampling": "fps", "fps": 2.0}),
        ({"sampling": "every_nth", "every_nth": 3}, {"every_nth": 3}, {"sampling": "every_nth", "every_nth": 3}),
    ],
)
def test_what_is_remembered_makes_the_same_fingerprint_again(
    tmp_path: Path, changes: dict[str, Any], sampling: dict[str, Any], keys: dict[str, Any]
) -> None:
    config = pose_config("none", streams=("frames", "joints"), **changes)
    resolver = Resolver(config, tmp_path)
    marks = resolver.marks()
    resolver.remember()
    for stream, mark in marks.items():
        assert mark.sampling.items() >= sampling.items()
        settings = stream_settings(tmp_path)[stream]
        assert {name: value for name, value in settings.items() if not isinstance(value, dict)} == keys
        again = build(ExtractConfig, {**settings, "streams": [stream]}, "extract")
        assert Resolver(again, tmp_path / "other").marks()[stream].sha256 == mark.sha256


def test_a_policy_is_not_answered_from_the_memory_of_another(tmp_path: Path) -> None:
    found = []
    for changes in ({}, {"sampling": "fps", "fps": 2.0}, {"sampling": "fps", "fps": 3.0}):
        resolver = Resolver(pose_config("none", streams=("frames",), **changes), tmp_path)
        found.append(resolver.marks()["frames"].sha256)
        resolver.remember()
    assert len(set(found)) == 3


REFUSED: dict[str, dict[str, Any]] = {
    "the plan has shards 0 to 1": {"shards": "5-9"},
    "--device warp": {"device": "warp"},
    "is neither a known tag nor a file": {"config": pose_config("no-such-file.pth")},
    "is not opened": {"config": pose_config("a.mp4")},
    "--videos": {"videos": "elsewhere"},
}
OTHER_SETTINGS = {"config": pose_config("none", streams=("joints", "frames"), num_frames=3)}  # frames have 2


@pytest.mark.parametrize(
    ("message", "given", "is_new"),
    [(message, given, is_new) for message, given in REFUSED.items() for is_new in (True, False)]
    + [(r"frames\.sampling\.num_frames", OTHER_SETTINGS, False)],
)
def test_a_refused_command_leaves_the_cache_folder_as_it_was(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, message: str, given: dict[str, Any], is_new: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    cache, arguments = tmp_path / "cache", dict(given)
    if not is_new:
        extract(replace(dataset, clips=dataset.clips[:1]), cache, pose_config("none", streams=("frames",)))
    before = files(cache)
    moved = replace(dataset, video_root=tmp_path / arguments.pop("videos", ""))
    config = arguments.pop("config", pose_config("none", streams=("joints", "frames")))
    with pytest.raises(DeconfoundError, match=message):
        extract(moved, cache, config, **arguments)
    assert cache.exists() != is_new
    assert files(cache) == before


def test_the_same_weights_under_another_name_are_taken_for_those_of_the_cache(tmp_path: Path) -> None:
    mark = Fingerprint(stream="joints", dtype="float32", model={"weights": "ab", "weights_name": "a.pth"})
    fingerprint.ensure(tmp_path / "joints", mark)
    renamed = replace(mark, model={"weights": "ab", "weights_name": "b.pth"})
    assert streams.agreed(tmp_path, {"joints": renamed}) == {"joints": mark}
    with pytest.raises(FingerprintMismatch, match=r"model\.weights"):
        streams.agreed(tmp_path, {"joints": replace(mark, model={"weights": "cd", "weights_name": "a.pth"})})
