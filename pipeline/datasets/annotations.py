"""Annotation files as people have them: with a BOM, with CRLF, with trailing blanks, with commas in quotes.

Every line and row remembers its file and number, so that an adapter's complaint names both. Nothing is guessed: another
encoding, a missing column, a file that is there twice are refused with what was found and what is accepted.
"""

import contextlib
import csv
import io
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import ManifestError
from cache.manifest_json import parse_json
from pipeline.datasets.files import walk_files

# What openpyxl and the zip and XML readers below it raise on damaged files; a ParseError is a SyntaxError.
_BROKEN_WORKBOOK = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError),
    *(AttributeError, LookupError, SyntaxError, TypeError, ValueError),
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A line of a file, numbered from 1."""

    path: Path
    number: int

    def error(self, message: str) -> ManifestError:
        """A complaint about this line, to be raised."""
        return ManifestError(f"{self.path}, line {self.number}: {message}")

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Adds the file and the line to what a clip or a task made from it complains about."""
        try:
            yield
        except ManifestError as error:
            raise self.error(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Line(Place):
    """One line without the blanks around it."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Row(Place):
    """One row of a table by column, without the blanks around its cells."""

    cells: Mapping[str, str]

    def number_in(self, column: str) -> float:
        """A cell as a finite number; ManifestError if it is none."""
        return parse_number(self, self.cells[column], column)


def read_text(path: Path) -> str:
    """A file in UTF-8, with or without a BOM.

    Raises:
        ManifestError: no such file, or another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error


def read_lines(path: Path) -> list[Line]:
    """The lines of a text file that hold something."""
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [Line(path=path, number=number, text=text.strip()) for number, text in lines if text.strip()]


def read_table(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a comma-separated file with a header (RFC 4180: cells in quotes may hold commas and line ends).

    Args:
        path: the file.
        columns: those that must be there; others are kept too.

    Raises:
        ManifestError: a column is missing, or a row has more or fewer cells than the header.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(Place(path=path, number=1), header, columns)
        for cells in reader:
            place = Place(path=path, number=reader.line_num)
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise place.error(f"{len(cells)} cells under a header of {len(header)}; cells with commas need quotes")
            values = dict(zip(header, (cell.strip() for cell in cells), strict=True))
            yield Row(path=path, number=place.number, cells=values)
    except csv.Error as error:
        raise Place(path=path, number=reader.line_num).error(f"not a comma-separated file: {error}") from error


def read_sheet(path: Path, sheet: str, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of one sheet of an .xlsx workbook, whose first row is the header.

    Raises:
        ManifestError: the file is no workbook, has no such sheet, or a column is missing.
    """
    import openpyxl

    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        if sheet not in workbook.sheetnames:
            raise ManifestError(f"{path} has no sheet {sheet!r}; it has {', '.join(map(repr, workbook.sheetnames))}")
        rows = [[_cell_text(cell) for cell in row] for row in workbook[sheet].iter_rows(values_only=True)]
    except _BROKEN_WORKBOOK as error:
        raise ManifestError(f"{path} is not an .xlsx workbook that can be read: {error}") from error
    place = path / sheet  # errors name the sheet and its row, as for a file and its line
    header = rows[0] if rows else []
    _check_header(Place(path=place, number=1), header, columns)
    for number, cells in enumerate(rows[1:], start=2):
        if any(cells):
            yield Row(path=place, number=number, cells=dict(zip(header, cells, strict=False)))


def _check_header(place: Place, header: Sequence[str], columns: Sequence[str]) -> None:
    absent = [name for name in columns if name not in header]
    if absent:
        raise place.error(f"no column {', '.join(absent)}; the header is {','.join(header)!r}")
    twice = [name for name, number in Counter(filter(None, header)).items() if number > 1]
    if twice:
        raise place.error(f"the column {', '.join(twice)} is there twice; rename or remove one")


def _cell_text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


def read_json(path: Path) -> Any:  # noqa: ANN401 (any JSON)
    """A JSON file; ManifestError names the line where it stops being one, or a key that one object has twice."""
    try:
        return parse_json(read_text(path))
    except json.JSONDecodeError as error:
        raise Place(path=path, number=error.lineno).error(f"not JSON: {error.msg}") from error
    except ValueError as error:
        raise ManifestError(f"{path}: JSON that cannot be read: {error}") from error


def parse_number(place: Place, text: str, what: str) -> float:
    """A finite number; ManifestError if the text is none."""
    try:
        value = float(text)
    except ValueError:
        raise place.error(f"{what} is {text[:40]!r}, not a number") from None
    if not abs(value) < float("inf"):
        raise place.error(f"{what} is {text[:40]!r}, not a finite number")
    return value


class AnnotationFolder:
    """The files below a folder, at any depth, looked up once.

    Args:
        root: the folder.

    Raises:
        ManifestError: it is not a folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ManifestError(f"{root} is not a folder; --annotations takes the folder of the official files")
        self.root = root
        self.paths = tuple(sorted(root / path for path in walk_files(root)))

    def __str__(self) -> str:
        return str(self.root)

    def find(self, *names: str) -> Path | None:
        """The file of the first of these names that is there; ManifestError if it is there several times."""
        for name in names:
            found = [path for path in self.paths if path.name == name]
            if len(found) > 1:
                listed = ", ".join(str(path.relative_to(self.root)) for path in found[:5])
                raise ManifestError(f"{self} holds {len(found)} files named {name} ({listed}): give the folder of one")
            if found:
                return found[0]
        return None

    def require(self, *names: str, source: str) -> Path:
        """As `find`, but there must be one.

        Args:
            names: accepted file names, the usual one first.
            source: where people get it, for the message.
        """
        found = self.find(*names)
        if found is None:
            raise ManifestError(f"{self} holds no {' or '.join(names)}; it comes from {source}")
        return found
