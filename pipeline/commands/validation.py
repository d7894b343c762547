"""`validate`: everything that is wrong or remarkable in a dataset folder, before hours are spent on it."""

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache.errors import ConfigError
from pipeline.commands.options import EXIT_VERIFICATION, PATH, json_option, videos_option
from pipeline.tables import format_table

if TYPE_CHECKING:
    from cache.validation.check import CheckVideo
    from cache.validation.findings import Example, Finding, ManifestReport


@click.command()
@click.argument("dataset", type=PATH)
@videos_option
@json_option
def validate(dataset: Path, videos: Path | None, as_json: bool) -> None:
    """Check a dataset: ids, labels, splits, leaks, videos, prompts; every fault, not the first."""
    from cache.validation.check import check_manifest
    from cache.validation.findings import printable

    if videos is not None and not videos.is_dir():  # where the stored one is not there, that is a finding
        raise ConfigError(f"--videos {videos} is not a folder: give the one that the videos' paths start from")
    report = check_manifest(dataset, videos=videos, check_video=_video_check(), count_tokens=_count_tokens)
    click.echo(json.dumps(report.to_json()) if as_json else printable(report_to_text(report)))
    if report.has_errors:
        sys.exit(EXIT_VERIFICATION)


def report_to_text(report: "ManifestReport") -> str:
    """One table, then the first ten of each finding with their lines."""
    lines = [f"dataset {report.dataset}: {report.num_clips} clips of {report.num_videos} videos"]
    if not report.findings:
        return "\n".join([*lines, "nothing found"])
    rows = [(finding.code, finding.severity, finding.count) for finding in report.findings]
    lines.append(format_table(("finding", "severity", "count"), rows))
    for finding in report.findings:
        lines += ["", f"{finding.severity}: {finding.code}: {finding.meaning}"]
        lines += [f"  {_example(example)}" for example in finding.examples]
        lines += _more(finding)
    return "\n".join(lines)


def _example(example: "Example") -> str:
    if not example.lines:
        return example.text
    numbers = ", ".join(map(str, example.lines)) + (", ..." if example.num_lines > len(example.lines) else "")
    return f"line{'s' if example.num_lines > 1 else ''} {numbers}: {example.text}"


def _more(finding: "Finding") -> list[str]:
    rest = finding.num_examples - len(finding.examples)
    return [f"  ... and {rest} more"] if rest else []


def _video_check() -> "CheckVideo":
    """Extraction's own checks of a file; a folder is resolved once for all videos in it, which is most of the time."""
    from extract.sources.video_root import check_inside
    from extract.video.source_file import check_file, file_error

    check_folder = functools.cache(check_inside)

    def check(path: Path, root: Path) -> None:
        check_folder(path.parent, root)
        try:
            is_link = path.is_symlink()
        except OSError as error:  # a name that is too long, a folder that may not be entered
            raise file_error(path, error) from error
        if is_link:
            check_inside(path, root)
        check_file(path)

    return check


def _count_tokens(prompts: Sequence[str]) -> list[int]:
    """Tokens with begin and end; imports torch, so it is called only for prompts that may be too long."""
    import open_clip

    tokenizer = open_clip.SimpleTokenizer()
    return [len(tokenizer.encode(prompt)) + 2 for prompt in prompts]
