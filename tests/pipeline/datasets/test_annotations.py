"""Annotation files as people have them, and complaints that name the file and the line."""

import csv
import os
import zipfile
from pathlib import Path

import openpyxl
import pytest

from cache.errors import ManifestError
from pipeline.datasets.annotations import (
    AnnotationFolder,
    read_json,
    read_lines,
    read_sheet,
    read_table,
    read_text,
)

REAL = os.environ.get("DECONFOUND_TEST_DATA")


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_bom_crlf_and_blanks_leave_nothing_behind(tmp_path: Path) -> None:
    lines = read_lines(write(tmp_path / "list.txt", b"\xef\xbb\xbf1-30 SIL  \r\n\r\n  31-150 take_bowl\t\r\n"))
    assert [(line.number, line.text) for line in lines] == [(1, "1-30 SIL"), (3, "31-150 take_bowl")]


def test_another_encoding_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"list\.txt is not UTF-8 .*save it as UTF-8"):
        read_lines(write(tmp_path / "list.txt", "größe".encode("utf-16")))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.txt does not exist"):
        read_text(tmp_path / "none.txt")


def test_quoted_cells_hold_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfid, script ,length\r\n-a,"He said ""tea, please""\r\nand left", 3.5 \r\n\r\nb,,4\r\n'
    rows = list(read_table(write(tmp_path / "t.csv", content), ("id", "script")))
    assert [row.cells["id"] for row in rows] == ["-a", "b"]
    assert rows[0].cells["script"] == 'He said "tea, please"\nand left'
    assert rows[0].number_in("length") == 3.5
    assert [row.number for row in rows] == [3, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id;script\na;b\n", r"line 1: no column id, script; the header is 'id;script'"),
        (b"", r"line 1: no column id, script"),
        (b"id,script\na,b\nc,d,e\n", r"line 3: 3 cells under a header of 2; cells with commas need quotes"),
        (b'id,script\na,"b\n', r"line 2: not a comma-separated file"),
        (b"id,script,id\na,b,c\n", r"line 1: the column id is there twice"),
    ],
)
def test_a_table_that_is_none_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=rf"t\.csv, {message}"):
        list(read_table(write(tmp_path / "t.csv", content), ("id", "script")))


@pytest.mark.parametrize("text", ["three", "nan", "inf", ""])
def test_a_cell_that_is_no_finite_number_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    (row,) = read_table(write(tmp_path / "t.csv", f"id,length\na,{text}\n".encode()), ("id",))
    with pytest.raises(ManifestError, match=r"t\.csv, line 2: length is .* not a"):
        row.number_in("length")


def test_json_that_is_none_is_refused_with_its_line(tmp_path: Path) -> None:
    assert read_json(write(tmp_path / "a.json", b'\xef\xbb\xbf{"a": 1}')) == {"a": 1}
    with pytest.raises(ManifestError, match=r"b\.json, line 2: not JSON"):
        read_json(write(tmp_path / "b.json", b'{"a": 1,\n "b" 2}'))


def test_a_key_that_json_gives_twice_is_refused_and_not_chosen_between(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"c\.json: .*the key 'v1' twice"):
        read_json(write(tmp_path / "c.json", b'{"database": {"v1": 1, "v2": 2, "v1": 3}}'))


def test_a_file_is_found_at_any_depth_by_the_first_name_that_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "Charades" / "v1" / "train.csv", b"")
    assert AnnotationFolder(tmp_path).find("other.csv", "train.csv") == path
    assert AnnotationFolder(tmp_path).find("other.csv") is None
    with pytest.raises(ManifestError, match=r"holds no other\.csv or more\.csv; it comes from the archive"):
        AnnotationFolder(tmp_path).require("other.csv", "more.csv", source="the archive")


def test_two_files_of_one_name_are_not_chosen_between(tmp_path: Path) -> None:
    for folder in ("v1", "v2"):
        write(tmp_path / folder / "train.csv", b"")
    with pytest.raises(ManifestError, match=r"holds 2 files named train\.csv \(v1/train\.csv, v2/train\.csv\)"):
        AnnotationFolder(tmp_path).find("train.csv")


def test_annotations_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="--annotations takes the folder"):
        AnnotationFolder(tmp_path / "none")


@pytest.mark.skipif(REAL is None, reason="DECONFOUND_TEST_DATA is not set")
@pytest.mark.parametrize(
    ("sheet", "table", "number"),
    [("domain_target_mapping", "taxonomy_sheet1.csv", 180), ("target_action_mapping", "taxonomy_sheet2.csv", 778)],
)
def test_the_official_workbook_holds_what_its_sheets_saved_as_tables_hold(sheet: str, table: str, number: int) -> None:
    folder = Path(REAL or "") / "annotations" / "coin"
    with (folder / table).open(newline="", encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    rows = list(read_sheet(folder / "taxonomy.xlsx", sheet, tuple(expected[0])))
    assert len(rows) == number
    assert [dict(row.cells) for row in rows] == expected
    assert [row.number for row in rows] == list(range(2, number + 2))


def test_a_sheet_gives_texts_and_says_what_it_lacks(tmp_path: Path) -> None:
    workbook = openpyxl.Workbook()
    for cells in (["Id", "Label"], [7, " cut & peel "], [None, None], [8, None]):
        workbook.active.append(cells)
    workbook.active.title = "steps"
    workbook.save(tmp_path / "t.xlsx")
    rows = list(read_sheet(tmp_path / "t.xlsx", "steps", ("Id",)))
    assert [(row.number, dict(row.cells)) for row in rows] == [
        (2, {"Id": "7", "Label": "cut & peel"}),
        (4, {"Id": "8", "Label": ""}),
    ]
    with pytest.raises(ManifestError, match=r"t\.xlsx has no sheet 'tasks'; it has 'steps'"):
        list(read_sheet(tmp_path / "t.xlsx", "tasks", ()))
    with pytest.raises(ManifestError, match=r"steps, line 1: no column Domain; the header is 'Id,Label'"):
        list(read_sheet(tmp_path / "t.xlsx", "steps", ("Domain",)))


def test_a_damaged_workbook_is_refused_wherever_it_is_damaged(tmp_path: Path) -> None:
    workbook = openpyxl.Workbook()
    workbook.active.append(["Id"])
    workbook.active.append([7])
    workbook.save(tmp_path / "whole.xlsx")
    body = (tmp_path / "whole.xlsx").read_bytes()
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as archive:
        names = archive.namelist()
    num_refused = 0
    for number in range(0, len(body), 37):
        path = write(tmp_path / "t.xlsx", body[:number] + bytes([body[number] ^ 0xFF]) + body[number + 1 :])
        try:
            rows = list(read_sheet(path, "Sheet", ("Id",)))
        except ManifestError:
            num_refused += 1
        else:
            assert [dict(row.cells) for row in rows] == [{"Id": "7"}]
    assert num_refused > len(names)
    with pytest.raises(ManifestError, match=r"is not an \.xlsx workbook"):
        list(read_sheet(write(tmp_path / "t.xlsx", b"Id,Label"), "Sheet", ()))


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[" + b"9" * 5000 + b"]"])
def test_json_that_no_reader_takes_is_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(ManifestError, match=r"d\.json: JSON that cannot be read"):
        read_json(write(tmp_path / "d.json", body))
