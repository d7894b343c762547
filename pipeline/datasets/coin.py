"""COIN (Tang et al., 2019): 11,827 instructional videos of 180 tasks, made of 778 steps.

The official files are an object of videos and a workbook of two sheets:

    COIN.json        {"database": {"LtRSn-ntcLY": {"class": "ReplaceCDDriveWithSSD", "recipe_type": 131,
                      "subset": "training", "duration": 131.0309, "start": 56.64, "end": 85.71,
                      "annotation": [{"id": "212", "segment": [60.0, 69.0], "label": "take out the laptop CD drive"},
                                     ...]}, ...}}
    taxonomy.xlsx    domain_target_mapping: Domains,Targets; target_action_mapping: Target Id,Target Label,Action Id,
                     Action Label (or the sheets as domain_target_mapping.csv and target_action_mapping.csv)

Copies differ: without `database`, with `subset` as testing, test, validation or val (all are the test split). The
decision to question: a clip is its whole video, as the official 9030 / 2797 are counted, though `start` and `end` bound
the procedure in it; a video's steps are the union of its segments. Times are not used, oddities in them are counted.
Classes are those of the taxonomy: COIN.json alone names the ones that its videos happen to show.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import ManifestError
from cache.manifest import Clip, Dataset, Task
from pipeline.datasets.annotations import AnnotationFolder, Row, parse_number, read_json, read_sheet, read_table
from pipeline.datasets.preparation import Benchmark, Preparation, Request
from pipeline.datasets.videos import VideoFolder

OFFICIAL = {"default": {"train": 9030, "test": 2797}}
SOURCE = "github.com/coin-dataset/annotations"
KNOWN_BROKEN = dict.fromkeys(("AfiVmAjfTNs", "cjwtcDKTQM8"), "MA-LMM skips it")
_NUM_CLASSES = (180, 778)
_SUBSETS = {"training": "train", "train": "train"} | dict.fromkeys(("testing", "test", "validation", "val"), "test")
_STEP_SHEET, _STEP_COLUMNS = "target_action_mapping", ("Target Id", "Target Label", "Action Id", "Action Label")
_DOMAIN_SHEET, _DOMAIN_COLUMNS = "domain_target_mapping", ("Domains", "Targets")
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_CAPITALISED = frozenset(["Chinese", "Easter", "French"])
_TASK_TEXTS = {"CutGrapeFruit": "cut grapefruit", "MakePaperWindMill": "make paper windmill"}
_SLACK_SECONDS = 0.5
_ODDITIES = {
    "inverted": "steps end before they start; times are not used",
    "overlong": f"steps end more than {_SLACK_SECONDS:g} s after their video; times are not used",
    "relabelled": "steps have another text than the taxonomy gives their id; the id counts",
    "foreign": "steps belong to another task than their video; they count as steps",
    "empty": "videos have no step; they count as videos without any",
}


@dataclass(frozen=True, kw_only=True)
class _Step:
    name: str
    text: str
    task: str


@dataclass(frozen=True, kw_only=True)
class _Taxonomy:
    tasks: Mapping[int, str]
    """Target Id -> label, in the order of the ids."""
    steps: Mapping[int, _Step]
    """Action Id -> step, in the order of the ids."""
    domains: Mapping[str, str]
    """Label of a task -> domain; empty without that sheet."""


def prepare(request: Request) -> Preparation:
    """Reads the taxonomy and COIN.json; every video is a clip, in the order of the file."""
    taxonomy = _read_taxonomy(request.annotations)
    path = request.annotations.require("COIN.json", "coin.json", source=SOURCE)
    body = read_json(path)
    database = body.get("database", body) if isinstance(body, dict) else None
    if not isinstance(database, dict) or not database:
        raise ManifestError(f"{path}: expected an object of videos by YouTube id, under `database` or alone")
    oddities: Counter[str] = Counter()
    clips = []
    for video_id, entry in database.items():
        try:
            clips.append(_clip(video_id, entry, taxonomy, request.videos, oddities))
        except (TypeError, KeyError, ValueError) as error:
            raise ManifestError(f"{path}, video {video_id!r}: {_reason(error)}") from error
    dataset = Dataset(
        name="coin",
        version="2019",
        tasks=_tasks(taxonomy, request),
        protocols={"default": ("train", "test")},
        clips=tuple(clips),
        video_root=request.videos.root,
        official_counts=OFFICIAL,
    )
    notes = (*_taxonomy_notes(taxonomy), *_copy_notes(path, body, database), *_oddity_notes(oddities))
    return Preparation(dataset=dataset, notes=notes, known_broken=KNOWN_BROKEN)


def task_text(label: str) -> str:
    """A task's label as words: `ReplaceCDDriveWithSSD` is 'replace CD drive with SSD'."""
    words = _WORD_START.sub(" ", label).split()
    kept = [word if word in _CAPITALISED or (word.isupper() and len(word) > 1) else word.lower() for word in words]
    return _TASK_TEXTS.get(label, " ".join(kept))


def _tasks(taxonomy: _Taxonomy, request: Request) -> tuple[Task, Task]:
    labels, steps = tuple(taxonomy.tasks.values()), tuple(taxonomy.steps.values())
    return (
        Task(
            name="task",
            kind="single",
            class_names=labels,
            prompts=request.prompts(tuple(task_text(label) for label in labels)),
        ),
        Task(
            name="step",
            kind="multi",
            class_names=tuple(step.name for step in steps),
            prompts=request.prompts(tuple(step.text for step in steps)),
        ),
    )


def _read_taxonomy(folder: AnnotationFolder) -> _Taxonomy:
    tasks: dict[int, str] = {}
    steps: dict[int, _Step] = {}
    for row in _sheet(folder, _STEP_SHEET, _STEP_COLUMNS):
        task_id, step_id = (_whole(row, column) for column in ("Target Id", "Action Id"))
        label, text = row.cells["Target Label"], row.cells["Action Label"]
        if not label or tasks.setdefault(task_id, label) != label:
            raise row.error(f"task {task_id} is called {label!r}, and before {tasks[task_id]!r}")
        if not text or step_id in steps:
            raise row.error(f"step {step_id} ({text!r}) has no text or was given before")
        steps[step_id] = _Step(name=f"{step_id} {text}", text=text, task=label)
    if len(set(tasks.values())) != len(tasks) or not steps:
        raise ManifestError(f"the sheet {_STEP_SHEET} in {folder} is empty or gives two tasks one label")
    domains = {row.cells["Targets"]: row.cells["Domains"] for row in _sheet(folder, _DOMAIN_SHEET, _DOMAIN_COLUMNS)}
    return _Taxonomy(tasks=dict(sorted(tasks.items())), steps=dict(sorted(steps.items())), domains=domains)


def _sheet(folder: AnnotationFolder, sheet: str, columns: tuple[str, ...]) -> Iterable[Row]:
    """A sheet of the official workbook or, where that is not there, a table of the sheet's name."""
    workbook, table = folder.find("taxonomy.xlsx"), folder.find(f"{sheet}.csv")
    if workbook is not None:
        return read_sheet(workbook, sheet, columns)
    if table is None and sheet == _DOMAIN_SHEET:
        return ()
    return read_table(table or folder.require("taxonomy.xlsx", f"{sheet}.csv", source=SOURCE), columns)


def _whole(row: Row, column: str) -> int:
    value = parse_number(row, row.cells[column], column)
    if not value.is_integer():
        raise row.error(f"{column} is {row.cells[column]!r}, not a whole number")
    return int(value)


def _clip(
    video_id: str, entry: Mapping[str, Any], taxonomy: _Taxonomy, videos: VideoFolder, oddities: Counter[str]
) -> Clip:
    task_id = _id(entry["recipe_type"])
    label = taxonomy.tasks.get(task_id)
    if label is None or label != entry["class"]:
        raise ValueError(f"class {entry['class']!r} is not recipe_type {task_id}, which the taxonomy calls {label!r}")
    steps = dict.fromkeys(_step_names(entry, taxonomy, oddities))
    oddities["empty"] += not steps
    return Clip(
        id=video_id,
        video=videos.locate(f"{task_id}/{video_id}", video_id),
        splits={"default": _SUBSETS[_subset(entry)]},
        labels={"task": (label,), "step": tuple(steps)},
        groups={"domain": taxonomy.domains[label]} if label in taxonomy.domains else {},
    )


def _id(value: object) -> int:
    """An id, which is a text in some places of the official file and an integer in others."""
    if not str(value).isdecimal():
        raise ValueError(f"{value!r} is no id")
    return int(str(value))


def _subset(entry: Mapping[str, Any]) -> str:
    subset = str(entry["subset"]).lower()
    if subset not in _SUBSETS:
        raise ValueError(f"subset is {entry['subset']!r}; accepted: {', '.join(_SUBSETS)}")
    return subset


def _step_names(entry: Mapping[str, Any], taxonomy: _Taxonomy, oddities: Counter[str]) -> Iterator[str]:
    duration = float(entry.get("duration", math.inf))
    for segment in entry["annotation"]:
        step = taxonomy.steps.get(_id(segment["id"]))
        if step is None:
            raise ValueError(f"the taxonomy has no step {segment['id']!r} ({segment.get('label')!r})")
        start, end = _times(step, segment["segment"])
        oddities["inverted"] += end < start
        oddities["overlong"] += end > duration + _SLACK_SECONDS
        oddities["foreign"] += step.task != entry["class"]
        oddities["relabelled"] += str(segment.get("label", step.text)).split() != step.text.split()
        yield step.name


def _times(step: _Step, segment: object) -> tuple[float, float]:
    times = segment if isinstance(segment, list) else []
    if len(times) != 2 or not all(isinstance(time, int | float) and math.isfinite(time) for time in times):
        raise ValueError(f"step {step.name!r} has the segment {segment!r:.60}, expected two times in seconds")
    return float(times[0]), float(times[1])


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no key {error}"
    return f"not in the documented form: {error}" if isinstance(error, TypeError) else str(error)


def _taxonomy_notes(taxonomy: _Taxonomy) -> Iterator[str]:
    found = (len(taxonomy.tasks), len(taxonomy.steps))
    if found != _NUM_CLASSES:
        yield "the taxonomy has {} tasks and {} steps, the official one {} and {}".format(*found, *_NUM_CLASSES)
    without = [label for label in taxonomy.tasks.values() if label not in taxonomy.domains]
    if without:
        yield f"{len(without)} tasks have no domain: the sheet {_DOMAIN_SHEET} of taxonomy.xlsx gives them"


def _copy_notes(path: Path, body: Mapping[str, Any], database: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What is not as in the official file.

    Raises:
        ManifestError: two subsets could both be the test split.
    """
    if "database" not in body:
        yield f"{path.name} has no `database` level: it is a copy, not the official file"
    held_out = sorted({_subset(entry) for entry in database.values() if _SUBSETS[_subset(entry)] == "test"})
    if len(held_out) > 1:
        raise ManifestError(f"{path} has the subsets {' and '.join(held_out)}; COIN has one subset beside training")
    if held_out and not held_out[0].startswith("test"):
        yield f"split test is the subset that {path.name} calls {held_out[0]}"


def _oddity_notes(oddities: Counter[str]) -> list[str]:
    return [f"{oddities[key]} {text}" for key, text in _ODDITIES.items() if oddities[key]]


BENCHMARK = Benchmark(name="coin", prompt="{}", prepare=prepare)
