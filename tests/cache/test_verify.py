from pathlib import Path

import pytest

from cache.errors import CorruptShard
from cache.shard import clip_digests, write_shard
from cache.store import FeatureStore
from cache.verify import verify
from tests.toys import toy_cache, toy_dataset, toy_fingerprint, visual_prompt_rows


def test_content_is_the_same_however_it_is_cut_into_shards(tmp_path: Path) -> None:
    dataset = toy_dataset()
    reports = [verify(toy_cache(tmp_path / str(size), dataset, shard_size=size), deep=True) for size in (1, 5, 100)]
    digests = {report["visual_prompts"].content_sha256 for report in reports}
    assert len(digests) == 1
    assert None not in digests


def test_content_differs_when_one_row_does(tmp_path: Path) -> None:
    mark = toy_fingerprint("visual_prompts")
    digests = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        sidecar = write_shard(folder, 0, "visual_prompts", [visual_prompt_rows("a", seed=seed)], fingerprint=mark)
        digests.append(clip_digests(folder, sidecar)["a"])
    assert digests[0] != digests[1]


def test_verify_counts_and_finds_a_flipped_byte(tmp_path: Path) -> None:
    cache = toy_cache(tmp_path / "cache", toy_dataset())
    before = verify(cache, deep=True)
    assert (before["visual_prompts"].ok, before["visual_prompts"].rows, before["text"].rows) == (12, 96, 7)
    shard = next((cache / "visual_prompts").glob("shard-00001-*.h5"))
    image = bytearray(shard.read_bytes())
    image[-7] ^= 1
    shard.write_bytes(image)
    assert verify(cache)["visual_prompts"].problems == []
    after = verify(cache, deep=True)["visual_prompts"]
    assert after.content_sha256 is None
    assert "sha256" in after.problems[0]


def test_a_store_is_verified_once_and_again_when_a_shard_changes(tmp_path: Path) -> None:
    cache = toy_cache(tmp_path / "cache", toy_dataset())
    store = FeatureStore.open(cache)
    assert (store.verify_once(), store.verify_once()) == (3, 0)
    shard = next((cache / "visual_prompts").glob("shard-00000-*.h5"))
    image = bytearray(shard.read_bytes())
    image[5000] ^= 1
    shard.write_bytes(image)
    with pytest.raises(CorruptShard):
        store.verify_once()
