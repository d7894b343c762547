"""Kinetics-style lists: a file for each split, a video and its label a line.

    abseiling/x 1.mp4 0           mmaction2: blanks
    test.mp4 0 3                  the same with several labels
    train/abseiling/x.mp4,0       SlowFast and others: csv, with commas, blanks or tabs, with or without a header
    x.mp4,brush hair              names in place of numbers
    imgs 5 127                    lists of extracted frames (folder, frames, label): refused
    label,youtube_id,...          Kinetics' list of downloads: refused

A path may hold blanks and commas: it goes as far as the last ending of a video. The separator is the one that most
lines obey; the others are refused with their line. The decision to question: a path without such an ending is taken
only where one label follows, and never searched for elsewhere than where the list says.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.errors import ManifestError
from pipeline.datasets.annotations import Line, read_lines
from pipeline.datasets.own.class_list import is_number
from pipeline.datasets.own.clips import Entry, Wishes, make_dataset
from pipeline.datasets.own.tables import COLUMNS
from pipeline.datasets.preparation import Preparation
from pipeline.datasets.videos import VIDEO_SUFFIXES, VideoFolder

_SEPARATORS = {"\t": "tabs", ",": "commas", " ": "blanks"}
_SAMPLE = 1000
"""Lines that decide on the separator."""
_ENDINGS = tuple(VIDEO_SUFFIXES)


def prepare_lists(lists: Mapping[str, Path], videos: VideoFolder, wishes: Wishes) -> Preparation:
    """Reads one list for each split.

    Args:
        lists: split -> file.
        videos: the folder that the paths start from.
        wishes: classes, prompts, one label or several.

    Raises:
        ManifestError: a list without clips, a line that is no path and label, a list of frames, a label that is no
            class; with file and line.
    """
    _refuse_one_file_twice(lists)
    entries = [entry for split, path in lists.items() for entry in read_list(path, split, wishes.multi_label)]
    return make_dataset(entries, videos, wishes)


def read_list(path: Path, split: str, multi_label: bool) -> list[Entry]:
    """The clips of one list, with labels as written."""
    lines = read_lines(path)
    if not lines:
        raise ManifestError(f"{path} is empty: give a list with a path and a label a line")
    separator = _find_separator(lines[:_SAMPLE])
    if _is_header(lines[0], separator):
        del lines[0]
    if not lines:
        raise ManifestError(f"{path} has a header and no clips: give a list with a path and a label a line")
    return [_entry(line, separator, split, multi_label) for line in lines]


def _refuse_one_file_twice(lists: Mapping[str, Path]) -> None:
    given: dict[Path, str] = {}
    for split, path in lists.items():
        other = given.setdefault(path.resolve(), split)
        if other != split:
            raise ManifestError(f"{path} is given as --{other} and as --{split}; a clip is in one split: give it once")


def _find_separator(lines: Sequence[Line]) -> str:
    def obeying(separator: str) -> int:
        return sum(_divide(line, separator) is not None for line in lines)

    separator = max(_SEPARATORS, key=obeying)  # the first of equals
    if not obeying(separator):
        raise lines[0].error(_no_label(lines[0], "a tab, a comma or blanks"))
    return separator


def _cells(line: Line, separator: str) -> list[str]:
    if separator != ",":
        return line.text.split(separator)
    try:
        return next(csv.reader([line.text], strict=True))
    except csv.Error:
        return [line.text]


def _divide(line: Line, separator: str) -> tuple[str, list[str]] | None:
    """Path and labels; None where there are no labels."""
    cells = _cells(line, separator)
    labels: list[str] = []
    while cells and not separator.join(cells).lower().endswith(_ENDINGS):
        labels.insert(0, cells.pop().strip())
    if not cells:  # no ending of a video: the path is the first cell
        cells, labels = labels[:1], labels[1:]
    path, labels = separator.join(cells).strip(), [label for label in labels if label]
    return (path, labels) if path and labels else None


def _is_header(line: Line, separator: str) -> bool:
    names = [cell.strip().lower() for cell in _cells(line, separator)]
    if "youtube_id" in names:
        raise line.error(
            "this is Kinetics' list of downloads, which names no files: make a table with the columns video, label and "
            "split for `deconfound prepare table`"
        )
    named_video, named_label = (set(names) & set(COLUMNS[column]) for column in ("video", "label"))
    if not (named_video or named_label) or any(name.endswith(_ENDINGS) for name in names):
        return False
    if len(names) == 2 and (names[0] in named_video or names[1] in named_label):
        return True
    raise line.error(
        f"the header is {', '.join(names)!r}, but a list has a path and then its label: `deconfound prepare table` "
        "reads columns by name, with one named split"
    )


def _entry(line: Line, separator: str, split: str, multi_label: bool) -> Entry:
    divided = _divide(line, separator)
    if divided is None:
        raise line.error(_no_label(line, _SEPARATORS[separator]))
    path, labels = divided
    if len(labels) > 1:
        _refuse_unclear(line, separator, path, labels, multi_label)
    if not multi_label:
        labels = [" ".join(labels)]
    return Entry(place=line, video=path, labels=tuple(labels), split=split)


def _refuse_unclear(line: Line, separator: str, path: str, labels: Sequence[str], multi_label: bool) -> None:
    """Several cells after a path are several labels, a name with blanks, or numbers of frames."""
    are_numbers = all(map(is_number, labels))
    if not path.lower().endswith(_ENDINGS):
        if are_numbers:
            raise line.error(
                f"{path!r} and {len(labels)} numbers look like extracted frames (folder, number of frames, label); "
                "features are made from videos: list the video files with their endings, or join the frames to videos "
                "first (with ffmpeg)"
            )
        if separator == " ":
            raise line.error(
                f"{path!r} has no ending of a video (.mp4, .avi, ...), so that nobody can tell where the path ends: "
                "give the endings, or separate by tabs or commas"
            )
    if multi_label or (separator == " " and not are_numbers):
        return
    frames = ""
    if are_numbers and len(labels) == 2:
        frames = "; if the first number is that of a frame (SlowFast's lists: path, frame, label), leave it out"
    raise line.error(f"several labels follow {path!r} ({', '.join(labels)[:80]}): give --multi-label{frames}")


def _no_label(line: Line, separators: str) -> str:
    return (
        f"expected a path and a label separated by {separators}, got {line.text[:80]!r}; clips without a label go into "
        "a table (`deconfound prepare table`)"
    )
