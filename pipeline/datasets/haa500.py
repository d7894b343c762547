"""HAA500 (Chung et al., 2021), v1.1: 500 atomic actions of humans, 20 clips of each.

The official files are one text file a class, without a header:

    pushup.txt                          url,start,end,is_camera_moving,num_of_dominant_figure
        https://www.youtube.com/watch?v=IODxDxX7oi4,3.37,7.08,1,1
    video/pushup/pushup_000.mp4         the release of cut clips: one a line, numbered from 000 in the order of lines

The order is the split: lines 1-16 of a class train, line 17 validation, the rest test. Classes are the files in
alphabetical order; there is no official index. The decision to question: a clip that the release does not hold is cut
by start and end out of the whole video `<YouTube id>.mp4` where that is there. Without the text files the release's
numbers give the same splits; only what is not there cannot be counted then.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cache.errors import ManifestError
from cache.manifest import Clip, Dataset, Task
from pipeline.datasets.annotations import AnnotationFolder, Line, parse_number, read_lines
from pipeline.datasets.preparation import Benchmark, Preparation, Request
from pipeline.datasets.videos import VideoFolder

OFFICIAL = {"default": {"train": 8000, "validation": 500, "test": 1500}}
SOURCE = "github.com/a6o/HAA500"
_SPLITS = ("train", "validation", "test")
_NUM_CLASSES, _NUM_TRAIN, _NUM_LINES = 500, 16, 20
_NOT_CLASSES = frozenset(["readme", "license", "licence", "requirements"])
_FORM = "url,start,end,is_camera_moving,num_of_dominant_figure"
_YOUTUBE_ID = re.compile(r"(?:[?&]v=|youtu\.be/|/embed/|/shorts/)([\w-]{11})(?![\w-])")
_NUMBERED = re.compile(r"(.*?)(\d+)")
_MOST_LISTED = 5

Release = Mapping[str, Mapping[int, str]]
"""Class -> number of the clip, from 0 -> path of its video."""


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """One line of a class file."""

    start_seconds: float
    end_seconds: float
    youtube_id: str | None
    groups: Mapping[str, str]


def prepare(request: Request) -> Preparation:
    """Reads the class files, or the release alone; clips come class by class, in the order of lines."""
    files = _class_files(request.annotations)
    classes = {name: [_segment(line) for line in read_lines(path)] for name, path in files.items()}
    empty = [str(files[name]) for name, segments in classes.items() if not segments]
    if empty:
        raise ManifestError(f"{', '.join(empty[:_MOST_LISTED])}: no line; the files come from {SOURCE}")
    release = _release(request.videos, classes)
    _check_numbering(release, classes)
    if not (classes or release):
        raise ManifestError(
            f"{request.annotations} holds no class files (pushup.txt, ...) and {request.videos.root} no numbered clips "
            f"(video/pushup/pushup_000.mp4, ...); both come from {SOURCE}"
        )
    names = tuple(sorted(classes or release))
    dataset = Dataset(
        name="haa500",
        version="v1.1",
        tasks=(
            Task(
                name="action",
                kind="single",
                class_names=names,
                prompts=request.prompts(tuple(name.replace("_", " ") for name in names)),
            ),
        ),
        protocols={"default": _SPLITS},
        clips=tuple(_clips_of_lines(classes, release, request.videos) if classes else _clips_of_release(release)),
        video_root=request.videos.root,
        official_counts=OFFICIAL,
    )
    return Preparation(dataset=dataset, notes=tuple(_notes(dataset, classes, release)))


def _class_files(folder: AnnotationFolder) -> dict[str, Path]:
    """Class -> its text file, at any depth."""
    files: dict[str, Path] = {}
    for path in folder.paths:
        if path.suffix != ".txt" or path.stem.lower() in _NOT_CLASSES or "__MACOSX" in path.parts:
            continue
        if path.stem in files:
            raise ManifestError(f"{files[path.stem]} and {path} name the same class: give the folder of one")
        files[path.stem] = path
    return files


def _segment(line: Line) -> _Segment:
    cells = [cell.strip(' "') for cell in line.text.split(",")]
    if len(cells) != _FORM.count(",") + 1 or not cells[0]:
        found = f"expected {_FORM}, got {line.text[:60]!r}"
        raise line.error(f"{found}; every .txt file below --annotations is taken for a class but a readme or a licence")
    start, end = parse_number(line, cells[1], "start"), parse_number(line, cells[2], "end")
    if not 0 <= start < end:
        raise line.error(
            f"start {cells[1]} and end {cells[2]} do not make a piece of video; correct the line and keep its place, "
            "for the order of lines is the split"
        )
    match = _YOUTUBE_ID.search(cells[0])
    groups = {
        "video": match[1] if match else cells[0],
        "camera_moving": {"0": "no", "1": "yes"}.get(cells[3]),
        "figures": cells[4] if cells[4].isdecimal() else None,
    }
    return _Segment(
        start_seconds=start,
        end_seconds=end,
        youtube_id=match[1] if match else None,
        groups={key: value for key, value in groups.items() if value},
    )


def _release(videos: VideoFolder, classes: Iterable[str]) -> Release:
    """The cut clips: videos in a folder named as their class whose name ends in a number.

    Raises:
        ManifestError: two files of a class have one number: of another ending, in another folder.
    """
    wanted = frozenset(classes)
    found: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for path in sorted(videos.paths, key=lambda path: (path.count("/"), path)):
        name, stem = PurePosixPath(path).parent.name, PurePosixPath(path).stem
        match = _NUMBERED.fullmatch(stem)
        # Not just any number: `<YouTube id>` and `<YouTube id>_<start>_<end>`, as people cut them, end in digits too.
        prefixes = ("", f"{name}_") if name in wanted else () if wanted else (f"{name}_",)
        if match is None or match[1] not in prefixes:
            continue
        other = found[name].setdefault(int(match[2]), path)
        if other != path:
            raise ManifestError(f"{videos.root}: {other} and {path} are both number {int(match[2])} of class {name}")
    return dict(found)


def _check_numbering(release: Release, classes: Mapping[str, Sequence[_Segment]]) -> None:
    """Refuses clips numbered from 1, whose every label would stay right and every split go wrong."""
    beyond = [name for name, found in release.items() if max(found) >= len(classes.get(name, range(_NUM_LINES)))]
    if beyond and not any(0 in found for found in release.values()):
        last = release[beyond[0]][max(release[beyond[0]])]
        raise ManifestError(
            f"{last} is beyond the last line of its class and no class has a clip 000: these are numbered from 1, the "
            f"release from 000 in the order of lines; take the videos of {SOURCE} or rename them"
        )


def _split(number: int) -> str:
    if number < _NUM_TRAIN:
        return "train"
    return "validation" if number == _NUM_TRAIN else "test"


def _clips_of_lines(classes: Mapping[str, Sequence[_Segment]], release: Release, videos: VideoFolder) -> Iterator[Clip]:
    ids = {segment.youtube_id for segments in classes.values() for segment in segments if segment.youtube_id}
    whole = {name: path for name in ids if (path := videos.find(name)) is not None}
    missing_as_cut = bool(release) or not whole
    for name, segments in sorted(classes.items()):
        for number, segment in enumerate(segments):
            cut, full = release.get(name, {}).get(number), whole.get(segment.youtube_id or "")
            if cut is None and full is None and not missing_as_cut and segment.youtube_id:
                full = f"{segment.youtube_id}.mp4"
            yield _clip(name, number, cut, None if cut else full, segment)


def _clip(name: str, number: int, cut: str | None, full: str | None, segment: _Segment | None) -> Clip:
    """Clip `number` of a class, from a cut video, else out of a whole one, else from the cut one that is missing."""
    clip_id = f"{name}/{name}_{number:03d}"
    return Clip(
        id=clip_id,
        video=cut or full or f"video/{clip_id}.mp4",
        start_seconds=segment.start_seconds if segment and full else None,
        end_seconds=segment.end_seconds if segment and full else None,
        splits={"default": _split(number)},
        labels={"action": (name,)},
        groups=segment.groups if segment else {},
    )


def _clips_of_release(release: Release) -> Iterator[Clip]:
    for name, found in sorted(release.items()):
        for number, path in sorted(found.items()):
            yield _clip(name, number, path, None, None)


def _notes(dataset: Dataset, classes: Mapping[str, Sequence[_Segment]], release: Release) -> Iterator[str]:
    if not classes:
        yield f"no class files: splits are from the clips' numbers, absent clips are not known (files: {SOURCE})"
    num_classes = dataset.task("action").num_classes
    if num_classes != _NUM_CLASSES:
        yield f"{num_classes} classes, the benchmark has {_NUM_CLASSES}"
    sizes = Counter(clip.labels["action"][0] for clip in dataset.clips)
    yield from _listed(
        f"classes have other than {_NUM_LINES} clips",
        [f"{n} {size}" for n, size in sizes.items() if size != _NUM_LINES],
    )
    beyond = [
        path for name, segments in classes.items() for n, path in release.get(name, {}).items() if n >= len(segments)
    ]
    yield from _listed("clips of the release have no line in their class file", beyond)
    num_cut = sum(clip.end_seconds is not None for clip in dataset.clips)
    if num_cut:
        rest = len(dataset.clips) - num_cut
        yield f"{num_cut} clips are a piece (start to end) of a whole YouTube video, {rest} have a video of their own"
    without = sum(len(clip.groups) < len(("video", "camera_moving", "figures")) for clip in dataset.clips)
    if without and classes:
        yield f"{without} lines have a camera other than 0 or 1, or figures that are no number: without that group"


def _listed(what: str, found: Sequence[str]) -> Iterator[str]:
    if found:
        more = f" and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
        yield f"{len(found)} {what}: {', '.join(found[:_MOST_LISTED])}{more}"


BENCHMARK = Benchmark(name="haa500", prompt="{}, a video of human action", prepare=prepare)
