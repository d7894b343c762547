"""Charades: its two tables and its list of classes, real and made."""

import os
import shutil
from pathlib import Path

import pytest

from cache.errors import ManifestError
from pipeline.datasets.benchmarks import prepare_benchmark
from pipeline.datasets.preparation import Preparation, describe
from pipeline.datasets.videos import VideoFolder

REAL = os.environ.get("DECONFOUND_TEST_DATA")
HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"
CLASSES = "c000 Holding some clothes\r\nc001 Putting clothes somewhere\r\n"


def prepare(folder: Path, *, train: str = "", test: str = "", classes: str = CLASSES) -> Preparation:
    (folder / "Charades").mkdir()
    for name, rows in (("train", train), ("test", test)):
        text = "\r\n".join([HEADER, *rows.splitlines(), ""])
        (folder / "Charades" / f"Charades_v1_{name}.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (folder / "Charades" / "Charades_v1_classes.txt").write_text(classes, newline="")
    return prepare_benchmark("charades", folder, VideoFolder(folder))


def row(name: str, actions: str, length: str = "24.83") -> str:
    return f'{name},HR43,Kitchen,6,7,Yes,"A person, cooking.",food;stove,"He says ""yes"".",{actions},{length}\n'


@pytest.mark.skipif(REAL is None, reason="DECONFOUND_TEST_DATA is not set")
def test_the_official_training_table_has_7985_videos_174_of_them_without_an_action(tmp_path: Path) -> None:
    source = Path(REAL or "") / "annotations" / "charades"
    for name in ("Charades_v1_train.csv", "Charades_v1_classes.txt"):
        shutil.copy(source / name, tmp_path)
    shutil.copy(source / "Charades_v1_test_200.csv", tmp_path / "Charades_v1_test.csv")
    preparation = prepare_benchmark("charades", tmp_path, VideoFolder(tmp_path))
    dataset, description = preparation.dataset, describe(preparation, VideoFolder(tmp_path))
    train = dataset.select("default", "train")
    assert len(train) == description["protocols"]["default"]["train"]["official"] == 7985
    assert sum(not clip.labels["atomic"] for clip in train) == 174
    targets = dataset.targets(dataset.task("atomic"), train)
    assert targets.shape == (7985, 157)
    assert (targets.sum(axis=0).min(), targets.sum(axis=0).max()) == (25, 1417)
    assert dataset.task("atomic").class_names[targets.sum(axis=0).argmin()].startswith("c101")
    counts = description["protocols"]["default"]["test"]
    assert (counts["clips"], counts["official"], counts["missing_videos"]) == (199, 1863, 199)
    assert "174 videos of split train show none of the actions" in preparation.notes


def test_a_label_is_the_union_of_the_actions_whatever_their_times(tmp_path: Path) -> None:
    train = row("46GP8", "c001 11.90 21.20;c000 0.00 12.60;c001 0 99") + row("-EMPT", "") + row("BACK1", "c000 5 2")
    preparation = prepare(tmp_path, train=train, test=row("TEST1", "c000 1 2"))
    clips = {clip.id: clip for clip in preparation.dataset.clips}
    assert clips["46GP8"].labels["atomic"] == ("c001 Putting clothes somewhere", "c000 Holding some clothes")
    assert clips["-EMPT"].labels["atomic"] == ()
    assert clips["46GP8"].groups == {"subject": "HR43", "scene": "Kitchen"}
    assert preparation.dataset.task("atomic").prompts == ("Holding some clothes", "Putting clothes somewhere")
    assert preparation.notes == (
        "1 videos of split train show none of the actions",
        "1 actions end before they start; times are not used",
        "1 actions end more than 0.5 s after their video; times are not used",
    )


def test_videos_are_found_in_either_archive_and_stay_when_they_are_missing(tmp_path: Path) -> None:
    (tmp_path / "videos" / "Charades_v1").mkdir(parents=True)
    (tmp_path / "videos" / "Charades_v1" / "AAAAA.mp4").touch()
    preparation = prepare(tmp_path, train=row("AAAAA", "") + row("BBBBB", ""), test=row("CCCCC", ""))
    description = describe(preparation, VideoFolder(tmp_path / "videos"))
    assert preparation.dataset.clips[0].video == "videos/Charades_v1/AAAAA.mp4"
    assert describe(preparation, VideoFolder(tmp_path))["missing_videos"] == [
        "Charades_v1_480/BBBBB.mp4",
        "Charades_v1_480/CCCCC.mp4",
    ]
    assert description["clips"] == 3


@pytest.mark.parametrize(
    ("actions", "length", "message"),
    [
        ("c002 1 2", "9", r"train\.csv, line 2: action 'c002 1 2' is not"),
        ("c000 1", "9", r"line 2: action 'c000 1' is not"),
        ("c000 one 2", "9", r"line 2: a time of c000 is 'one', not a number"),
        ("c000 1 nan", "9", "not a finite number"),
        ("", "long", "line 2: length is 'long', not a number"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused_with_its_line(
    tmp_path: Path, actions: str, length: str, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        prepare(tmp_path, train=row("AAAAA", actions, length))


def test_a_table_that_a_spreadsheet_took_apart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"line 2: 12 cells under a header of 11"):
        prepare(tmp_path, train=row("AAAAA", "c000 1 2,c001 3 4"))


def test_a_list_of_classes_with_a_class_twice_or_malformed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"classes\.txt, line 2: expected a new class"):
        prepare(tmp_path, classes="c000 Holding\nc000 Holding\n")


def test_a_video_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"test\.csv, line 2: AAAAA was given before, in split train"):
        prepare(tmp_path, train=row("AAAAA", ""), test=row("AAAAA", ""))
