"""`extract` on real videos where something was made otherwise before, or lies outside the video root."""

from dataclasses import replace
from pathlib import Path

import pytest

from cache.errors import FingerprintMismatch, ManifestError
from cache.store import FeatureStore, stream_settings
from cache.verify import verify
from extract.extractor import extract
from tests.extract.kitchen import contents, make_config, make_dataset
from tests.extract.videos import make_video


def test_tasks_that_overwrite_parts_end_with_the_cache_of_the_new_settings(tmp_path: Path) -> None:
    dataset, cache, fresh = make_dataset(tmp_path), tmp_path / "cache", tmp_path / "fresh"
    old = replace(make_config(tmp_path), streams=("frames",))
    new = replace(old, num_frames=4)
    extract(dataset, cache, old)
    with pytest.raises(FingerprintMismatch):
        extract(dataset, cache, new)
    first = extract(dataset, cache, new, overwrite=True, shards="0/2")
    assert FeatureStore.open(cache).frames.fingerprint.sampling["num_frames"] == old.num_frames
    assert "next/frames" in verify(cache)
    assert extract(dataset, cache, old).already_done
    second = extract(dataset, cache, new, overwrite=True, shards="1/2")
    extract(dataset, fresh, new)
    assert first.num_clips_decoded + second.num_clips_decoded == len(dataset.clips)
    assert contents(cache) == contents(fresh)
    assert stream_settings(cache) == stream_settings(fresh)
    assert extract(dataset, cache, new, overwrite=True).already_done
    assert {path.name for path in cache.iterdir()} - {path.name for path in fresh.iterdir()} == {"lock"}


def test_a_changed_video_is_made_again_in_place(tmp_path: Path) -> None:
    dataset, config = make_dataset(tmp_path), replace(make_config(tmp_path), streams=("frames",))
    extract(dataset, tmp_path / "cache", config)
    make_video(dataset.video_root / "1.mp4", num_frames=22, seed=99)
    with pytest.raises(FingerprintMismatch, match="--overwrite"):
        extract(dataset, tmp_path / "cache", config)
    assert extract(dataset, tmp_path / "cache", config, overwrite=True).num_clips_decoded == 1
    assert extract(dataset, tmp_path / "cache", config).already_done
    extract(dataset, tmp_path / "fresh", config)
    assert contents(tmp_path / "cache") == contents(tmp_path / "fresh")


def test_links_that_lead_outside_are_failures_until_they_are_allowed(tmp_path: Path) -> None:
    dataset, config = make_dataset(tmp_path), replace(make_config(tmp_path), streams=("frames",))
    linked = replace(dataset, video_root=tmp_path / "links")
    linked.video_root.mkdir()
    for path in dataset.video_root.iterdir():
        (linked.video_root / path.name).symlink_to(path)
    with pytest.raises(ManifestError, match="--allow-outside"):
        extract(linked, tmp_path / "cache", config)
    assert not (tmp_path / "cache").exists()
    (linked.video_root / "0.mp4").unlink()
    (linked.video_root / "0.mp4").write_bytes((dataset.video_root / "0.mp4").read_bytes())
    summary = extract(linked, tmp_path / "cache", config)
    assert summary.streams["frames"].failed["outside_root"] == 8
    assert extract(linked, tmp_path / "cache", config).already_done
    assert extract(linked, tmp_path / "cache", config, allow_outside=True).num_clips_decoded == 8
    extract(dataset, tmp_path / "direct", config)
    assert contents(tmp_path / "cache") == contents(tmp_path / "direct")
