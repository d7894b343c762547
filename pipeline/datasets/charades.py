"""Charades (Sigurdsson et al., 2016): 9848 videos of people at home, 157 actions, several per video.

The official files are two tables and a list of classes, all in one archive:

    Charades_v1_train.csv, Charades_v1_test.csv      7985 and 1863 rows
        id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length
        46GP8,HR43,Kitchen,6,7,Yes,"A person, cooking ...",food;stove,...,c092 11.90 21.20;c147 0.00 12.60,24.83
    Charades_v1_classes.txt                          157 lines, `c000 Holding some clothes`

A video's label is the union of its actions. The decision to question: their times are not used, not even to correct
them; in the official files 13,511 actions of training videos end more than half a second after their video. Videos
without any action (174 and 49) are labelled: with none. The official score ranks them last (`map_charades`).
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from cache.errors import ManifestError
from cache.manifest import Clip, Dataset, Task
from pipeline.datasets.annotations import Row, parse_number, read_lines, read_table
from pipeline.datasets.preparation import Benchmark, Preparation, Request
from pipeline.datasets.videos import VideoFolder

OFFICIAL = {"default": {"train": 7985, "test": 1863}}
SOURCE = "the archive of annotations at prior.allenai.org/projects/charades"
_COLUMNS = ("id", "subject", "scene", "actions", "length")
_CLASS = re.compile(r"(c\d{3}) (\S.*)")
_SLACK_SECONDS = 0.5


def prepare(request: Request) -> Preparation:
    """Reads the two tables; every row is a clip, in the order of the files."""
    classes = _read_classes(request.annotations.require("Charades_v1_classes.txt", source=SOURCE))
    task = Task(
        name="atomic",
        kind="multi",
        class_names=tuple(f"{code} {text}" for code, text in classes.items()),
        prompts=request.prompts(tuple(classes.values())),
    )
    clips: dict[str, Clip] = {}
    oddities: Counter[str] = Counter()
    for split in ("train", "test"):
        table = request.annotations.require(f"Charades_v1_{split}.csv", source=SOURCE)
        for row in read_table(table, _COLUMNS):
            clip = _clip(row, split, classes, request.videos, oddities)
            if clip.id in clips:
                raise row.error(f"{clip.id} was given before, in split {clips[clip.id].splits['default']}")
            clips[clip.id] = clip
    dataset = Dataset(
        name="charades",
        version="v1",
        tasks=(task,),
        protocols={"default": ("train", "test")},
        clips=tuple(clips.values()),
        video_root=request.videos.root,
        official_counts=OFFICIAL,
    )
    return Preparation(dataset=dataset, notes=(*_empty_notes(dataset), *_oddity_notes(oddities)))


def _read_classes(path: Path) -> dict[str, str]:
    classes: dict[str, str] = {}
    for line in read_lines(path):
        match = _CLASS.fullmatch(line.text)
        if match is None or match[1] in classes:
            raise line.error(f"expected a new class like 'c000 Holding some clothes', got {line.text[:60]!r}")
        classes[match[1]] = match[2]
    if not classes:
        raise ManifestError(f"{path} is empty; it comes from {SOURCE}")
    return classes


def _clip(row: Row, split: str, classes: Mapping[str, str], videos: VideoFolder, oddities: Counter[str]) -> Clip:
    clip_id, length = row.cells["id"], row.number_in("length")
    if not clip_id:
        raise row.error("the id is empty")
    found: dict[str, None] = {}
    for text in filter(None, row.cells["actions"].split(";")):
        parts = text.split()
        if len(parts) != 3 or parts[0] not in classes:
            raise row.error(
                f"action {text[:40]!r} is not '<class> <start> <end>' with a class of Charades_v1_classes.txt"
            )
        start, end = (parse_number(row, part, f"a time of {parts[0]}") for part in parts[1:])
        oddities["inverted"] += end < start
        oddities["overlong"] += end > length + _SLACK_SECONDS
        found[f"{parts[0]} {classes[parts[0]]}"] = None
    with row.blamed():
        return Clip(
            id=clip_id,
            video=videos.locate(f"Charades_v1_480/{clip_id}", f"Charades_v1/{clip_id}", clip_id),
            splits={"default": split},
            labels={"atomic": tuple(found)},
            groups={"subject": row.cells["subject"], "scene": row.cells["scene"]},
        )


def _empty_notes(dataset: Dataset) -> list[str]:
    numbers = Counter(clip.splits["default"] for clip in dataset.clips if not clip.labels["atomic"])
    return [f"{number} videos of split {split} show none of the actions" for split, number in numbers.items()]


def _oddity_notes(oddities: Counter[str]) -> list[str]:
    what = {
        "inverted": "actions end before they start",
        "overlong": f"actions end more than {_SLACK_SECONDS:g} s after their video",
    }
    return [f"{oddities[key]} {text}; times are not used" for key, text in what.items() if oddities[key]]


BENCHMARK = Benchmark(name="charades", prompt="{}", prepare=prepare)
