import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cache.errors import FailureCode, ManifestError, VideoError
from cache.manifest import Dataset
from cache.validation.check import check_manifest
from cache.validation.findings import KINDS, Finding
from tests.toys import toy_dataset

Row = dict[str, Any]
TASK: Row = {"name": "action", "kind": "single", "class_names": ["tea", "egg"], "prompts": ["make tea", "cook an egg"]}
STEPS: Row = {"name": "steps", "kind": "multi", "class_names": ["take", "pour"], "prompts": ["take", "pour"]}
HEADER: Row = {
    "schema_version": 1,
    "name": "toy",
    "version": "1",
    "video_root": "videos",
    "tasks": [TASK],
    "protocols": {"default": ["train", "test"]},
}


def clip(name: str, split: str = "train", label: str | None = "tea", **others: Any) -> Row:  # noqa: ANN401
    labels = {} if label is None else {"action": [label]}
    return {"id": name, "video": f"{name}.mp4", "splits": {"default": split}, "labels": labels} | others


def write(folder: Path, rows: Sequence[Row | bytes], **header: Any) -> Path:  # noqa: ANN401
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(HEADER | header))
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (folder / "clips.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return folder


def findings(folder: Path, rows: Sequence[Row | bytes], **header: Any) -> dict[str, Finding]:  # noqa: ANN401
    return {finding.code: finding for finding in check_manifest(write(folder, rows, **header)).findings}


def told(finding: Finding) -> list[tuple[tuple[int, ...], str]]:
    return [(example.lines, example.text) for example in finding.examples]


SOUND = [clip("a"), clip("b", label="egg"), clip("c", "test"), clip("d", "test", "egg")]


def test_nothing_is_found_in_a_sound_dataset(tmp_path: Path) -> None:
    report = check_manifest(write(tmp_path, SOUND))
    assert report.findings == ()
    assert (report.dataset, report.num_clips, report.num_videos, report.has_errors) == ("toy", 4, 4, False)


def test_a_written_dataset_has_no_errors(tmp_path: Path) -> None:
    toy_dataset().write(tmp_path)
    assert not check_manifest(tmp_path).has_errors


def test_every_fault_is_found_not_only_the_first(tmp_path: Path) -> None:
    found = findings(
        tmp_path,
        [
            *SOUND,
            b"{",
            {"id": "e", "video": "../e.mp4", "start_seconds": "3", "fps": 3, "labels": ["tea"]},
            clip("f", "dev", "soup", start_seconds=5, end_seconds=4),
            clip("g", splits={"fold1": "train"}, labels={"colour": ["red"], "action": ["tea", "egg"]}),
            {"video": "h.mp4"},
            clip(""),
            b'{"id": "\xff", "video": "i.mp4"}',
            clip("j", label="egg", end_seconds=float("nan")),
        ],
    )
    assert {code: [line for lines, _ in told(finding) for line in lines] for code, finding in found.items()} == {
        "broken_line": [5, 6, 6, 9, 11],
        "bad_id": [10],
        "bad_video_path": [6],
        "bad_times": [6, 7, 12],
        "unknown_task": [8],
        "unknown_label": [7],
        "label_count": [8],
        "unknown_protocol": [8],
        "unknown_split": [7],
    }
    assert [text for lines, text in told(found["broken_line"]) if lines == (6,)] == [
        "key 'fps' is not known",
        'labels: expected an object like {...}, got ["tea"]',
    ]
    assert told(found["bad_times"])[0] == ((6,), "start_seconds: must be real number, not str")


def test_the_first_ten_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    found = findings(tmp_path, [*SOUND, *[clip(str(number), label="soup") for number in range(25)]])
    unknown = found["unknown_label"]
    assert (unknown.count, unknown.num_examples, len(unknown.examples)) == (25, 25, 10)
    assert told(unknown)[9] == ((14,), "'9': 'soup' in task 'action'")


def test_each_video_is_looked_at_once_and_told_by_its_cause(tmp_path: Path) -> None:
    asked: list[Path] = []

    def check_video(path: Path, root: Path) -> None:
        asked.append(path)
        assert root == tmp_path / "videos"
        if path.name == "gone.mp4":
            raise VideoError(FailureCode.MISSING, "no such file")
        if path.name == "b.mp4":
            raise VideoError(FailureCode.OUTSIDE_ROOT, "leads away")

    (tmp_path / "videos").mkdir()
    rows = [*SOUND, clip("x", video="gone.mp4", end_seconds=1), clip("y", video="gone.mp4", start_seconds=1)]
    report = check_manifest(write(tmp_path, rows), check_video=check_video)
    assert sorted(path.name for path in asked) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "gone.mp4"]
    assert {finding.code: told(finding) for finding in report.findings} == {
        "video_missing": [((5, 6), "'gone.mp4' no such file")],
        "video_outside_root": [((2,), "'b.mp4' leads away")],
    }
    assert not report.has_errors


def test_a_videos_folder_that_is_not_there_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_path: Path, _root: Path) -> None:
        raise AssertionError

    folder = write(tmp_path, SOUND)
    monkeypatch.setenv("DECONFOUND_VIDEOS", str(tmp_path / "variable"))
    for videos, expected in ((None, "variable"), (tmp_path / "given", "given")):
        (finding,) = check_manifest(folder, videos=videos, check_video=never).findings
        assert (finding.code, told(finding)) == ("no_video_root", [((), str(tmp_path / expected))])


def test_a_header_with_faults_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    bad = [
        TASK | {"kind": "both", "name": "broken"},
        {"name": "half", "kind": "multi"},
        TASK,
        TASK,
        STEPS | {"class_names": ["take", 3]},
        "x",
    ]
    found = findings(tmp_path, [*SOUND, clip("e", labels={"broken": ["?"], "colour": []})], tasks=bad, protocols=[])
    assert [text for _, text in told(found["bad_task"])] == [
        "task 'broken': kind is 'both'; accepted: 'single', 'multi'",
        "key 'class_names' is missing",
        "class_names of task 'steps': expected a list of texts, got [\"take\", 3]",
        'a task: expected an object like {...}, got "x"',
        "task 'action' is given twice",
    ]
    assert [text for _, text in told(found["bad_header"])] == ["protocols: expected an object like {...}, got []"]
    assert [lines for lines, _ in told(found["unknown_task"])] == [(5,)]


def test_missing_keys_and_clips_are_errors_but_end_nothing(tmp_path: Path) -> None:
    write(tmp_path, [])
    (tmp_path / "dataset.json").write_text('{"schema_version": 1, "video_root": 3}')
    (tmp_path / "clips.jsonl").unlink()
    report = check_manifest(tmp_path)
    assert {finding.code: finding.count for finding in report.findings} == {"bad_header": 5, "no_clips": 1}


def test_a_header_that_cannot_be_read_ends_it(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="deconfound prepare"):
        check_manifest(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "e", "video": "e.mp4", "labels": {"action": ["tea"]}, "labels": {}}', "the key 'labels' twice"),
        (b"[" * 100_000, "recursion"),
        (b'{"id": "e", "video": "e.mp4", "end_seconds": ' + b"1" * 5000 + b"}", "digits"),
    ],
)
def test_a_line_that_no_reader_takes_is_told_and_the_others_are_read(tmp_path: Path, line: bytes, message: str) -> None:
    found = findings(tmp_path, [*SOUND, line])
    assert set(found) == {"broken_line"}
    ((lines, text),) = told(found["broken_line"])
    assert lines == (5,)
    assert message in text
    with pytest.raises(ManifestError, match=rf"clips\.jsonl, line 5: .*{message}"):
        Dataset.read(tmp_path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('{"schema_version": 1, "name": "a", "name": "b"}', "the key 'name' twice"),
        ("[" * 100_000, "recursion"),
        ('{"schema_version": ' + "1" * 5000 + "}", "digits"),
    ],
)
def test_a_header_that_no_reader_takes_is_refused(tmp_path: Path, header: str, message: str) -> None:
    write(tmp_path, SOUND)
    (tmp_path / "dataset.json").write_text(header)
    for read in (check_manifest, Dataset.read):
        with pytest.raises(ManifestError, match=rf"dataset\.json is not utf-8 JSON: .*{message}"):
            read(tmp_path)


def change(key: str, value: object) -> Callable[[list[Row], Row], None]:
    return lambda rows, _header: rows[2].update({key: value})


def change_header(key: str, value: object) -> Callable[[list[Row], Row], None]:
    return lambda _rows, header: header.update({key: value})


CHANGES: Mapping[str, Callable[[list[Row], Row], None]] = {
    "nothing": change("groups", {"subject": "P1"}),
    "no id": lambda rows, _header: rows[2].pop("id") and None,
    "id 3": change("id", 3),
    "id NUL": change("id", "a\0"),
    "the same id": change("id", "a"),
    "no video": lambda rows, _header: rows[2].pop("video") and None,
    "absolute": change("video", "/etc/passwd"),
    "drive": change("video", "C:/a.mp4"),
    "backslash": change("video", "a\\b.mp4"),
    "null video": change("video", None),
    "null times": change("start_seconds", None),
    "negative": change("start_seconds", -1),
    "infinite": change("end_seconds", float("inf")),
    "text time": change("end_seconds", "4"),
    "split 3": change("splits", {"default": 3}),
    "splits list": change("splits", []),
    "no splits": change("splits", {}),
    "other split": change("splits", {"default": "dev"}),
    "no labels": change("labels", {}),
    "no label": change("labels", {"action": []}),
    "two labels": change("labels", {"action": ["tea", "egg"]}),
    "label text": change("labels", {"action": "tea"}),
    "none of many": change("labels", {"steps": []}),
    "twice": change("labels", {"steps": ["take", "take"]}),
    "unknown": change("labels", {"steps": ["stir"]}),
    "group 3": change("groups", {"subject": 3}),
    "null groups": change("groups", None),
    "unknown key": change("fps", 25),
    "no tasks": change_header("tasks", []),
    "tasks object": change_header("tasks", {}),
    "task twice": change_header("tasks", [TASK, STEPS, TASK]),
    "prompts": change_header("tasks", [TASK | {"prompts": ["one"]}, STEPS]),
    "class twice": change_header("tasks", [TASK | {"class_names": ["tea", "tea"]}, STEPS]),
    "split text": change_header("protocols", {"default": "train"}),
    "version 3": change_header("version", 3),
    "null root": change_header("video_root", None),
    "no name": lambda _rows, header: header.pop("name") and None,
    "counts": change_header("official_counts", {"default": {"train": -1}}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_there_is_an_error_exactly_where_reading_fails(tmp_path: Path, name: str) -> None:
    rows, header = json.loads(json.dumps([SOUND, HEADER | {"tasks": [TASK, STEPS]}]))
    CHANGES[name](rows, header)
    write(tmp_path, rows)
    (tmp_path / "dataset.json").write_text(json.dumps(header))
    try:
        Dataset.read(tmp_path)
        refused = False
    except ManifestError:
        refused = True
    assert check_manifest(tmp_path).has_errors == refused


def test_an_unknown_kind_of_finding_is_a_bug() -> None:
    from cache.validation.findings import Findings

    with pytest.raises(AssertionError):
        Findings().add("typo", "x")
    assert all(f"video_{code}" in KINDS for code in ("missing", "permission", "loop", "not_a_file", "empty", "corrupt"))
