"""The house: imports go down only, and two rooms are free of torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "cache": {"cache"},
    "extract": {"cache", "extract"},
    "train": {"cache", "train"},
    "evaluate": {"cache", "evaluate"},
    "pipeline": {"cache", "extract", "train", "evaluate", "pipeline"},
}


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not used here"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("floor", ALLOWED)
def test_imports_go_down_only(floor: str) -> None:
    files = sorted((ROOT / floor).rglob("*.py"))
    assert files
    for path in files:
        wrong = imported_packages(path) & ALLOWED.keys() - ALLOWED[floor]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("floor", ["cache", "evaluate"])
def test_cache_and_evaluate_never_name_torch(floor: str) -> None:
    for path in (ROOT / floor).rglob("*.py"):
        assert not imported_packages(path) & {"torch", "torchvision", "open_clip", "timm"}, path


def test_the_command_line_starts_without_torch() -> None:
    program = "import sys, pipeline.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_every_package_is_installed() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for floor in ALLOWED
        for path in (ROOT / floor).rglob("__init__.py")
    }
    assert found == set(listed)


def test_the_top_level_holds_what_was_decided() -> None:
    listing = subprocess.run(
        ["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    decided = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests", *ALLOWED}
    assert {name for name in listing.stdout.split() if not name.startswith(".")} <= decided
