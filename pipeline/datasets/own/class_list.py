"""The classes of a person's own lists and tables: their names, and the numbers that stand for them.

    id,name              a table whose header has one of NUMBER_WORDS and one of NAME_WORDS (Kinetics, HMDB51), with
    0,abseiling          commas, semicolons or tabs, and other columns too

    1 ApplyEyeMakeup     a number and a name a line (UCF101)

    abseiling            a name a line; the first one is number 0

The decision to question: a number is never a class by itself. Copies of one data set number its classes differently,
and a model trained on the wrong names looks fine until somebody reads them. For the same reason a file that is nearly
one of the first two forms is refused: as names a line its header would be class 0, and every number off by one.
"""

import csv
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.errors import ManifestError
from pipeline.datasets.annotations import Line, Place, read_lines

NUMBER_WORDS = (
    *("id", "index", "idx", "number", "class_id", "class_index", "class_idx", "class_number", "classid"),
    *("label_id", "label_index", "label_idx", "action_id"),
)
NAME_WORDS = ("name", "label", "class", "class_name", "classname", "label_name", "action", "action_name")
"""What a header may call the two columns, in any case and with '_', '-' or a blank; the usual word first."""
_HOW = "give a table with the header 'id,name'"
_NUMBERED = re.compile(r'"?(\d{1,18})"?(?:\s*[,;]\s*|\s+)(\S.*)')
_NUMBER_LAST = re.compile(r'(\S.*?)(?:\s*([,;\t])\s*|\s+)"?(\d{1,18})"?')
_INTEGER = re.compile(r"[+-]?\d{1,18}")


class ClassList:
    """Class names by number, in the order of the numbers.

    Args:
        path: where they come from, for messages.
        names: number -> name.
    """

    def __init__(self, path: Path, names: Mapping[int, str]) -> None:
        self.path = path
        self.names = dict(sorted(names.items()))
        self._known = frozenset(names.values())

    def __repr__(self) -> str:
        return f"ClassList({self.path.name!r}, {len(self.names)} classes)"

    def class_name(self, place: Place, label: str) -> str:
        """The class that a label means: a name is itself, a number is looked up.

        Raises:
            ManifestError: it means none, with the place of the label.
        """
        name = self.names.get(int(label)) if is_number(label) else label
        if name in self._known:
            return name
        close = difflib.get_close_matches(label[:200], self._known, n=1)
        hint = f"; is it {close[0]!r}?" if close else ""
        raise place.error(f"label {label[:60]!r} is not one of the {len(self.names)} classes of {self.path}{hint}")


def is_number(label: str) -> bool:
    """True for a label that is the number of a class, not its name."""
    return _INTEGER.fullmatch(label) is not None


def read_classes(path: Path) -> ClassList:
    """Reads a list of classes in one of the three forms.

    Raises:
        ManifestError: no class, a number or a name twice, names that are other classes' numbers, or a file that looks
            like a table and has no such header; with file and line.
    """
    names: dict[int, str] = {}
    for place, number, name in _numbered(read_lines(path)):
        if number in names:
            raise place.error(f"number {number} was given before, to {names[number]!r}")
        if not name or name in names.values():
            raise place.error(f"class name {name!r} is empty or was given before")
        if is_number(name) and int(name) != number:
            raise place.error(f"class {number} is named {name!r}, which would read as another number: name it in words")
        names[number] = name
    if not names:
        raise ManifestError(f"{path} holds no classes: {_HOW}, or one name a line")
    return ClassList(path, names)


def _numbered(lines: Sequence[Line]) -> Iterator[tuple[Place, int, str]]:
    header = _find_header(lines[0]) if lines else None
    if header is not None:
        yield from (header.read_row(line) for line in lines[1:])
    elif all(_NUMBERED.fullmatch(line.text) for line in lines):
        _refuse_more_columns(lines)
        yield from map(_read_numbered, lines)
    else:
        _refuse_other_forms(lines)
        yield from ((line, number, line.text) for number, line in enumerate(lines))


@dataclass(frozen=True, kw_only=True)
class _Header:
    separator: str
    """Of the cells; a blank divides into two at most."""
    number: int
    name: int
    """Where the columns stand."""
    num_columns: int

    def read_row(self, line: Line) -> tuple[Place, int, str]:
        cells = self._cells(line)
        if not max(self.number, self.name) < len(cells) <= self.num_columns:
            raise line.error(
                f"{len(cells)} cells under a header of {self.num_columns}; separators in names need quotes"
            )
        number, name = cells[self.number], cells[self.name]
        if not (is_number(number) and number.isdecimal()):
            raise line.error(f"id {number[:40]!r} is not a whole number")
        return line, int(number), name

    def _cells(self, line: Line) -> list[str]:
        if self.separator != " ":
            return _cells(line, self.separator)
        return line.text.split(None, 1) if self.number < self.name else line.text.rsplit(None, 1)


def _find_header(line: Line) -> _Header | None:
    for separator in (",", ";", "\t", " "):
        words = [_plain(cell) for cell in _cells(line, separator)]
        number, name = _column(line, words, NUMBER_WORDS), _column(line, words, NAME_WORDS)
        if number is not None and name is not None and (separator != " " or len(words) == 2):
            return _Header(separator=separator, number=number, name=name, num_columns=len(words))
    return None


def _column(line: Line, words: Sequence[str], accepted: Sequence[str]) -> int | None:
    """Where the column of one of these names stands; None if there is none."""
    if accepted[0] in words:
        return words.index(accepted[0])
    found = [position for position, word in enumerate(words) if word in accepted]
    if len(found) > 1:
        raise line.error(
            f"which of {', '.join(words[position] for position in found)} is the {accepted[0]}? Name it so"
        )
    return found[0] if found else None


def _plain(cell: str) -> str:
    return re.sub(r"[\s-]+", "_", cell.lower())


def _cells(line: Line, separator: str) -> list[str]:
    if separator == " ":
        return line.text.split()
    try:
        return [cell.strip() for cell in next(csv.reader([line.text], delimiter=separator, strict=True))]
    except csv.Error:
        return [line.text]


def _read_numbered(line: Line) -> tuple[Place, int, str]:
    match = _NUMBERED.fullmatch(line.text)
    assert match is not None, line
    name = match[2]
    if name.startswith('"'):
        try:
            (name,) = next(csv.reader([name], strict=True))
        except (csv.Error, ValueError) as error:  # ValueError: not one cell
            raise line.error(f"a number and a name in quotes that is not one cell: {_HOW}") from error
    return line, int(match[1]), name.strip()


def _refuse_more_columns(lines: Sequence[Line]) -> None:
    for separator in ",;\t":
        counts = {len(_cells(line, separator)) for line in lines}
        if len(counts) == 1 and max(counts) > 2:
            raise lines[0].error(f"{max(counts)} cells in each line, without a header that names them: {_HOW}")


def _refuse_other_forms(lines: Sequence[Line]) -> None:
    """Refuses what is no name a line, though it could be read so."""
    for line in lines:
        if line.text.startswith(("{", "[")):
            raise line.error(f"{line.text[:40]!r} looks like JSON, which is not read: {_HOW}, or one name a line")
    words = {_plain(cell) for separator in ",;\t" for cell in _cells(lines[0], separator)}
    found = sorted(words & {*NUMBER_WORDS, *NAME_WORDS})
    if found:
        raise lines[0].error(f"{', '.join(found)} looks like a header, but not one of a number and a name: {_HOW}")
    unnumbered = [line for line in lines if not _NUMBERED.fullmatch(line.text)]
    if len(lines) > 1 and 2 * len(unnumbered) <= len(lines):
        odd = unnumbered[0]
        raise odd.error(f"{odd.text[:60]!r} is not a number and a name, as other lines are: {_HOW}")
    _refuse_numbers_last(lines)


def _refuse_numbers_last(lines: Sequence[Line]) -> None:
    """A name and then its number: not `phase 1`, `phase 2`, where the same word is numbered."""
    matches = [_NUMBER_LAST.fullmatch(line.text) for line in lines[1:]]
    pairs = [(match[1], match[3]) for match in matches if match]
    if not pairs or len(pairs) < len(matches):
        return
    are_cells = all(match[2] for match in matches if match)
    names, numbers = zip(*pairs, strict=True)
    if are_cells or (len(set(names)) == len(names) and len(set(numbers)) == len(numbers)):
        raise lines[1].error(f"{lines[1].text[:60]!r} looks like a name and its number: {_HOW}")
