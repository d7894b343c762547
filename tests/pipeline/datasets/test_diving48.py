"""Diving48: two lists of trimmed dives and the tokens of their classes, real and made."""

import json
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cache.errors import ConfigError, ManifestError
from pipeline.datasets.benchmarks import prepare_benchmark
from pipeline.datasets.preparation import Preparation, describe
from pipeline.datasets.videos import VideoFolder

REAL = os.environ.get("DECONFOUND_TEST_DATA")
CLASSES = """
Back+15som+05Twis+FREE        backward take-off, 1.5 somersaults, 0.5 twist, free position
Back+15som+15Twis+FREE        backward take-off, 1.5 somersaults, 1.5 twists, free position
Back+15som+25Twis+FREE        backward take-off, 1.5 somersaults, 2.5 twists, free position
Back+15som+NoTwis+PIKE        backward take-off, 1.5 somersaults, no twist, pike position
Back+15som+NoTwis+TUCK        backward take-off, 1.5 somersaults, no twist, tuck position
Back+25som+15Twis+PIKE        backward take-off, 2.5 somersaults, 1.5 twists, pike position
Back+25som+25Twis+PIKE        backward take-off, 2.5 somersaults, 2.5 twists, pike position
Back+25som+NoTwis+PIKE        backward take-off, 2.5 somersaults, no twist, pike position
Back+25som+NoTwis+TUCK        backward take-off, 2.5 somersaults, no twist, tuck position
Back+2som+15Twis+FREE         backward take-off, 2 somersaults, 1.5 twists, free position
Back+2som+25Twis+FREE         backward take-off, 2 somersaults, 2.5 twists, free position
Back+35som+NoTwis+PIKE        backward take-off, 3.5 somersaults, no twist, pike position
Back+35som+NoTwis+TUCK        backward take-off, 3.5 somersaults, no twist, tuck position
Back+3som+NoTwis+PIKE         backward take-off, 3 somersaults, no twist, pike position
Back+3som+NoTwis+TUCK         backward take-off, 3 somersaults, no twist, tuck position
Back+Dive+NoTwis+PIKE         backward take-off, 0.5 somersault, no twist, pike position
Back+Dive+NoTwis+TUCK         backward take-off, 0.5 somersault, no twist, tuck position
Forward+15som+1Twis+FREE      forward take-off, 1.5 somersaults, 1 twist, free position
Forward+15som+2Twis+FREE      forward take-off, 1.5 somersaults, 2 twists, free position
Forward+15som+NoTwis+PIKE     forward take-off, 1.5 somersaults, no twist, pike position
Forward+1som+NoTwis+PIKE      forward take-off, 1 somersault, no twist, pike position
Forward+25som+1Twis+PIKE      forward take-off, 2.5 somersaults, 1 twist, pike position
Forward+25som+2Twis+PIKE      forward take-off, 2.5 somersaults, 2 twists, pike position
Forward+25som+3Twis+PIKE      forward take-off, 2.5 somersaults, 3 twists, pike position
Forward+25som+NoTwis+PIKE     forward take-off, 2.5 somersaults, no twist, pike position
Forward+25som+NoTwis+TUCK     forward take-off, 2.5 somersaults, no twist, tuck position
Forward+35som+NoTwis+PIKE     forward take-off, 3.5 somersaults, no twist, pike position
Forward+35som+NoTwis+TUCK     forward take-off, 3.5 somersaults, no twist, tuck position
Forward+45som+NoTwis+TUCK     forward take-off, 4.5 somersaults, no twist, tuck position
Forward+Dive+NoTwis+PIKE      forward take-off, 0.5 somersault, no twist, pike position
Forward+Dive+NoTwis+STR       forward take-off, 0.5 somersault, no twist, straight position
Inward+15som+NoTwis+PIKE      inward take-off, 1.5 somersaults, no twist, pike position
Inward+15som+NoTwis+TUCK      inward take-off, 1.5 somersaults, no twist, tuck position
Inward+25som+NoTwis+PIKE      inward take-off, 2.5 somersaults, no twist, pike position
Inward+25som+NoTwis+TUCK      inward take-off, 2.5 somersaults, no twist, tuck position
Inward+35som+NoTwis+TUCK      inward take-off, 3.5 somersaults, no twist, tuck position
Inward+Dive+NoTwis+PIKE       inward take-off, 0.5 somersault, no twist, pike position
Reverse+15som+05Twis+FREE     reverse take-off, 1.5 somersaults, 0.5 twist, free position
Reverse+15som+15Twis+FREE     reverse take-off, 1.5 somersaults, 1.5 twists, free position
Reverse+15som+25Twis+FREE     reverse take-off, 1.5 somersaults, 2.5 twists, free position
Reverse+15som+35Twis+FREE     reverse take-off, 1.5 somersaults, 3.5 twists, free position
Reverse+15som+NoTwis+PIKE     reverse take-off, 1.5 somersaults, no twist, pike position
Reverse+25som+15Twis+PIKE     reverse take-off, 2.5 somersaults, 1.5 twists, pike position
Reverse+25som+NoTwis+PIKE     reverse take-off, 2.5 somersaults, no twist, pike position
Reverse+25som+NoTwis+TUCK     reverse take-off, 2.5 somersaults, no twist, tuck position
Reverse+35som+NoTwis+TUCK     reverse take-off, 3.5 somersaults, no twist, tuck position
Reverse+Dive+NoTwis+PIKE      reverse take-off, 0.5 somersault, no twist, pike position
Reverse+Dive+NoTwis+TUCK      reverse take-off, 0.5 somersault, no twist, tuck position
"""
TEXTS = dict(line.split(maxsplit=1) for line in CLASSES.strip().splitlines())
VOCABULARY = [name.split("+") for name in TEXTS]
Entry = Mapping[str, Any]


def entry(name: str, label: object = 0, start: int = 0, end: int = 48) -> Entry:
    return {"vid_name": name, "label": label, "start_frame": start, "end_frame": end}


def write(
    folder: Path,
    train: object = (),
    test: object = (),
    *,
    version: str = "V2_",
    vocabulary: Sequence[Sequence[object]] = VOCABULARY,
) -> None:
    files = {f"Diving48_{version}train": train, f"Diving48_{version}test": test, "Diving48_vocab": vocabulary}
    (folder / "annotations").mkdir(exist_ok=True)
    for name, content in files.items():
        text = json.dumps(content, indent=1).replace("\n", "\r\n")
        (folder / "annotations" / f"{name}.json").write_bytes(b"\xef\xbb\xbf" + text.encode())


def prepare(folder: Path, version: str | None = None, prompt: str | None = None) -> Preparation:
    return prepare_benchmark("diving48", folder, VideoFolder(folder), version=version, prompt=prompt)


@pytest.mark.skipif(REAL is None, reason="DECONFOUND_TEST_DATA is not set")
def test_the_real_tokens_are_the_48_classes_and_real_entries_make_clips(tmp_path: Path) -> None:
    write(tmp_path, test=[entry("_8Vy3dlHg2w_00000", 47)])
    source = Path(REAL or "") / "annotations" / "diving48"
    for real, official in (
        ("Diving48_V2_excerpt_train.json", "Diving48_V2_train.json"),
        ("Diving48_vocab.from_label_map.json", "Diving48_vocab.json"),
    ):
        (tmp_path / "annotations" / official).unlink()
        shutil.copy(source / real, tmp_path / "annotations" / official)
    dataset = prepare(tmp_path).dataset
    assert dataset.task("action").class_names == tuple((source / "label_map.txt").read_text().split())
    assert [clip.id for clip in dataset.select("default", "train")] == ["-mmq0PT-u8k_00155", "-mmq0PT-u8k_00156"]


def test_every_class_has_its_tokens_as_name_and_a_text_to_read(tmp_path: Path) -> None:
    write(tmp_path)
    preparation = prepare(tmp_path)
    task = preparation.dataset.task("action")
    assert (task.kind, task.num_classes, preparation.notes) == ("single", 48, ())
    assert task.prompts == tuple(f"{text}, a video of diving action" for text in TEXTS.values())
    assert prepare(tmp_path, prompt="{}").dataset.task("action").prompts == tuple(TEXTS.values())


def test_integers_go_through_the_vocabulary_beside_them_whatever_its_order(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(VOCABULARY, len(VOCABULARY))
    write(tmp_path, [entry(f"abcdefghijk_{i:05d}", i) for i in range(48)], vocabulary=shuffled)
    clips = prepare(tmp_path).dataset.clips
    assert [clip.labels["action"][0].split("+") for clip in clips] == shuffled


def test_names_with_dashes_and_underscores_keep_their_youtube_id(tmp_path: Path) -> None:
    names = ["-mmq0PT-u8k_00155", "_8Vy3dlHg2w_00000", "9Hy_N5yK_B8_00003"]
    write(tmp_path, [entry(name) for name in names])
    clips = prepare(tmp_path).dataset.clips
    assert [clip.id for clip in clips] == names
    assert [clip.groups["video"] for clip in clips] == ["-mmq0PT-u8k", "_8Vy3dlHg2w", "9Hy_N5yK_B8"]


@pytest.mark.parametrize("layout", ["rgb", "videos", "Diving48/rgb", "."])
def test_videos_are_found_in_either_layout_and_stay_when_they_are_missing(tmp_path: Path, layout: str) -> None:
    write(tmp_path, [entry("-mmq0PT-u8k_00155")], [entry("-mmq0PT-u8k_00156")])
    (tmp_path / layout).mkdir(parents=True, exist_ok=True)
    (tmp_path / layout / "-mmq0PT-u8k_00155.mp4").touch()
    preparation = prepare(tmp_path)
    assert preparation.dataset.video_path(preparation.dataset.clips[0]).exists()
    assert describe(preparation, VideoFolder(tmp_path))["missing_videos"] == ["rgb/-mmq0PT-u8k_00156.mp4"]


def test_official_counts_stand_beside_version_2_alone(tmp_path: Path) -> None:
    write(tmp_path, [entry("-mmq0PT-u8k_00155", 1)])
    write(tmp_path, [entry("-mmq0PT-u8k_00155", 2)], version="")
    newer, older = prepare(tmp_path).dataset, prepare(tmp_path, "V1").dataset
    assert (newer.version, newer.official_counts) == ("V2", {"default": {"train": 15027, "test": 1970}})
    assert (older.version, older.official_counts) == ("V1", {})
    assert newer.clips[0].labels != older.clips[0].labels
    with pytest.raises(ConfigError, match="accepted: V2, V1"):
        prepare(tmp_path, "V3")


def test_entries_that_speak_of_a_part_are_counted_and_their_clips_are_whole(tmp_path: Path) -> None:
    write(tmp_path, [entry("abcdefghijk_1"), entry("abcdefghijk_2", start=5), entry("abcdefghijk_3", end=0)])
    preparation = prepare(tmp_path)
    assert [(clip.start_seconds, clip.end_seconds) for clip in preparation.dataset.clips] == [(None, None)] * 3
    assert preparation.notes[0].startswith("2 entries do not go from frame 0 to a later one")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry("abcdefghijk_00001", 48), r"entry \[1\] \(abcdefghijk_00001\): \"label\" is 48, not an integer from 0"),
        (entry("abcdefghijk_00001", -1), r"entry \[1\].*is -1"),
        (entry("abcdefghijk_00001", True), r"entry \[1\].*is True"),
        (entry("abcdefghijk_00001", "Back"), r"entry \[1\].*is 'Back'"),
        (entry("abcdefghijk"), r"entry \[1\]: \"vid_name\" is 'abcdefghijk'"),
        (entry("../x_00001"), r"entry \[1\]: \"vid_name\" is '../x_00001'"),
        ({"label": 0}, r"entry \[1\]: \"vid_name\" is None"),
        (["abcdefghijk_00001", 0], r"entry \[1\]: expected an object"),
        (entry("-mmq0PT-u8k_00155"), r"entry \[1\]: -mmq0PT-u8k_00155 was given before, in split train"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused_with_its_index(tmp_path: Path, bad: object, message: str) -> None:
    write(tmp_path, [entry("-mmq0PT-u8k_00155"), bad])
    with pytest.raises(ManifestError, match=message):
        prepare(tmp_path)


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (VOCABULARY[:-1], "lists 47 classes; Diving48 has 48"),
        ([*VOCABULARY, VOCABULARY[0]], r"entry \[48\]: class Back\+15som\+05Twis\+FREE is there twice"),
        ([["Back", "15som", "05Twis"]], r"entry \[0\]: expected tokens"),
        ([["Back", "55som", "05Twis", "FREE"]], r"entry \[0\]: '55som' is not one of Dive, 1som"),
        ([["Back", 15, "05Twis", "FREE"]], r"entry \[0\]: 15 is not one of"),
    ],
)
def test_another_vocabulary_is_refused(tmp_path: Path, vocabulary: list[list[object]], message: str) -> None:
    write(tmp_path, vocabulary=vocabulary)
    with pytest.raises(ManifestError, match=message):
        prepare(tmp_path)


def test_a_file_that_is_no_list_or_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, train={"-mmq0PT-u8k_00155": 0})
    with pytest.raises(ManifestError, match=r"Diving48_V2_train\.json: expected a list"):
        prepare(tmp_path)
    with pytest.raises(ManifestError, match=r"holds no Diving48_train\.json; it comes from www\.svcl"):
        prepare(tmp_path, "V1")
