"""The demo's page: what the world is, what is confounded, what came out, and what that does and does not show.

The page prints no number of its own and no opinion: every sentence about an outcome comes from `summary`, where it is
made from intervals. The standard reports, one per task, stand in folders beside it; `demo` has them written.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.manifest import Dataset
from evaluate.figures import Point, split_comparison
from evaluate.page import Page
from evaluate.uncertainty import LEVEL_TEXT, Interval
from pipeline.demo import background
from pipeline.demo.pictures import describe, strips, surroundings
from pipeline.demo.probe import CONDITIONS, ProbeRow
from pipeline.demo.scores import HEADLINE, METRIC_NAMES, percent, split_name
from pipeline.demo.scripts import (
    ACTIVITIES,
    BACKGROUNDS,
    BAG_OF_FRAMES_CEILING,
    CO_OCCURRING_ACTIONS,
    CO_OCCURRING_OF,
    DISTRACTOR_OF,
    DISTRACTORS,
    ORDER_PAIRS,
    SCRIPTS,
    TEST_SPLITS,
    Split,
    WorldConfig,
    draw_recording,
)
from pipeline.demo.summary import MethodScores, Summary
from pipeline.demo.variants import VARIANTS
from pipeline.demo.world import PROTOCOL

_SPLIT_TEXTS: Mapping[Split, str] = {
    "test_iid": "as in training: surroundings follow the activity",
    "test_counterfactual": "surroundings drawn without looking at the activity",
    "test_recombined": "random sequences of actions in random surroundings: no activity, only actions",
}
_PROBED_RECORDING = 2


def write_page(folder: Path, summary: Summary, world: WorldConfig, dataset: Dataset) -> Path:
    """Writes FOLDER/index.html and returns its path."""
    page = Page(
        "The controlled world",
        lead="Rendered videos whose causes and confounders are known: which methods read the causes?",
    )
    page.note(summary.statement, title="An illustration", kind="warning")
    for notice in summary.notices:
        page.note(notice)
    page.tiles(_tiles(summary))
    _findings(page, summary)
    _results(page, summary)
    _world(page, world)
    _confounders(page, world, dataset)
    _probe(page, summary, world)
    _about(page, summary)
    path = folder / "index.html"
    page.write(path)
    return path


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    """The headline figure of each method where its confounders are broken."""
    shown = {("activity", "test_counterfactual"): "acc1", ("atomic", "test_recombined"): "map_macro"}
    return [
        (
            f"{scores.method}, {scores.task}, {split_name(scores.split)}",
            f"{100 * interval.estimate:.1f} %",
            METRIC_NAMES[metric] + _edges(interval),
        )
        for scores in summary.methods
        if (metric := shown.get((scores.task, scores.split))) and (interval := scores.metrics[metric])
    ]


def _edges(interval: Interval) -> str:
    known = f", {LEVEL_TEXT} interval {100 * interval.low:.1f} to {100 * interval.high:.1f}"
    return known if interval.is_known else ""


def _findings(page: Page, summary: Summary) -> None:
    page.section("What came out")
    page.paragraph(
        "Differences are between methods on the same videos. The control is the baseline with VCI's temporal layers: "
        "what it gains is attention over time and not the front-door step. PeVL stands on another backbone."
    )
    told: list[str] = []
    for title, sentences in summary.main_findings.items():
        page.heading(title)
        page.bullets(sentences)
        told += sentences
    rest = [text for text in summary.findings if text not in told]
    if rest:
        with page.folded("All other comparisons"):
            page.bullets(rest)


def _results(page: Page, summary: Summary) -> None:
    page.section("Results")
    page.bullets([f"{name}: {VARIANTS[name].text}." for name in _names(summary)])
    expected = background.expected_accuracy(summary.world)
    page.paragraph(
        f"{background.NAME.capitalize()}: {background.DESCRIPTION}. Over endless videos its Acc@1 would be "
        + ", ".join(f"{100 * value:.1f} % {split_name(split)}" for split, value in expected.items())
        + "."
    )
    for task, metric in HEADLINE.items():
        rows = [scores for scores in (*summary.methods, *summary.background) if scores.task == task]
        metrics = list(rows[0].metrics)
        ceiling = {"no order": 100 * BAG_OF_FRAMES_CEILING} if task == "activity" else None
        page.heading({"activity": "Activities, one of 8", "atomic": "Atomic actions, any of 16"}[task])
        page.figure(
            split_comparison(_points(rows, metric), x_label=f"{METRIC_NAMES[metric]}, %", references=ceiling),
            caption=f"{METRIC_NAMES[metric]} with {LEVEL_TEXT} intervals over the test videos.",
        )
        page.table(
            ["test split", "method", *(f"{METRIC_NAMES[name]}, %" for name in metrics)],
            [
                [split_name(scores.split), scores.method, *(_cell(scores, name) for name in metrics)]
                for scores in _by_split(rows)
            ],
            caption=f"{_how(rows[0])} {_TASK_NOTES[task]}",
        )


def _by_split(rows: Sequence[MethodScores]) -> list[MethodScores]:
    """Rows of one split together, the background last."""
    return [scores for split in TEST_SPLITS for scores in rows if scores.split == split]


def _how(scores: MethodScores) -> str:
    seeds = f"; mean and ± standard deviation over {scores.num_seeds} seeds" if scores.num_seeds > 1 else ""
    return f"{scores.num_videos} videos per split; [{LEVEL_TEXT} interval over videos]{seeds}."


def _cell(scores: MethodScores, metric: str) -> str:
    spread = f" ± {100 * scores.seed_deviations[metric]:.1f}" if scores.seed_deviations else ""
    return percent(scores.metrics[metric]) + spread


_TASK_NOTES = {
    "activity": (
        f"Three pairs of activities have the same actions in another order, so a model without order ends at "
        f"{100 * BAG_OF_FRAMES_CEILING:.1f} %. Right order: the own activity against its partner alone, chance 50 %."
    ),
    "atomic": "Causal actions belong to scripts; co-occurring ones come along and are tied to the activity.",
}


def _world(page: Page, world: WorldConfig) -> None:
    page.section("The world")
    page.paragraph(
        "64 x 64 pixels, ten seconds at eight frames a second. A figure performs a script of actions; each action is "
        "an object and a motion. Where the person stands, how fast they move and how the camera shakes means nothing."
    )
    for split, text in _SPLIT_TEXTS.items():
        recordings = [draw_recording(world, split, number) for number in (0, 1)]
        caption = f"{split_name(split).capitalize()}: {text}. " + "; ".join(describe(one) for one in recordings) + "."
        page.image(strips(recordings), caption=caption, pixelated=True)
    partners = {name: other for pair in ORDER_PAIRS for name, other in (pair, pair[::-1])}
    page.table(
        ["activity", "script (shuffled inside brackets)", "same actions as"],
        [[name, _script(name), partners.get(name, "")] for name in ACTIVITIES],
        caption="The causes.",
    )


def _script(name: str) -> str:
    return " → ".join(f"[{', '.join(level)}]" if len(level) > 1 else level[0] for level in SCRIPTS[name])


def _confounders(page: Page, world: WorldConfig, dataset: Dataset) -> None:
    page.section("What is confounded")
    page.paragraph(
        "Three things follow the activity without causing it, each with its own strength rho: the probability that it "
        "is the activity's own and not drawn at random. In the counterfactual split all are drawn at random."
    )
    rows = []
    for name, what, rho, own in _confounder_rows(world):
        shares = [f"{100 * _own_share(dataset, split, name, own):.0f} %" for split in ("train", *TEST_SPLITS[:2])]
        rows.append([what, f"{rho:.2f}", *shares])
    page.table(
        ["confounder", "rho", "own in training", "own in the i.i.d. test", "own in the counterfactual test"],
        rows,
        caption="Share of videos that show their activity's own. Chance is 1 in 8, for the co-occurring action 1 in 4.",
    )
    page.image(
        surroundings(world),
        caption="A row per activity. Left: the middle frame of training videos. Right: of counterfactual test videos.",
        pixelated=True,
    )


def _confounder_rows(world: WorldConfig) -> list[tuple[str, str, float, dict[str, str]]]:
    """Group name, words, rho, and activity -> own value."""
    backgrounds = dict(zip(ACTIVITIES, BACKGROUNDS, strict=True))
    corners = {name: DISTRACTORS[k] for name, k in zip(ACTIVITIES, DISTRACTOR_OF, strict=True)}
    extras = {name: CO_OCCURRING_ACTIONS[k] for name, k in zip(ACTIVITIES, CO_OCCURRING_OF, strict=True)}
    shirt = f"Z: background (the shirt goes with it in {100 * world.shirt_follows:.0f} %)"
    extra = f"B: co-occurring action (in {100 * world.co_occurring_probability:.0f} % of videos)"
    return [
        ("background", shirt, world.rho_background, backgrounds),
        ("distractor", "D: object in the corner", world.rho_distractor, corners),
        ("co_occurring", extra, world.rho_co_occurring, extras),
    ]


def _own_share(dataset: Dataset, split: str, group: str, own: Mapping[str, str]) -> float:
    """Share of a split's videos, among those that have the group at all, that show their activity's own value."""
    clips = [clip for clip in dataset.select(PROTOCOL, split) if clip.groups[group] != "none"]
    return sum(clip.groups[group] == own[clip.labels["activity"][0]] for clip in clips) / len(clips)


def _probe(page: Page, summary: Summary, world: WorldConfig) -> None:
    page.section("Is the image-text model biased?")
    page.paragraph(
        "The tiny CLIP was trained on a biased corpus. The papers' probe: cover the person and the object, keep the "
        "rest, and see whether the match with the label stays; then remove the surroundings and see whether it goes."
    )
    recording = draw_recording(world, "test_iid", _PROBED_RECORDING)
    page.image(
        strips([recording], ("plain", "masked", "neutral")),
        caption="As filmed; with the cause covered; with the surroundings removed.",
        pixelated=True,
    )
    page.table(
        ["frames", "question", "zero-shot accuracy, %", "matching score", "share of the score as filmed, %"],
        [_probe_cells(row) for row in summary.probe],
        caption="Matching score: cosine with the own class minus the mean over classes. "
        f"[{LEVEL_TEXT} interval over videos]",
    )
    page.bullets(summary.bias_findings)


def _probe_cells(row: ProbeRow) -> list[str]:
    assert row.condition in CONDITIONS
    edges = f" [{row.score.low:.3f}, {row.score.high:.3f}]" if row.score.is_known else ""
    kept = "" if row.condition == "as filmed" else percent(row.kept)
    return [row.condition, row.question, percent(row.top1), f"{row.score.estimate:.3f}{edges}", kept]


def _about(page: Page, summary: Summary) -> None:
    page.section("About this page")
    page.paragraph("The standard reports, with curves, classes and confusions of every run:")
    page.links([(f"{task}/index.html", f"Report of the task {task}") for task in HEADLINE])
    page.table(
        ["task", "method", "seed", "run"],
        [[run.task, run.method, run.seed, run.name] for run in summary.runs],
        caption="Runs, in the folder runs beside the report's.",
    )


def _names(summary: Summary) -> list[str]:
    return list(dict.fromkeys(scores.method for scores in summary.methods))


def _points(rows: Sequence[MethodScores], metric: str) -> dict[str, dict[str, Point]]:
    points: dict[str, dict[str, Point]] = {}
    for scores in rows:
        points.setdefault(scores.method, {})[split_name(scores.split)] = _point(scores.metrics[metric])
    return points


def _point(interval: Interval) -> Point:
    edges = (100 * interval.low, 100 * interval.high) if interval.is_known else None
    return Point(value=100 * interval.estimate, interval=edges)
