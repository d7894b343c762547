import random
from pathlib import Path

import pytest

from tests.cache.validation.test_check import SOUND, STEPS, TASK, Row, clip, findings, told


def test_ids_are_compared_in_one_unicode_form(tmp_path: Path) -> None:
    found = findings(tmp_path, [*SOUND, clip("\u00e9"), clip("e\u0301", video="2.mp4"), clip("a", video="3.mp4")])
    assert [lines for lines, _ in told(found["duplicate_id"])] == [(6,), (7,)]
    assert "another Unicode form" in told(found["duplicate_id"])[0][1]
    assert told(found["duplicate_id"])[1][1] == "'a' was given in line 1"


@pytest.mark.parametrize(
    ("train", "test", "code"),
    [
        ((None, None), (None, None), "train_overlap"),
        ((None, None), (3.0, 4.0), "train_overlap"),
        ((0.0, 3.0), (2.9, 4.0), "train_overlap"),
        ((5.0, None), (None, 5.5), "train_overlap"),
        ((0.0, 3.0), (3.0, 4.0), "shared_video"),
        ((3.0, None), (None, 3.0), "shared_video"),
    ],
)
def test_the_same_seconds_in_train_and_test_are_an_error_other_seconds_a_warning(
    tmp_path: Path, train: tuple[float | None, float | None], test: tuple[float | None, float | None], code: str
) -> None:
    pieces = [
        clip(name, split, video=path, start_seconds=span[0], end_seconds=span[1])
        for name, split, path, span in (("x", "train", "one.mp4", train), ("y", "test", "./one.mp4", test))
    ]
    found = findings(tmp_path, [*SOUND, *pieces])
    assert set(found) == {code}
    assert found[code].severity == {"train_overlap": "error", "shared_video": "warning"}[code]
    assert told(found[code])[0][0] == {"train_overlap": (6,), "shared_video": (5, 6)}[code]


def test_overlaps_equal_those_of_all_pairs(tmp_path: Path) -> None:
    generator = random.Random(0)
    for _ in range(30):
        rows = []
        for number in range(8):
            start = generator.randrange(0, 100)
            times: Row = {"start_seconds": start, "end_seconds": start + generator.choice([1, 2, 40])}
            rows.append(clip(str(number), generator.choice(["train", "test"]), video="v.mp4", **times))
        expected = [
            line
            for line, row in enumerate(rows, start=1)
            if row["splits"]["default"] == "test"
            and any(
                other["splits"]["default"] == "train"
                and max(row["start_seconds"], other["start_seconds"]) < min(row["end_seconds"], other["end_seconds"])
                for other in rows
            )
        ]
        found = findings(tmp_path, rows).get("train_overlap")
        count = 0 if found is None else found.count
        assert count == len(expected)
        assert ([] if found is None else [lines[0] for lines, _ in told(found)]) == expected[:10]


def test_two_protocols_may_use_a_video_differently(tmp_path: Path) -> None:
    rows = [clip("a", splits={"one": "train", "two": "test"}), clip("b", splits={"one": "train"}, label="egg")]
    rows += [clip("c", splits={"one": "train", "two": "test"}, label="egg"), clip("d", splits={"two": "train"})]
    found = findings(tmp_path, rows, protocols={"one": ["train"], "two": ["train", "test"]})
    assert set(found) == {"class_absent", "class_not_in_train"}  # nothing of shared videos


def test_source_videos_in_several_splits_are_counted_per_protocol(tmp_path: Path) -> None:
    rows = [
        clip(f"{number}-{part}", split, label=label, groups={"video": f"source {number}"})
        for number in range(12)
        for part, split, label in ((0, "train", "tea"), (1, "test", "egg"), (2, "train", "egg"))
    ]
    rows += [clip("x", groups={"video": "y"}), clip("y", groups={"video": "y"}), clip("z", "test")]
    rows += [clip("p", groups={"video": "one file"}, video="one.mp4", end_seconds=3)]
    rows += [clip("q", "test", groups={"video": "one file"}, video="one.mp4", start_seconds=3)]
    rows[0]["splits"] |= {"other": "train"}
    found = findings(tmp_path, rows, protocols={"default": ["train", "test"], "other": ["train"]})
    assert set(found) == {"shared_source", "shared_video", "class_absent"}
    assert (found["shared_source"].severity, found["shared_source"].count) == ("note", 12)
    assert told(found["shared_source"])[:2] == [
        ((1, 2, 3), "default: 'source 0' in test, train"),
        ((4, 5, 6), "default: 'source 1' in test, train"),
    ]
    assert len(told(found["shared_source"])) == 10


def test_one_piece_under_two_ids_is_a_warning(tmp_path: Path) -> None:
    found = findings(tmp_path, [*SOUND, clip("again", video="a.mp4"), clip("a, later", video="a.mp4", start_seconds=3)])
    assert told(found["same_piece"]) == [((5,), "'again' is 'a' of line 1: 'a.mp4'")]


def test_paths_that_differ_by_case_or_unicode_form_are_told(tmp_path: Path) -> None:
    names = ["x/É.mp4", "X/e\u0301.mp4", "x/e.mp4"]
    found = findings(tmp_path, [*SOUND, *[clip(f"id{number}", video=name) for number, name in enumerate(names)]])
    assert [lines for lines, _ in told(found["video_spelling"])] == [(5, 6)]


def test_clips_without_a_label_are_counted_per_task_and_split(tmp_path: Path) -> None:
    rows = [
        clip("a", labels={"action": ["tea"], "steps": []}),
        clip("b", labels={"action": ["egg"], "steps": ["take", "pour"]}),
        clip("c", "test", labels={"steps": ["take", "pour"]}),
        clip("d", "test", labels={"action": ["tea"]}),
        clip("e", "test", labels={"action": ["egg"]}),
    ]
    protocols = {"default": ["train", "test"], "other": ["train"]}
    for row in rows[:2]:
        row["splits"]["other"] = "train"
    found = findings(tmp_path, rows, tasks=[TASK, STEPS], protocols=protocols)
    assert set(found) == {"unlabelled", "none_of_the_classes"}
    assert found["unlabelled"].count == 3
    assert told(found["unlabelled"]) == [
        ((3,), "task 'action', default/test: 1 of 3 clips"),
        ((4, 5), "task 'steps', default/test: 2 of 3 clips"),
    ]
    assert found["none_of_the_classes"].count == 1  # in two protocols, but one clip
    assert [text for _, text in told(found["none_of_the_classes"])] == [
        "task 'steps', default/train: 1 of 2 clips",
        "task 'steps', other/train: 1 of 2 clips",
    ]


def test_a_protocol_of_another_task_says_nothing_of_missing_labels(tmp_path: Path) -> None:
    rows = [clip("a", splits={"one": "train"}, label="tea"), clip("b", splits={"one": "train"}, label="egg")]
    rows += [clip("c", splits={"two": "train"}, labels={"steps": ["take", "pour"]})]
    assert findings(tmp_path, rows, tasks=[TASK, STEPS], protocols={"one": ["train"], "two": ["train"]}) == {}


def test_empty_and_absent_classes_are_told(tmp_path: Path) -> None:
    task = TASK | {"class_names": ["tea", "egg", "soup", "rice"], "prompts": ["1", "2", "3", "4"]}
    rows = [clip("a"), clip("b", "test", "egg"), clip("c", "test", "tea"), clip("d", label="soup")]
    found = findings(tmp_path, rows, tasks=[task], protocols={"default": ["train", "test", "dev"]})
    assert {code: [text for _, text in told(finding)] for code, finding in found.items()} == {
        "empty_class": ["task 'action': 'rice'"],
        "class_not_in_train": ["task 'action', default/test: 'egg'"],
        "class_absent": ["task 'action', default/train: 'egg'", "task 'action', default/test: 'soup'"],
        "empty_split": ["default/dev"],
    }


def test_fewer_clips_than_the_benchmark_and_clips_in_no_split_are_noted(tmp_path: Path) -> None:
    found = findings(tmp_path, [*SOUND, clip("e", splits={})], official_counts={"default": {"train": 2, "test": 3}})
    assert {code: [text for _, text in told(finding)] for code, finding in found.items()} == {
        "in_no_split": ["1 of 5 clips"],
        "official_count": ["default/test: 2 clips, officially 3"],
    }
