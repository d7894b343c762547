import errno
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import CacheError, ConfigError
from cache.fingerprint import Fingerprint
from cache.manifest import Dataset
from cache.plan import Plan
from cache.shard import write_shard
from cache.sidecar import read_sidecar
from cache.weights_file import WeightsFile
from tests import toys
from tests.toys import PROVENANCE, toy_dataset, toy_fingerprint, visual_prompt_rows
from tests.train.runs import add_frames, open_store, picture_rows, tiny_config, write_toys
from train import tokens, video_tokens
from train.config import TrainConfig
from train.encoders.timesformer import pool_frames
from train.experiment import Experiment
from train.frames import normalise
from train.methods.causal import CausalMethod
from train.sampling import segment_centres
from train.tokens import BATCH_SIZE, FrozenEncoder, TokenCache, ensure_tokens, sources_of
from train.video_tokens import build_encoder, encoder_fingerprint, find_token_cache, token_fingerprint

RANDOM = WeightsFile(name="none", path=None, sha256="none", licence="")
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toys(tmp_path)
    return tmp_path


def open_experiment(folder: Path, config: TrainConfig, dataset: Dataset | None = None) -> Experiment:
    return Experiment.open(
        dataset or Dataset.read(folder / "dataset"), folder / "cache", config, splits=("train", "test")
    )


def forbid_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the encoder was built though all tokens are cached")

    monkeypatch.setattr(video_tokens, "build_encoder", refuse)


def test_frozen_tokens_equal_what_the_live_encoder_gives_for_the_test_view(folder: Path) -> None:
    live, frozen = tiny_config(), tiny_config(frozen=True)
    pictures = open_experiment(folder, live).sources(CPU, progress=False)["train"]
    cached = open_experiment(folder, frozen).sources(CPU, progress=False)["train"]
    numbers = [np.arange(8)]
    seen, stored = next(pictures.batches(numbers, None)), next(cached.batches(numbers, None))
    assert seen.frames is not None
    assert stored.frame_tokens is not None
    with torch.inference_mode():
        encoder = build_encoder(live, RANDOM).eval()
        frames = normalise(seen.frames, live.video_encoder.mean, live.video_encoder.std)
        expected = pool_frames(encoder(frames), 4)
    assert expected.std() > 0.1
    assert torch.allclose(stored.frame_tokens, expected, atol=1e-5)
    assert torch.equal(stored.visual_prompts, seen.visual_prompts)
    assert torch.equal(stored.targets, seen.targets)


@pytest.mark.parametrize("num_clips", [1, 11])
def test_the_encoder_gets_one_number_of_clips_so_tokens_do_not_depend_on_it(folder: Path, num_clips: int) -> None:
    store, sizes = open_store(folder), []

    def encode(views: torch.Tensor) -> torch.Tensor:
        """Each row's number of clip, plus how many clips came with it."""
        sizes.append(len(views))
        return views[:, :, 0, :1, 0].float() + len(views)

    def number_of(clip_id: str) -> torch.Tensor:
        return torch.full((4, 3, 2, 2), int(clip_id[-3:]), dtype=torch.uint8)

    clip_ids = [f"clip-{number:03d}" for number in range(num_clips)]
    encoder = FrozenEncoder(
        frames=store.frames,
        views=number_of,
        instants=lambda cached: segment_centres(cached, 4),
        encode=encode,
        dtype=np.float32,
    )
    cache = TokenCache(root=folder / "tokens", fingerprint=toy_fingerprint("video_tokens", num_frames=4))
    sources = sources_of(clip_ids, store.frames, store.visual_prompts)
    found = ensure_tokens(cache, sources, lambda: encoder, progress=False)
    assert sizes == [BATCH_SIZE] * -(-num_clips // BATCH_SIZE)
    for number, clip_id in enumerate(clip_ids):
        np.testing.assert_array_equal(found[clip_id], np.full((4, 1), number + BATCH_SIZE))


def test_tokens_are_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(frozen=True)
    open_experiment(folder, config).sources(CPU, progress=False)
    forbid_encoder(monkeypatch)
    open_experiment(folder, replace(config, seed=5)).sources(CPU, progress=False)


def test_a_grown_dataset_adds_tokens_of_the_new_clips_only(folder: Path) -> None:
    config = tiny_config(frozen=True)
    experiment = open_experiment(folder, config)
    experiment.sources(CPU, progress=False)
    assert isinstance(experiment.method, CausalMethod)
    assert experiment.method.token_cache is not None
    tokens_folder = experiment.method.token_cache.folder
    first = read_sidecar(tokens_folder, 0)
    grown = toy_dataset(18)
    plan = Plan.ensure(folder / "cache", [clip.id for clip in grown.clips], 5)
    for number in range(3, len(plan.shards)):
        rows = [visual_prompt_rows(clip_id) for clip_id in plan.shards[number]]
        mark = toy_fingerprint("visual_prompts", name=toys.ENCODER)
        write_shard(folder / "cache" / "visual_prompts", number, "visual_prompts", rows, fingerprint=mark)
    add_frames(folder / "cache")
    assert len(open_experiment(folder, config, grown).sources(CPU, progress=False)["train"].clip_set) == 12
    assert read_sidecar(tokens_folder, 0) == first
    second = read_sidecar(tokens_folder, 1)
    assert second is not None
    assert [clip.id for clip in second.clips] == [f"clip-{number:03d}" for number in range(12, 18)]


def test_tokens_serve_after_the_frames_were_dropped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(frozen=True)
    before = next(open_experiment(folder, config).sources(CPU, progress=False)["test"].batches([np.arange(4)], None))
    (folder / "cache" / "frames").rename(folder / "dropped")
    forbid_encoder(monkeypatch)
    after = next(open_experiment(folder, config).sources(CPU, progress=False)["test"].batches([np.arange(4)], None))
    assert before.frame_tokens is not None
    assert after.frame_tokens is not None
    assert torch.equal(before.frame_tokens, after.frame_tokens)


def live_tokens(folder: Path) -> torch.Tensor:
    """What the encoder gives for the frames that are in the cache now."""
    live = tiny_config()
    batch = next(open_experiment(folder, live).sources(CPU, progress=False)["test"].batches([np.arange(4)], None))
    assert batch.frames is not None
    with torch.inference_mode():
        frames = normalise(batch.frames, live.video_encoder.mean, live.video_encoder.std)
        return pool_frames(build_encoder(live, RANDOM).eval()(frames), 4)


def frozen_tokens(folder: Path, token_root: Path | None = None) -> torch.Tensor:
    """What a run would train on."""
    dataset = Dataset.read(folder / "dataset")
    experiment = Experiment.open(
        dataset, folder / "cache", tiny_config(frozen=True), splits=("train", "test"), token_root=token_root
    )
    batch = next(experiment.sources(CPU, progress=False)["test"].batches([np.arange(4)], None))
    assert batch.frame_tokens is not None
    return batch.frame_tokens


def redraw_frames(folder: Path, shards: Sequence[int] = (0, 1, 2)) -> None:
    """Other JPEGs for the clips of some shards, under the same settings."""
    stream = folder / "cache" / "frames"
    for number in shards:
        rows = [
            replace(picture_rows(clip_id[::-1]), clip_id=clip_id)
            for clip_id in Plan.load(folder / "cache").shards[number]
        ]
        write_shard(stream, number, "frames", rows, fingerprint=toy_fingerprint("frames"))


def test_tokens_of_frames_that_were_extracted_again_are_computed_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = frozen_tokens(folder)
    redraw_frames(folder)
    after = frozen_tokens(folder)
    assert not torch.allclose(after, before, atol=1e-2)
    torch.testing.assert_close(after, live_tokens(folder), atol=1e-5, rtol=1e-5)
    forbid_encoder(monkeypatch)
    assert torch.equal(frozen_tokens(folder), after)


def test_only_the_clips_whose_frames_changed_are_computed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen_tokens(folder)
    computed: list[list[str]] = []
    plain = tokens._compute

    def recording(*arguments: Any) -> None:  # noqa: ANN401
        computed.append(list(arguments[1]))
        plain(*arguments)

    monkeypatch.setattr(tokens, "_compute", recording)
    redraw_frames(folder, [1])
    torch.testing.assert_close(frozen_tokens(folder), live_tokens(folder), atol=1e-5, rtol=1e-5)
    assert computed == [list(Plan.load(folder / "cache").shards[1])]


def test_two_worlds_may_share_a_token_folder(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_toys(tmp_path / name)
    redraw_frames(tmp_path / "second")
    for name in ("first", "second", "first"):
        found = frozen_tokens(tmp_path / name, tmp_path / "tokens")
        torch.testing.assert_close(found, live_tokens(tmp_path / name), atol=1e-5, rtol=1e-5)


def test_without_frames_tokens_of_another_video_are_refused(folder: Path) -> None:
    frozen_tokens(folder)
    mark = toy_fingerprint("visual_prompts", name=toys.ENCODER)
    for number, clip_ids in Plan.load(folder / "cache").shards.items():
        other = replace(PROVENANCE, source_sha256="cd" * 32)
        rows = [replace(visual_prompt_rows(clip_id), provenance=other) for clip_id in clip_ids]
        write_shard(folder / "cache" / "visual_prompts", number, "visual_prompts", rows, fingerprint=mark)
    (folder / "cache" / "frames").rename(folder / "dropped")
    with pytest.raises(CacheError, match="no stream 'frames'"):
        frozen_tokens(folder)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_read_only_cache_says_where_tokens_may_go(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(tokens, "locked", refuse)
        with pytest.raises(ConfigError, match="--token-cache"):
            frozen_tokens(folder)
    frozen_tokens(folder, folder / "elsewhere")


def test_without_frames_and_tokens_the_error_names_the_stream(folder: Path) -> None:
    (folder / "cache" / "frames").rename(folder / "dropped")
    with pytest.raises(CacheError, match="no stream 'frames'"):
        open_experiment(folder, tiny_config(frozen=True))


@pytest.mark.parametrize(
    "changed",
    [
        {"num_frames": 8},
        {"video_encoder": replace(tiny_config(frozen=True).video_encoder, seed=1)},
        {"video_encoder": replace(tiny_config(frozen=True).video_encoder, resize=20)},
        {"video_encoder": replace(tiny_config(frozen=True).video_encoder, mean=(0.5, 0.5, 0.5))},
        {"cmdcl": replace(tiny_config().cmdcl, frame_pool="msqnet_bins")},
    ],
)
def test_what_changes_tokens_changes_their_fingerprint(changed: dict[str, Any]) -> None:
    def mark(config: TrainConfig) -> Fingerprint:
        return token_fingerprint(config, encoder_fingerprint(config, RANDOM), "ab")

    assert mark(tiny_config(frozen=True, **changed)).sha256 != mark(tiny_config(frozen=True)).sha256


def test_what_does_not_change_tokens_does_not_change_their_fingerprint() -> None:
    config = tiny_config(frozen=True)
    other = tiny_config(frozen=True, seed=3, epochs=1, task="atomic", batch_size=2)
    encoder = replace(other.video_encoder, drop_path=0.5)
    marks = [
        token_fingerprint(each, encoder_fingerprint(each, RANDOM), "ab").sha256
        for each in (config, replace(other, video_encoder=encoder))
    ]
    assert marks[0] == marks[1]


def test_other_frames_have_other_tokens(tmp_path: Path) -> None:
    config = tiny_config(frozen=True)
    encoder = encoder_fingerprint(config, RANDOM)
    first, second = (find_token_cache(tmp_path, config, encoder, digest) for digest in ("aa", "bb"))
    assert first is not None
    assert second is not None
    assert first.folder != second.folder


def test_runs_that_start_together_share_one_computation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, computed = tokens._compute, []

    def slow(*arguments: Any) -> None:  # noqa: ANN401
        computed.append(len(arguments[1]))
        time.sleep(0.3)
        plain(*arguments)

    monkeypatch.setattr(tokens, "_compute", slow)
    config = tiny_config(frozen=True)
    experiments = [open_experiment(folder, config) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda experiment: experiment.sources(CPU, progress=False)["train"], experiments))
    assert computed == [12]
    batches = [next(source.batches([np.arange(8)], None)).frame_tokens for source in found]
    assert all(torch.equal(batch, batches[0]) for batch in batches if batch is not None and batches[0] is not None)
