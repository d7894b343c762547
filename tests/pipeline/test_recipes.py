"""Recipes: named by the rule, every key documented, the papers' numbers, twins that differ in what they say alone."""

import ast
import dataclasses
import inspect
import itertools
import re
from typing import Any

import pytest

from cache.errors import ConfigError
from evaluate.paper import is_full_method
from pipeline.config import Recipe, load_recipe, recipe_names
from pipeline.study.variants import ROWS, SEE
from train.config import TrainConfig, to_json

TASKS = {
    "breakfast": {"activity": "single", "atomic": "multi"},
    "coin": {"task": "single", "step": "multi"},
    "charades": {"atomic": "multi"},
    "diving48": {"action": "single"},
    "gym99": {"gym99": "single"},
    "gym288": {"gym288": "single"},
    "haa500": {"action": "single"},
    "toyota-smarthome": {"action": "single"},
}
"""Tasks of the papers' benchmarks by the benchmark's name in a recipe."""
BOXES = "extract.pose.boxes=whole_frame"
CAUSAL = [(benchmark, task) for benchmark in ("breakfast", "coin", "charades") for task in TASKS[benchmark]]
PEVL = ("diving48", "gym99", "gym288", "haa500", "toyota-smarthome")
REAL = [name for name in recipe_names() if not name.startswith("demo-")]


def parts(name: str) -> dict[str, str]:
    """Method, benchmark, task and backbone in a recipe's name; empty where it has none."""
    benchmarks = "|".join([*TASKS, "demo"])
    rule = rf"(?P<method>\w+)-(?P<benchmark>{benchmarks})(-(?P<task>[a-z]+))?(-(?P<backbone>b16|l14))?"
    match = re.fullmatch(rule, re.sub(r"^demo-(\w+)-", r"\1-demo-", name))
    assert match, f"{name} does not follow <method>-<dataset>[-<task>][-b16|-l14]"
    return {key: value or "" for key, value in match.groupdict().items()}


def train_values(name: str, *without: str) -> dict[str, Any]:
    body = to_json(load_recipe(name).train)
    return {key: value for key, value in body.items() if key not in without}


def test_every_benchmark_of_the_papers_has_its_recipes() -> None:
    expected = {f"{method}-{benchmark}-{task}" for method in ("cmdcl", "pcmci") for benchmark, task in CAUSAL}
    expected |= {f"see-{benchmark}-{task}" for benchmark, task in CAUSAL}
    expected |= {f"pevl-{benchmark}-{backbone}" for benchmark in PEVL for backbone in ("b16", "l14")}
    assert set(REAL) == expected


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_what_its_name_says(name: str) -> None:
    found, recipe = parts(name), load_recipe(name)
    assert recipe.train.method == {"see": "cmdcl"}.get(found["method"], found["method"])
    assert recipe.values["description"]
    if found["task"]:
        assert recipe.train.task == found["task"]
    if found["benchmark"] != "demo":
        assert recipe.train.task in TASKS[found["benchmark"]]
        clip = {"": "ViT-B-16-quickgelu", "b16": "ViT-B-16-quickgelu", "l14": "ViT-L-14-quickgelu"}[found["backbone"]]
        assert recipe.values["extract"]["image_encoder"] == {"model": clip, "pretrained": "openai"}


@pytest.mark.parametrize("name", recipe_names())
def test_pevl_is_given_single_label_tasks_alone(name: str) -> None:
    found, config = parts(name), load_recipe(name).train
    if config.method == "pevl":
        kind = {"activity": "single", "atomic": "multi"} if found["benchmark"] == "demo" else TASKS[found["benchmark"]]
        assert kind[config.task] == "single"


def documented(cls: type) -> set[str]:
    """Names of the fields of a configuration that have a line of documentation below them, inherited ones too."""
    names: set[str] = set()
    for owner in cls.__mro__[:-1]:
        (body,) = (node.body for node in ast.parse(inspect.getsource(owner)).body if isinstance(node, ast.ClassDef))
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                assert isinstance(field.target, ast.Name)
                names.add(field.target.id)
    return names


def undocumented(cls: type, values: dict[str, Any], where: str) -> list[str]:
    hints = {field.name: field.default_factory for field in dataclasses.fields(cls)}
    known, lines = documented(cls), []
    for key, value in values.items():
        if key not in known:
            lines.append(f"{where}.{key}")
        elif isinstance(value, dict):
            lines += undocumented(type(hints[key]()), value, f"{where}.{key}")  # type: ignore[operator]
    return lines


@pytest.mark.parametrize("name", recipe_names())
def test_every_key_that_a_recipe_sets_is_documented_where_it_is_declared(name: str) -> None:
    assert undocumented(TrainConfig, load_recipe(name).values["train"], "train") == []


def test_an_unknown_key_counts_as_undocumented() -> None:
    assert undocumented(TrainConfig, {"epochs": 1, "epoch": 1, "pcmci": {"dim": 1, "dims": 1}}, "train") == [
        "train.epoch",
        "train.pcmci.dims",
    ]


@pytest.mark.parametrize(("benchmark", "task"), CAUSAL)
def test_cmdcl_and_pcmci_have_their_papers_schedule(benchmark: str, task: str) -> None:
    for method, epochs in (("cmdcl", 80), ("pcmci", 100)):
        recipe = load_recipe(f"{method}-{benchmark}-{task}")
        config, optimizer = recipe.train, recipe.train.optimizer
        assert (config.epochs, optimizer.name, optimizer.learning_rate) == (epochs, "adam", 1e-5)
        assert (optimizer.schedule, optimizer.warmup_epochs) == ("cosine", 0)
        assert config.video_encoder.pretrained == "8x32_224_K400"
        assert recipe.extract.num_frames == config.num_frames == 64
        assert (config.cmdcl.sta_layers, config.pcmci.bases) == (6, 8)


@pytest.mark.parametrize(("benchmark", "task"), CAUSAL)
def test_pcmci_differs_from_cmdcl_in_method_and_epochs_alone(benchmark: str, task: str) -> None:
    names = [f"{method}-{benchmark}-{task}" for method in ("cmdcl", "pcmci")]
    first, second = (train_values(name, "method", "epochs", "cmdcl", "pcmci") for name in names)
    assert first == second
    assert load_recipe(names[0]).extract == load_recipe(names[1]).extract


@pytest.mark.parametrize("place", [*(f"{benchmark}-{task}" for benchmark, task in CAUSAL), "activity", "atomic"])
def test_see_is_the_studys_row_and_else_cmdcl(place: str) -> None:
    demo = "demo-" if place in ("activity", "atomic") else ""
    cmdcl, see = (load_recipe(f"{demo}{name}-{place}").train for name in ("cmdcl", "see"))
    row = load_recipe(f"{demo}cmdcl-{place}", ROWS[SEE].overrides()).train
    assert see == dataclasses.replace(cmdcl, variant="SEE", cmdcl=row.cmdcl)
    assert not is_full_method("cmdcl", {"train": to_json(see)})
    assert is_full_method("cmdcl", {"train": to_json(cmdcl)})


@pytest.mark.parametrize("benchmark", PEVL)
def test_pevl_has_its_papers_schedule_and_inputs(benchmark: str) -> None:
    recipe = load_recipe(f"pevl-{benchmark}-b16")
    config, optimizer = recipe.train, recipe.train.optimizer
    assert (config.num_frames, config.pevl.pose_frames, recipe.values["extract"]["num_frames"]) == (16, 48, 48)
    assert (config.epochs, optimizer.warmup_epochs, optimizer.learning_rate) == (50, 3, 8e-6)
    assert (optimizer.name, optimizer.betas, optimizer.weight_decay) == ("adamw", (0.9, 0.98), 0.05)
    assert (config.pevl.lambda_r, config.pevl.crops, config.batch_size) == (0.1, 3, 64)


@pytest.mark.parametrize("benchmark", PEVL)
def test_the_large_model_differs_from_the_small_one_in_clip_alone(benchmark: str) -> None:
    small, large = (load_recipe(f"pevl-{benchmark}-{backbone}", [BOXES]) for backbone in ("b16", "l14"))
    clip = "ViT-L-14-quickgelu"
    assert dataclasses.replace(small.train, pevl=dataclasses.replace(small.train.pevl, clip=clip)) == large.train
    encoder = dataclasses.replace(small.extract.image_encoder, model=clip)
    assert dataclasses.replace(small.extract, image_encoder=encoder) == large.extract


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_extracts_what_it_trains_on(name: str) -> None:
    recipe: Recipe = load_recipe(name, [BOXES])
    config, streams = recipe.train, set(recipe.extract.streams)
    used = config.pevl.pose_frames if config.method == "pevl" else config.num_frames
    assert recipe.extract.num_frames >= used >= config.num_frames
    if config.method == "pevl":
        joints = set() if "toyota" in name else {"joints"}  # Toyota's are imported
        assert streams >= {"frames", "text"} | joints
        encoder = recipe.extract.image_encoder
        assert (config.pevl.clip, config.pevl.pretrained) == (encoder.model, encoder.pretrained)
    else:
        assert streams >= {"frames", "visual_prompts", "text"}


def test_nobody_gets_person_boxes_that_were_not_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"extract\.pose\.boxes"):
        _ = load_recipe("pevl-diving48-b16").extract
    assert load_recipe("pevl-toyota-smarthome-b16").extract.pose.boxes is None


def test_all_recipes_of_the_controlled_world_share_one_extraction() -> None:
    names = [name for name in recipe_names() if name.startswith("demo-")]
    assert {parts(name)["method"] for name in names} == {"cmdcl", "pcmci", "pevl", "see"}
    assert len({repr(load_recipe(name).extract) for name in names}) == 1
