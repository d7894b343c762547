"""Learning curves of several seeds: one colour a configuration, a line a seed, and their mean."""

import re
from pathlib import Path

import numpy as np

from evaluate import figures
from evaluate.report import write_report
from tests.evaluate import toy_runs

BLUE, ORANGE = "#0072b2", "#d55e00"


def strokes(svg: str, colour: str) -> list[tuple[str, bool]]:
    """(path, whether it is thin) of every line of a colour between the axes, which clip it; the legend's are not."""
    paths = re.findall(rf'<path d="([^"]*)" clip-path="[^"]*" style="[^"]*stroke: {colour};([^"]*)"', svg)
    return [(path, "opacity" in style) for path, style in paths]


def test_every_seed_is_a_thin_line_of_its_configurations_colour_and_the_mean_a_thick_one() -> None:
    seeds = [[(1.0, 4.0), (2.0, 2.0), (3.0, 1.0)], [(1.0, 2.0), (2.0, 1.0), (3.0, 1.0)]]
    svg = figures.learning_curves({"several": seeds, "alone": [[(1.0, 3.0), (2.0, 1.5), (3.0, 1.0)]]}, y_label="loss")
    several, alone = strokes(svg, BLUE), strokes(svg, ORANGE)
    assert [is_thin for _, is_thin in several] == [True, True, False]
    assert [is_thin for _, is_thin in alone] == [False]
    assert several[-1][0] == alone[0][0]  # the mean of the seeds has the values of the other run


def test_the_mean_stands_where_all_seeds_have_a_value() -> None:
    whole, stopped = np.array([(1, 4.0), (2, 2.0), (3, 1.0)]), np.array([(2, 1.0), (1, 1.0)])
    assert figures._mean_line([whole, stopped]).tolist() == [[1.0, 2.5], [2.0, 1.5]]
    assert figures._mean_line([whole, np.array([(9, 1.0)])]).shape == (0, 2)
    assert "<svg" in figures.learning_curves({"a": [[(1, 1.0)], [(2, 2.0)]]}, y_label="loss")


def test_the_page_draws_seeds_of_one_configuration_together(tmp_path: Path) -> None:
    runs = [toy_runs.run(tmp_path / "full" / f"seed{seed}", seed=seed, splits=("iid",)) for seed in (0, 1, 12)]
    runs.append(toy_runs.run(tmp_path / "other" / "seed0", splits=("iid",), switches={"vci": False}))
    write_report(runs, tmp_path / "out", num_resamples=10)
    page = (tmp_path / "out" / "index.html").read_text()
    curves = page[page.index("Learning curves</h2>") : page.index("Classes</h2>")]
    first = curves[: curves.index("</svg>")]
    assert "Thin lines are runs that differ in their seed alone" in curves
    for name in ("full/seed0, 1, 12", "other/seed0"):
        assert name in first
    assert [len(strokes(first, colour)) for colour in (BLUE, ORANGE)] == [4, 1]
    assert "Acc@1 on iid after each epoch" in curves
    assert "Other curves: learning rate" in curves
