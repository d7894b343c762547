"""What `prepare` says: counts beside the official ones, what is missing, and why."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cache.errors import ConfigError
from cache.manifest import Clip, Dataset, Task
from pipeline.cli import cli
from pipeline.commands.datasets import prepare
from pipeline.datasets.benchmarks import BENCHMARKS, prepare_benchmark
from pipeline.datasets.preparation import MISSING_FILE, Preparation, describe, to_text, write
from pipeline.datasets.videos import VideoFolder
from tests.pipeline.datasets.test_charades import CLASSES, HEADER, row


def preparation(root: Path) -> Preparation:
    clips = [
        Clip(id="a", video="a.mp4", splits={"CS": "train", "all": "train"}, labels={"action": ("walk",)}),
        Clip(id="b", video="b.mp4", splits={"CS": "test", "all": "train"}),
        Clip(id="c", video="sub/c.mp4", splits={"CS": "test"}, labels={"action": ("walk",)}),
    ]
    dataset = Dataset(
        name="toy",
        version="1",
        tasks=(Task(name="action", kind="single", class_names=("walk",), prompts=("walk",)),),
        protocols={"CS": ("train", "test"), "all": ("train",)},
        clips=tuple(clips),
        video_root=root,
        official_counts={"CS": {"train": 1, "test": 3}},
    )
    return Preparation(dataset=dataset, notes=("One clip is of a 32nd class.",), known_broken={"c": "cut", "x": "gone"})


def test_counts_stand_beside_the_official_ones(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "unused.mp4").touch()
    description = describe(preparation(tmp_path), VideoFolder(tmp_path))
    assert description["protocols"]["CS"]["test"] == {
        "clips": 2,
        "official": 3,
        "missing_videos": 2,
        "unlabelled": {"action": 1},
    }
    assert description["protocols"]["all"]["train"]["official"] is None
    assert description["missing_videos"] == ["b.mp4", "sub/c.mp4"]
    assert (description["unused_videos"], description["known_broken"]) == (1, {"c": "cut"})
    assert to_text(description).splitlines() == [
        "protocol  split  clips  official  difference  missing videos",
        "CS        train      1         1        none               0",
        "CS         test      2         3          -1               2",
        "all       train      2         -           -               1",
        "task action: 1 classes, single label",
        "clips without a label for task action: CS test 1, all train 1",
        "note: One clip is of a 32nd class.",
        "known trouble: c: cut",
        "missing: 2 of 3 videos; their clips stay in the manifest; run this again when there are more",
        "  b.mp4",
        "  sub/c.mp4",
        "1 other videos below the folder belong to no clip",
    ]


def test_the_missing_videos_are_listed_in_a_file_and_the_counts_survive_reading(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    write(preparation(videos), VideoFolder(videos), tmp_path / "dataset")
    assert (tmp_path / "dataset" / MISSING_FILE).read_text().splitlines() == ["a.mp4", "b.mp4", "sub/c.mp4"]
    assert Dataset.read(tmp_path / "dataset").official_counts == {"CS": {"train": 1, "test": 3}}


def test_the_command_line_and_the_registry_know_the_same_benchmarks() -> None:
    assert {name for name in prepare.commands if name not in ("folder", "lists", "table")} == BENCHMARKS.keys()


def test_a_version_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--version 'v9' of charades: accepted: none"):
        prepare_benchmark("charades", tmp_path, VideoFolder(tmp_path), version="v9")


def test_the_command_prints_a_table_or_one_json_object(tmp_path: Path) -> None:
    (tmp_path / "Charades_v1_train.csv").write_text(HEADER + "\n" + row("AAAAA", "c000 1 2"))
    (tmp_path / "Charades_v1_test.csv").write_text(HEADER + "\n")
    (tmp_path / "Charades_v1_classes.txt").write_text(CLASSES)
    command = ["prepare", "charades", "--annotations", str(tmp_path), "--videos", str(tmp_path), "--out"]
    text = CliRunner().invoke(cli, [*command, str(tmp_path / "d"), "--prompt", "a person {}"], catch_exceptions=False)
    assert text.output.splitlines()[1].split() == ["default", "train", "1", "7985", "-7984", "1"]
    assert Dataset.read(tmp_path / "d").task("atomic").prompts[0] == "a person Holding some clothes"
    found = CliRunner().invoke(cli, [*command, str(tmp_path / "d"), "--json"], catch_exceptions=False)
    assert json.loads(found.output)["protocols"]["default"]["train"]["clips"] == 1
