"""What commands say: the result of a stage as text for people and as JSON for programs.

The stages return plain data and print nothing; what it looks like is decided here, once for both forms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cache.progress import Progress
from cache.verify import StreamReport
from pipeline.tables import format_bytes, format_seconds, format_table

if TYPE_CHECKING:
    from extract.estimate import ExtractionPlan
    from extract.extractor import ExtractionSummary

_MOST_LISTED = 10
_CERTAIN = 0.05


class ExtractionProgress:
    """A progress bar that learns its length from the first report of the extraction."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._total = 0

    def __call__(self, _done: int, failed: int, total: int) -> None:
        """One more clip is done."""
        if self._bar is None or total != self._total:  # with --overwrite there are two parts
            self._close()
            self._bar, self._total = Progress(total, "extract", unit="clip"), total
        self._bar.advance(failed=failed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def summary_to_json(summary: "ExtractionSummary") -> dict[str, Any]:
    """The object that `extract --json` prints."""
    return asdict(summary) | {"num_failed": summary.num_failed}


def summary_to_text(summary: "ExtractionSummary") -> str:
    """Counts per stream, and what to do about failures."""
    rows = [(name, stream.ok, _codes(stream.failed)) for name, stream in summary.streams.items()]
    lines = [format_table(("stream", "ok", "failed"), rows)]
    if summary.already_done:
        lines.append("nothing to do: all of it was there")
    else:
        lines.append(f"{summary.num_clips_decoded} clips decoded in {format_seconds(summary.seconds)}")
    if summary.num_failed:
        lines.append(
            "failed clips are rows with a code; `deconfound status` lists the reasons, --retry-failed tries again"
        )
    return "\n".join(lines)


def plan_to_json(plan: "ExtractionPlan") -> dict[str, Any]:
    """The object that `plan --json` prints."""
    body = asdict(plan) | {"gigabytes_left": plan.gigabytes_left}
    return body | {"missing_videos": [str(path) for path in plan.missing_videos]}


def plan_to_text(plan: "ExtractionPlan") -> str:
    """Counts, missing files, and the estimate with what it rests on."""
    rows = [
        (name, stream.num_done, stream.num_left, format_bytes(stream.gigabytes_left * 1e9))
        for name, stream in plan.streams.items()
    ]
    lines = [
        f"{plan.num_clips} clips of {plan.num_videos} videos in {plan.num_shards} shards, "
        f"{len(plan.shards_left)} of them left",
        format_table(("stream", "done", "left", "will take"), rows),
        f"about {format_seconds(plan.hours * 3600)} and {format_bytes(plan.gigabytes_left * 1e9)}, assuming:",
        *(f"  {assumption}" for assumption in plan.assumptions),
    ]
    lines += _listing("missing", [str(path) for path in plan.missing_videos])
    lines += _listing("unreadable (among the probed)", plan.unreadable_videos)
    return "\n".join(lines)


def metrics_to_text(summary: Mapping[str, Any]) -> str:
    """Every metric of every run and split with its interval, headline first, then what the runs say together.

    Notices stand above; what the numbers leave out and the rules of the benchmarks stand below.
    """
    from evaluate.report_text import rules
    from evaluate.tables import METRIC_NAMES, cells, interval_text, percent, remarks
    from evaluate.uncertainty import LEVEL_TEXT

    rows = [
        (run["label"], name, METRIC_NAMES[metric], percent(split[metric]), interval_text(split, metric))
        for run, name, split in cells(summary["runs"])
        for metric in dict.fromkeys((run["headline"], *METRIC_NAMES))
        if split.get(metric) is not None
    ]
    notices = dict.fromkeys(notice for run in summary["runs"] for notice in run["notices"])
    table = format_table(("run", "split", "metric", "%", f"{LEVEL_TEXT} interval"), rows)
    beside = [*remarks(summary["runs"]), *rules(summary["runs"])]
    return "\n".join([*(f"note: {notice}" for notice in notices), table, *_together(summary), *beside])


def comparison_to_text(summary: Mapping[str, Any]) -> str:
    """Every difference with its interval and test, how many clips changed, and the classes that changed for sure."""
    from evaluate.comparison_tables import change_text

    notices = dict.fromkeys(notice for run in summary["runs"] for notice in run["notices"])
    lines = [*(f"note: {notice}" for notice in notices), _differences(summary), ""]
    for pair in summary["comparisons"]:
        title = f"{pair['second']} minus {pair['first']}, {pair['split']}"
        lines.append(f"{title}: {change_text(pair['changed'], summary['runs'][0]['kind'])}")
        lines += _certain_classes(pair["per_class"])
    return "\n".join(lines)


def _certain_classes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each class whose difference stays below 5 % after Holm's correction."""
    from evaluate.tables import p_text, points

    certain = [row for row in rows if row["p_value_holm"] is not None and row["p_value_holm"] < _CERTAIN]
    return [
        f"  {row['name']}: {points(row['difference'])} points, p {p_text(row['p_value_holm'])} (Holm)"
        for row in certain[:_MOST_LISTED]
    ]


def _together(summary: Mapping[str, Any]) -> list[str]:
    """Paired differences, pairs that are none, spreads over seeds and folds; each after an empty line."""
    from evaluate.detail_tables import over_folds
    from evaluate.tables import not_compared, over_seeds

    parts: list[str] = []
    if summary["comparisons"]:
        parts += ["", _differences(summary)]
    if summary["not_compared"]:
        parts += ["", *(f"not compared: {line}" for line in not_compared(summary["not_compared"]))]
    if summary["over_seeds"]:
        spreads = over_seeds(summary["over_seeds"])
        parts += ["", format_table(spreads.columns, spreads.rows)]
    for folds in over_folds(summary["over_folds"]):
        parts += ["", format_table(folds.columns, folds.rows)]
    return [*parts, ""] if parts else []


def _differences(summary: Mapping[str, Any]) -> str:
    """A row per pair, split and metric, headline first; each p-value with the test that it is of."""
    from evaluate.tables import METRIC_NAMES, count_test
    from evaluate.uncertainty import LEVEL_TEXT

    headlines = {run["label"]: run["headline"] for run in summary["runs"]}
    rows = []
    for pair in summary["comparisons"]:
        for metric in dict.fromkeys((headlines[pair["first"]], *METRIC_NAMES)):
            if metric in pair["differences"]:
                names = (pair["second"], pair["first"], pair["split"], METRIC_NAMES[metric])
                counted = metric == "acc1" and pair["p_value"] is not None
                test = (count_test([pair]), pair) if counted else ("bootstrap", pair["differences"][metric])
                rows.append((*names, *_gain(pair["differences"][metric]), *_tested(*test)))
    header = ("run", "minus", "split", "metric", "points", f"{LEVEL_TEXT} interval", "test", "p", "p, Holm")
    return format_table(header, rows)


def _tested(test: str, item: Mapping[str, Any]) -> tuple[str, str, str]:
    """A test with its p-value and Holm's; empty where there is none."""
    from evaluate.tables import p_text

    if item["p_value"] is None:
        return "", "", ""
    return test, p_text(item["p_value"]), p_text(item["p_value_holm"])


def _gain(item: Mapping[str, Any]) -> tuple[str, str]:
    """A difference and its interval, empty where every resample gives the same."""
    from evaluate.tables import points

    edges = f"{points(item['low'])} to {points(item['high'])}" if item["low"] < item["high"] else ""
    return points(item["estimate"]), edges


def streams_to_json(reports: Mapping[str, StreamReport]) -> dict[str, Any]:
    """The object that `status --json` and `verify --json` print."""
    return {"streams": {name: report.to_json() for name, report in reports.items()}}


def streams_to_text(reports: Mapping[str, StreamReport]) -> str:
    """A row per stream, then random weights and problems in words."""
    header = ("stream", "rows", "ok", "failed", "left", "clips/s", "size", "content_sha256")
    rows = [
        (
            name,
            report.rows,
            report.ok,
            _codes(report.failed),
            _left(report),
            _rate(report),
            format_bytes(report.num_bytes),
            (report.content_sha256 or "-")[:16],
        )
        for name, report in reports.items()
    ]
    lines = [format_table(header, rows)]
    failures = {clip_id: failure for report in reports.values() for clip_id, failure in report.failures.items()}
    lines += _listing("failed", [f"{clip_id}: {failure.message}" for clip_id, failure in sorted(failures.items())])
    for name, report in reports.items():
        if report.random_weights:
            lines.append(f'note: {name} was made with random weights (pretrained = "none")')
        if report.reduced:
            lines.append(f"note: {name}: {report.reduced} clips were made with a smaller batch, out of memory")
        lines += [f"problem: {problem}" for problem in report.problems]
    return "\n".join(lines)


def _left(report: StreamReport) -> str:
    if not report.left or report.seconds_left is None:
        return str(report.left)
    return f"{report.left} (about {format_seconds(report.seconds_left)})"


def _rate(report: StreamReport) -> str:
    return "-" if report.clips_per_second is None else f"{report.clips_per_second:.3g}"


def _codes(failed: Mapping[str, int]) -> str:
    return ", ".join(f"{code} {count}" for code, count in sorted(failed.items())) or "0"


def _listing(title: str, lines: "list[str] | tuple[str, ...]") -> list[str]:
    if not lines:
        return []
    rest = len(lines) - _MOST_LISTED
    more = [f"  ... and {rest} more"] if rest > 0 else []
    return [f"{title}: {len(lines)}", *(f"  {line}" for line in lines[:_MOST_LISTED]), *more]
