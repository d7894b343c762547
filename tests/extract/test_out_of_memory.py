"""A device that holds fewer inputs than a batch: nothing is lost, nothing comes twice, and the rows say so."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cache.errors import ConfigError, FailureCode, VideoError
from cache.manifest import Clip, Dataset
from cache.rows import ClipRows
from cache.shard import read_shard, write_shard
from cache.sidecar import read_sidecar
from cache.store import FeatureStore
from extract import open_clip_model
from extract.batch_size import BatchSize, is_out_of_memory
from extract.extractor import extract
from extract.image_encoder import ImageEncoder
from extract.pose.estimator import PoseEstimator
from extract.products import shared_batches
from extract.products.joints import Joints
from extract.products.visual_prompts import VisualPrompts
from extract.text_encoder import encode_texts
from tests.cache.test_formats import FROZEN
from tests.extract.kitchen import make_config
from tests.extract.pose.test_estimator import TINY, boxes, random_frames
from tests.extract.pose.test_hrnet import random_network
from tests.extract.products.prepared_clips import clip, drain
from tests.extract.videos import make_video
from tests.toys import toy_fingerprint, visual_prompt_rows

CPU = torch.device("cpu")
MESSAGES = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate",
    "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
    "MPS backend out of memory (MPS allocated: 17.21 GiB, max allowed: 20.13 GiB)",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
)


class Small(nn.Module):
    """A network on a device that holds at most so many inputs; `greedy` inputs fit nowhere."""

    def __init__(self, network: nn.Module, most: int, greedy: int = -1) -> None:
        super().__init__()
        self.network, self.most, self.greedy = network, most, greedy
        self.sizes: list[int] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(inputs))
        if len(inputs) > self.most or (inputs[:, 0, 0, 0] == self.greedy).any():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.\nSee documentation")
        return self.network(inputs)


class FirstPixels(nn.Module):
    """The embedding of an image is its first pixel and twice it: what was mixed up shows."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = images[:, 0, 0, 0]
        return torch.stack([first, 2 * first], dim=1)


def small_encoder(folder: Path, network: Small, *, batch_size: int = 8) -> ImageEncoder:
    config = make_config(folder, batch_size=batch_size).image_encoder
    spec = replace(ImageEncoder.load(config, CPU).spec, mean=(0, 0, 0), std=(1 / 255,) * 3)  # values stay as they are
    return ImageEncoder(network, spec, config, CPU)


def share(monkeypatch: pytest.MonkeyPatch, *, shared: bool) -> None:
    """On a CPU only clips of varying length may share batches; whether they do is measured."""
    monkeypatch.setattr(shared_batches, "is_place_independent", lambda *_: shared)


CLIPS = {"a": [1, 2, 3], "b": list(range(20, 40)), "c": [5], "d": [6, 7, 8, 9, 10], "e": list(range(50, 61))}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("most", [7, 4, 3, 1])
def test_nothing_is_lost_or_doubled_when_memory_runs_out_among_several_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool, most: int
) -> None:
    share(monkeypatch, shared=shared)
    network = Small(FirstPixels(), 8)
    prompts = VisualPrompts(small_encoder(tmp_path, network), num_frames=None)
    waiting = [clip(name, values) for name, values in CLIPS.items()]
    rows = list(prompts.add(waiting[0])) + list(prompts.add(waiting[1]))  # 3 + 20: seven images wait for an eighth
    network.most = most
    rows += [row for later in waiting[2:] for row in prompts.add(later)]
    rows += list(prompts.flush())
    assert [row.clip_id for row in rows] == list(CLIPS)
    for row, values in zip(rows, CLIPS.values(), strict=True):
        np.testing.assert_array_equal(row.fields["visual_prompts"], [[value, 2 * value] for value in values])
    reduced = {7: 4, 4: 4, 3: 2, 1: 1}[most]
    done_before = ["a"] if shared else ["a", "b"]
    expected = {name: 0 if name in done_before else reduced for name in CLIPS}
    assert {row.clip_id: row.provenance.reduced_batch if row.provenance else 0 for row in rows} == expected
    before_and_after = [size for size in network.sizes if size <= most or size == 8]
    assert before_and_after == sorted(before_and_after, reverse=True)  # once reduced it stays reduced


def test_a_clip_that_does_not_fit_at_all_fails_and_its_neighbours_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(monkeypatch, shared=True)
    network = Small(FirstPixels(), 8, greedy=23)
    prompts = VisualPrompts(small_encoder(tmp_path, network), num_frames=None)
    rows = {row.clip_id: row for row in drain(prompts, [clip(name, values) for name, values in CLIPS.items()])}
    failures = {name: row.failure.code for name, row in rows.items() if row.failure}
    assert failures == {"b": FailureCode.OUT_OF_MEMORY}
    for name in ("a", "c", "d", "e"):
        np.testing.assert_array_equal(rows[name].fields["visual_prompts"], [[v, 2 * v] for v in CLIPS[name]])


def test_memory_that_never_suffices_fails_every_clip_and_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prompts = VisualPrompts(small_encoder(tmp_path, Small(FirstPixels(), 0)), num_frames=20)
    with caplog.at_level(logging.WARNING, logger="extract.batch_size"):
        rows = list(drain(prompts, [clip(name, values) for name, values in CLIPS.items()]))
    assert [row.failure.code if row.failure else None for row in rows] == [FailureCode.OUT_OF_MEMORY] * len(CLIPS)
    warnings = [record.message for record in caplog.records if record.name == "extract.batch_size"]
    assert [warning.partition(";")[0] for warning in warnings] == [
        f"the image encoder ran out of memory with {size} inputs at once" for size in (8, 4, 2)
    ]


def test_a_device_too_small_to_measure_sharing_on_reduces_the_batch_then(tmp_path: Path) -> None:
    network = Small(FirstPixels(), 5)
    prompts = VisualPrompts(small_encoder(tmp_path, network), num_frames=None)
    assert (prompts.shares_batches, prompts.batch.current, prompts.batch.reduced) == (True, 4, 4)


def test_rows_of_a_reduced_batch_equal_those_of_the_full_one(tmp_path: Path) -> None:
    full = ImageEncoder.load(make_config(tmp_path).image_encoder, CPU)
    network = open_clip_model.build(full.config, CPU).get_submodule("visual")
    small = ImageEncoder(Small(network, 3), full.spec, full.config, CPU)
    noise = clip("noise", [0] * 13)
    noise.pixels["inputs"][...] = np.random.default_rng(0).integers(0, 256, (13, 3, 32, 32))
    (expected,), (row,) = (list(drain(VisualPrompts(encoder, 13), [noise])) for encoder in (full, small))
    np.testing.assert_allclose(
        np.asarray(row.fields["visual_prompts"], np.float32),
        np.asarray(expected.fields["visual_prompts"], np.float32),
        atol=1e-4,
    )
    assert row.provenance is not None
    assert row.provenance.reduced_batch == 2


class SmallPose(PoseEstimator):
    """The network of the tests of pose estimation, on a small device."""

    def __init__(self, most: int) -> None:
        super().__init__(TINY, random_network(), CPU)
        self.small = Small(self._model, most)
        self._model = self.small  # type: ignore[assignment]


def test_joints_of_a_reduced_batch_equal_those_of_the_full_one_and_say_so() -> None:
    frames = random_frames(7)
    expected_xy, expected_score = PoseEstimator(TINY, random_network(), CPU).estimate(frames, boxes(7))
    pose = SmallPose(most=1)
    xy, score = pose.estimate(frames, boxes(7))
    np.testing.assert_allclose(xy, expected_xy, atol=1e-4)
    np.testing.assert_allclose(score, expected_score, atol=1e-4)
    assert pose.small.sizes == [4, 2, *[1] * 7]
    row = pose_rows(pose)
    assert row.provenance is not None
    assert row.provenance.reduced_batch == 1


def test_a_clip_whose_joints_do_not_fit_fails() -> None:
    row = pose_rows(SmallPose(most=0))
    assert row.failure is not None
    assert row.failure.code == FailureCode.OUT_OF_MEMORY
    assert "pose network ran out of memory with one input at a time: CUDA out of memory. Tried" in row.failure.message


def pose_rows(pose: PoseEstimator) -> ClipRows:
    prepared, joints = replace(clip("c", [1, 2, 3]), pixels={"images": random_frames(3)}), Joints(pose, 3)
    (row,) = [*joints.add(prepared, Clip(id="c", video="c.mp4")), *joints.flush()]
    return row


def test_texts_run_in_smaller_batches_and_one_that_does_not_fit_is_the_callers_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, prompts = make_config(tmp_path).image_encoder, ["make tea", "cut bread", "pour milk", "stir", "eat"]
    expected = encode_texts(config, prompts, CPU)
    network = open_clip_model.build(config, CPU)
    encode, sizes = network.encode_text, []

    def small(most: int) -> None:
        def encode_text(tokens: torch.Tensor) -> torch.Tensor:
            sizes.append(len(tokens))
            if len(tokens) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return encode(tokens)  # type: ignore[operator]

        monkeypatch.setattr(network, "encode_text", encode_text)

    monkeypatch.setattr(open_clip_model, "build", lambda *_: network)
    small(2)
    for values, others in zip(encode_texts(config, prompts, CPU), expected, strict=True):
        np.testing.assert_allclose(values.astype(float), others.astype(float), atol=1e-5)
    assert sizes == [5, 2, 2, 1]
    small(0)
    with pytest.raises(ConfigError, match=r"text encoder ran out of memory .* Use another --device"):
        encode_texts(config, prompts, CPU)


def test_a_run_that_runs_out_of_memory_goes_on_and_its_cache_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "a.mp4", num_frames=20)
    clips = tuple(Clip(id=f"{part}", video="a.mp4", start_seconds=part * 0.2) for part in range(3))
    dataset = Dataset(name="d", version="1", tasks=(), protocols={}, clips=clips, video_root=tmp_path)
    encode = ImageEncoder.encode

    def small(self: ImageEncoder, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(self, images)

    monkeypatch.setattr(ImageEncoder, "encode", small)
    extract(dataset, tmp_path / "cache", make_config(tmp_path, "visual_prompts"))
    sidecar = read_sidecar(tmp_path / "cache" / "visual_prompts", 0)
    assert sidecar is not None
    assert [entry.reduced_batch for entry in sidecar.clips] == [1, 1, 1]  # six frames: 6, 3, 1
    store = FeatureStore.open(tmp_path / "cache").visual_prompts
    assert [store.provenance(f"{part}").reduced_batch for part in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("message", MESSAGES)
def test_backends_that_have_no_error_of_their_own_are_understood(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


def test_a_real_allocation_that_cannot_be_made_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 48)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("message", ["CUDA error: device-side assert triggered", "shape mismatch", "out of memory"])
def test_other_errors_of_a_model_are_defects_and_pass_through(message: str) -> None:
    size = BatchSize(8, CPU, model="model")
    with pytest.raises(RuntimeError, match=message):
        size.run(lambda _: (_ for _ in ()).throw(RuntimeError(message)))
    assert (size.current, size.reduced) == (8, 0)


def test_tensors_of_the_failed_pass_are_gone_before_the_next_one() -> None:
    alive: list[int] = []

    class Held:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def forward(size: int) -> int:
        seen = len(alive)
        held = Held()
        if size > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        del held
        return seen

    assert BatchSize(4, CPU, model="model").run(forward) == 0


def test_shards_and_sidecars_tell_reduced_clips_apart_and_their_content_is_the_same(tmp_path: Path) -> None:
    mark = toy_fingerprint("visual_prompts")
    rows = [visual_prompt_rows(f"clip-{number}") for number in range(3)]
    assert rows[1].provenance is not None
    marked = replace(rows[1], provenance=replace(rows[1].provenance, reduced_batch=16))
    plain = write_shard(tmp_path / "plain", 0, "visual_prompts", rows, fingerprint=mark)
    sidecar = write_shard(tmp_path / "marked", 0, "visual_prompts", [rows[0], marked, rows[2]], fingerprint=mark)
    assert read_sidecar(tmp_path / "marked", 0) == sidecar
    assert [entry.reduced_batch for entry in sidecar.clips] == [0, 16, 0]
    assert [replace(entry, reduced_batch=0) for entry in sidecar.clips] == list(plain.clips)
    shard = read_shard(tmp_path / "marked", sidecar)
    assert [shard.provenance(index).reduced_batch for index in range(3)] == [0, 16, 0]
    assert shard.provenance(1) == marked.provenance
    assert b"reduced_batch" not in (tmp_path / "plain" / "shard-00000.json").read_bytes()
    assert "reduced_batch" not in read_shard(tmp_path / "plain", plain).arrays


def test_old_caches_have_no_reduced_clips() -> None:
    folder = FROZEN / "cache" / "visual_prompts"
    sidecar = read_sidecar(folder, 0)
    assert sidecar is not None
    assert {entry.reduced_batch for entry in sidecar.clips} == {0}
    store = FeatureStore.open(FROZEN / "cache")
    assert store.visual_prompts.provenance("clip-001").reduced_batch == 0


def test_a_single_input_too_many_is_a_failure_of_the_video() -> None:
    def forward(_: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(VideoError) as caught:
        BatchSize(1, CPU, model="model").run(forward)
    assert caught.value.code == FailureCode.OUT_OF_MEMORY
