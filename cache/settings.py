"""From plain values (TOML, JSON) to the frozen dataclasses that hold settings, strictly.

One loader for recipes and for the configuration stored in a run: every key is checked against the dataclass that owns
it, every value against its declared type, and an unknown key is an error that names the nearest one.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Literal, TypeVar

from cache.errors import ConfigError

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Builds a frozen dataclass from TOML values, nested ones too.

    Raises:
        ConfigError: an unknown key (the nearest one is named), a value of another type, or one the class refuses.
    """
    hints = typing.get_type_hints(cls)
    unknown = [key for key in values if key not in hints]
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], hints, n=1, cutoff=0.0)
        raise ConfigError(
            f"unknown key {where}.{unknown[0]}; did you mean {where}.{nearest[0]}? "
            f"[{where}] takes: {', '.join(sorted(hints))}"
        )
    arguments = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    missing = [
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.name not in arguments
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"[{where}] lacks {', '.join(missing)}; every recipe must give it")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise ConfigError(f"[{where}] {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401 (any TOML value)
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is a section of keys, not {value!r}")
        return build(hint, value, where)
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _choice(choices, value, where)
    if origin is tuple:
        return _sequence(choices, value, where)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (choice for choice in choices if choice is not type(None))
        return _convert(inner, value, where)
    if hint is float and type(value) is int:
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} = {value}: it must be a finite number")
    if type(value) is not hint:
        raise ConfigError(f"{where} = {value!r}: expected {_type_name(hint)}, got {_type_name(type(value))}")
    return value


def _choice(choices: Sequence[Any], value: Any, where: str) -> Any:  # noqa: ANN401 (any TOML value)
    if value not in choices or type(value) not in {type(choice) for choice in choices}:
        raise ConfigError(f"{where} = {value!r}: choose one of {', '.join(repr(choice) for choice in choices)}")
    return value


def _sequence(inner: Sequence[Any], value: Any, where: str) -> tuple[Any, ...]:  # noqa: ANN401 (any TOML value)
    if not isinstance(value, list):
        raise ConfigError(f"{where} = {value!r}: expected a list, like [{value!r}]")
    if inner[-1] is Ellipsis:
        return tuple(_convert(inner[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if len(value) != len(inner):
        raise ConfigError(f"{where} = {value!r}: expected {len(inner)} values")
    pairs = zip(inner, value, strict=True)
    return tuple(_convert(hint, item, f"{where}[{index}]") for index, (hint, item) in enumerate(pairs))


def _type_name(cls: Any) -> str:  # noqa: ANN401 (types and typing constructs)
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
    return names.get(cls, getattr(cls, "__name__", str(cls)))
