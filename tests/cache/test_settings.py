from dataclasses import dataclass, field
from typing import Literal

import pytest

from cache.errors import ConfigError
from cache.settings import build


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 3
    mode: Literal["fast", "exact"] = "exact"


@dataclass(frozen=True, kw_only=True)
class Outer:
    rate: float
    names: tuple[str, ...] = ()
    box: tuple[float, float] = (0.0, 1.0)
    limit: int | None = None
    frozen: bool = False
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"rate = {self.rate}: must not be negative")


def test_values_become_frozen_dataclasses_of_the_declared_types() -> None:
    values = {"rate": 1, "names": ["a"], "box": [1, 2.5], "limit": 4, "inner": {"mode": "fast"}}
    built = build(Outer, values, "outer")
    assert built == Outer(rate=1.0, names=("a",), box=(1.0, 2.5), limit=4, inner=Inner(mode="fast"))
    assert isinstance(built.rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1.0}, r"unknown key outer\.rat; did you mean outer\.rate\?"),
        ({"rate": 1.0, "inner": {"sise": 1}}, r"unknown key outer\.inner\.sise; did you mean outer\.inner\.size\?"),
        ({"rate": "fast"}, r"outer\.rate = 'fast': expected a number, got a text"),
        ({"rate": True}, r"expected a number, got true or false"),
        ({"rate": 1.0, "limit": 1.5}, r"expected a whole number"),
        ({"rate": 1.0, "names": "a"}, r"expected a list"),
        ({"rate": 1.0, "names": [1]}, r"outer\.names\[0\] = 1: expected a text"),
        ({"rate": 1.0, "box": [1.0]}, r"expected 2 values"),
        ({"rate": 1.0, "inner": {"mode": "quick"}}, r"choose one of 'fast', 'exact'"),
        ({"rate": 1.0, "inner": 3}, r"is a section of keys"),
        ({}, r"lacks rate"),
        ({"rate": -1.0}, r"must not be negative"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Outer, values, "outer")
