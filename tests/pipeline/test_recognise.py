"""What `recognise` says before it reads a video."""

from dataclasses import replace
from pathlib import Path

import pytest

from cache.drop import drop
from cache.errors import ConfigError
from cache.manifest import Dataset
from extract.skeletons.importing import import_skeletons, open_skeletons
from pipeline.recognise import recognise
from tests.extract.skeletons.files import annotation, walk, write_pickle
from tests.toys import PROVENANCE
from tests.train.pose_runs import pose_config, write_pose_toys
from tests.train.runs import run_training


def test_a_run_on_imported_joints_says_that_they_cannot_be_made(tmp_path: Path) -> None:
    write_pose_toys(tmp_path)
    drop(tmp_path / "cache", "joints")
    dataset = Dataset.read(tmp_path / "dataset")
    size = (PROVENANCE.height, PROVENANCE.width)
    track = walk(PROVENANCE.decoded_num_frames, start=(2, 2))
    entries = [annotation(clip.id, [track], img_shape=size) for clip in dataset.clips]
    skeletons = open_skeletons(write_pickle(tmp_path / "skeletons.pkl", entries), "mmaction2")
    import_skeletons(dataset, tmp_path / "cache", skeletons)
    run = run_training(tmp_path, replace(pose_config(tmp_path), epochs=1))
    (tmp_path / "new.mp4").touch()
    with pytest.raises(ConfigError) as caught:
        recognise(run.path, [tmp_path / "new.mp4"], device="cpu")
    message = str(caught.value)
    assert "trained on joints imported from files of mmaction2" in message
    assert "new videos need joints of the same tool, and recognise cannot make them" in message
