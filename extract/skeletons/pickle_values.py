"""What stands in a pickle of plain values and arrays: its unfinished parts, how they become arrays, what is refused.

Sizes are compared with the bytes that are there before anything is made of them; an array is a view of these bytes.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_NESTING = 20
MAX_TEXT = 1 << 16
"""Characters."""
_MAX_AXES = 8
_MAX_LENGTH = 1 << 31
_DTYPES = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])
_PLAIN = (str, int, float, type(None))  # bool is an int
_CONTAINERS = (dict, list, tuple)


class Refused(ValueError):
    """What was found in a file, for the message."""


@dataclass(frozen=True)
class Function:
    """A known name, as a value of the file."""

    name: str


class DType:
    """A dtype under construction."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "<"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The finished one."""
        return np.dtype(self.order.replace("|", "=") + self.code)


class Shell:
    """An array that waits for its content; `keys` are its places in the memo."""

    def __init__(self) -> None:
        self.keys: list[int] = []


def fill(target: Any, values: list[Any]) -> dict[Any, Any]:  # noqa: ANN401 (a dict, if the file is honest)
    """Adds keys and values, one after the other, to a dict."""
    keys = values[::2]
    if type(target) is not dict or len(values) % 2:
        raise Refused(f"it sets items of {kind_of(target)}")
    for key in keys:  # before any is hashed: the hash of nested tuples has no bottom
        if not isinstance(key, _PLAIN):
            raise Refused(f"it has {kind_of(key)} as a key of a dict")
    target.update(zip(keys, values[1::2], strict=True))
    return target


def no_bytes() -> bytes:
    """What protocols 0 to 2 call for empty bytes."""
    return b""


def make_shell(kind: object, shape: object, code: object) -> Shell:
    """The array before its state is set; refuses what `numpy.ndarray.__reduce__` does not write."""
    if kind != Function("ndarray") or shape != (0,) or code not in (b"b", "b"):
        raise Refused("it makes an array in an unknown way")
    return Shell()


def make_dtype(code: object, align: object, copy: object) -> DType:
    """A dtype of numbers; refuses all others."""
    if not isinstance(code, str) or code not in _DTYPES or align not in (False, 0) or copy not in (True, 1):
        raise Refused(f"it holds an array of the dtype {text_of(code)}, not of numbers")
    return DType(code)


def set_order(target: DType, state: object) -> None:
    """Takes the byte order from the state of a dtype, in which all else must be as for plain numbers."""
    if not isinstance(state, tuple) or len(state) != 8 or state[2:] != (None, None, None, -1, -1, 0):
        raise Refused("it holds an array of records")
    if state[1] not in ("<", ">", "|", "="):
        raise Refused(f"it holds numbers of the byte order {text_of(state[1])}")
    target.order = state[1]


def make_array(data: object, dtype: object, shape: object, *, in_columns: bool = False) -> npt.NDArray[Any]:
    """The array over the bytes that the file has for it; nothing is copied."""
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, DType) or not isinstance(shape, tuple):
        raise Refused(f"it fills an array with {kind_of(data)}")
    if len(shape) > _MAX_AXES or any(type(length) is not int or not 0 <= length < _MAX_LENGTH for length in shape):
        raise Refused(f"it holds an array of the shape ({', '.join(map(text_of, shape[:_MAX_AXES]))})")
    needed = math.prod(shape) * dtype.dtype.itemsize
    if len(data) != needed:
        raise Refused(f"it holds an array of shape {shape} and {len(data)} bytes, which would need {needed}")
    array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if in_columns else "C")
    array.flags.writeable = False
    return array


def check_plain(value: object) -> None:
    """Refuses what no file of plain values holds: other things, deep nesting, what contains itself."""
    waiting: list[tuple[Any, int]] = [((value,), 0)]
    deepest: dict[int, int] = {}
    while waiting:
        container, level = waiting.pop()
        for part in _parts(container):
            if not isinstance(part, _CONTAINERS):
                _check_leaf(part)  # in place: a list may mention one leaf millions of times
            elif level >= MAX_NESTING:
                raise Refused(f"its values are nested more than {MAX_NESTING} deep")
            elif deepest.get(id(part), 0) < level + 1:
                deepest[id(part)] = level + 1
                waiting.append((part, level + 1))


def _parts(container: Any) -> Iterable[Any]:  # noqa: ANN401 (a dict, list or tuple)
    return itertools.chain(container, container.values()) if isinstance(container, dict) else container


def _check_leaf(value: object) -> None:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise Refused(f"it holds a text of {len(value)} characters")
    if not isinstance(value, (*_PLAIN, np.ndarray)):
        raise Refused(f"it holds {kind_of(value)}")


def text_of(value: object) -> str:
    """A value of the file for a message: short, printable, and never that of nested ones, which has no bottom."""
    if isinstance(value, str):
        return repr(value[:80])[1:-1]
    return str(value) if isinstance(value, int | float) else kind_of(value)


def kind_of(value: object) -> str:
    """What a value is, for a message."""
    if isinstance(value, Function):
        return f"the function {value.name}"
    names = {DType: "a dtype", Shell: "an unfinished array", bytes: "bytes", bytearray: "bytes"}
    return names.get(type(value), f"a value of type {type(value).__name__}")
