"""The commands of own data, and what they share with those of the benchmarks."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from cache.manifest import Dataset
from pipeline.cli import cli
from pipeline.commands.datasets import VERSIONS
from pipeline.datasets.benchmarks import BENCHMARKS
from pipeline.datasets.own.folder import TEST_FRACTION


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["prepare", *map(str, words)])


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_list_of_test_videos_is_enough_and_none_is_refused(tmp_path: Path) -> None:
    videos = touch(tmp_path / "kitchen", "a.mp4")
    (tmp_path / "test.txt").write_text("a.mp4 0\n")
    (tmp_path / "classes.csv").write_text("name,id\npour_tea,0\nstir,1\n")
    shared = ("lists", "--videos", videos, "--out", tmp_path / "out", "--classes", tmp_path / "classes.csv")
    assert run(*shared, "--test", tmp_path / "test.txt", "--prompt", "to {}").exit_code == 0
    dataset = Dataset.read(tmp_path / "out")
    assert dataset.name == "kitchen"
    assert dataset.task("action").prompts == ("to pour tea", "to stir")
    assert dataset.clips[0].labels == {"action": ("pour_tea",)}
    refused = run(*shared)
    assert refused.exit_code == 2
    assert "--train, --validation or --test" in refused.stderr


def test_a_folder_says_what_is_in_no_class_and_in_no_test(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", "cut/1.mp4", *(f"fry/{number}.mp4" for number in range(3)), "bake/a.txt")
    shared = ("folder", "--videos", videos, "--out", tmp_path / "out")
    notes = json.loads(run(*shared, "--json").stdout)["notes"]
    assert notes[0].startswith("folders without videos: 1 (bake)")
    assert notes[1] == "classes without a test clip: 1 (cut)"
    assert f"[{TEST_FRACTION}]" in run("folder", "--help").stdout
    assert run(*shared, "--prompt", "a video").exit_code != 0


def test_names_that_utf8_cannot_write_are_printed_with_escapes(tmp_path: Path) -> None:
    result = run("folder", "--videos", touch(tmp_path / "videos", "a\udcff/1.mp4"), "--out", tmp_path / "out")
    assert result.exit_code == 0
    (tmp_path / "videos" / "b\udcff").mkdir()
    result = run("folder", "--videos", tmp_path / "videos", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert r"folders without videos: 1 (b\udcff)" in result.stdout


def test_only_benchmarks_with_versions_have_the_option_and_it_lists_them() -> None:
    assert {name: benchmark.versions for name, benchmark in BENCHMARKS.items() if benchmark.versions} == VERSIONS
    for name in BENCHMARKS:
        assert ("--version" in run(name, "--help").stdout) == (name in VERSIONS)
    assert "[V2|V1]" in run("diving48", "--help").stdout
    assert "'V2', 'V1'" in run("diving48", "--version", "V3").stderr
    assert "are protocols" in run("finegym", "--help").stdout


def test_the_same_option_has_the_same_words() -> None:
    helps = [" ".join(run(name, "--help").stdout.split()) for name in ("coin", "folder", "lists", "table")]
    assert all("Template of the class prompts; {} is the class text." in text for text in helps)
