"""Breakfast (Kuehne et al., 2014): 52 persons make 10 breakfasts, seen by up to five cameras; 1712 videos.

Four kinds of files name the videos and the first two label them. Any of them may lie below the annotations, sidecars
also beside the videos; all that is found is taken together:

    segmentation_coarse/cereals/P03_cam01_P03_cereals.txt     also as sidecar P03/cam01/P03_cereals.avi.labels or .txt
        31-150 take_bowl                                      first and last frame from 1, blanks at the end
    groundTruth/P03_cam01_P03_cereals.txt                     of MS-TCN: one label per frame
    splits/test.split1.bundle                                 of MS-TCN: ./data/groundTruth/P03_cam01_P03_cereals.txt
    train.json, val.json                                      of MA-LMM: {"P03-cam01-P03_cereals": {...}, ...}

A stereo video is `P27_stereo01_P27_milk` to the annotations, `P27/stereo/P27_milk_ch0.avi` on disk, and to MA-LMM
`P27-stereo-P27_milk_ch0`: all one clip, named as in the annotations. Its activity is the last word of its name. Its
atomic actions are the union of its coarse labels, with `SIL` (only so are there 48); times are not used.

The decision to question: persons make the splits, not anybody's lists: 44 train and 8 test in `default` (as in MA-LMM),
a quarter of them in each official fold. No file says which of the 18 kitchens a video shows, so there is no such group.
`trial` is what one person did once: its views are not independent.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cache.errors import ManifestError
from cache.manifest import Clip, Dataset, Task
from pipeline.datasets.annotations import AnnotationFolder, Line, Place, read_json, read_lines
from pipeline.datasets.breakfast_names import (
    ACTIVITIES,
    ATOMIC,
    KNOWN_BROKEN,
    TEST_PERSONS,
    VideoName,
    atomic_text,
    parse_name,
)
from pipeline.datasets.preparation import Benchmark, Preparation, Request
from pipeline.datasets.videos import VideoFolder

OFFICIAL = {
    "default": {"train": 1357, "test": 355},
    "split1": {"train": 1460, "test": 252},
    "split2": {"train": 1261, "test": 451},
    "split3": {"train": 1279, "test": 433},
    "split4": {"train": 1136, "test": 576},
}
SOURCE = "segmentation_coarse.tar.gz at serre-lab.clps.brown.edu/resource/breakfast-actions-dataset"
_ELSEWHERE = "give --annotations a folder without the files of other datasets"
_WALKS = ("walk_in", "walk_out")  # of some releases; not in the paper, whose loaders take them as SIL
_SUFFIXES = (".txt", ".labels", ".bundle", ".json")
_LABEL_FILE = re.compile(r"(.*?)(?:\.avi)?\.(?:labels|txt)")
_NAMED_BY_PERSON = re.compile(r".*/P\d\d[-_][^/]*")
_SEGMENT = re.compile(r"(\d+)\s*-\s*(\d+)\s+(\S+)")
_BUNDLE = re.compile(r"(train|test)\.(split[1-4])\.bundle")
_JSON = re.compile(r"(?:.*_)?(train|val)\.json")


@dataclass(kw_only=True)
class _Found:
    """What all files together say; what is odd is kept by what it is."""

    names: dict[str, VideoName] = field(default_factory=dict)
    labels: dict[str, frozenset[str]] = field(default_factory=dict)
    listed: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    odd: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, name: VideoName) -> str | None:
        """The clip's id; None for the second channel of a stereo camera, which is not of the benchmark."""
        if name.camera == "stereo02":
            self.odd["second channel"].add(str(name))
            return None
        self.names[str(name)] = name
        return str(name)

    def add_listed(self, name: VideoName, listing: str, protocol: str, split: str) -> None:
        """A clip that a list puts into a split."""
        clip_id = self.add(name)
        if clip_id is not None:
            self.listed[listing].add(clip_id)
            if split != name.split(protocol):
                self.odd["elsewhere"].add(clip_id)


def prepare(request: Request) -> Preparation:
    """Takes together all files that name or label videos; clips are in the order of their names."""
    files = _files(request.annotations)
    found = _Found()
    _read_lists(files, found)
    _read_labels([*files, *_sidecars(request.videos)], found)
    if not found.names:
        raise ManifestError(
            f"neither {request.annotations} nor files beside the videos name a video of Breakfast; needed is {SOURCE} "
            "(or the .avi.labels beside the videos, MS-TCN's groundTruth or bundles, MA-LMM's train.json and val.json)"
        )
    activity_texts = request.prompts(tuple(ACTIVITIES.values()))
    atomic_texts = request.prompts(tuple(atomic_text(name) for name in ATOMIC))
    dataset = Dataset(
        name="breakfast",
        version="coarse",
        tasks=(
            Task(name="activity", kind="single", class_names=tuple(ACTIVITIES), prompts=activity_texts),
            Task(name="atomic", kind="multi", class_names=ATOMIC, prompts=atomic_texts),
        ),
        protocols=dict.fromkeys(TEST_PERSONS, ("train", "test")),
        clips=tuple(_clip(found, clip_id, request.videos) for clip_id in sorted(found.names)),
        video_root=request.videos.root,
        official_counts=OFFICIAL,
    )
    return Preparation(dataset=dataset, notes=tuple(_notes(found)), known_broken=KNOWN_BROKEN)


def _clip(found: _Found, clip_id: str, videos: VideoFolder) -> Clip:
    name = found.names[clip_id]
    labels: dict[str, tuple[str, ...]] = {"activity": (name.activity,)}
    if clip_id in found.labels:
        labels["atomic"] = tuple(label for label in ATOMIC if label in found.labels[clip_id])
    return Clip(
        id=clip_id,
        video=videos.locate(*name.path_ends, suffix=".avi"),
        splits={protocol: name.split(protocol) for protocol in TEST_PERSONS},
        labels=labels,
        groups={"subject": name.person, "camera": name.camera, "trial": name.trial},
    )


def _files(annotations: AnnotationFolder) -> list[Path]:
    """All but the fine labels, which are named as the coarse ones are."""
    return [
        path
        for path in annotations.paths
        if path.suffix in _SUFFIXES and "segmentation_fine" not in path.relative_to(annotations.root).parts
    ]


def _sidecars(videos: VideoFolder) -> Iterator[Path]:
    for path in sorted(videos.paths):
        stem = path.rpartition(".")[0]
        if parse_name(stem) is not None:
            candidates = (videos.root / f"{stem}{ending}" for ending in (".avi.labels", ".labels", ".txt"))
            yield from (candidate for candidate in candidates if candidate.is_file())


def _read_lists(files: Iterable[Path], found: _Found) -> None:
    for path in files:
        if (bundle := _BUNDLE.fullmatch(path.name)) is not None:
            for line in read_lines(path):
                if not line.text.startswith("#"):
                    found.add_listed(_bundled(line), f"the bundles of {bundle[2]}", bundle[2], bundle[1])
        elif (listing := _JSON.fullmatch(path.name)) is not None:
            split = "train" if listing[1] == "train" else "test"
            for name in _json_names(path):
                found.add_listed(name, "MA-LMM's json", "default", split)


def _bundled(line: Line) -> VideoName:
    name = parse_name(line.text.removesuffix(".txt"))
    if name is None:
        raise line.error(f"{line.text[:60]!r} is no video of Breakfast, as P03_cam01_P03_cereals is; {_ELSEWHERE}")
    return name


def _json_names(path: Path) -> Iterator[VideoName]:
    """The keys are enough: class_label is a number of MA-LMM's own, and class_name says what the key says."""
    content = read_json(path)
    if not isinstance(content, Mapping):
        raise ManifestError(f"{path} is a JSON {type(content).__name__}, not an object of videos; {_ELSEWHERE}")
    for key in content:
        name = parse_name(key)
        if name is None:
            raise ManifestError(
                f"{path}: key {key[:60]!r} is no video of Breakfast, as P03-cam01-P03_cereals is; {_ELSEWHERE}"
            )
        yield name


def _read_labels(files: Iterable[Path], found: _Found) -> None:
    """Segments go before labels per frame: those were cut to the length of somebody's features."""
    readings = []
    for path in files:
        match = _LABEL_FILE.fullmatch(path.as_posix())
        name = None if match is None else parse_name(match[1])
        if name is None:
            if match is not None and _NAMED_BY_PERSON.fullmatch(match[1]):
                found.odd["unread"].add(path.name)
            continue
        clip_id = found.add(name)
        if clip_id is not None:
            readings.append((*_read_label_file(path, clip_id, found), clip_id))
    for _, labels, clip_id in sorted(readings, key=lambda reading: reading[0]):
        if found.labels.setdefault(clip_id, labels) != labels:
            found.odd["differing"].add(clip_id)


def _read_label_file(path: Path, clip_id: str, found: _Found) -> tuple[bool, frozenset[str]]:
    """Whether it has a label per frame, and the classes."""
    distinct: dict[str, Line] = {}
    for line in read_lines(path):
        distinct.setdefault(line.text, line)
    if not distinct:
        raise Place(path=path, number=1).error("no label in the whole file")
    segments = {text: _SEGMENT.fullmatch(text) for text in distinct}
    labels = set()
    for text, segment in segments.items():
        label = text if segment is None else segment[3]
        if segment is not None and int(segment[2]) < int(segment[1]):
            found.odd["inverted"].add(clip_id)
        if label in _WALKS:
            found.odd["walking"].add(clip_id)
            label = "SIL"
        if label not in ATOMIC:
            raise distinct[text].error(
                f"{text[:60]!r} is neither '<start>-<end> <label>' nor '<label>' with one of the 48 coarse labels"
            )
        labels.add(label)
    return next(iter(segments.values())) is None, frozenset(labels)


def _notes(found: _Found) -> Iterator[str]:
    total = len(found.names)
    unlabelled = total - len(found.labels)
    if unlabelled:
        which = "no clip has" if not found.labels else f"{unlabelled} of {total} clips have no"
        yield f"{which} coarse labels, so no atomic actions; they come from {SOURCE}"
    for listing, clip_ids in found.listed.items():
        if len(clip_ids) < total:
            yield f"{listing} name {len(clip_ids)} of the {total} clips; the others are named by other files"
    what = {
        "elsewhere": "clips that a bundle or json puts into another split than their person; the person decides",
        "differing": "clips that two files label differently; segments go before labels per frame",
        "inverted": "clips with segments that end before they start; these labels count, times are not used",
        "walking": f"clips with {' or '.join(_WALKS)}, which the paper does not have; taken as SIL",
        "second channel": "second channels of stereo videos, set aside; the benchmark has the first",
        "unread": "files named almost as labels are, but not for a video of Breakfast; not read",
    }
    for key, text in what.items():
        odd = sorted(found.odd[key])
        if odd:
            yield f"{text}: {len(odd)} ({', '.join(odd[:3])}{', ...' if odd[3:] else ''})"


BENCHMARK = Benchmark(name="breakfast", prompt="{}", prepare=prepare)
