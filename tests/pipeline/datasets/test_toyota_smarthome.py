import os
import re
from collections import Counter
from pathlib import Path

import pytest

from cache.errors import ManifestError
from pipeline.datasets.annotations import AnnotationFolder
from pipeline.datasets.preparation import Preparation, Request
from pipeline.datasets.toyota_smarthome import BENCHMARK, CLASSES
from pipeline.datasets.videos import VideoFolder

CS = {
    "train_CS.txt": "Walk_p03_r01_v16_c06.mp4\nPour.Fromcup_p03_r00_v07_c04.mp4\n",
    "validation_CS.txt": "WatchTV_p19_r00_v13_c03.mp4\n",
    "test_CS.txt": "Walk_p02_r00_v02_c03.mp4\nUsetablet_p02_r00_v02_c01.mp4\n",
}


def prepare(annotations: Path, videos: Path) -> Preparation:
    return BENCHMARK.prepare(
        Request(
            annotations=AnnotationFolder(annotations), videos=VideoFolder(videos), prompt="{}, a video of daily action"
        )
    )


def prepare_files(tmp_path: Path, files: dict[str, str], *videos: str) -> Preparation:
    for folder in ("splits", "videos"):
        (tmp_path / folder).mkdir()
    for name, text in files.items():
        (tmp_path / "splits" / name).write_text(text, encoding="utf-8", newline="")
    for name in videos:
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    return prepare(tmp_path, tmp_path / "videos")


@pytest.fixture(name="real")
def real_lists(tmp_path: Path) -> Preparation:
    folder = Path(os.environ.get("DECONFOUND_TEST_DATA", "")) / "annotations" / "toyota_smarthome"
    if not folder.is_dir():
        pytest.skip("DECONFOUND_TEST_DATA names no folder with annotations/toyota_smarthome/")
    return prepare(folder, tmp_path)


def test_the_real_lists_make_the_official_counts(real: Preparation) -> None:
    dataset = real.dataset
    counts = {
        protocol: {split: len(dataset.select(protocol, split)) for split in splits}
        for protocol, splits in dataset.protocols.items()
    }
    assert counts == {
        "CS": {"train": 8831, "validation": 1854, "test": 5444},
        "CS-trainval": {"train": 10685, "test": 5444},
    }
    assert counts == dataset.official_counts


def test_the_32nd_class_of_the_real_lists_stays_without_a_label(real: Preparation) -> None:
    dataset = real.dataset
    unlabelled = [clip for clip in dataset.clips if not clip.labels]
    assert {clip.id.split("_")[0] for clip in unlabelled} == {"Pour.Fromcup"}
    assert Counter(clip.splits["CS"] for clip in unlabelled) == {"train": 2, "validation": 1, "test": 11}
    assert len(dataset.clips) - len(unlabelled) == 16115
    assert real.notes == (
        "14 videos of Pour.Fromcup, none of the 31 classes, stay without a label "
        "(2 in train_CS, 1 in validation_CS, 11 in test_CS)",
    )


def test_real_labels_are_the_names_and_persons_do_not_cross_from_training_to_test(real: Preparation) -> None:
    dataset = real.dataset
    labelled = [clip for clip in dataset.clips if clip.labels]
    assert all(clip.id.startswith(f"{clip.labels['action'][0]}_p") for clip in labelled)
    assert {clip.labels["action"][0] for clip in labelled} == set(CLASSES)
    persons = [{clip.groups["subject"] for clip in dataset.select("CS-trainval", split)} for split in ("train", "test")]
    assert [len(group) for group in persons] == [11, 7]
    assert not set.intersection(*persons)


def test_there_are_31_texts_without_separators() -> None:
    assert len(set(CLASSES.values())) == 31
    assert all(re.fullmatch(r"[a-zTV ]+", text) for text in CLASSES.values())


def test_a_clip_has_its_place_its_groups_and_its_prompt(tmp_path: Path) -> None:
    preparation = prepare_files(tmp_path, CS, "mp4/Walk_p03_r01_v16_c06.mp4", "Usetablet_p02_r00_v02_c01.avi")
    clip = preparation.dataset.clip("Walk_p03_r01_v16_c06")
    assert clip.splits == {"CS": "train", "CS-trainval": "train"}
    assert clip.labels == {"action": ("Walk",)}
    assert clip.groups == {"subject": "p03", "camera": "c06", "recording": "p03_v16"}
    assert preparation.dataset.clip("WatchTV_p19_r00_v13_c03").splits == {"CS": "validation", "CS-trainval": "train"}
    task = preparation.dataset.task("action")
    assert task.prompts[task.class_names.index("Laydown")] == "lie down, a video of daily action"
    videos = [preparation.dataset.clip(name).video for name in ("Usetablet_p02_r00_v02_c01", "Walk_p02_r00_v02_c03")]
    assert videos == ["Usetablet_p02_r00_v02_c01.avi", "mp4/Walk_p02_r00_v02_c03.mp4"]


def test_a_video_has_one_clip_with_a_split_in_every_protocol(tmp_path: Path) -> None:
    cross_view = {
        "train_CV1.txt": "\ufeffWalk_p02_r00_v02_c01.mp4\r\n\r\nEnter_p03_r00_v01_c01 \r\n",
        "validation_CV1.txt": "Walk_p02_r00_v02_c05.mp4",
        "test_CV1.txt": "Walk_p02_r00_v02_c02.mp4",
        "train_CV2.txt": "Walk_p02_r00_v02_c03.mp4\nWalk_p02_r00_v02_c01.mp4\nWalk_p02_r00_v02_c01.mp4\n",
        "validation_CV2.txt": "Walk_p02_r00_v02_c05.mp4",
        "test_CV2.txt": "Walk_p02_r00_v02_c02.mp4",
    }
    preparation = prepare_files(tmp_path, CS | cross_view)
    dataset = preparation.dataset
    assert list(dataset.protocols) == ["CS", "CV1", "CV2", "CS-trainval"]
    assert dataset.clip("Walk_p02_r00_v02_c03").splits == {"CS": "test", "CV2": "train", "CS-trainval": "test"}
    assert dataset.clip("Walk_p02_r00_v02_c01").splits == {"CV1": "train", "CV2": "train"}
    assert len(dataset.select("CV2", "train")) == 2
    assert [clip.labels["action"] for clip in dataset.select("CV1", "train")] == [("Walk",), ("Enter",)]
    assert dataset.official_counts["CV1"] == {"train": 1877, "validation": 3539, "test": 1901}
    assert "videos that train_CV2.txt names again; each is one clip: 1" in preparation.notes
    assert "the lists of CV1 name 2 of the 31 classes" in preparation.notes


def test_a_protocol_that_is_there_in_part_is_left_out_and_said(tmp_path: Path) -> None:
    preparation = prepare_files(tmp_path, CS | {"test_CV2.txt": "Walk_p02_r00_v02_c02.mp4"})
    assert list(preparation.dataset.protocols) == ["CS", "CS-trainval"]
    assert "protocol CV2 is left out: no train_CV2.txt and no validation_CV2.txt" in preparation.notes
    assert "Walk_p02_r00_v02_c02" not in {clip.id for clip in preparation.dataset.clips}


def test_a_person_on_both_sides_is_noted(tmp_path: Path) -> None:
    preparation = prepare_files(tmp_path, CS | {"test_CS.txt": "Walk_p03_r00_v02_c03.mp4\n"})
    assert "CS: subject p03 in train and in test: not the official lists" in preparation.notes
    assert "CS-trainval: subject p03 in train and in test: not the official lists" in preparation.notes
    assert len([note for note in preparation.notes if "not the official lists" in note]) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "test_CS.txt",
            "Walk_p02_r00_v02_c03.mp4\nWalk_p02_c03.mp4",
            r"test_CS\.txt, line 2: 'Walk_p02_c03\.mp4' is not",
        ),
        ("test_CS.txt", "\nDance_p02_r00_v02_c03.mp4", "line 2: 'Dance' of Dance_p02_r00_v02_c03 is none of the 31"),
        ("test_CS.txt", "Walk_p02_r00_v02_c03.mp4 28", "line 1: .* is not a name like"),
        ("test_CS.txt", "Walk_p03_r01_v16_c06.mp4", r"test_CS\.txt, line 1: .* is in train_CS\.txt too"),
    ],
)
def test_a_line_that_is_not_understood_is_refused_with_its_place(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        prepare_files(tmp_path, CS | {name: text})


def test_without_a_whole_protocol_the_lists_and_their_source_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"train_CS\.txt, validation_CS\.txt, test_CS\.txt, from .*i3d_smarthome"):
        prepare_files(tmp_path, {"train_CS.txt": "Walk_p02_r00_v02_c03.mp4"})
