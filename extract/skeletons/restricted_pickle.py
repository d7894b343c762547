"""Reads pickles of plain values and arrays of numbers, and executes nothing.

A pickle is a program that may call anything, and people pass skeletons on as pickles. A reader may ask why Python's
unpickler with a list of allowed names is not enough: it still hands the file's data to numpy's own C code and makes
room for whatever sizes the file states. So the few instructions that such files need are interpreted here. A name is
never looked up: seven are known, each stands for a few lines here or in pickle_values.py, and all others are refused.

Accepted: dict, list, tuple, str, numbers, bool, None, and arrays of numbers, by protocols 0 to 5 and as numpy 1 or 2
names its parts. A numpy scalar becomes a Python number. Texts and bytes take as much memory as in the file, or a few
times that; all else, of which a file of one byte an instruction could make a hundred times its size, has one budget.
"""

import contextlib
import mmap
import pickletools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cache.errors import ConfigError
from extract.skeletons.pickle_values import (
    MAX_TEXT,
    DType,
    Function,
    Refused,
    Shell,
    check_plain,
    fill,
    kind_of,
    make_array,
    make_dtype,
    make_shell,
    no_bytes,
    set_order,
    text_of,
)

MAX_FILE_BYTES = 4 << 30
"""Its texts and bytes are held in memory, in protocols 0 to 2 several times."""
BUDGET_BASE, BUDGET_FACTOR, MAX_BUDGET = 64 << 20, 48, 4 << 30
"""Bytes for references and what they refer to, besides texts and bytes: a base + a factor x the file's size, at most
the last. Nothing is given back. Honest files of short values need up to 40 times their size, with arrays far less."""
_REFERENCE = 32
"""Bytes for a place on the stack, in the slice that leaves it, and in the container where it ends."""
_NUMBER, _TEXT, _OBJECT, _CONTAINER, _REMEMBERED = 32, 64, 256, 256, 128
"""Bytes for what is made, as Python and numpy make it; with a container its place in the last check."""

_KNOWN = {
    **{(f"numpy.{core}.multiarray", name): name for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "_frombuffer" for core in ("core", "_core")},
    **{("numpy", name): name for name in ("ndarray", "dtype")},
    ("_codecs", "encode"): "encode",
    **{(module, "bytes"): "bytes" for module in ("builtins", "__builtin__")},
}
"""Module and name -> what `_Machine` does when the file calls it."""
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_VALUES = frozenset((*_NUMBERS, *_TEXTS, *_BYTES))
"""Instructions whose argument is the value."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def load(path: Path) -> Any:  # noqa: ANN401 (any plain value)
    """The value that a pickle holds.

    Raises:
        ConfigError: the file cannot be read, is no pickle, or holds something else than plain values and arrays of
            numbers; says what.
    """
    try:
        with _mapped(path) as (file, size), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of odd escapes in texts
            return _Machine(size).run(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except Refused as error:
        raise ConfigError(
            f"{path} is refused: {error}. Accepted are pickles of dict, list, tuple, str, numbers and arrays of "
            "numbers; nothing of the file was executed"
        ) from error
    except (ValueError, IndexError, KeyError) as error:
        raise ConfigError(f"{path} is not a whole pickle ({str(error)[:80]}); nothing of it was executed") from error


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[tuple[mmap.mmap, int]]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size > MAX_FILE_BYTES:
            raise Refused(f"it has {size} bytes, more than {MAX_FILE_BYTES}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:  # ValueError: the file is empty
            yield view, size


class _Machine:
    """Interprets one pickle."""

    def __init__(self, size: int) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._bytes_left = size
        self._budget = self._left = min(BUDGET_BASE + BUDGET_FACTOR * size, MAX_BUDGET)
        self._instructions: dict[str, Callable[[Any], None]] = {
            "PROTO": self._nothing,
            "FRAME": self._nothing,
            "MARK": lambda _: self._mark(),
            "POP": lambda _: self._drop(),
            "POP_MARK": lambda _: self._drop_mark(),
            "DUP": lambda _: self._push(self._stack[-1]),
            "EMPTY_LIST": lambda _: self._push_container([]),
            "EMPTY_DICT": lambda _: self._push_container({}),
            "EMPTY_TUPLE": lambda _: self._push_container(()),
            "LIST": lambda _: self._push_container(self._since_mark()),
            "TUPLE": lambda _: self._push_container(tuple(self._since_mark())),
            "TUPLE1": lambda _: self._push_container(tuple(self._take(1))),
            "TUPLE2": lambda _: self._push_container(tuple(self._take(2))),
            "TUPLE3": lambda _: self._push_container(tuple(self._take(3))),
            "DICT": lambda _: self._push_container(fill({}, self._since_mark())),
            "APPEND": lambda _: self._append([self._stack.pop()]),
            "APPENDS": lambda _: self._append(self._since_mark()),
            "SETITEM": lambda _: self._set(self._take(2)),
            "SETITEMS": lambda _: self._set(self._since_mark()),
            "MEMOIZE": lambda _: self._remember(len(self._memo)),
            "GLOBAL": lambda names: self._name(*names.rsplit(" ", 1)),
            "STACK_GLOBAL": lambda _: self._name(*self._take(2)),
            "REDUCE": lambda _: self._reduce(*self._take(2)),
            "BUILD": lambda _: self._build(*self._take(2)),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._remember),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), self._recall),
        }

    def run(self, file: mmap.mmap) -> Any:  # noqa: ANN401 (any plain value)
        """The value on the stack when the program stops."""
        for opcode, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
            name = opcode.name
            if name in _VALUES:
                self._push_value(argument)
            elif name in _CONSTANTS:
                self._push(_CONSTANTS[name])
            elif name in self._instructions:
                self._instructions[name](argument)
            elif name != "STOP":
                raise Refused(f"it uses the instruction {name}{'' if argument is None else f' ({text_of(argument)})'}")
        (value,) = self._stack
        check_plain(value)
        return value

    def _nothing(self, _: object) -> None:
        """Protocol and frames say nothing about the content."""

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise Refused(f"it unpacks into more than {self._budget} bytes of values, too many for its size")

    def _push(self, value: Any, made: int = 0) -> None:  # noqa: ANN401 (anything of the file)
        """Puts a value on the stack, for whose making `made` bytes are charged."""
        self._spend(_REFERENCE + made)
        self._stack.append(value)

    def _mark(self) -> None:
        self._spend(_REFERENCE + _NUMBER)
        self._marks.append(len(self._stack))

    def _push_value(self, value: Any) -> None:  # noqa: ANN401 (a number, a text or bytes)
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise Refused("it holds a whole number of more than 64 bits")
        if isinstance(value, str) and len(value) > MAX_TEXT and not value.isascii() and max(value) > "\xff":
            raise Refused(f"it holds a text of {len(value)} characters")  # four bytes each; bytes as text have one
        self._push(value, _NUMBER if isinstance(value, int | float) else _TEXT)

    def _push_container(self, value: Any) -> None:  # noqa: ANN401 (a dict, list or tuple)
        self._push(value, _CONTAINER)

    def _take(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("it takes values that it did not give")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _drop(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _drop_mark(self) -> None:
        self._since_mark()

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise Refused(f"it appends to {kind_of(target)}")
        target.extend(values)

    def _set(self, values: list[Any]) -> None:
        fill(self._stack[-1], values)

    def _remember(self, key: int) -> None:
        self._spend(_REMEMBERED)
        value = self._memo[key] = self._stack[-1]
        if isinstance(value, Shell):
            value.keys.append(key)

    def _recall(self, key: int) -> None:
        self._push(self._memo[key])

    def _name(self, module: object, name: object) -> None:
        known = _KNOWN.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if known is None:
            raise Refused(f"it asks for {text_of(module)}.{text_of(name)}")
        self._push(Function(known), _OBJECT)

    def _reduce(self, function: object, arguments: object) -> None:
        calls: dict[str, Callable[..., Any]] = {
            "encode": self._encode,
            "bytes": no_bytes,
            "dtype": make_dtype,
            "_reconstruct": make_shell,
            "_frombuffer": lambda data, dtype, shape, order: make_array(data, dtype, shape, in_columns=order == "F"),
            "scalar": lambda dtype, data: make_array(data, dtype, ()).item(),
        }
        if not isinstance(function, Function) or function.name not in calls or not isinstance(arguments, tuple):
            raise Refused(f"it calls {kind_of(function)} with {kind_of(arguments)}")
        try:
            self._push(calls[function.name](*arguments), _OBJECT)
        except TypeError as error:  # another number of arguments
            raise Refused(f"it calls {function.name} in an unknown way ({error})") from error

    def _build(self, target: object, state: object) -> None:
        if isinstance(target, DType):
            set_order(target, state)
            self._push(target)
            return
        if not isinstance(target, Shell) or not isinstance(state, tuple) or len(state) != 5 or state[0] != 1:
            raise Refused(f"it sets the state of {kind_of(target)}")
        _, shape, dtype, in_columns, data = state
        if isinstance(data, str):  # Python 2
            data = self._encode(data, "latin1")
        array = make_array(data, dtype, shape, in_columns=in_columns is True)
        self._push(array, _OBJECT)
        for key in target.keys:
            self._memo[key] = array

    def _encode(self, text: object, codec: object) -> bytes:
        """Bytes as protocols 0 to 2 write them. All of them stand in the file, so they cannot be more than it has."""
        if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
            raise Refused(f"it encodes {kind_of(text)} as {text_of(codec)}")
        self._bytes_left -= len(text)
        if self._bytes_left < 0:
            raise Refused("it unpacks into more bytes than it has")
        return text.encode("latin-1")
