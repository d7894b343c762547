import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cache.errors import ManifestError
from cache.manifest import Clip
from pipeline.datasets.own.class_list import ClassList
from pipeline.datasets.own.clips import Wishes
from pipeline.datasets.own.tables import prepare_table
from pipeline.datasets.preparation import Preparation
from pipeline.datasets.videos import VideoFolder

ROWS: list[dict[str, Any]] = [
    {"id": "-x1", "video": "a/1.mp4", "label": "pour, slowly", "split": "train", "person": "P1"},
    {"id": "x2", "video": "a/2.mp4", "start": 0.5, "end": 3, "label": "stir", "split": "Training", "person": "P2"},
    {"id": "é3", "video": "a/2.mp4", "start": 3, "label": "stir", "split": "val", "person": None},
    {"id": "x4", "video": "b/1.mp4", "label": None, "split": "testing", "person": "P3"},
]


def read(
    path: Path,
    text: str,
    *,
    classes: ClassList | None = None,
    multi_label: bool = False,
    groups: Sequence[str] = (),
) -> Preparation:
    path.write_bytes(text.encode())
    wishes = Wishes(classes=classes, multi_label=multi_label, name="own")
    return prepare_table(path, VideoFolder(path.parent), wishes, groups=groups)


def as_csv(rows: Sequence[Mapping[str, Any]], end: str = "\n") -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [",".join(keys)]
    for row in rows:
        cells = ["" if row.get(key) is None else str(row[key]) for key in keys]
        lines.append(",".join(f'"{cell}"' if "," in cell else cell for cell in cells))
    return end.join([*lines, ""])


def as_jsonl(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_a_csv_and_jsonl_with_the_same_rows_are_the_same_dataset(tmp_path: Path) -> None:
    expected = (
        Clip(
            id="-x1",
            video="a/1.mp4",
            splits={"default": "train"},
            labels={"action": ("pour, slowly",)},
            groups={"person": "P1"},
        ),
        Clip(
            id="x2",
            video="a/2.mp4",
            start_seconds=0.5,
            end_seconds=3.0,
            splits={"default": "train"},
            labels={"action": ("stir",)},
            groups={"person": "P2"},
        ),
        Clip(
            id="é3",
            video="a/2.mp4",
            start_seconds=3.0,
            splits={"default": "validation"},
            labels={"action": ("stir",)},
        ),
        Clip(id="x4", video="b/1.mp4", splits={"default": "test"}, groups={"person": "P3"}),
    )
    for name, text in {
        "plain.csv": as_csv(ROWS),
        "excel.csv": "\ufeff" + as_csv(ROWS, end="\r\n") + ",,,,,,\r\n",
        "rows.jsonl": as_jsonl(ROWS),
        "windows.jsonl": "\ufeff" + as_jsonl(ROWS).replace("\n", "\r\n\r\n"),
    }.items():
        preparation = read(tmp_path / name, text, groups=["person"])
        assert preparation.dataset.clips == expected, name
        assert preparation.dataset.protocols == {"default": ("train", "validation", "test")}
        assert preparation.dataset.task("action").class_names == ("pour, slowly", "stir")
        assert preparation.notes == ("no clip of split test has a label",)


def test_several_labels_and_none_of_the_classes(tmp_path: Path) -> None:
    text = "video,label,split\n1.mp4,pour; stir,train\n2.mp4,pour|cut,train\n3.mp4,;,train\n4.mp4,,train\n"
    rows: list[dict[str, Any]] = [
        {"video": "1.mp4", "label": ["pour", "stir"], "split": "train"},
        {"video": "2.mp4", "label": "pour|cut", "split": "train"},
        {"video": "3.mp4", "label": [], "split": "train"},
        {"video": "4.mp4", "split": "train"},
    ]
    for name, content in {"a.csv": text, "a.jsonl": as_jsonl(rows)}.items():
        dataset = read(tmp_path / name, content, multi_label=True).dataset
        assert [clip.labels.get("action") for clip in dataset.clips] == [("pour", "stir"), ("pour", "cut"), (), None]
        assert dataset.task("action").kind == "multi"


def test_pieces_without_ids_are_named_by_video_and_times(tmp_path: Path) -> None:
    times = [",", "0,2.5", "2.5,", ",9", "1000.0001,1e6", "1000.0002,1e6"]
    text = "path,class,subset,start,end\n" + "".join(f"a.mp4,x,train,{pair}\n" for pair in times)
    dataset = read(tmp_path / "a.csv", text).dataset
    spans = ["", " 0-2.5", " 2.5-", " -9", " 1000.0001-1000000", " 1000.0002-1000000"]
    assert [clip.id for clip in dataset.clips] == [f"a.mp4{span}" for span in spans]


def test_numbers_are_looked_up_in_the_list_of_classes(tmp_path: Path) -> None:
    classes = ClassList(tmp_path / "classes", {0: "pour", 7: "stir"})
    rows: list[dict[str, Any]] = [
        {"video": "1.mp4", "label": 7, "split": "train"},
        {"video": "2.mp4", "label": "0", "split": "train"},
    ]
    dataset = read(tmp_path / "a.jsonl", as_jsonl(rows), classes=classes).dataset
    assert [clip.labels["action"] for clip in dataset.clips] == [("stir",), ("pour",)]
    with pytest.raises(ManifestError, match="line 1: label 7 is a number"):
        read(tmp_path / "a.jsonl", as_jsonl(rows))


def test_what_is_left_aside_is_said(tmp_path: Path) -> None:
    notes = read(
        tmp_path / "a.csv", "video,label,split,fps,who\n1.mp4,x,train,9,me\n2.mp4,x,dev,9,me\n3.mp4,x,,,\n"
    ).notes
    assert notes == (
        "clips in no split: 1; features are extracted, nothing is trained or tested on them",
        "split 'dev' is none of train, validation, test; it is kept under its own name",
        "not used: fps, who (--group NAME keeps a column as groups of clips)",
    )


def test_a_table_without_training_has_the_classes_that_it_shows(tmp_path: Path) -> None:
    dataset = read(tmp_path / "a.csv", "video,label,split\n1.mp4,y,test\n2.mp4,x,test\n").dataset
    assert dataset.task("action").class_names == ("x", "y")
    assert dataset.protocols == {"default": ("test",)}


def test_a_label_in_a_list_may_hold_a_divider(tmp_path: Path) -> None:
    row: dict[str, Any] = {"video": "1.mp4", "label": ["pour;stir"], "split": "train"}
    assert read(tmp_path / "a.jsonl", as_jsonl([row])).dataset.task("action").class_names == ("pour;stir",)


def test_a_line_separator_of_unicode_does_not_end_a_line_of_json(tmp_path: Path) -> None:
    row: dict[str, Any] = {"video": "1.mp4", "label": "x\u2028y", "split": "train"}
    assert read(tmp_path / "a.jsonl", as_jsonl([row])).dataset.task("action").class_names == ("x\u2028y",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,label\n1.mp4,x\n", "no column split; there are: video, label"),
        ("video;label;split\n1.mp4;x;train\n", "no column video, label, split.*separated by commas"),
        ("path,file,label,split\n1,2,x,train\n", "which of path, file is the video"),
        ("video,label,split\n", "holds no clips"),
        ("video,label,split\n1.mp4,a,b,train\n", "line 2: 4 cells"),
        ("video,label,split\n,x,train\n", "line 2: no video"),
        ("video,label,split\n../1.mp4,x,train\n", "line 2: .*without '..'"),
        ("video,label,split,start\n1.mp4,x,train,soon\n", "line 2: start is 'soon', not a number"),
        ("video,label,split,start,end\n1.mp4,x,train,3,2\n", "line 2: .*do not make a piece"),
        ("video,label,split\n1.mp4,x,train\n\n./1.mp4,x,test\n", "line 4: '1.mp4', as in line 2"),
        ("video,label,split,id\n1.mp4,x,train,e\u0301\n2.mp4,x,test,\u00e9\n", "clips given before: 1;"),
        ("video,label,split\n1.mp4,,train\n2.mp4,x,test\n", "no clip of the training split has a label"),
        ("video,label,split\n1.mp4,;x\n", "line 2: 2 cells"),
        ("video,label,split\n1.mp4,pour;stir,train\n", "line 2: label is 'pour;stir'.*--multi-label"),
        ("video,label,split\n1.mp4,pour|stir,train\n", "line 2: label is .*--multi-label"),
    ],
)
def test_a_csv_that_cannot_be_read_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read(tmp_path / "a.csv", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"video": "1.mp4", "label": "x"}', "no key split; there are: video, label"),
        ('{"video": "1.mp4", "label": "x", "split": "train"}\n{', "line 2: not JSON"),
        ("[1]", r"line 1: expected an object like {...}, got \[1\]"),
        ("[" * 100_000, "line 1: not JSON"),
        ('{"video": ["1.mp4"], "label": "x", "split": "train"}', r'line 1: video is \["1.mp4"\], not a text'),
        ('{"video": "1.mp4", "label": ["x", "y"], "split": "train"}', "line 1: 2 labels.*--multi-label"),
        ('{"video": "1.mp4", "label": [true], "split": "train"}', "line 1: label is true, not a text"),
        ('{"video": "1.mp4", "label": "x", "split": "train", "label": "y"}', "line 1: .*the key 'label' twice"),
        ('{"video": "1.mp4", "label": ' + "1" * 5000 + "}", "line 1: not JSON: .*digits"),
        ('{"video": "1.mp4", "label": "x;y", "split": "train"}', "line 1: label is 'x;y'.*--multi-label"),
        ('{"label": "x", "split": "train"}\n{"video": "1.mp4"}', "line 1: no video"),
        ('{"video": "1.mp4", "label": "x", "split": "train", "end": "NaN"}', "line 1: end is 'NaN', not a finite"),
    ],
)
def test_jsonl_that_cannot_be_read_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read(tmp_path / "a.jsonl", text)


def test_a_group_that_is_no_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no column camera; there are: video, label, split, person"):
        read(tmp_path / "a.csv", "video,label,split,person\n1.mp4,x,train,P1\n", groups=["person", "camera"])
