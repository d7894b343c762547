"""Toyota-Smarthome, trimmed (Das et al., 2019): 16,115 pieces of the days of 18 persons at home, 31 actions.

The official lists have one video per line and no label; its name tells class, person, repetition, view and camera:

    train_CS.txt, validation_CS.txt, test_CS.txt        Cook.Cleandishes_p02_r00_v02_c03.mp4
    and the same for CV1 and CV2

CS is cross-subject: 11 persons train, 7 test. Its lists split the 11 into train (9) and validation (2); `CS-trainval`
trains on all 11. CV1 and CV2 are cross-view: camera 5 validates, camera 2 tests; their lists name 19 of the classes.
The group `recording` is one person and view number, which the cameras of a room share: theirs are not independent.

The decision to question: 14 videos of the CS lists show a 32nd class, `Pour.Fromcup`, which the paper does not have:
its 16,115 are the 16,129 less these. The official loader takes them for the last class; here they have no label.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cache.errors import ManifestError
from cache.manifest import Clip, Dataset, Task
from pipeline.datasets.annotations import AnnotationFolder, Line, read_lines
from pipeline.datasets.preparation import Benchmark, Preparation, Request
from pipeline.datasets.videos import VideoFolder

SPLITS = ("train", "validation", "test")
OFFICIAL = {
    "CS": {"train": 8831, "validation": 1854, "test": 5444},
    "CS-trainval": {"train": 10685, "test": 5444},
    "CV1": {"train": 1877, "validation": 3539, "test": 1901},
    "CV2": {"train": 7806, "validation": 3539, "test": 1901},
}
SOURCE = "the splits folder of github.com/srijandas07/i3d_smarthome"
CLASSES = {
    "Cook.Cleandishes": "clean dishes",
    "Cook.Cleanup": "clean up the kitchen",
    "Cook.Cut": "cut food",
    "Cook.Stir": "stir food",
    "Cook.Usestove": "use the stove",
    "Cutbread": "cut bread",
    "Drink.Frombottle": "drink from a bottle",
    "Drink.Fromcan": "drink from a can",
    "Drink.Fromcup": "drink from a cup",
    "Drink.Fromglass": "drink from a glass",
    "Eat.Attable": "eat at a table",
    "Eat.Snack": "eat a snack",
    "Enter": "enter a room",
    "Getup": "get up",
    "Laydown": "lie down",
    "Leave": "leave a room",
    "Makecoffee.Pourgrains": "pour coffee grains to make coffee",
    "Makecoffee.Pourwater": "pour water to make coffee",
    "Maketea.Boilwater": "boil water to make tea",
    "Maketea.Insertteabag": "insert a tea bag to make tea",
    "Pour.Frombottle": "pour from a bottle",
    "Pour.Fromcan": "pour from a can",
    "Pour.Fromkettle": "pour from a kettle",
    "Readbook": "read a book",
    "Sitdown": "sit down",
    "Takepills": "take pills",
    "Uselaptop": "use a laptop",
    "Usetablet": "use a tablet",
    "Usetelephone": "use a telephone",
    "Walk": "walk",
    "WatchTV": "watch TV",
}
OUTSIDE = "Pour.Fromcup"
_NAME = re.compile(r"((?P<label>[A-Za-z.]+)_(?P<person>p\d\d)_r\d{2,}_(?P<view>v\d\d)_(?P<camera>c\d\d))(?:\.mp4)?")


@dataclass(kw_only=True)
class _Listed:
    """A video and its place in every protocol."""

    name: re.Match[str]
    splits: dict[str, str] = field(default_factory=dict)


def prepare(request: Request) -> Preparation:
    """Reads the lists of every protocol that is there whole; clips are in the order of the lists."""
    lists, notes = _find_lists(request.annotations)
    videos: dict[str, _Listed] = {}
    repeated: Counter[str] = Counter()
    for protocol, paths in lists.items():
        for split, path in paths.items():
            for line in read_lines(path):
                repeated[path.name] += not _add(videos, line, protocol, split)
    protocols = {protocol: tuple(paths) for protocol, paths in lists.items()}
    if "CS" in lists:
        protocols["CS-trainval"] = ("train", "test")
    dataset = Dataset(
        name="toyota_smarthome",
        version="trimmed",
        tasks=(
            Task(
                name="action",
                kind="single",
                class_names=tuple(CLASSES),
                prompts=request.prompts(tuple(CLASSES.values())),
            ),
        ),
        protocols=protocols,
        clips=tuple(_clip(clip_id, video, request.videos) for clip_id, video in videos.items()),
        video_root=request.videos.root,
        official_counts={protocol: OFFICIAL[protocol] for protocol in protocols},
    )
    notes += [
        f"videos that {name} names again; each is one clip: {number}" for name, number in repeated.items() if number
    ]
    shared, outside, absent = _shared_notes(dataset), _outside_notes(videos), _absent_notes(dataset)
    return Preparation(dataset=dataset, notes=(*notes, *shared, *outside, *absent))


def _find_lists(folder: AnnotationFolder) -> tuple[dict[str, dict[str, Path]], list[str]]:
    """The lists by protocol and split, and a note on each protocol that is there in part."""
    lists, notes = {}, []
    for protocol in ("CS", "CV1", "CV2"):
        found = {split: folder.find(f"{split}_{protocol}.txt") for split in SPLITS}
        absent = [f"{split}_{protocol}.txt" for split, path in found.items() if path is None]
        if not absent:
            lists[protocol] = {split: path for split, path in found.items() if path is not None}
        elif len(absent) < len(SPLITS):
            notes.append(f"protocol {protocol} is left out: no {' and no '.join(absent)}")
    if not lists:
        names = ", ".join(f"{split}_CS.txt" for split in SPLITS)
        raise ManifestError(f"{folder} holds the lists of no protocol; needed are {names}, from {SOURCE}")
    return lists, notes


def _add(videos: dict[str, _Listed], line: Line, protocol: str, split: str) -> bool:
    """Puts the video of a line into a split; False if it is there already."""
    name = _NAME.fullmatch(line.text)
    if name is None:
        raise line.error(f"{line.text[:60]!r} is not a name like 'Cook.Cleandishes_p02_r00_v02_c03.mp4'")
    if name["label"] not in (*CLASSES, OUTSIDE):
        raise line.error(f"{name['label']!r} of {name[1]} is none of the 31 classes, nor {OUTSIDE}")
    splits = videos.setdefault(name[1], _Listed(name=name)).splits
    if splits.get(protocol, split) != split:
        raise line.error(f"{name[1]} is in {splits[protocol]}_{protocol}.txt too; a video has one split")
    new = protocol not in splits
    splits[protocol] = split
    return new


def _clip(clip_id: str, video: _Listed, videos: VideoFolder) -> Clip:
    name, splits = video.name, dict(video.splits)
    if "CS" in splits:
        splits["CS-trainval"] = "test" if splits["CS"] == "test" else "train"
    return Clip(
        id=clip_id,
        video=videos.locate(f"mp4/{clip_id}", clip_id),
        splits=splits,
        labels={"action": (name["label"],)} if name["label"] in CLASSES else {},
        groups={
            "subject": name["person"],
            "camera": name["camera"],
            "recording": f"{name['person']}_{name['view']}",
        },
    )


def _shared_notes(dataset: Dataset) -> list[str]:
    """Persons of CS and cameras of CV1 and CV2 who are on both sides; officially nobody and none is."""
    notes = []
    for protocol, splits in dataset.protocols.items():
        group = "subject" if protocol.startswith("CS") else "camera"
        seen = {split: {clip.groups[group] for clip in dataset.select(protocol, split)} for split in splits}
        for first, second in itertools.combinations(splits, 2):
            shared = sorted(seen[first] & seen[second])
            if shared:
                notes.append(
                    f"{protocol}: {group} {', '.join(shared)} in {first} and in {second}: not the official lists"
                )
    return notes


def _outside_notes(videos: Mapping[str, _Listed]) -> list[str]:
    outside = [video.splits for video in videos.values() if video.name["label"] == OUTSIDE]
    if not outside:
        return []
    places = Counter(f"{split}_{protocol}" for splits in outside for protocol, split in splits.items())
    listed = ", ".join(f"{number} in {place}" for place, number in places.items())
    return [f"{len(outside)} videos of {OUTSIDE}, none of the 31 classes, stay without a label ({listed})"]


def _absent_notes(dataset: Dataset) -> list[str]:
    present: defaultdict[str, set[str]] = defaultdict(set)
    for clip in dataset.clips:
        for protocol in clip.splits:
            present[protocol].update(clip.labels.get("action", ()))
    return [
        f"the lists of {protocol} name {len(labels)} of the {len(CLASSES)} classes"
        for protocol, labels in present.items()
        if len(labels) < len(CLASSES)
    ]


BENCHMARK = Benchmark(name="toyota_smarthome", prompt="{}, a video of daily action", prepare=prepare)
