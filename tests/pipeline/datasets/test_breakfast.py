import json
import os
import re
import shutil
from pathlib import Path

import pytest

from cache.errors import ManifestError
from pipeline.datasets.annotations import AnnotationFolder
from pipeline.datasets.breakfast import BENCHMARK, OFFICIAL
from pipeline.datasets.breakfast_names import ATOMIC, KNOWN_BROKEN, TEST_PERSONS
from pipeline.datasets.preparation import Preparation, Request
from pipeline.datasets.videos import VideoFolder

COARSE = "1-30 SIL  \n31-150 take_bowl  \n151-428 pour_cereals  \n429-836 SIL"


def put(root: Path, files: dict[str, str]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8", newline="")
    return root


def prepare(annotations: Path, videos: Path) -> Preparation:
    videos.mkdir(exist_ok=True)
    return BENCHMARK.prepare(
        Request(annotations=AnnotationFolder(annotations), videos=VideoFolder(videos), prompt="{}")
    )


def prepare_files(tmp_path: Path, files: dict[str, str], videos: dict[str, str] | None = None) -> Preparation:
    return prepare(put(tmp_path / "annotations", files), put(tmp_path / "videos", videos or {}))


def atomic(preparation: Preparation) -> dict[str, tuple[str, ...] | None]:
    return {clip.id: clip.labels.get("atomic") for clip in preparation.dataset.clips}


def notes(preparation: Preparation) -> str:
    return "\n".join(preparation.notes)


@pytest.fixture(name="excerpts")
def real_excerpts() -> Path:
    folder = Path(os.environ.get("DECONFOUND_TEST_DATA", "")) / "annotations" / "breakfast"
    if not folder.is_dir():
        pytest.skip("DECONFOUND_TEST_DATA names no folder with annotations/breakfast/")
    return folder


def test_the_real_names_make_the_official_splits(excerpts: Path, tmp_path: Path) -> None:
    dataset = prepare(excerpts, tmp_path).dataset
    counts = {
        protocol: {split: len(dataset.select(protocol, split)) for split in splits}
        for protocol, splits in dataset.protocols.items()
    }
    assert counts == OFFICIAL == dataset.official_counts
    assert counts["default"] == {"train": 1357, "test": 355}
    assert len(dataset.clips) == 1712
    assert len({clip.groups["trial"] for clip in dataset.clips}) == 503
    assert sum(clip.groups["camera"] == "stereo01" for clip in dataset.clips) == 304


def test_real_bundles_and_the_real_json_name_the_same_clips(excerpts: Path, tmp_path: Path) -> None:
    both = {}
    for kind in ("bundle", "json"):
        annotations = tmp_path / kind
        annotations.mkdir()
        for path in excerpts.glob(f"*.{kind}"):
            shutil.copy(path, annotations)
        both[kind] = prepare(annotations, tmp_path / "videos")
        assert "another split" not in notes(both[kind])
    assert both["bundle"].dataset.clips == both["json"].dataset.clips
    for split, number in (("train", 1460), ("test", 252)):
        text = (excerpts / f"{split}.split1.bundle").read_text()
        listed = re.findall(r"/([^/]+)\.txt", text)
        assert len(listed) == number
        assert {clip.id for clip in both["bundle"].dataset.select("split1", split)} == set(listed)


def test_real_coarse_files_label_their_clips_and_no_other(excerpts: Path, tmp_path: Path) -> None:
    preparation = prepare(excerpts, tmp_path)
    labelled = {name: labels for name, labels in atomic(preparation).items() if labels is not None}
    assert labelled == {
        "P03_cam01_P03_cereals": ("SIL", "pour_cereals", "pour_milk", "stir_cereals", "take_bowl"),
        "P54_webcam02_P54_milk": ("SIL", "pour_milk", "spoon_powder"),
    }
    assert "1710 of 1712 clips have no coarse labels" in notes(preparation)


def test_the_table_of_atomic_actions_is_the_published_one(excerpts: Path, tmp_path: Path) -> None:
    published = [line.split()[1] for line in (excerpts / "mapping_48.txt").read_text().splitlines()]
    assert list(ATOMIC) == published
    dataset = prepare(excerpts, tmp_path).dataset
    for name, number in (("activity", 10), ("atomic", 48)):
        prompts = dataset.task(name).prompts
        assert len(set(prompts)) == number
        assert all(re.fullmatch(r"[a-z& ]+", prompt) for prompt in prompts), prompts


def test_every_clip_known_to_be_broken_is_a_clip(excerpts: Path, tmp_path: Path) -> None:
    preparation = prepare(excerpts, tmp_path)
    assert set(KNOWN_BROKEN) <= set(atomic(preparation))
    assert preparation.known_broken == KNOWN_BROKEN


def test_every_person_tests_in_exactly_one_official_fold() -> None:
    folds = [set(TEST_PERSONS[f"split{number}"]) for number in (1, 2, 3, 4)]
    assert set.union(*folds) == set(range(3, 55))
    assert sum(map(len, folds)) == 52


def test_all_spellings_of_a_stereo_video_are_one_clip(tmp_path: Path) -> None:
    preparation = prepare_files(
        tmp_path,
        {
            "segmentation_coarse/milk/P27_stereo01_P27_milk.txt": "1-47 SIL\n48-215 pour_milk",
            "P27/stereo/P27_milk_ch0.avi.labels": "1-47 SIL\n48-215 pour_milk",
            "groundTruth/P27_stereo01_P27_milk.txt": "SIL\npour_milk\n",
            "train.json": json.dumps({"P27-stereo-P27_milk_ch0": {"class_label": 3}}),
            "splits/test.split2.bundle": "#bundle\n./data/groundTruth/P27_stereo01_P27_milk.txt\n",
            "splits/train.split1.bundle": "P27_stereo01_P27_milk\n",
        },
        {"BreakfastII_15fps_qvga_sync/P27/stereo/P27_milk_ch0.avi": ""},
    )
    (clip,) = preparation.dataset.clips
    assert (clip.id, clip.video) == (
        "P27_stereo01_P27_milk",
        "BreakfastII_15fps_qvga_sync/P27/stereo/P27_milk_ch0.avi",
    )
    assert clip.labels == {"activity": ("milk",), "atomic": ("SIL", "pour_milk")}
    assert clip.groups == {"subject": "P27", "camera": "stereo01", "trial": "P27_milk"}
    assert preparation.notes == ()


@pytest.mark.parametrize(
    "video", ["a/P05/webcam01/P05_tea.mp4", "P05_webcam01_P05_tea.avi", "b/P05-webcam01-P05_tea.mkv"]
)
def test_a_video_is_found_in_every_layout(tmp_path: Path, video: str) -> None:
    files = {"P05_webcam01_P05_tea.txt": "1-2 SIL", "P05_webcam02_P05_tea.txt": "1-2 SIL"}
    clips = prepare_files(tmp_path, files, {video: ""}).dataset.clips
    assert [clip.video for clip in clips] == [video, "P05/webcam02/P05_tea.avi"]


def test_labels_are_read_with_bom_crlf_and_blanks_and_one_a_frame(tmp_path: Path) -> None:
    preparation = prepare_files(
        tmp_path,
        {
            "coarse/P03_cam01_P03_cereals.txt": "\ufeff" + COARSE.replace("\n", "\r\n") + "\r\n\r\n",
            "groundTruth/P04_cam01_P04_cereals.txt": "SIL\nSIL\npour_cereals\ntake_bowl\nSIL\n",
        },
    )
    assert list(atomic(preparation).values()) == [("SIL", "pour_cereals", "take_bowl")] * 2


def test_sidecars_beside_the_videos_are_enough(tmp_path: Path) -> None:
    preparation = prepare_files(
        tmp_path,
        {},
        {
            "P47/cam01/P47_juice.avi": "",
            "P47/cam01/P47_juice.avi.labels": "1-9 cut_orange",
            "P48/stereo/P48_juice_ch0.mp4": "",
            "P48/stereo/P48_juice_ch0.txt": "1-9 pour_juice",
            "P48/stereo/P48_juice_ch1.mp4": "",
            "P48/stereo/P48_juice_ch1.avi.labels": "1-9 pour_juice",
        },
    )
    assert atomic(preparation) == {
        "P47_cam01_P47_juice": ("cut_orange",),
        "P48_stereo01_P48_juice": ("pour_juice",),
    }
    assert preparation.notes == (
        "second channels of stereo videos, set aside; the benchmark has the first: 1 (P48_stereo02_P48_juice)",
    )


def test_clips_that_are_only_listed_have_an_activity_and_no_atomic_actions(tmp_path: Path) -> None:
    preparation = prepare_files(tmp_path, {"val.json": '{"P50-cam02-P50_friedegg": {}}'})
    (clip,) = preparation.dataset.clips
    assert clip.labels == {"activity": ("friedegg",)}
    assert "no clip has coarse labels, so no atomic actions; they come from segmentation_coarse.tar.gz" in notes(
        preparation
    )


def test_fine_labels_hidden_files_and_other_texts_are_not_read(tmp_path: Path) -> None:
    preparation = prepare_files(
        tmp_path,
        {
            "segmentation_coarse/cereals/P03_cam01_P03_cereals.txt": COARSE,
            "segmentation_coarse/cereals/P03_cam01_P03_cereals.xml": "<xml>",
            "segmentation_coarse/cereals/._P03_cam02_P03_cereals.txt": "\0\0",
            "segmentation_fine/cereals/P03_cam01_P03_cereals.txt": "1-9 reach_cupboard",
            "mapping.txt": "0 SIL",
            "P03_cam01_P04_tea.txt": "1-9 SIL",
        },
    )
    assert list(atomic(preparation)) == ["P03_cam01_P03_cereals"]
    assert preparation.notes == (
        "files named almost as labels are, but not for a video of Breakfast; not read: 1 (P03_cam01_P04_tea.txt)",
    )


def test_what_is_odd_in_labels_is_noted(tmp_path: Path) -> None:
    preparation = prepare_files(
        tmp_path,
        {
            "segmentation_coarse/tea/P03_cam01_P03_tea.txt": "1-9 walk_in\n10-5 stir_tea\n10-20 walk_out",
            "groundTruth/P03_cam01_P03_tea.txt": "SIL\npour_water\n",
        },
    )
    assert atomic(preparation) == {"P03_cam01_P03_tea": ("SIL", "stir_tea")}
    assert [note.split(";")[0] for note in preparation.notes] == [
        "clips that two files label differently",
        "clips with segments that end before they start",
        "clips with walk_in or walk_out, which the paper does not have",
    ]


def test_persons_decide_the_split_whatever_a_list_says(tmp_path: Path) -> None:
    preparation = prepare_files(
        tmp_path,
        {
            "train.json": '{"P47-cam01-P47_tea": {}, "P46-cam01-P46_tea": {}}',
            "test.split4.bundle": "#bundle\n./data/groundTruth/P47_cam01_P47_tea.txt\n",
        },
    )
    (clip,) = preparation.dataset.select("default", "test")
    assert clip.id == "P47_cam01_P47_tea"
    assert "than their person; the person decides: 1 (P47_cam01_P47_tea)" in notes(preparation)
    assert "the bundles of split4 name 1 of the 2 clips" in notes(preparation)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("P03_cam01_P03_tea.txt", "1-9 SIL\n10-12 fry_tofu\n", r"P03_tea\.txt, line 2: '10-12 fry_tofu' is neither"),
        ("P03_cam01_P03_tea.txt", "1-9 SIL\n\n10- SIL\n", "line 3: '10- SIL' is neither"),
        ("P03_cam01_P03_tea.txt", "1-9 SIL pour_water\n", "line 1"),
        ("groundTruth/P03_cam01_P03_tea.txt", "SIL\nsil\n", "line 2: 'sil'"),
        ("P03_cam01_P03_tea.txt", "\n", "no label in the whole file"),
        ("train.split1.bundle", "#bundle\nrgb-01-1.txt\n", r"bundle, line 2: 'rgb-01-1\.txt' is no video of Breakfast"),
        ("train.split1.bundle", "P55_cam01_P55_tea.txt\n", "line 1"),
        ("train.json", '{"P03-cam01-P03_tea": {}, "video7": {}}', r"train\.json: key 'video7' is no video"),
        ("val.json", "[]", "is a JSON list"),
        ("readme.txt", "", "name a video of Breakfast; needed is segmentation_coarse"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        prepare_files(tmp_path, {name: text})


def test_annotations_that_are_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is not a folder"):
        prepare(tmp_path / "nowhere", tmp_path)
