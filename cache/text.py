"""Text embeddings of a task's class prompts, one small file per task and set of prompts.

The file's name ends in a digest of class names, prompts and fingerprint: other prompts are another file, so a changed
prompt can never meet the embedding of the old one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cache import array_file, atomic
from cache.errors import CacheError, CorruptShard
from cache.fingerprint import Fingerprint
from cache.manifest import Task

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """Frozen text embeddings of C prompts.

    Attributes:
        sentence: (C, D) float32, projected embedding at the end-of-text token, not normalised.
        word: (C, N_t, D) float32, projected embeddings of all text positions.
        word_mask: (C, N_t) bool, True at words (not at begin, end or padding).
    """

    task: str
    class_names: tuple[str, ...]
    prompts: tuple[str, ...]
    sentence: npt.NDArray[np.float32]
    word: npt.NDArray[np.float32]
    word_mask: npt.NDArray[np.bool_]
    fingerprint: Fingerprint

    def __post_init__(self) -> None:
        num_classes, dim = len(self.class_names), self.sentence.shape[-1]
        if self.sentence.shape != (num_classes, dim) or self.word.shape[::2] != (num_classes, dim):
            raise ValueError(
                f"text features of {num_classes} classes: sentence {self.sentence.shape} and word {self.word.shape} "
                "must be (C, D) and (C, N_t, D)"
            )
        if self.word_mask.shape != self.word.shape[:2] or len(self.prompts) != num_classes:
            raise ValueError(
                f"word mask {self.word_mask.shape} or {len(self.prompts)} prompts do not fit {self.word.shape}"
            )
        if not (np.isfinite(self.sentence).all() and np.isfinite(self.word).all()):
            raise ValueError(f"text features of task {self.task!r} hold NaN or infinity")

    def write(self, cache: Path) -> Path:
        """Writes `CACHE/text/<task>-<digest>.h5` and its sidecar; returns the path of the former."""
        path = text_path(cache, self.task, self.class_names, self.prompts, self.fingerprint)
        arrays = {
            **array_file.pack_texts("class_names", self.class_names),
            **array_file.pack_texts("prompts", self.prompts),
            "sentence": self.sentence.astype(np.float32),
            "word": self.word.astype(np.float32),
            "word_mask": self.word_mask.astype(np.uint8),
        }
        image = array_file.build(
            arrays,
            {
                "schema_version": SCHEMA_VERSION,
                "stream": "text",
                "task": self.task,
                "fingerprint_sha256": self.fingerprint.sha256,
            },
        )
        sidecar = {
            "schema_version": SCHEMA_VERSION,
            "task": self.task,
            "file": path.name,
            "size_bytes": len(image),
            "sha256": hashlib.sha256(image).hexdigest(),
            "fingerprint": self.fingerprint.to_json(),
            "num_classes": len(self.class_names),
        }
        atomic.write_bytes(path, image)
        atomic.write_json(path.with_suffix(".json"), sidecar)
        return path

    @classmethod
    def read(cls, cache: Path, task: Task) -> Self:
        """The embeddings of exactly this task's classes and prompts.

        Raises:
            CacheError: the cache holds none for these prompts; says what to run.
            CorruptShard: the file is not what was committed.
        """
        others = []
        for path in sorted((cache / "text").glob("*.json")):
            if path.name == "fingerprint.json":
                continue
            sidecar = atomic.read_json(path)
            if sidecar["task"] != task.name:
                continue
            features = read_text_file(path, sidecar)
            if features.class_names == task.class_names and features.prompts == task.prompts:
                return cls(**vars(features))
            others.append(_what_differs(features, task))
        raise CacheError(
            f"{cache} has no text embeddings for the {task.num_classes} classes and prompts of task {task.name!r}"
            f"{': ' if others else ''}{'; '.join(others)}; run `deconfound extract` with this dataset and "
            "`--streams text`"
        )


def _what_differs(features: TextFeatures, task: Task) -> str:
    """Why embeddings that are there are not those of a task: a class that is missing, or other words for it."""
    absent = [name for name in task.class_names if name not in features.class_names]
    if absent:
        return f"those that are there lack {len(absent)} of them, first {absent[0]!r}"
    if features.class_names != task.class_names:
        return f"those that are there are of {len(features.class_names)} classes, or of these in another order"
    pairs = zip(task.class_names, task.prompts, features.prompts, strict=True)
    name, asked, found = next((name, asked, found) for name, asked, found in pairs if asked != found)
    return f"those that are there have other prompts, first of {name!r}: {found!r} instead of {asked!r}"


def text_path(
    cache: Path, task: str, class_names: tuple[str, ...], prompts: tuple[str, ...], fingerprint: Fingerprint
) -> Path:
    """Where the text features of these classes, prompts and settings are or will be."""
    canonical = json.dumps([task, list(class_names), list(prompts), fingerprint.sha256])
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    safe_name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in task)
    return cache / "text" / f"{safe_name}-{digest}.h5"


def read_text_file(sidecar_path: Path, sidecar: Mapping[str, Any]) -> TextFeatures:
    """Audits and reads the text file that a sidecar names, checking its sha256 (the files are small).

    Raises:
        CorruptShard: absent, damaged or not of the format.
    """
    path = sidecar_path.with_name(Path(sidecar["file"]).name)
    if not path.exists() or atomic.sha256_file(path) != sidecar["sha256"]:
        raise CorruptShard(f"{path} is absent or does not match its sha256; delete it and {sidecar_path.name}")
    arrays, _ = array_file.read(path)
    try:
        return TextFeatures(
            task=sidecar["task"],
            class_names=array_file.unpack_texts("class_names", arrays),
            prompts=array_file.unpack_texts("prompts", arrays),
            sentence=arrays["sentence"].astype(np.float32),
            word=arrays["word"].astype(np.float32),
            word_mask=arrays["word_mask"].astype(bool),
            fingerprint=Fingerprint.from_json(sidecar["fingerprint"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptShard(f"{path} is not a text file of this version: {error}") from error
