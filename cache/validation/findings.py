"""What `validate` can find in a dataset folder, and how much of it is kept: the number, and the first ten with lines.

error      the dataset cannot be read, trained or trusted; the exit code is 4
warning    it can be used, and a person should know
note       it is allowed, and counted
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Severity = Literal["error", "warning", "note"]
_SEVERITIES = get_args(Severity)
MOST_LISTED = 10

KINDS: dict[str, tuple[Severity, str]] = {
    "bad_header": ("error", "keys of dataset.json that are missing or malformed"),
    "bad_task": ("error", "tasks that contradict themselves"),
    "no_clips": ("error", "clips.jsonl that is missing or empty"),
    "broken_line": ("error", "lines of clips.jsonl that are not a clip"),
    "bad_id": ("error", "ids that are empty or not a text"),
    "bad_video_path": ("error", "video paths that are not inside the video root"),
    "bad_times": ("error", "times that make no piece of video"),
    "duplicate_id": ("error", "ids given before, also in another Unicode form"),
    "unknown_task": ("error", "labels for a task that is not in dataset.json"),
    "unknown_label": ("error", "labels that are not classes of their task"),
    "label_count": ("error", "not exactly one class where the task takes one, or a class twice"),
    "unknown_protocol": ("error", "protocols that are not in dataset.json"),
    "unknown_split": ("error", "splits that their protocol does not have"),
    "train_overlap": (
        "error",
        "the same seconds of a video in training and in another split: what is learned is tested",
    ),
    "empty_prompt": ("error", "prompts without a word: nothing to embed"),
    "shared_video": ("warning", "videos in several splits of a protocol"),
    "shared_source": ("note", "source videos (group `video`) of clips in several splits of a protocol"),
    "same_piece": ("warning", "the same piece of a video under several ids"),
    "video_spelling": ("warning", "video paths that differ only by case or Unicode form: one file on some disks"),
    "similar_classes": ("warning", "class names of a task that are equal but for case, blanks, '_' or Unicode form"),
    "colliding_prompts": (
        "warning",
        "classes with the same prompt: their text embeddings are equal, no text tells them",
    ),
    "overlong_prompt": ("warning", "prompts that the text encoder cuts"),
    "empty_class": ("warning", "classes without any clip"),
    "class_not_in_train": ("warning", "classes that a split has and training has not"),
    "class_absent": ("note", "classes that a split does not have"),
    "empty_split": ("warning", "splits without clips"),
    "no_video_root": ("warning", "the videos' folder is not there: no video was looked for; --videos says where it is"),
    "video_missing": (
        "warning",
        "videos that are not there: extraction stores their clips as failed",
    ),
    "video_outside_root": ("warning", "videos that links lead out of the video root; extraction has --allow-outside"),
    "video_not_a_file": ("warning", "videos that are folders or special files"),
    "video_permission": ("warning", "videos that this user may not read"),
    "video_loop": ("warning", "videos that are links leading back to themselves"),
    "video_empty": ("warning", "videos of 0 bytes"),
    "video_corrupt": ("warning", "videos that the disk cannot read"),
    "unlabelled": ("note", "clips without a label for a task: left out of its training and metrics"),
    "none_of_the_classes": ("note", "clips labelled with none of the classes of a multi-label task"),
    "in_no_split": ("note", "clips in no split of any protocol: features are extracted, nothing else is done"),
    "official_count": ("note", "splits whose number of clips is not the official one"),
}
"""Code -> how bad it is, and what is counted."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One occurrence."""

    text: str
    lines: tuple[int, ...] = ()
    """The first ten lines of `clips.jsonl`, from 1; none where the fault is in `dataset.json`."""
    num_lines: int = 0
    """All of them."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """All occurrences of one kind."""

    code: str
    severity: Severity
    meaning: str
    count: int
    """Of what `meaning` names: clips, classes, videos, ..."""
    num_examples: int
    examples: tuple[Example, ...]
    """The first ten."""


def listed(names: Sequence[str]) -> str:
    """The first ten names, and how many more there are."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(map(repr, names[:MOST_LISTED])) + more


def printable(text: str) -> str:
    """The text with an escape for what UTF-8 cannot write: names of files need not be UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


class Findings:
    """Collects occurrences by code."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._num_examples: Counter[str] = Counter()
        self._examples: dict[str, list[Example]] = {}

    def add(self, code: str, text: str, *, lines: Sequence[int] = (), number: int = 1) -> None:
        """One more occurrence.

        Args:
            code: one of KINDS.
            text: what was found.
            lines: where; the first ten are kept.
            number: how many clips, classes, ... it stands for.
        """
        assert code in KINDS, code
        self._counts[code] += number
        self._num_examples[code] += 1
        examples = self._examples.setdefault(code, [])
        if len(examples) < MOST_LISTED:
            examples.append(Example(text=printable(text), lines=tuple(lines[:MOST_LISTED]), num_lines=len(lines)))

    def gathered(self) -> tuple[Finding, ...]:
        """Everything found: errors first, otherwise in the order of KINDS."""
        found = (
            Finding(
                code=code,
                severity=severity,
                meaning=meaning,
                count=self._counts[code],
                num_examples=self._num_examples[code],
                examples=tuple(self._examples[code]),
            )
            for code, (severity, meaning) in KINDS.items()
            if code in self._counts
        )
        return tuple(sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity)))


@dataclass(frozen=True, kw_only=True)
class ManifestReport:
    """What a dataset folder holds, and what was found in it."""

    dataset: str
    num_clips: int
    num_videos: int
    findings: tuple[Finding, ...]

    @property
    def has_errors(self) -> bool:
        """True if something makes the dataset unusable."""
        return any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The object that `validate --json` prints."""
        return asdict(self)
