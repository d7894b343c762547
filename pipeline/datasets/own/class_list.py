"""The classes of a person's own lists and tables: their names, and the numbers that stand for them.

    id,name              a table with this header (Kinetics, HMDB51)
    0,abseiling

    1 ApplyEyeMakeup     a number and a name a line (UCF101)

    abseiling            a name a line; the first one is number 0

The decision to question: a number is never a class by itself. Copies of one data set number its classes differently,
and a model trained on the wrong names looks fine until somebody reads them.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from cache.errors import ManifestError
from pipeline.datasets.annotations import Place, read_lines, read_table

_HEADER = re.compile(r"id\s*,\s*name", re.IGNORECASE)
_NUMBERED = re.compile(r"(\d+)(?:\s*,\s*|\s+)(\S.*)")
_INTEGER = re.compile(r"[+-]?\d+")


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
        close = difflib.get_close_matches(label, self._known, n=1)
        hint = f"; is it {close[0]!r}?" if close else ""
        raise place.error(f"label {label[:60]!r} is not one of the {len(self.names)} classes of {self.path}{hint}")


def is_number(label: str) -> bool:
    """True for a label that is the number of a class, not its name."""
    return _INTEGER.fullmatch(label) is not None


def read_classes(path: Path) -> ClassList:
    """Reads a list of classes in one of the three forms.

    Raises:
        ManifestError: no class, a number or a name twice, or names that are other classes' numbers; with file and line.
    """
    names: dict[int, str] = {}
    for place, number, name in _numbered(path):
        if number in names:
            raise place.error(f"number {number} was given before, to {names[number]!r}")
        if not name or name in names.values():
            raise place.error(f"class name {name!r} is empty or was given before")
        if is_number(name) and int(name) != number:
            raise place.error(f"class {number} is named {name!r}, which would read as another number: name it in words")
        names[number] = name
    if not names:
        raise ManifestError(f"{path} holds no classes: give a table 'id,name', or one name a line")
    return ClassList(path, names)


def _numbered(path: Path) -> Iterator[tuple[Place, int, str]]:
    lines = read_lines(path)
    if lines and _HEADER.fullmatch(lines[0].text):
        for row in read_table(path, ("id", "name")):
            if not row.cells["id"].isdecimal():
                raise row.error(f"id {row.cells['id']!r} is not a whole number")
            yield row, int(row.cells["id"]), row.cells["name"]
        return
    matches = [_NUMBERED.fullmatch(line.text) for line in lines]
    if all(matches):
        yield from ((line, int(match[1]), match[2]) for line, match in zip(lines, matches, strict=True) if match)
    else:
        yield from ((line, number, line.text) for number, line in enumerate(lines))
