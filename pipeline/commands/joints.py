"""`joints`: skeletons that other tools made into a cache, and a look at the joints that it has."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.manifest import Dataset
from pipeline.commands.joints_preview import preview
from pipeline.commands.options import (
    EXIT_FAILED_ITEMS,
    PATH,
    cache_option,
    json_option,
    set_option,
    videos_option,
)
from pipeline.printing import ExtractionProgress
from pipeline.tables import format_seconds, format_table

if TYPE_CHECKING:
    from extract.skeletons.importing import ImportSummary

_MOST_LISTED = 10


@click.group()
def joints() -> None:
    """Joints of a cache: import them from other tools, and look at them."""


@joints.command("import")
@click.argument("file", type=PATH)
@click.argument("dataset", type=PATH)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["mmaction2", "toyota", "openpose"]),
    required=True,
    help="mmaction2: a pickle of mmaction2 or PySKL. toyota: JSON of Smarthome. openpose: a folder of JSON.",
)
@cache_option
@click.option(
    "--tolerate-frames",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Accept skeletons with up to N frames more or fewer than their video, aligned at the first.",
)
@click.option("--retry-failed", is_flag=True, help="Also look again at clips that failed before.")
@click.option("--overwrite", is_flag=True, help="Make joints of another origin, and of changed videos, again.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Decode processes.")
@click.option("--allow-outside", is_flag=True, help="Read also videos that links lead to outside the root.")
@click.option("--recipe", help="Recipe whose [extract] section samples a cache without frames.")
@set_option
@videos_option
@json_option
def import_command(
    file: Path,
    dataset: Path,
    format_name: str,
    cache: Path,
    tolerate_frames: int,
    retry_failed: bool,
    overwrite: bool,
    workers: int,
    allow_outside: bool,
    recipe: str | None,
    overrides: tuple[str, ...],
    videos: Path | None,
    as_json: bool,
) -> None:
    """Take over the skeletons in FILE, for the clips of DATASET. FILE is never executed, whatever it is.

    Joints get the instants of the cache's frames or visual prompts. In a cache without either, the videos are read for
    the instants that `extract` would take.
    """
    from extract.skeletons.filling import ImportOptions
    from extract.skeletons.importing import import_skeletons, open_skeletons
    from pipeline.config import load_recipe

    config = load_recipe(recipe, overrides).extract if recipe or overrides else None
    with ExtractionProgress() as progress:
        summary = import_skeletons(
            Dataset.read(dataset, videos=videos),
            cache,
            open_skeletons(file, format_name),
            config=config,
            options=ImportOptions(
                workers=workers,
                retry_failed=retry_failed,
                overwrite=overwrite,
                allow_outside=allow_outside,
                tolerate_frames=tolerate_frames,
                progress=progress,
            ),
        )
    click.echo(json.dumps(import_to_json(summary)) if as_json else import_to_text(summary, cache))
    if summary.failures or summary.waiting:
        sys.exit(EXIT_FAILED_ITEMS)


joints.add_command(preview)


def import_to_json(summary: "ImportSummary") -> dict[str, Any]:
    """The object that `joints import --json` prints."""
    return {
        "ok": summary.ok,
        "failed": dict(sorted(summary.failed.items())),
        "failures": {
            clip_id: {"code": failure.code.value, "message": failure.message}
            for clip_id, failure in summary.failures.items()
        },
        "waiting": list(summary.waiting),
        "instants_of": summary.instants_of,
        "num_imported": summary.num_imported,
        "scaled": list(summary.scaled),
        "without_anybody": list(summary.without_anybody),
        "tolerated": {
            clip_id: {"skeleton": skeleton, "video": video} for clip_id, (skeleton, video) in summary.tolerated.items()
        },
        "num_unused": summary.num_unused,
        "is_building": summary.is_building,
        "already_done": summary.already_done,
        "seconds": summary.seconds,
    }


def import_to_text(summary: "ImportSummary", cache: Path) -> str:
    """Clips by outcome, then what was special about some of them."""
    rows = [("ok", summary.ok), *sorted(summary.failed.items())]
    lines = [format_table(("outcome", "clips"), rows)]
    if summary.already_done:
        lines.append("nothing to do: all of it was there")
    else:
        lines.append(f"{summary.num_imported} clips looked up in {format_seconds(summary.seconds)}")
    lines += _named("failed", [f"{clip_id}: {failure.message}" for clip_id, failure in summary.failures.items()])
    counts = [
        f"{clip_id}: {skeleton} frames, video or clip {video}"
        for clip_id, (skeleton, video) in summary.tolerated.items()
    ]
    lines += _named("another number of frames, accepted", counts)
    lines += _named("scaled to the size of the video", summary.scaled)
    lines += _named("nobody in any frame", summary.without_anybody)
    if summary.waiting:
        title = f"without {summary.instants_of} in the cache; `deconfound extract` them, then import again"
        lines += _named(title, summary.waiting)
    if summary.num_unused:
        lines.append(f"{summary.num_unused} skeletons are of no clip of this dataset")
    if summary.is_building:
        lines.append(f"{cache} keeps its old joints until the new ones have all clips of the dataset")
    return "\n".join(lines)


def _named(title: str, lines: "list[str] | tuple[str, ...]") -> list[str]:
    if not lines:
        return []
    more = [f"  ... and {len(lines) - _MOST_LISTED} more"] if len(lines) > _MOST_LISTED else []
    return [f"{title}: {len(lines)}", *(f"  {line}" for line in lines[:_MOST_LISTED]), *more]
