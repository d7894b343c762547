"""`bench cache`: how fast cached rows are on this machine, against raw np.memmap, h5py and a DataLoader with workers.

The texts and JSON stand here; the measurement is in train/bench/rows.py, which has the DataLoader.
"""

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from cache.progress import Progress
from cache.store import FeatureStore
from pipeline.commands.options import PATH, device_option, json_option
from pipeline.tables import format_table

if TYPE_CHECKING:
    from train.bench.rows import RowsBench, Timing

_FRAMES, _DIM = 64, 512
_FEATURES = ("memory_map", "ram", "device")
_QUIET = 0.95


@click.command("cache")
@click.argument("cache", type=PATH, required=False)
@click.option(
    "--clips", type=click.IntRange(min=1), default=2000, show_default=True, help="How many to make, or to take."
)
@click.option("--frames", type=click.IntRange(min=1), help=f"Rows of a clip that is made. [{_FRAMES}]")
@click.option("--dim", type=click.IntRange(min=1), help=f"Their width. [{_DIM}]")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Clips of a batch.")
@click.option("--repeats", type=click.IntRange(min=1), default=9, show_default=True, help="Rounds; medians are shown.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes of the DataLoader. [the number of cores]")
@device_option
@json_option
def cache_command(
    cache: Path | None,
    clips: int,
    frames: int | None,
    dim: int | None,
    batch_size: int,
    repeats: int,
    workers: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure reading rows of CACHE's visual prompts, or of a cache made for it, float16, in eight shards.

    Clips are read in random order out of a warm page cache and copied, one by one and in batches: by the store, by
    np.memmap out of one raw file, by h5py out of the same shards, and by a torch DataLoader with workers. Batches also
    as training with frozen tokens reads them, from every place that train.features names.
    """
    from train.bench.row_files import choose_clips, make_stream, store_rows
    from train.bench.rows import bench_rows
    from train.device import resolve_device
    from train.read_ahead import num_threads

    if cache is not None and (frames or dim):
        raise click.UsageError("--frames and --dim are of a cache that is made here, those of CACHE are what they are")
    if batch_size > clips:
        raise click.UsageError(f"--batch-size {batch_size} is more than the {clips} clips of --clips")
    target = resolve_device(device)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deconfound-bench-")))
        progress = stack.enter_context(Progress(repeats + 1, "bench cache", unit="round"))
        if cache is None:
            reader = make_stream(folder, num_clips=clips, num_frames=frames or _FRAMES, dim=dim or _DIM)
        else:
            reader = FeatureStore.open(cache).visual_prompts
        rows = store_rows(reader, choose_clips(reader, clips), folder / "raw")
        found = bench_rows(
            rows,
            batch_size=min(batch_size, len(rows.clip_ids)),
            repeats=repeats,
            workers=workers or num_threads(),
            device=target,
            progress=progress.advance,
        )
    click.echo(json.dumps(found.to_json()) if as_json else rows_to_text(found))


def rows_to_text(found: "RowsBench") -> str:
    """Rows a second by way of reading, the ratios of every round, and what they mean."""
    facts, size = found.facts, found.facts["bytes_per_clip"]
    timings = {"one by one": found.single, f"batches of {facts['batch_size']}": found.batches}
    speeds = [
        (f"{title}, {_name(way)}", f"{speed:,.0f}", f"{speed * facts['frames']:,.0f}", f"{speed * size / 1e9:.3g}")
        for title, timing in timings.items()
        for way in timing.ways
        for speed in [timing.clips_per_second(way)]
    ]
    ratios = [row for title, timing in timings.items() for row in _ratios(title, timing)]
    parts = [
        f"{facts['clips']} clips x ({facts['frames']}, {facts['dim']}) in {facts['shards']} shards, random order, warm",
        format_table(("copied a second", "clips", "rows", "GB"), speeds),
        format_table(("seconds over those of np.memmap", "median", "rounds"), ratios),
        _definitions(facts),
    ]
    if found.core_share < _QUIET:
        parts.append(
            f"note: reading had {found.core_share:.0%} of a core, so other programs run here, which slows long reads "
            "down more than short ones: the ratios to memmap hold, all other figures are not the machine's"
        )
    return "\n\n".join(parts)


def _ratios(title: str, timing: "Timing") -> list[tuple[str, str, str]]:
    rows = []
    for way in timing.ways:
        rounds = timing.ratios(way, "memmap")
        if way != "memmap":
            rows.append((f"{title}, {_name(way)}", _ratio(median(rounds)), " ".join(_ratio(ratio) for ratio in rounds)))
    return rows


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.0f}"


def _name(way: str) -> str:
    return f"features = {way}" if way in _FEATURES else way


def _definitions(facts: dict[str, Any]) -> str:
    return "\n".join(
        [
            "memmap: np.memmap of one raw file, by row number; a batch is one fancy index",
            "h5py: slices of the same shards, kept open",
            f"dataloader: torch's, with {facts['workers']} worker processes that read the same store",
            f"features: what training with frozen tokens reads, where {facts['device']} needs it (train.features)",
            f"medians of {facts['repeats']} rounds; in each, the ways take turns batch by batch",
        ]
    )
