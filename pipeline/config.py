"""Recipes: TOML files to frozen dataclasses, strictly.

Every key is checked against the dataclass that owns it (they live in each stage's config.py). A section is built when
it is asked for: `extract` never imports what `train` needs.
"""

import difflib
import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import ConfigError
from cache.settings import build

if TYPE_CHECKING:
    from cache.run import Run
    from extract.config import ExtractConfig
    from train.config import TrainConfig

_SECTIONS = ("extract", "train")
_TOP_LEVEL = ("description", "extends", *_SECTIONS)


@dataclass(frozen=True)
class Recipe:
    """A recipe's values after `extends` and `--set`, and the configurations built from them."""

    name: str
    values: Mapping[str, Any]

    @functools.cached_property
    def extract(self) -> "ExtractConfig":
        """The `[extract]` section."""
        from extract.config import ExtractConfig

        return build(ExtractConfig, self.values.get("extract", {}), "extract")

    @functools.cached_property
    def train(self) -> "TrainConfig":
        """The `[train]` section."""
        from train.config import TrainConfig

        if "train" not in self.values:
            raise ConfigError(f"recipe {self.name!r} has no [train] section; choose one of {recipe_names()}")
        return build(TrainConfig, self.values["train"], "train")


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    files = resources.files("pipeline.recipes").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_recipe(name: str | None, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe by name or path and applies `a.b=value` overrides.

    Args:
        name: a name of `recipe_names()`, a path to a TOML file, or None for the defaults alone.
        overrides: texts like `extract.num_frames=16`; the right side is TOML, or a plain text if it is not.

    Raises:
        ConfigError: no such recipe, not TOML, or an override without '='.
    """
    values = _read(name) if name else {}
    apply_overrides(values, overrides)
    return Recipe(name or "defaults", values)


def run_recipe(run: "Run", overrides: Sequence[str] = ()) -> Recipe:
    """The configuration of a trained run as a recipe, with overrides."""
    values: dict[str, Any] = {"train": dict(run.config["train"])}
    apply_overrides(values, overrides)
    return Recipe(run.info.name, values)


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Puts texts like `extract.num_frames=16` into a recipe's values; see `load_recipe`."""
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override!r}: give key=value, for example --set extract.num_frames=16")
        path = key.strip().split(".")
        if path[0] not in _SECTIONS or len(path) < 2:
            raise ConfigError(f"--set {key.strip()}: keys begin with one of {', '.join(s + '.' for s in _SECTIONS)}")
        _assign(values, path, _parse(text.strip()))


def _read(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    if name in seen:
        raise ConfigError(f"recipes extend each other in a circle: {' -> '.join((*seen, name))}")
    try:
        values = tomllib.loads(_text(name))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {name} is not TOML in utf-8: {error}") from error
    unknown = [key for key in values if key not in _TOP_LEVEL]
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], _TOP_LEVEL, n=1, cutoff=0.0)
        raise ConfigError(f"recipe {name}: unknown key {unknown[0]!r}; did you mean {nearest[0]!r}?")
    wrong = [section for section in _SECTIONS if not isinstance(values.get(section, {}), dict)]
    if wrong or not isinstance(values.get("extends", ""), str):
        raise ConfigError(
            f"recipe {name}: {wrong or ['extends']} has the wrong type; sections are tables like [extract]"
        )
    base = values.pop("extends", None)
    return _merge(_read(base, (*seen, name)), values) if base else values


def _text(name: str) -> str:
    if name.endswith(".toml"):
        try:
            return Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"recipe {name} cannot be read: {error.strerror}") from error
    if name not in recipe_names():
        nearest = difflib.get_close_matches(name, recipe_names(), n=3, cutoff=0.3)
        hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
        raise ConfigError(
            f"no recipe {name!r}; {hint}There are: {', '.join(recipe_names())}; or give a path to a .toml file"
        )
    return (resources.files("pipeline.recipes") / f"{name}.toml").read_text(encoding="utf-8")


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _parse(text: str) -> Any:  # noqa: ANN401 (any TOML value)
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _assign(values: dict[str, Any], path: Sequence[str], value: Any) -> None:  # noqa: ANN401 (any TOML value)
    for position, key in enumerate(path[:-1]):
        inner = values.get(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {'.'.join(path)}: {'.'.join(path[: position + 1])} is a value, not a section")
        values[key] = dict(inner)
        values = values[key]
    values[path[-1]] = value
