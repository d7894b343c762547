"""COIN: the official taxonomy, and COIN.json in the documented form (the full file is made here)."""

import csv
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cache.errors import ManifestError
from cache.manifest import Dataset
from pipeline.datasets.benchmarks import prepare_benchmark
from pipeline.datasets.coin import task_text
from pipeline.datasets.preparation import Preparation, describe
from pipeline.datasets.videos import VideoFolder

REAL = os.environ.get("DECONFOUND_TEST_DATA")
OFFICIAL = Path(REAL or "") / "annotations" / "coin"
needs_official = pytest.mark.skipif(REAL is None, reason="DECONFOUND_TEST_DATA is not set")
STEPS = (
    "Target Id,Target Label,Action Id,Action Label\r\n"
    "1,MakeTea,12,peel\r\n"
    '1,MakeTea,11,"pour water, hot"\r\n'
    "0,ReplaceCDDriveWithSSD,2,peel\r\n"
)
DOMAINS = "Domains,Targets\r\nDrink and Snack,MakeTea\r\nGadgets,ReplaceCDDriveWithSSD\r\n"


def segment(step: object, start: float = 1.0, end: float = 2.0, label: str = "peel") -> dict[str, Any]:
    return {"id": step, "segment": [start, end], "label": label}


def entry(*segments: Mapping[str, Any], **changes: object) -> dict[str, Any]:
    body = {"duration": 60.0, "class": "MakeTea", "video_url": "https://www.youtube.com/embed/x", "start": 0.5}
    return body | {"annotation": list(segments), "subset": "training", "end": 50.0, "recipe_type": 1} | changes


def prepare(folder: Path, database: object, *, level: bool = True, domains: str = DOMAINS) -> Preparation:
    """The taxonomy as tables with a BOM and CRLF, COIN.json with a BOM."""
    body = json.dumps({"database": database} if level else database, indent=1).replace("\n", "\r\n")
    for name, text in {
        "COIN.json": body,
        "target_action_mapping.csv": STEPS,
        "domain_target_mapping.csv": domains,
    }.items():
        if text:
            (folder / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    return prepare_benchmark("coin", folder, VideoFolder(folder))


def made_database() -> dict[str, Any]:
    """A video of every official task, with every step of that task, in the documented form."""
    with (OFFICIAL / "taxonomy_sheet2.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        f"-_{number:09d}": entry(
            *(segment(row["Action Id"], label=row["Action Label"]) for row in rows if int(row["Target Id"]) == number),
            **{"class": label, "recipe_type": number, "subset": "training" if number % 5 else "testing"},
        )
        for number, label in {int(row["Target Id"]): row["Target Label"] for row in rows}.items()
    }


@needs_official
def test_the_readmes_entry_and_the_official_workbook_make_180_tasks_and_778_steps(tmp_path: Path) -> None:
    shutil.copy(OFFICIAL / "taxonomy.xlsx", tmp_path)
    shutil.copy(OFFICIAL / "COIN_readme_example.json", tmp_path / "COIN.json")
    preparation = prepare_benchmark("coin", tmp_path, VideoFolder(tmp_path))
    dataset = preparation.dataset
    task, step = dataset.task("task"), dataset.task("step")
    assert (task.num_classes, step.num_classes, len(set(step.prompts))) == (180, 778, 749)
    assert task.class_names[131] == "ReplaceCDDriveWithSSD"
    assert step.class_names[211] == "212 take out the laptop CD drive"
    assert [name.split()[0] for name in step.class_names] == [str(number) for number in range(1, 779)]
    (clip,) = dataset.clips
    assert (clip.id, clip.video, clip.splits) == ("LtRSn-ntcLY", "131/LtRSn-ntcLY.mp4", {"default": "train"})
    assert clip.groups == {"domain": "Gadgets"}
    assert dataset.targets(task, [clip]).tolist() == [131]
    assert dataset.targets(step, [clip]).nonzero()[1].tolist() == [211, 215]
    assert (clip.start_seconds, clip.end_seconds) == (None, None)
    assert preparation.notes == ()


@needs_official
def test_a_file_of_all_tasks_and_steps_is_read_alike_with_workbook_and_tables(tmp_path: Path) -> None:
    made: list[Dataset] = []
    for files in (["taxonomy.xlsx"], ["taxonomy_sheet1.csv", "taxonomy_sheet2.csv"]):
        folder = tmp_path / files[0]
        folder.mkdir()
        names = ["taxonomy.xlsx"] if len(files) == 1 else ["domain_target_mapping.csv", "target_action_mapping.csv"]
        for source, name in zip(files, names, strict=True):
            shutil.copy(OFFICIAL / source, folder / name)
        (folder / "COIN.json").write_text(json.dumps({"database": made_database()}))
        preparation = prepare_benchmark("coin", folder, VideoFolder(tmp_path))
        assert preparation.notes == ()
        made.append(preparation.dataset)
    assert made[0] == made[1]
    dataset = made[0]
    assert sorted(dataset.targets(dataset.task("task"), dataset.clips).tolist()) == list(range(180))
    assert dataset.targets(dataset.task("step"), dataset.clips).sum(axis=0).tolist() == [1] * 778
    assert (len(dataset.select("default", "train")), len(dataset.select("default", "test"))) == (144, 36)
    assert len({clip.groups["domain"] for clip in dataset.clips}) == 12


@needs_official
def test_every_task_is_readable_text_and_no_two_are_alike(tmp_path: Path) -> None:
    shutil.copy(OFFICIAL / "taxonomy.xlsx", tmp_path)
    shutil.copy(OFFICIAL / "COIN_readme_example.json", tmp_path / "COIN.json")
    task = prepare_benchmark("coin", tmp_path, VideoFolder(tmp_path)).dataset.task("task")
    texts = dict(zip(task.class_names, task.prompts, strict=True))
    assert len(set(texts.values())) == 180
    for label, text in texts.items():
        assert text.replace(" ", "").lower() == label.lower()
        assert all(len(word) > 1 or word == "a" for word in text.split())
    capitals = {word for text in texts.values() for word in text.split() if word != word.lower()}
    assert capitals == {*["PC", "TV", "CD", "SSD", "SIM", "NBA", "CPR", "RJ45"], "Chinese", "Easter", "French"}


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("ReplaceCDDriveWithSSD", "replace CD drive with SSD"),
        ("ReplaceBladeOfASaw", "replace blade of a saw"),
        ("MakeRJ45Cable", "make RJ45 cable"),
        ("UseEpinephrineAuto-injector", "use epinephrine auto-injector"),
        ("MakeFrenchFries", "make French fries"),
        ("CutGrapeFruit", "cut grapefruit"),
        ("Sow", "sow"),
    ],
)
def test_camel_case_becomes_words_and_abbreviations_stay_whole(label: str, text: str) -> None:
    assert task_text(label) == text


def test_classes_follow_the_ids_and_a_label_is_the_union_of_the_steps(tmp_path: Path) -> None:
    database = {
        "-leading": entry(segment("12"), segment(11, label="pour water, hot"), segment("12", 30, 40)),
        "_without": entry(**{"class": "ReplaceCDDriveWithSSD", "recipe_type": 0, "subset": "testing"}),
    }
    preparation = prepare(tmp_path, database)
    task, step = preparation.dataset.tasks
    assert task.class_names == ("ReplaceCDDriveWithSSD", "MakeTea")
    assert task.prompts == ("replace CD drive with SSD", "make tea")
    assert step.class_names == ("2 peel", "11 pour water, hot", "12 peel")
    assert step.prompts == ("peel", "pour water, hot", "peel")
    first, second = preparation.dataset.clips
    assert first.labels == {"task": ("MakeTea",), "step": ("12 peel", "11 pour water, hot")}
    assert second.labels == {"task": ("ReplaceCDDriveWithSSD",), "step": ()}
    assert first.groups == {"domain": "Drink and Snack"}
    assert preparation.notes == (
        "the taxonomy has 2 tasks and 3 steps, the official one 180 and 778",
        "1 videos have no step; they count as videos without any",
    )


@pytest.mark.parametrize(
    ("train", "test"), [("training", "testing"), ("training", "validation"), ("train", "val"), ("train", "test")]
)
def test_subsets_are_train_and_test_however_a_copy_spells_them(tmp_path: Path, train: str, test: str) -> None:
    database = {f"video_{subset}": entry(segment("12"), subset=subset) for subset in (train, test)}
    preparation = prepare(tmp_path, database)
    assert [clip.splits["default"] for clip in preparation.dataset.clips] == ["train", "test"]
    said = f"split test is the subset that COIN.json calls {test}" in preparation.notes
    assert said == test.startswith("val")
    counts = describe(preparation, VideoFolder(tmp_path))["protocols"]["default"]
    assert (counts["train"]["official"], counts["test"]["official"]) == (9030, 2797)


def test_two_subsets_that_could_be_the_test_split_are_refused(tmp_path: Path) -> None:
    database = {name: entry(segment("12"), subset=name) for name in ("training", "validation", "testing")}
    with pytest.raises(ManifestError, match=r"COIN\.json has the subsets testing and validation"):
        prepare(tmp_path, database)


def test_a_copy_without_the_database_level_and_with_other_keys_is_read(tmp_path: Path) -> None:
    database = {
        "AfiVmAjfTNs": entry(segment("12"), subset="train", target="make tea", num_frames_actual=600),
        "anothervide": entry(segment("12"), subset="val", target="make tea"),
    }
    preparation = prepare(tmp_path, database, level=False)
    description = describe(preparation, VideoFolder(tmp_path))
    assert [clip.id for clip in preparation.dataset.clips] == ["AfiVmAjfTNs", "anothervide"]
    assert "COIN.json has no `database` level: it is a copy, not the official file" in preparation.notes
    assert list(description["known_broken"]) == ["AfiVmAjfTNs"]


def test_videos_are_found_in_folders_of_tasks_and_in_one_folder_and_stay_when_missing(tmp_path: Path) -> None:
    for name in ("videos/1/-first_one_.mkv", "flat/-second_one.MP4", "flat/0/_third_one_.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    database = {name: entry(segment("12")) for name in ("-first_one_", "-second_one", "_third_one_", "-missing_on")}
    preparation = prepare(tmp_path, database)
    assert [clip.video for clip in preparation.dataset.clips] == [
        "videos/1/-first_one_.mkv",
        "flat/-second_one.MP4",
        "flat/0/_third_one_.mp4",
        "1/-missing_on.mp4",
    ]
    assert describe(preparation, VideoFolder(tmp_path))["missing_videos"] == ["1/-missing_on.mp4"]


def test_odd_times_texts_and_steps_of_other_tasks_are_counted_and_change_no_label(tmp_path: Path) -> None:
    odd = entry(
        segment("12", 9, 5), segment("11", 1, 61, "pour  water, hot"), segment("2"), segment("12", label="Peel")
    )
    preparation = prepare(tmp_path, {"a": odd})
    assert preparation.dataset.clips[0].labels["step"] == ("12 peel", "11 pour water, hot", "2 peel")
    assert preparation.notes[1:] == (
        "1 steps end before they start; times are not used",
        "1 steps end more than 0.5 s after their video; times are not used",
        "1 steps have another text than the taxonomy gives their id; the id counts",
        "1 steps belong to another task than their video; they count as steps",
    )


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (
            entry(recipe_type=0),
            "class 'MakeTea' is not recipe_type 0, which the taxonomy calls 'ReplaceCDDriveWithSSD'",
        ),
        (entry(recipe_type=180), "recipe_type 180, which the taxonomy calls None"),
        (entry(recipe_type=True), "True is no id"),
        (entry(subset="all"), "subset is 'all'; accepted: training, train, testing, test, validation, val"),
        (entry(segment("779")), r"the taxonomy has no step '779' \('peel'\)"),
        (entry(segment(12.5)), "12.5 is no id"),
        (entry(segment("12", float("nan"))), "expected two times in seconds"),
        (entry(segment("12", end=float("inf"))), "expected two times in seconds"),
        (entry({"id": "12", "label": "peel", "segment": [1.0]}), "expected two times in seconds"),
        (entry({"id": "12", "label": "peel", "segment": None}), "expected two times in seconds"),
        ({"class": "MakeTea"}, "it has no key 'recipe_type'"),
        (["training"], "not in the documented form"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused_with_its_video(tmp_path: Path, odd: object, message: str) -> None:
    with pytest.raises(ManifestError, match=rf"COIN\.json, video '-b': .*{message}"):
        prepare(tmp_path, {"a": entry(segment("12")), "-b": odd})


@pytest.mark.parametrize("body", [[], {}, "text"])
def test_a_file_that_is_no_object_of_videos_is_refused(tmp_path: Path, body: object) -> None:
    with pytest.raises(ManifestError, match=r"COIN\.json: expected an object of videos"):
        prepare(tmp_path, body)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,MakeTea,12,peel again", r"mapping\.csv, line 5: step 12 .* was given before"),
        ("1,MakeCoffee,13,stir", "line 5: task 1 is called 'MakeCoffee', and before 'MakeTea'"),
        ("7,MakeTea,13,stir", "gives two tasks one label"),
        ("1,MakeTea,1.5,stir", "line 5: Action Id is '1.5', not a whole number"),
        ("1,MakeTea,13,stir, then drink", "line 5: 5 cells under a header of 4"),
    ],
)
def test_a_taxonomy_that_contradicts_itself_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, message: str
) -> None:
    monkeypatch.setattr(f"{__name__}.STEPS", STEPS + row + "\r\n")
    with pytest.raises(ManifestError, match=message):
        prepare(tmp_path, {"a": entry(segment("12"))})


def test_without_the_sheet_of_domains_there_are_no_groups_and_a_note(tmp_path: Path) -> None:
    preparation = prepare(tmp_path, {"a": entry(segment("12"))}, domains="")
    assert preparation.dataset.clips[0].groups == {}
    assert "2 tasks have no domain: the sheet domain_target_mapping of taxonomy.xlsx gives them" in preparation.notes


def test_without_a_taxonomy_nothing_is_made_and_its_source_is_named(tmp_path: Path) -> None:
    (tmp_path / "COIN.json").write_text(json.dumps({"database": {"a": entry(segment("12"))}}))
    with pytest.raises(
        ManifestError, match=r"no taxonomy\.xlsx or target_action_mapping\.csv; .* github\.com/coin-dataset/annotations"
    ):
        prepare_benchmark("coin", tmp_path, VideoFolder(tmp_path))
