"""What must hold for the prompts of a task: words in them, different ones, no more than the text encoder reads.

The decision to question: prompts are compared as CLIP's tokenizer sees them, and counted only where they may be too
long, as counting takes the tokenizer and with it torch.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from cache.manifest import Task
from cache.validation.findings import Findings, listed

CONTEXT_LENGTH = 77
"""Tokens that CLIP's text encoder reads, with begin and end."""


def check_prompts(
    tasks: Iterable[Task], findings: Findings, count_tokens: Callable[[Sequence[str]], Sequence[int]] | None
) -> None:
    """Prompts have words, differ, and fit into the text encoder; class names differ by more than their spelling."""
    for task in tasks:
        for classes in _alike(task.class_names, [_plain(name) for name in task.class_names]):
            findings.add("similar_classes", f"task {task.name!r}: {listed(classes)}")
        # As CLIP's tokenizer sees them: in lower case, blanks as one
        seen = [" ".join(prompt.lower().split()) for prompt in task.prompts]
        empty = [name for name, prompt in zip(task.class_names, seen, strict=True) if not prompt]
        if empty:
            findings.add("empty_prompt", f"task {task.name!r}: {listed(empty)}", number=len(empty))
        for classes in _alike(task.class_names, seen):
            prompt = task.prompts[task.class_names.index(classes[0])]
            if prompt.strip():
                text = f"task {task.name!r}, {prompt!r}: {listed(classes)}"
                findings.add("colliding_prompts", text, number=len(classes))
        _check_lengths(task, findings, count_tokens)


def _check_lengths(
    task: Task, findings: Findings, count_tokens: Callable[[Sequence[str]], Sequence[int]] | None
) -> None:
    pairs = zip(task.class_names, task.prompts, strict=True)
    long = [(name, prompt) for name, prompt in pairs if _may_be_overlong(prompt)]
    if not long or count_tokens is None:
        return
    for (name, prompt), number in zip(long, count_tokens([prompt for _, prompt in long]), strict=True):
        if number > CONTEXT_LENGTH:
            text = f"task {task.name!r}, class {name!r}: {number} tokens, {CONTEXT_LENGTH} are read: {prompt[:60]!r}..."
            findings.add("overlong_prompt", text)


def _may_be_overlong(prompt: str) -> bool:
    """A token is at least one byte that is no blank; lower case can take more bytes, by less than half."""
    num_bytes = len("".join(prompt.split()).encode("utf-8", "replace"))
    return num_bytes * (1 if prompt.isascii() else 2) > CONTEXT_LENGTH - 2


def _alike(names: Sequence[str], keys: Sequence[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name, key in zip(names, keys, strict=True):
        groups[key].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[_-]", " ", unicodedata.normalize("NFKC", name)).casefold().split())
