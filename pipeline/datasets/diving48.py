"""Diving48 (Li et al., 2018): some 18,000 clips of competitive dives, each one of 48 classes.

The official files are two lists and the 48 classes, each four tokens in the order that the lists' integers mean:

    Diving48_V2_train.json, Diving48_V2_test.json    15027 and 1970 entries; V1: Diving48_train.json, Diving48_test.json
        [{"vid_name": "-mmq0PT-u8k_00155", "label": 0, "start_frame": 0, "end_frame": 48}, ...]
    Diving48_vocab.json                              [["Back", "15som", "05Twis", "FREE"], ...]
    rgb/<vid_name>.mp4                               already trimmed

A name is a YouTube id, which may itself hold '-' and '_' and start with them, and a number. The decision to question:
the frames are not used. The videos are trimmed already, and the entries go from their first frame to a last one;
those that say anything else are counted in a note. V2 (2020) has other labels than V1 and fewer clips: results on the
two do not compare.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.errors import ManifestError
from cache.manifest import Clip, Dataset, Task
from pipeline.datasets.annotations import read_json
from pipeline.datasets.preparation import Benchmark, Preparation, Request
from pipeline.datasets.videos import VideoFolder

NUM_CLASSES = 48
OFFICIAL = {"V2": {"default": {"train": 15027, "test": 1970}}}
SOURCE = "www.svcl.ucsd.edu/projects/resound/dataset.html"
_FILES = {"V2": "Diving48_V2_{}.json", "V1": "Diving48_{}.json"}
_NAME = re.compile(r"(?P<video>[^/\\]+)_\d+")
_WORDS: Sequence[Mapping[str, str]] = (
    {
        "Back": "backward take-off",
        "Forward": "forward take-off",
        "Inward": "inward take-off",
        "Reverse": "reverse take-off",
    },
    {
        "Dive": "0.5 somersault",
        "1som": "1 somersault",
        "15som": "1.5 somersaults",
        "2som": "2 somersaults",
        "25som": "2.5 somersaults",
        "3som": "3 somersaults",
        "35som": "3.5 somersaults",
        "45som": "4.5 somersaults",
    },
    {
        "NoTwis": "no twist",
        "05Twis": "0.5 twist",
        "1Twis": "1 twist",
        "15Twis": "1.5 twists",
        "2Twis": "2 twists",
        "25Twis": "2.5 twists",
        "3Twis": "3 twists",
        "35Twis": "3.5 twists",
    },
    {"FREE": "free position", "PIKE": "pike position", "STR": "straight position", "TUCK": "tuck position"},
)
"""What the tokens of a class mean, by place: take-off, somersaults, twists, position. A plain dive turns half round."""


def prepare(request: Request) -> Preparation:
    """Reads the two lists; every entry is a clip, in the order of the files."""
    vocabulary = request.annotations.require("Diving48_vocab.json", source=SOURCE)
    texts = _read_classes(vocabulary)
    classes = tuple(texts)
    clips: dict[str, Clip] = {}
    num_cut = 0
    for split in ("train", "test"):
        path = request.annotations.require(_FILES[request.version].format(split), source=SOURCE)
        for index, entry in enumerate(_read_list(path)):
            where = f"{path}, entry [{index}]"
            clip = _clip(where, entry, split, classes, request.videos)
            if clip.id in clips:
                raise ManifestError(f"{where}: {clip.id} was given before, in split {clips[clip.id].splits['default']}")
            clips[clip.id] = clip
            num_cut += _is_cut(entry)
    dataset = Dataset(
        name="diving48",
        version=request.version,
        tasks=(
            Task(name="action", kind="single", class_names=classes, prompts=request.prompts(tuple(texts.values()))),
        ),
        protocols={"default": ("train", "test")},
        clips=tuple(clips.values()),
        video_root=request.videos.root,
        official_counts=OFFICIAL.get(request.version, {}),
    )
    note = f"{num_cut} entries do not go from frame 0 to a later one; frames are not used, a clip is its whole video"
    return Preparation(dataset=dataset, notes=(note,) if num_cut else ())


def _read_classes(path: Path) -> dict[str, str]:
    """Class names and their texts, in the order of the integers."""
    rows = _read_list(path)
    classes: dict[str, str] = {}
    for index, tokens in enumerate(rows):
        where = f"{path}, entry [{index}]"
        if not isinstance(tokens, list) or len(tokens) != len(_WORDS):
            raise ManifestError(
                f'{where}: expected tokens like ["Back", "15som", "05Twis", "FREE"], got {tokens!r:.60}'
            )
        for token, words in zip(tokens, _WORDS, strict=True):
            if not isinstance(token, str) or token not in words:
                raise ManifestError(f"{where}: {token!r:.40} is not one of {', '.join(words)}")
        name = "+".join(tokens)
        if name in classes:
            raise ManifestError(f"{where}: class {name} is there twice")
        classes[name] = ", ".join(words[token] for token, words in zip(tokens, _WORDS, strict=True))
    if len(classes) != NUM_CLASSES:
        raise ManifestError(f"{path} lists {len(classes)} classes; Diving48 has {NUM_CLASSES}")
    return classes


def _clip(where: str, entry: Any, split: str, classes: Sequence[str], videos: VideoFolder) -> Clip:  # noqa: ANN401
    if not isinstance(entry, dict):
        raise ManifestError(f'{where}: expected an object with "vid_name" and "label", got {entry!r:.60}')
    name, label = entry.get("vid_name"), entry.get("label")
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if not isinstance(name, str) or match is None:
        raise ManifestError(f"{where}: \"vid_name\" is {name!r:.60}, not like '-mmq0PT-u8k_00155'")
    if type(label) is not int or not 0 <= label < len(classes):
        raise ManifestError(f'{where} ({name}): "label" is {label!r:.40}, not an integer from 0 to {len(classes) - 1}')
    return Clip(
        id=name,
        video=videos.locate(f"rgb/{name}", f"videos/{name}", name),
        splits={"default": split},
        labels={"action": (classes[label],)},
        groups={"video": match["video"]},
    )


def _is_cut(entry: Mapping[str, Any]) -> bool:
    """Whether an entry speaks of another piece than the whole trimmed video."""
    start, end = entry.get("start_frame", 0), entry.get("end_frame", 1)
    return start != 0 or not isinstance(end, int) or end <= 0


def _read_list(path: Path) -> list[Any]:
    entries = read_json(path)
    if not isinstance(entries, list):
        raise ManifestError(f"{path}: expected a list [...], got {entries!r:.60}")
    return entries


BENCHMARK = Benchmark(name="diving48", prompt="{}, a video of diving action", prepare=prepare, versions=tuple(_FILES))
