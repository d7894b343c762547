"""`joints preview`: the joints of a cache drawn on its frames."""

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache import atomic
from cache.errors import CacheError, ConfigError
from cache.store import FeatureStore
from pipeline.commands.options import PATH, json_option
from pipeline.tables import format_table

if TYPE_CHECKING:
    from PIL.Image import Image

    from extract.preview.worst import ClipQuality


@click.command()
@click.argument("cache", type=PATH)
@click.option("--clip", "clip_id", metavar="ID", help="One clip: a film (.mp4) or up to 16 of its frames (.png).")
@click.option("--worst", type=click.IntRange(1, 100), metavar="N", help="The N worst clips, a row each (.png).")
@click.option("-o", "--output", type=PATH, required=True, help="The picture or film to write: .png or .mp4.")
@click.option(
    "--min-score", type=click.FloatRange(min=0), default=0.3, show_default=True, help="Joints below are drawn faintly."
)
@json_option
def preview(cache: Path, clip_id: str | None, worst: int | None, output: Path, min_score: float, as_json: bool) -> None:
    """Draw joints, boxes and scores on the cached frames: one clip, or the clips that went worst."""
    if (clip_id is None) == (worst is None):
        raise ConfigError("say what to draw: --clip ID for one clip, or --worst N for the clips that went worst")
    kinds = (".png", ".mp4") if clip_id is not None else (".png",)
    if output.suffix.lower() not in kinds:
        raise ConfigError(f"-o {output}: the name must end in {' or '.join(kinds)}")
    from extract.preview.worst import quality, worst_clips

    store = FeatureStore.open(cache)
    if clip_id is not None:
        clips = [quality(clip_id, store.joints[clip_id])]
        notes = _draw_clip(store, clips[0], output, min_score)
    else:
        clips, notes = [*worst_clips(store.joints, worst or 0)], ()
        _draw_worst(store, clips, output, min_score)
    click.echo(_to_json(output, clips, notes) if as_json else _to_text(output, clips, notes))


def _draw_clip(store: FeatureStore, clip: "ClipQuality", output: Path, min_score: float) -> tuple[str, ...]:
    from extract.preview.clip_view import read_clip

    view = read_clip(store, clip.clip_id)
    if output.suffix.lower() == ".mp4":
        from extract.preview.movie import write_movie

        write_movie(view, output, min_score=min_score)
    else:
        from extract.preview.sheets import clip_sheet

        _write_png(clip_sheet(view, clip, min_score=min_score), output)
    return view.notes


def _draw_worst(store: FeatureStore, clips: "list[ClipQuality]", output: Path, min_score: float) -> None:
    from extract.preview.sheets import worst_sheet

    if not clips:
        raise CacheError(f"{store.folder}: no clip has joints; `deconfound status` says why")
    _write_png(worst_sheet(store, clips, min_score=min_score), output)


def _write_png(image: "Image", path: Path) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    atomic.write_bytes(path, buffer.getbuffer())


def _to_text(output: Path, clips: "list[ClipQuality]", notes: tuple[str, ...]) -> str:
    rows = [
        (clip.clip_id, f"{clip.num_valid} of {clip.num_rows}", f"{clip.valid_share:.0%}", f"{clip.mean_score:.2f}")
        for clip in clips
    ]
    table = format_table(("clip", "frames with somebody", "share", "mean score"), rows)
    return "\n".join([*(f"note: {note}" for note in notes), table, f"wrote {output}"])


def _to_json(output: Path, clips: "list[ClipQuality]", notes: tuple[str, ...]) -> str:
    entries = [asdict(clip) | {"valid_share": clip.valid_share} for clip in clips]
    return json.dumps({"output": str(output), "clips": entries, "notes": list(notes)})
