"""FineGym: lists of elements, names of classes and exact times, real and made."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cache.errors import ManifestError
from pipeline.datasets.benchmarks import prepare_benchmark
from pipeline.datasets.preparation import Preparation, describe
from pipeline.datasets.videos import VideoFolder

REAL = os.environ.get("DECONFOUND_TEST_DATA")
real = pytest.mark.skipif(REAL is None, reason="DECONFOUND_TEST_DATA is not set")
SETS = "set: 1; vault\nset: 33; BB_flight_salto\nset: 35; BB_dismounts\n"
NUM_CLASSES = {"gym99": 99, "gym288": 288}
BEAM = "0LtLS9wROrk_E_002407_002435_A_0003_0005"
VAULT = "0LtLS9wROrk_E_002681_002688_A_0000_0006"
DASHES = "-A_E_-_A_00_E_000001_000002_A_0001_0001"
TIMES = {
    "0LtLS9wROrk": {
        "E_002407_002435": {
            "event": 4,
            "segments": {"A_0003_0005": {"stages": 1, "timestamps": [[3.45, 5.64]]}},
            "timestamps": [[2407.32, 2435.28]],
        },
        "E_002681_002688": {
            "event": 1,
            "segments": {"A_0000_0006": {"stages": 3, "timestamps": [[0.04, 3.2], [3.2, 4.49], [4.49, 6.57]]}},
            "timestamps": [[2681.88, 2688.48]],
        },
        "E_002700_002710": {"event": 2, "segments": None, "timestamps": [[2700.0, 2710.5]]},
    }
}
Elements = Sequence[tuple[str, int]]


def categories(task: str) -> list[str]:
    """Classes 0 and 1 are the same words in two sets, as in the real files; the rest are vaults."""
    lines = ["Clabel:   0; set: 33; Glabel: 290; (BB) salto  backward tucked   "]
    lines += ["Clabel:   1; set: 35; Glabel: 359; (BB) salto backward tucked"]
    return lines + [f"Clabel: {i:3d}; set:  1; Glabel: {i:3d}; (VT) vault {i}" for i in range(2, NUM_CLASSES[task])]


def write(
    folder: Path,
    task: str = "gym99",
    *,
    older: Elements | None = ((BEAM, 0),),
    newer: Elements | None = ((BEAM, 0),),
    validation: Elements | None = ((VAULT, 2),),
    classes: Sequence[str] | None = None,
) -> None:
    lists = {"train_element_v1.0": older, "train_element_v1.1": newer, "val_element": validation}
    for name, elements in lists.items():
        if elements is not None:
            text = "".join(f"{element} {label}\r\n" for element, label in elements)
            (folder / f"{task}_{name}.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (folder / f"{task}_categories.txt").write_text("\n".join(classes or categories(task)) + "\n")
    (folder / "set_categories.txt").write_text(SETS)


def write_times(folder: Path, times: Mapping[str, Any] = TIMES, version: str = "v1.1") -> None:
    (folder / f"finegym_annotation_info_{version}.json").write_text(json.dumps(times))


def prepare(folder: Path) -> Preparation:
    return prepare_benchmark("finegym", folder, VideoFolder(folder))


def touch(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


@real
def test_the_official_lists_of_gym99_have_20484_and_26320_and_8521_elements(tmp_path: Path) -> None:
    for path in (Path(REAL or "") / "annotations" / "finegym").glob("*.txt"):
        shutil.copyfile(path, tmp_path / path.name)
    preparation = prepare(tmp_path)
    dataset = preparation.dataset
    counts = describe(preparation, VideoFolder(tmp_path))["protocols"]
    found = {(name, split): numbers["clips"] for name, splits in counts.items() for split, numbers in splits.items()}
    assert found == {
        ("gym99-v1.0", "train"): 20484,
        ("gym99-v1.0", "validation"): 8521,
        ("gym99-v1.1", "train"): 26320,
        ("gym99-v1.1", "validation"): 8521,
    }
    assert all(numbers["clips"] == numbers["official"] for splits in counts.values() for numbers in splits.values())
    assert len(dataset.clips) == 26320 + 8521
    assert len(preparation.notes) == 1
    assert preparation.notes[0].startswith("gym288 is left out: it takes gym288_val_element.txt and gym288_train")
    train = Counter(clip.labels["gym99"] for clip in dataset.select("gym99-v1.0", "train"))
    assert (len(train), min(train.values()), max(train.values())) == (99, 47, 1130)
    videos = [
        {clip.groups["video"] for clip in dataset.select("gym99-v1.1", split)} for split in ("train", "validation")
    ]
    assert len(videos[0] & videos[1]) == 40


@real
@pytest.mark.parametrize(("task", "colliding"), [("gym99", 2), ("gym288", 6)])
def test_all_real_classes_differ_in_name_and_in_prompt(tmp_path: Path, task: str, colliding: int) -> None:
    write(tmp_path, task)
    source = Path(REAL or "") / "annotations" / "finegym"
    for name in (f"{task}_categories.txt", "set_categories.txt"):
        shutil.copyfile(source / name, tmp_path / name)
    found = prepare(tmp_path).dataset.task(task)
    assert found.num_classes == len(set(found.class_names)) == len(set(found.prompts)) == NUM_CLASSES[task]
    expected = re.findall(r"\(\w\w\) (.*)", (source / f"{task}_categories.txt").read_text())
    assert [name.partition(": ")[2] for name in found.class_names] == [" ".join(text.split()) for text in expected]
    assert all(re.match(r"(vault|floor exercise|balance beam|uneven bars)\b", prompt) for prompt in found.prompts)
    assert sum(" flight salto: " in prompt or " dismounts: " in prompt for prompt in found.prompts) == colliding


def test_the_set_stands_in_a_prompt_only_where_the_words_are_those_of_another_class(tmp_path: Path) -> None:
    write(tmp_path)
    task = prepare(tmp_path).dataset.task("gym99")
    assert task.kind == "single"
    assert task.class_names[:3] == (
        "BB_flight_salto: salto backward tucked",
        "BB_dismounts: salto backward tucked",
        "vault: vault 2",
    )
    assert task.prompts[:3] == (
        "balance beam flight salto: salto backward tucked, a video of gymnastic action",
        "balance beam dismounts: salto backward tucked, a video of gymnastic action",
        "vault: vault 2, a video of gymnastic action",
    )


def test_an_element_of_both_tasks_is_one_clip_with_a_place_in_every_protocol(tmp_path: Path) -> None:
    write(tmp_path, older=[(VAULT, 2)], newer=[(VAULT, 2)], validation=[(BEAM, 0)])
    write(tmp_path, "gym288", older=[(DASHES, 1)], newer=[(DASHES, 1), (BEAM, 0)], validation=[(VAULT, 3)])
    dataset = prepare(tmp_path).dataset
    assert [clip.id for clip in dataset.clips] == [VAULT, BEAM, DASHES]
    beam = dataset.clip(BEAM)
    assert beam.splits == {"gym99-v1.0": "validation", "gym99-v1.1": "validation", "gym288-v1.1": "train"}
    assert beam.labels == {name: ("BB_flight_salto: salto backward tucked",) for name in ("gym99", "gym288")}
    assert beam.groups == {"apparatus": "balance beam", "video": "0LtLS9wROrk"}
    assert dataset.clip(DASHES).groups["video"] == "-A_E_-_A_00"
    assert dataset.clip(VAULT).labels["gym288"] == ("vault: vault 3",)
    assert dataset.official_counts["gym288-v1.0"] == {"train": 22671, "validation": 9646}
    assert dataset.official_counts["gym288-v1.1"] == {"train": 29334, "validation": 9646}


def test_what_is_there_is_made_and_the_rest_is_named(tmp_path: Path) -> None:
    trained = [(f"{i:011d}_E_000001_000002_A_0000_0001", i) for i in range(99)]
    write(tmp_path, older=trained[:98], newer=None)
    write(tmp_path, "gym288", validation=None)
    preparation = prepare(tmp_path)
    assert set(preparation.dataset.protocols) == {"gym99-v1.0"}
    assert [task.name for task in preparation.dataset.tasks] == ["gym99"]
    assert [note.partition(", from")[0] for note in preparation.notes] == [
        "protocol gym99-v1.1 is left out: there is no gym99_train_element_v1.1.txt",
        "gym288 is left out: it takes gym288_val_element.txt and gym288_train_element_v1.0.txt or "
        "gym288_train_element_v1.1.txt",
        "gym99-v1.0 has no training clip of 1 of 99 classes: vault: vault 98",
    ]
    (tmp_path / "gym99_val_element.txt").rename(tmp_path / "gym99_val_org.txt")
    (tmp_path / "gym99_train_element_v1.0.txt").rename(tmp_path / "gym99_train_org.txt")
    assert prepare(tmp_path).dataset == preparation.dataset
    (tmp_path / "gym99_val_org.txt").unlink()
    with pytest.raises(ManifestError, match=r"holds no whole task.*sdolivia"):
        prepare(tmp_path)


def test_a_trimmed_video_is_taken_whole_before_any_longer_one(tmp_path: Path) -> None:
    write(tmp_path)
    write_times(tmp_path)
    touch(tmp_path, f"subactions/{BEAM}.mp4", f"flow/{BEAM}.avi", f"events/{BEAM[:27]}.mp4", "videos/0LtLS9wROrk.mp4")
    clip = prepare(tmp_path).dataset.clip(BEAM)
    assert (clip.video, clip.start_seconds, clip.end_seconds) == (f"subactions/{BEAM}.mp4", None, None)


def test_times_in_the_video_of_an_event_count_from_the_event(tmp_path: Path) -> None:
    write(tmp_path)
    write_times(tmp_path, version="v1.0")
    touch(tmp_path, f"events/{BEAM[:27]}.mp4", f"events/{VAULT[:27]}.mkv", "videos/0LtLS9wROrk.mp4")
    beam, vault = prepare(tmp_path).dataset.clips
    assert (beam.video, beam.start_seconds, beam.end_seconds) == (f"events/{BEAM[:27]}.mp4", 3.45, 5.64)
    assert (vault.video, vault.start_seconds, vault.end_seconds) == (f"events/{VAULT[:27]}.mkv", 0.04, 6.57)


def test_times_in_a_whole_video_add_those_of_the_event(tmp_path: Path) -> None:
    write(tmp_path)
    write_times(tmp_path)
    touch(tmp_path, "videos/0LtLS9wROrk.mp4")
    beam, vault = prepare(tmp_path).dataset.clips
    assert beam.video == vault.video == "videos/0LtLS9wROrk.mp4"
    assert (beam.start_seconds, beam.end_seconds) == (2410.77, 2412.96)
    assert (vault.start_seconds, vault.end_seconds) == (2681.92, 2688.45)


def test_a_longer_video_without_exact_times_does_not_count(tmp_path: Path) -> None:
    other = "0LtLS9wROrk_E_002700_002710_A_0001_0001"
    write(tmp_path, older=None, newer=[(BEAM, 0), (other, 0), (DASHES, 0)])
    touch(tmp_path, "videos/0LtLS9wROrk.mp4")
    preparation = prepare(tmp_path)
    missing = [f"subactions/{name}.mp4" for name in sorted((BEAM, VAULT, other, DASHES))]
    assert describe(preparation, VideoFolder(tmp_path))["missing_videos"] == missing
    assert preparation.notes[-1].startswith("3 elements lie in videos of events or competitions, but nothing tells")
    write_times(tmp_path)
    preparation = prepare(tmp_path)
    assert describe(preparation, VideoFolder(tmp_path))["missing_videos"] == [missing[0], missing[3]]
    assert preparation.notes[-1].startswith("1 elements lie in videos of events or competitions")


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"timestamps": [[5, 9]], "segments": {"A_0003_0005": {"timestamps": [[3, 2]]}}}, "goes from 3.0 to 2.0 s"),
        ({"timestamps": [[5, 9]], "segments": {"A_0003_0005": {"timestamps": [[3, 3]]}}}, "goes from 3.0 to 3.0 s"),
        ({"timestamps": [[-1, 9]], "segments": {"A_0003_0005": {"timestamps": [[3, 4]]}}}, "event at -1.0 s"),
        ({"timestamps": [[5, 9]], "segments": {"A_0003_0005": {"timestamps": []}}}, "not of the documented form"),
        ({"segments": {"A_0003_0005": {"timestamps": [[3, 4]]}}}, "not of the documented form"),
        ([], "not of the documented form"),
    ],
)
def test_times_that_make_no_sense_are_refused_with_their_element(tmp_path: Path, event: object, message: str) -> None:
    write(tmp_path)
    write_times(tmp_path, {"0LtLS9wROrk": {"E_002407_002435": event}})
    touch(tmp_path, "videos/0LtLS9wROrk.mp4")
    with pytest.raises(ManifestError, match=rf"v1\.1\.json.*{BEAM}.*{message}|{BEAM} are {message}"):
        prepare(tmp_path)


@pytest.mark.parametrize(
    ("newer", "message"),
    [
        ([(BEAM, 99)], r"v1\.1\.txt, line 1: class 99 of element .* accepted are 0 to 98"),
        ([(BEAM, -1)], r"v1\.1\.txt, line 1: expected 'A0xAXX"),
        ([(BEAM, 0), (f"{DASHES}.mp4", 0)], r"v1\.1\.txt, line 2: expected 'A0xAXX"),
        ([(BEAM, 0), (BEAM, 0)], r"v1\.1\.txt, line 2: element .* was given before in split train of gym99"),
        ([(BEAM, 1)], r"v1\.1\.txt, line 1: element .* is of class 'BB_flight_salto.*' in another list"),
        ([(VAULT, 2)], r"val_element\.txt, line 1: element .* was given before in split train"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_with_its_number(tmp_path: Path, newer: Elements, message: str) -> None:
    write(tmp_path, newer=newer)
    with pytest.raises(ManifestError, match=message):
        prepare(tmp_path)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (categories("gym99")[:-1], "lists 98 classes; gym99 has 99"),
        (categories("gym99")[1:], r"categories\.txt, line 1: Clabel 1 where 0 is next"),
        (["Clabel: 0; set: 34; Glabel: 1; (BB) round-off"], r"line 1: expected 'Clabel.* with a set of set_categories"),
        (["Clabel: 0; set: 33; Glabel: 1; (PB) giant"], "line 1: expected 'Clabel"),
        (["(BB) round-off"], "line 1: expected 'Clabel"),
    ],
)
def test_another_list_of_classes_is_refused(tmp_path: Path, classes: Sequence[str], message: str) -> None:
    write(tmp_path, classes=classes)
    with pytest.raises(ManifestError, match=message):
        prepare(tmp_path)


def test_a_list_of_sets_that_is_malformed_or_absent_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "set_categories.txt").write_text("1 vault\n")
    with pytest.raises(ManifestError, match=r"set_categories\.txt, line 1: expected a set"):
        prepare(tmp_path)
    (tmp_path / "set_categories.txt").unlink()
    with pytest.raises(ManifestError, match=r"holds no set_categories\.txt; it comes from"):
        prepare(tmp_path)
