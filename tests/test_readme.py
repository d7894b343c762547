"""The README keeps its promises: the tree is the tree, the Python example runs, the recipes and commands exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pipeline.cli import cli
from pipeline.config import recipe_names
from tests.toys import toy_cache, toy_dataset

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FLOORS = ("cache", "extract", "train", "evaluate", "pipeline")


def test_the_printed_tree_names_every_file() -> None:
    printed = set()
    floor = ""
    for line in README.partition("## Where everything lives")[2].partition("## ")[0].splitlines():
        name = line.strip().split(" ")[0]
        if line.startswith("    ") and not line.startswith("     ") and name.endswith("/"):
            floor = name
        elif name.endswith(".py"):
            printed.add(floor + name)
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in FLOORS
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert printed == modules


LINES = [shlex.split(line, comments=True) for line in re.findall(r"^ {4}deconfound +(.+)$", README, re.MULTILINE)]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_every_command_line_in_the_readme_is_understood(words: list[str]) -> None:
    command: click.Command = cli
    context = click.Context(cli, info_name="deconfound")
    while isinstance(command, click.Group):
        name = words[0]
        command = command.commands[name]
        words = words[1:]
    command.make_context(name, list(words), parent=context)  # parses options and arguments, runs nothing


def test_the_readme_shows_the_main_commands() -> None:
    assert {"prepare", "validate", "extract", "train", "predict", "evaluate"} <= {words[0] for words in LINES}


def test_every_recipe_in_the_readme_exists() -> None:
    named = set(re.findall(r"--recipe ([\w-]+)", README))
    assert named
    assert named <= set(recipe_names())


def test_the_python_example_reads_a_cache(tmp_path: Path) -> None:
    toy_cache(tmp_path / "CACHE", toy_dataset())
    start = "    from pathlib import Path\n"
    example = start + README.partition(start)[2].partition("\n## ")[0]
    code = "\n".join(line[4:] for line in example.splitlines())
    code = code.replace("make_tea/01.mp4", "clip-001").replace("store.frames.failures", "store.visual_prompts.failures")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True)


def test_pictures_in_the_readme_exist() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).is_file()
