"""The stream `text`: one file per task and set of prompts, made by the text tower of the image encoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cache.fingerprint import Fingerprint
from cache.manifest import Dataset, Task
from cache.text import TextFeatures, text_path
from extract.config import ExtractConfig

if TYPE_CHECKING:
    import torch


def missing_texts(dataset: Dataset, cache: Path, marks: Mapping[str, Fingerprint]) -> list[Task]:
    """Tasks whose prompts are not in the cache; none if text is not asked for."""
    if "text" not in marks:
        return []
    return [task for task in dataset.tasks if not _text_sidecar(task, cache, marks["text"]).exists()]


def _text_sidecar(task: Task, cache: Path, mark: Fingerprint) -> Path:
    return text_path(cache, task.name, task.class_names, task.prompts, mark).with_suffix(".json")


def write_texts(
    tasks: list[Task], cache: Path, config: ExtractConfig, mark: Fingerprint, device: "torch.device"
) -> None:
    """Embeds and commits the prompts of these tasks."""
    from extract.text_encoder import encode_texts

    for task in tasks:
        sentence, word, mask = encode_texts(config.image_encoder, task.prompts, device)
        TextFeatures(
            task=task.name,
            class_names=task.class_names,
            prompts=task.prompts,
            sentence=sentence,
            word=word,
            word_mask=mask,
            fingerprint=mark,
        ).write(cache)
