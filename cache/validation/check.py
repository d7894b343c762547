"""Reads a dataset folder leniently and names everything that is wrong with it, where `Dataset.read` stops at the first.

A clip is what `clip_from_json` accepts. Where it refuses a line, the line's parts are tried one by one, so that one bad
time hides no bad path; the rules for one clip stand in `cache/manifest.py` alone. The decision to question: only a
`dataset.json` that cannot be read ends it, since without tasks and protocols nothing can be said of clips.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.errors import ManifestError, VideoError
from cache.manifest import SCHEMA_VERSION, VIDEOS_VARIABLE, Clip, Task, clip_from_json
from cache.manifest_json import CLIPS_FILE, HEADER_FILE, counts, mapping, parse_json, read_header, text_lists, texts
from cache.validation import rules
from cache.validation.findings import Findings, ManifestReport
from cache.validation.prompts import check_prompts
from cache.validation.rules import NumberedClip, Outline

CheckVideo = Callable[[Path, Path], None]
"""(path, root): raises VideoError if the file cannot be read or is not inside the root."""

_PARTS: Mapping[str, tuple[str, ...]] = {
    "bad_id": ("id",),
    "bad_video_path": ("video",),
    "bad_times": ("start_seconds", "end_seconds"),
    "broken_line": ("splits", "labels", "groups"),
}
_KEYS = frozenset(key for keys in _PARTS.values() for key in keys)
_THREADS = 16
"""Network drives answer many questions at once as fast as one."""


def check_manifest(
    folder: Path,
    *,
    videos: Path | None = None,
    check_video: CheckVideo | None = None,
    count_tokens: Callable[[Sequence[str]], Sequence[int]] | None = None,
) -> ManifestReport:
    """Looks for everything that is wrong in a dataset folder.

    Args:
        folder: where `dataset.json` and `clips.jsonl` are.
        videos: the video root on this machine; otherwise DECONFOUND_VIDEOS, otherwise the stored one.
        check_video: looks at one video file; without it none is looked for.
        count_tokens: tokens of each prompt with begin and end; called only with prompts that may be too long.

    Raises:
        ManifestError: `dataset.json` is absent, is not JSON or of another version.
    """
    body = read_header(folder / HEADER_FILE, SCHEMA_VERSION)
    findings = Findings()
    outline = _read_outline(body, findings)
    clips = _read_clips(folder / CLIPS_FILE, findings)
    for rule in rules.RULES:
        rule(clips, outline, findings)
    check_prompts(outline.tasks, findings, count_tokens)
    lines_of: dict[str, list[int]] = {}
    for line, clip in clips:
        lines_of.setdefault(clip.video, []).append(line)
    override = videos or (Path(os.environ[VIDEOS_VARIABLE]) if os.environ.get(VIDEOS_VARIABLE) else None)
    root = override or (None if outline.video_root is None else folder / outline.video_root)
    if check_video is not None and root is not None:
        _check_videos(root, lines_of, check_video, findings)
    return ManifestReport(
        dataset=outline.name, num_clips=len(clips), num_videos=len(lines_of), findings=findings.gathered()
    )


@dataclass(frozen=True, kw_only=True)
class _Header:
    """`dataset.json` key by key; a complaint about one does not hide the others."""

    body: Mapping[str, Any]
    findings: Findings = field(repr=False)

    def get(self, key: str, parse: Callable[[Any], Any], default: Any = None) -> Any:  # noqa: ANN401 (JSON)
        if key not in self.body:
            self.findings.add("bad_header", f"key {key!r} is missing")
            return default
        try:
            return parse(self.body[key])
        except ManifestError as error:
            self.findings.add("bad_header", str(error))
            return default


def _read_outline(body: Mapping[str, Any], findings: Findings) -> Outline:
    header = _Header(body=body, findings=findings)
    header.get("version", str)
    rows = header.get("tasks", _list, [])
    tasks = [task for task in (_read_task(row, findings) for row in rows) if task is not None]
    names = [row["name"] for row in rows if isinstance(row, dict) and isinstance(row.get("name"), str)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        findings.add("bad_task", f"task {name!r} is given twice")
    official = {} if "official_counts" not in body else header.get("official_counts", _counts, {})
    return Outline(
        name=header.get("name", str, ""),
        tasks=tuple({task.name: task for task in tasks}.values()),
        task_names=frozenset(names),
        protocols=header.get("protocols", lambda value: text_lists(value, "protocols")),
        video_root=header.get("video_root", _text),
        official_counts=official,
    )


def _read_task(row: Any, findings: Findings) -> Task | None:  # noqa: ANN401 (JSON from a person)
    try:
        values = mapping(row, "a task")
        return Task(
            name=values["name"],
            kind=values["kind"],
            class_names=texts(values["class_names"], f"class_names of task {values['name']!r}"),
            prompts=texts(values["prompts"], f"prompts of task {values['name']!r}"),
        )
    except KeyError as error:
        findings.add("bad_task", f"key {error} is missing")
    except ManifestError as error:
        findings.add("bad_task", str(error))
    return None


def _list(value: Any) -> list[Any]:  # noqa: ANN401 (JSON from a person)
    if not isinstance(value, list):
        raise ManifestError(f"tasks: expected a list, got {json.dumps(value)[:80]}")
    return value


def _text(value: Any) -> str:  # noqa: ANN401 (JSON from a person)
    if not isinstance(value, str):
        raise ManifestError(f"video_root: expected a text, got {json.dumps(value)[:80]}")
    return value


def _counts(value: Any) -> dict[str, dict[str, int]]:  # noqa: ANN401 (JSON from a person)
    return counts(value, "official_counts")


def _read_clips(path: Path, findings: Findings) -> list[NumberedClip]:
    try:
        rows = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        findings.add("no_clips", f"{CLIPS_FILE} cannot be read: {error.strerror}")
        return []
    filled = [(line, row) for line, row in enumerate(rows, start=1) if row.strip()]
    if not filled:
        findings.add("no_clips", f"{CLIPS_FILE} holds no line")
    clips = [(line, _read_line(line, row, findings)) for line, row in filled]
    return [NumberedClip(line, clip) for line, clip in clips if clip is not None]


def _read_line(line: int, text: bytes, findings: Findings) -> Clip | None:
    try:
        row = mapping(parse_json(text.decode()), "a clip")
    except (ValueError, ManifestError) as error:  # ValueError: not UTF-8, or not JSON
        findings.add("broken_line", str(error), lines=[line])
        return None
    try:
        return clip_from_json(row)
    except ManifestError as error:
        kept, complaints = _sound_parts(row)
        for code, text_found in complaints or [("broken_line", str(error))]:
            findings.add(code, text_found, lines=[line])
        return clip_from_json(kept) if {"id", "video"} <= kept.keys() else None


def _sound_parts(row: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The parts of a clip that are right by themselves, and (code, complaint) for the others."""
    kept: dict[str, Any] = {}
    complaints = [("broken_line", f"key {key!r} is missing") for key in ("id", "video") if key not in row]
    complaints += [("broken_line", f"key {key!r} is not known") for key in row if key not in _KEYS]
    for code, keys in _PARTS.items():
        for group in [keys] if code == "bad_times" else [(key,) for key in keys]:
            part = {key: row[key] for key in group if key in row}
            try:
                clip_from_json({"id": kept.get("id", "?"), "video": "?"} | part)
                kept |= part
            except ManifestError as error:
                named = f"{', '.join(part)}: " if isinstance(error.__cause__, TypeError) else ""
                complaints.append((code, f"{named}{error}"))
    return kept, complaints


def _check_videos(
    root: Path, lines_of: Mapping[str, Sequence[int]], check_video: CheckVideo, findings: Findings
) -> None:
    if not root.is_dir():
        findings.add("no_video_root", str(root))
        return

    def problem(video: str) -> VideoError | None:
        try:
            check_video(root / video, root)
        except VideoError as error:
            return error
        return None

    with ThreadPoolExecutor(_THREADS) as pool:
        for (video, lines), error in zip(lines_of.items(), pool.map(problem, lines_of), strict=True):
            if error is not None:
                findings.add(f"video_{error.code}", f"{video!r} {error.message}", lines=lines)
