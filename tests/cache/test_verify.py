import os
from pathlib import Path

import pytest

from cache import fingerprint
from cache.errors import CorruptShard
from cache.plan import Plan
from cache.shard import clip_digests, write_shard
from cache.sidecar import sidecar_path
from cache.store import FeatureStore
from cache.verify import StreamReport, survey, verify
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


def growing_stream(cache: Path, sizes_and_times: list[tuple[int, float]], num_clips: int) -> StreamReport:
    """The report on a stream of shards with so many clips, committed at these seconds; a shard is planned for ten."""
    mark = toy_fingerprint("visual_prompts")
    fingerprint.ensure(cache / "visual_prompts", mark)
    plan = Plan.ensure(cache, [f"{number:03d}" for number in range(num_clips)], 10)
    for number, (size, seconds) in enumerate(sizes_and_times):
        rows = [visual_prompt_rows(clip_id) for clip_id in plan.shards[number][:size]]
        write_shard(cache / "visual_prompts", number, "visual_prompts", rows, fingerprint=mark)
        os.utime(sidecar_path(cache / "visual_prompts", number), (seconds, seconds))
    return survey(cache)["visual_prompts"]


def test_the_rate_is_of_the_last_hour_without_the_clips_before_its_first_commit(tmp_path: Path) -> None:
    # Clips per commit: 10 long ago; then, within an hour, 10 at 5000 s, 4 at 5100 s and 6 at 5200 s.
    report = growing_stream(tmp_path, [(10, 0.0), (4, 5100.0), (10, 5000.0), (6, 5200.0)], num_clips=60)
    assert report.clips_per_second == pytest.approx((4 + 6) / 200)
    assert report.left == 60 - 30
    assert report.seconds_left == pytest.approx(30 * 200 / 10)
    assert report.to_json()["seconds_left"] == report.seconds_left


@pytest.mark.parametrize("commits", [[], [(10, 7.0)], [(10, 7.0), (10, 7.0)], [(10, 0.0), (10, 4000.0)]])
def test_the_rate_is_not_known_of_fewer_than_two_commits_in_an_hour(
    tmp_path: Path, commits: list[tuple[int, float]]
) -> None:
    report = growing_stream(tmp_path, commits, num_clips=30)
    assert (report.to_json()["clips_per_second"], report.to_json()["seconds_left"]) == (None, None)
    assert report.left == 30 - 10 * len(commits)
