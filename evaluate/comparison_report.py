"""Runs against a reference on the same clips: gains, what they are made of, and whether they could be chance.

    index.html      differences, clips that were fixed and broken, classes and groups sorted by difference
    metrics.json    the document of a report (evaluate/summary.py) with these details in its comparisons
    per_class.csv   first, second, split, class, num_clips, first_value, second_value, difference, low, high, p values
    report.md       the main tables

The decision to question: runs that are not on the same clips, labels and splits are refused here, where a report lists
them as not compared. Who asks for a difference must not get one of other clips, nor of the splits that happen to be in
both.
"""

import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from cache import atomic
from cache.errors import ConfigError
from cache.run import Run
from evaluate import comparison_tables, figures, report_text, tables
from evaluate.clusters import AUTO
from evaluate.compare import why_not_comparable
from evaluate.page import Page
from evaluate.pictures import Pictures
from evaluate.report_details import add, add_notices, small_print
from evaluate.summary import summarise
from evaluate.tables import METRIC_NAMES, p_text, points
from evaluate.uncertainty import LEVEL_TEXT
from evaluate.wrong_clips import DEFINITIONS

_MOST_TILES = 6
_MOST_PICTURED = 6  # comparisons
_CSV_KEYS = ("num_clips", "first", "second", "difference", "low", "high", "p_value", "p_value_holm")


def summarise_comparison(
    runs: Sequence[Run],
    *,
    splits: Collection[str] | None = None,
    cluster: str | None = AUTO,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The document of a report on the runs, with the differences of classes, groups and clips in its comparisons.

    Args:
        runs: the reference first.
        splits: those to compare; None for all, which must be the same of all runs.
        cluster: a group whose clips are resampled together; None for each clip alone, `AUTO` for subjects where known.
        num_resamples: of every bootstrap.
        seed: of every bootstrap.

    Raises:
        ConfigError: fewer than two runs, or their data sets, tasks, protocols, splits, clips or labels differ.
    """
    check_same_data(runs, splits)
    return summarise(runs, cluster=cluster, num_resamples=num_resamples, seed=seed, splits=splits, detailed=True)


def check_same_data(runs: Sequence[Run], splits: Collection[str] | None = None) -> None:
    """Refuses runs that were not evaluated on the same clips with the same labels.

    Raises:
        ConfigError: says every difference of every run to the first.
    """
    if len(runs) < 2:
        raise ConfigError(f"a comparison needs two runs and more, got {len(runs)}")
    reasons = [reason for run in runs[1:] for reason in _differences_in_data(runs[0], run, splits)]
    if reasons:
        raise ConfigError(
            "cannot compare, because the runs saw different data: " + "; ".join(reasons) + ". Predict all of them on "
            "the same splits, or name those to compare with --split"
        )


def _differences_in_data(first: Run, second: Run, wanted: Collection[str] | None) -> Iterator[str]:
    names = f"{second.info.name} and {first.info.name}"
    keys = ("dataset", "task", "protocol")
    for key in keys:
        values = [getattr(run.info, key) for run in (second, first)]
        if values[0] != values[1]:
            yield f"{names}: {key} {values[0]!r} and {values[1]!r}"
    chosen = [{name for name in run.splits if wanted is None or name in wanted} for run in (first, second)]
    absent = [{*wanted} - names_of for names_of in chosen] if wanted is not None else [set[str](), set[str]()]
    if chosen[0] != chosen[1] or any(absent) or not chosen[0]:
        yield f"{names}: predicted splits {sorted(second.splits)} and {sorted(first.splits)}"
    for split in sorted(chosen[0] & chosen[1]):
        reason = why_not_comparable(first.predictions(split), second.predictions(split))
        if reason:
            yield f"{names} on {split}: {reason}"


def write_comparison(
    runs: Sequence[Run],
    folder: Path,
    *,
    splits: Collection[str] | None = None,
    cluster: str | None = AUTO,
    num_resamples: int = 1000,
    seed: int = 0,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Compares runs and writes the four files; equal runs give equal files.

    Args:
        runs: the reference first.
        folder: where to write; made if it is absent.
        splits: those to compare; None for all.
        cluster: as in `summarise_comparison`.
        num_resamples: of every bootstrap.
        seed: of every bootstrap.
        cache: where the frames of the clips are, instead of the folder that the first run remembers.

    Returns:
        What metrics.json holds.

    Raises:
        ConfigError: as `summarise_comparison`.
        StorageError: the disk refused.
    """
    options: dict[str, Any] = {"splits": splits, "cluster": cluster, "num_resamples": num_resamples, "seed": seed}
    summary = summarise_comparison(runs, **options)
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / "metrics.json", summary)
    atomic.write_bytes(folder / "per_class.csv", _per_class_csv(summary).encode())
    atomic.write_bytes(folder / "report.md", report_text.markdown(summary).encode())
    _page(summary, Pictures.of(runs[0], cache)).write(folder / "index.html")
    return summary


def _page(summary: Mapping[str, Any], pictures: Pictures) -> Page:
    runs, comparisons = summary["runs"], summary["comparisons"]
    first = runs[0]
    others = ", ".join(run["label"] for run in runs[1:])
    page = Page(f"{others} against {first['label']}", lead=_lead(first))
    add_notices(page, summary)
    _tiles(page, comparisons, first["headline"])
    page.section("Differences")
    add(page, tables.differences(comparisons, first["main_metrics"]))
    with page.folded("The runs themselves"):
        add(page, tables.results(runs, every_metric=True))
    page.section("What differs between the runs")
    found = comparison_tables.settings(runs)
    if found.rows:
        add(page, found)
    else:
        page.paragraph("Nothing: recipes, seeds, fingerprints and versions are the same.")
    _changed_section(page, comparisons, first, pictures)
    _section(page, "Classes", comparisons, lambda row: _classes(page, row, single=first["kind"] == "single"))
    if any(row["groups"] for row in comparisons):
        _section(page, "Groups", comparisons, lambda row: _groups(page, row, METRIC_NAMES[first["headline"]]))
    small_print(page, summary)
    return page


def _lead(first: Mapping[str, Any]) -> str:
    where = f"Dataset {first['dataset']}, task {first['task']}, protocol {first['protocol']}"
    return f"{where}. Differences are on the same clips; {first['label']} is the reference of all."


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['second']} minus {row['first']}, {row['split']}"


def _tiles(page: Page, comparisons: Sequence[Mapping[str, Any]], metric: str) -> None:
    if len(comparisons) > _MOST_TILES:
        return
    items = []
    for row in comparisons:
        gain = row["differences"][metric]
        p_value = row["p_value"] if metric == "acc1" else gain["p_value"]
        edges = (
            f"{LEVEL_TEXT} interval {points(gain['low'])} to {points(gain['high'])}"
            if gain["low"] < gain["high"]
            else ""
        )
        chance = f"p {p_text(p_value)}" if p_value is not None else ""
        of_run = f", {row['second']}" if len({row["second"] for row in comparisons}) > 1 else ""
        label = f"{METRIC_NAMES[metric]}, points, {row['split']}{of_run}"
        items.append((label, points(gain["estimate"]), "; ".join(filter(None, [edges, chance]))))
    page.tiles(items)


def _section(
    page: Page,
    title: str,
    comparisons: Sequence[Mapping[str, Any]],
    block: Callable[[Mapping[str, Any]], None],
) -> None:
    """One block per comparison; folded where there are several pairs."""
    page.section(title)
    for row in comparisons:
        if len(comparisons) == 1:
            block(row)
            continue
        with page.folded(_title(row)):
            block(row)


def _changed_section(
    page: Page, comparisons: Sequence[Mapping[str, Any]], first: Mapping[str, Any], pictures: Pictures
) -> None:
    page.section("Clips that changed")
    single = first["kind"] == "single"
    page.paragraph(
        "Fixed: wrong in the first run, right in the second, largest change of the margin first; broken: the reverse."
        if single
        else "Better: clips whose error fell from the first run to the second, most first; worse: the reverse."
    )
    page.paragraph(f"Error. {DEFINITIONS[first['kind']]} Percentages are the models' own, uncalibrated probabilities.")
    if pictures.problem:
        page.note(pictures.problem)
    for number, row in enumerate(comparisons):
        changed = row["changed"]
        page.heading(_title(row))
        page.paragraph(comparison_tables.change_text(changed, first["kind"]))
        for key, what in zip(("fixed", "broken"), comparison_tables.CHANGES[first["kind"]], strict=True):
            if changed[key]:
                with page.folded(f"Most: {what}") if len(comparisons) > 1 else nullcontext():
                    names = (row["first"], row["second"])
                    _changed_clips(page, changed[key], names, pictures if number < _MOST_PICTURED else None, what)


def _changed_clips(
    page: Page,
    clips: Sequence[Mapping[str, Any]],
    names: tuple[str, str],
    pictures: Pictures | None,
    what: str,
) -> None:
    strips = [pictures.three_frames(clip["clip_id"]) if pictures else None for clip in clips]
    page.images(
        [
            (jpeg, f"{what}: {comparison_tables.change_caption(clip, names)}")
            for jpeg, clip in zip(strips, clips, strict=True)
            if jpeg
        ],
        wide=True,
    )
    rest = [clip for jpeg, clip in zip(strips, clips, strict=True) if not jpeg]
    if rest:
        add(page, comparison_tables.changes(rest, names))


def _classes(page: Page, row: Mapping[str, Any], *, single: bool) -> None:
    gains = {item["name"]: 100 * item["difference"] for item in row["per_class"]}
    what = "recall" if single else "average precision"
    svg = figures.difference_bars(gains, x_label=f"difference of {what}, points")
    page.figure(svg, caption=f"{_title(row)}: {what} of every class that has a clip.")
    table = comparison_tables.classes(row, single=single)
    short = comparison_tables.ends(table)
    if short is None:
        add(page, table)
        return
    add(page, short)
    with page.folded("All classes"):
        add(page, table)


def _groups(page: Page, row: Mapping[str, Any], metric: str) -> None:
    for group, table in comparison_tables.groups(row, metric).items():
        page.heading(f"By {group}")
        add(page, comparison_tables.ends(table) or table)


def _per_class_csv(summary: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    values = ["num_clips", "first_value", "second_value", *_CSV_KEYS[3:]]
    writer.writerow(["first", "second", "split", "class", *values])
    for pair in summary["comparisons"]:
        for row in pair["per_class"]:
            names = [pair["first"], pair["second"], pair["split"], row["name"]]
            writer.writerow([*names, *(row[key] for key in _CSV_KEYS)])
    return text.getvalue()
