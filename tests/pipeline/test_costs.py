"""What `deconfound cost` says: parts and sums, and which printed figures it reproduces."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cache.errors import ConfigError
from pipeline.config import load_recipe, recipe_names
from pipeline.costs import count_costs
from pipeline.paper_costs import MODELS, PrintedCost, printed_costs

NUMBERS = ("gmacs_linear", "gmacs_with_attention", "params_m", "trainable_params_m")


def report_of(recipe: str, *overrides: str, num_classes: int | None = None) -> dict[str, Any]:
    body = count_costs(load_recipe(recipe, overrides), num_classes=num_classes).to_json()
    copied: dict[str, Any] = json.loads(json.dumps(body))
    return copied


def figures(method: str) -> dict[tuple[str, str, float], PrintedCost]:
    return {(figure.row.method, figure.row.metric, figure.row.value): figure for figure in printed_costs(method)}


@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.startswith("demo-")])
def test_every_recipe_of_a_paper_is_counted_for_its_own_classes(name: str) -> None:
    body = report_of(name)
    assert body["num_classes"] is not None
    for key in NUMBERS:
        assert sum(part[key] for part in body["parts"].values()) == pytest.approx(body["sum"][key])
        assert all(key in part and "published" in part for part in body["parts"].values())
    assert body["published"]


def test_fewer_frames_cost_less_in_proportion() -> None:
    long, short = report_of("cmdcl-breakfast-activity"), report_of("cmdcl-breakfast-activity", "train.num_frames=16")
    assert (long["num_frames"], short["num_frames"]) == (64, 16)
    tower = [body["parts"]["image_tower"]["gmacs_linear"] for body in (long, short)]
    assert tower[0] == pytest.approx(4 * tower[1])
    assert long["sum"]["gmacs_linear"] == pytest.approx(2597.4, abs=0.1)
    assert short["sum"]["gmacs_linear"] == pytest.approx(649.4, abs=0.1)


def test_training_leaves_out_what_is_cached() -> None:
    body = report_of("cmdcl-breakfast-activity")
    assert body["parts"]["image_tower"]["cached"]
    outside = body["sum"]["gmacs_linear"] - body["sum_in_training"]["gmacs_linear"]
    assert outside == pytest.approx(body["parts"]["image_tower"]["gmacs_linear"])


def test_unknown_classes_are_counted_as_one_and_said(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[train]\ntask = "verbs"\n')
    recipe = load_recipe(str(path))
    report = count_costs(recipe)
    assert report.num_classes is None
    assert report.parts["classifier"].cost.params == 513
    assert "one class" in report.to_text().splitlines()[0]
    assert "give --classes" in report.to_text()
    given = count_costs(recipe, num_classes=9)
    assert given.parts["classifier"].cost.params == 9 * 513
    assert "give --classes" not in given.to_text()


def test_the_joints_are_those_of_the_data_set() -> None:
    per_joint = 48 * 12 * 12 * 768**2  # the least that 48 frames of one token more cost in 12 blocks
    diving, smarthome = report_of("pevl-diving48-b16"), report_of("pevl-toyota-smarthome-b16")
    saved = [body["parts"]["pose_encoder"]["gmacs_linear"] * 1e9 for body in (diving, smarthome)]
    assert saved[0] - saved[1] > 4 * per_joint


def test_cmdcls_figures_agree_without_attention_products_alone() -> None:
    found = figures("cmdcl")
    gflops = found["CMDCL", "gflops", 650]
    assert (gflops.agrees, gflops.convention) == (True, "linear and convolution only")
    params = found["CMDCL", "params_m", 210]
    assert (params.agrees, params.convention) == (True, "what a module counter sees")
    assert found["Text4Vis", "gflops", 835].agrees
    assert found["BIKE", "params_m", 287].agrees


def test_pevls_pose_figures_agree_and_its_video_figure_does_not() -> None:
    found = figures("pevl")
    pose, video = found["P encoder", "gflops", 108], found["V encoder", "gflops", 275]
    assert (pose.agrees, pose.convention) == (True, "with attention products")
    assert (video.agrees, video.convention) == (False, "with attention products")
    assert video.ours == pytest.approx(303.3, abs=0.05)
    assert not found["V encoder", "tunable_params_m", 7].agrees
    assert not found["PeVL", "gflops", 510].agrees


def test_what_does_not_agree_is_said_to_do_so() -> None:
    lines = count_costs(load_recipe("pevl-diving48-b16")).to_text().splitlines()
    video = next(line for line in lines if "V encoder" in line and "gflops" in line)
    pose = next(line for line in lines if "P encoder " in line and "gflops" in line)
    assert re.search(r"275 +303\.32 +NO +none; ours: with attention products", video)
    assert re.search(r"108 +108\.09 +yes +with attention products", pose)


def test_every_model_that_is_counted_is_in_the_papers_tables() -> None:
    for method, models in MODELS.items():
        assert {figure.row.method for figure in printed_costs(method)} == set(models)


def test_figures_stand_with_their_part() -> None:
    body = report_of("pevl-diving48-b16")
    beside = {(figure["metric"], figure["value"]) for figure in body["parts"]["pose_encoder"]["published"]}
    assert beside == {("gflops", 108), ("tunable_params_m", 11)}
    assert {figure["method"] for figure in body["sum"]["published"]} == {"PeVL ViT-B/16", "PeVL ViT-L/14", "PeVL"}


def test_a_recipe_whose_clip_is_unknown_is_refused() -> None:
    with pytest.raises(ConfigError, match="ViT-B-17"):
        report_of("pevl-diving48-b16", "train.pevl.clip=ViT-B-17")


def test_the_two_backbones_of_cmdcl_cost_what_the_paper_counts() -> None:
    """649.3 GMACs at 16 frames, linear and convolution only; the paper prints 650."""
    recipe = load_recipe("cmdcl-breakfast-activity", ["train.num_frames=16"])
    report = count_costs(recipe)
    assert report.to_json()["backbones"]["gmacs_linear"] == pytest.approx(649.3, abs=0.05)
    assert "video_encoder + image_tower" in report.to_text()
    assert count_costs(load_recipe("pevl-diving48-b16")).to_json()["backbones"] is None
