"""`bench evaluate`: how fast average precision is on this machine, against scikit-learn.

The texts and JSON stand here; the measurement is in evaluate/bench.py.
"""

import json
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import json_option
from pipeline.tables import format_table

if TYPE_CHECKING:
    from evaluate.bench import EvaluateBench, Timing


@click.command("evaluate")
@click.option("--clips", type=click.IntRange(min=2), default=1863, show_default=True, help="Of the made-up test set.")
@click.option("--classes", type=click.IntRange(min=1), default=157, show_default=True, help="Of its labels.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds; medians are shown.")
@click.option("--resamples", type=click.IntRange(min=1), default=200, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all that is drawn.")
@json_option
def evaluate_command(clips: int, classes: int, repeats: int, resamples: int, seed: int, as_json: bool) -> None:
    """Measure the average precision of all classes, and its bootstrap, against scikit-learn on a made-up test set.

    Timed are: ours; a loop over the classes with scikit-learn's average_precision_score, each given its column; and one
    call of it for all classes (average=None). A bootstrap sorts once for all of its resamples, scikit-learn for each:
    it is given a hundredth of them, and seconds are those of one.
    """
    from evaluate.bench import bench_evaluate

    found = bench_evaluate(num_clips=clips, num_classes=classes, repeats=repeats, num_resamples=resamples, seed=seed)
    click.echo(json.dumps(found.to_json()) if as_json else evaluate_to_text(found))


def evaluate_to_text(found: "EvaluateBench") -> str:
    """Seconds by question, ratios, then how far the values are apart and what was timed."""
    sizes = found.sizes
    questions = {"all classes, once": found.once, f"one resample of {sizes['resamples']}": found.resample}
    seconds = [(title, *_seconds(timing)) for title, timing in questions.items()]
    ratios = [row for title, timing in questions.items() for row in _ratios(title, timing)]
    return "\n".join(
        [
            f"average precision of {sizes['clips']} clips x {sizes['classes']} classes (seed {sizes['seed']})",
            format_table(("ours and scikit-learn's", "seconds", "loop", "one call"), seconds),
            format_table(("how many times as fast", "median", "rounds"), ratios),
            f"largest difference: {found.max_difference:.1g}",
            "ratio_to_scikit_learn: to a loop over the classes with scikit-learn's average_precision_score",
            "ratio_to_scikit_learn_call: to one call of it for all classes (average=None)",
            f"medians of {sizes['repeats']} rounds, every other one in turned order; scikit-learn did "
            f"{sizes['scikit_learn_resamples']} of the resamples",
        ]
    )


def _seconds(timing: "Timing") -> list[str]:
    body = timing.to_json()
    return [f"{body[key]:.3g}" for key in ("seconds", "scikit_learn_seconds", "scikit_learn_call_seconds")]


def _ratios(title: str, timing: "Timing") -> list[tuple[str, str, str]]:
    body = timing.to_json()
    rounds = {"ratio_to_scikit_learn": timing.ratios, "ratio_to_scikit_learn_call": timing.call_ratios}
    return [
        (f"{title}, {key}", f"{body[key]:.1f}", " ".join(f"{ratio:.1f}" for ratio in ratios))
        for key, ratios in rounds.items()
    ]
