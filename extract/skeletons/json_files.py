"""JSON that other tools wrote, read with limits, and its numbers with their count."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.skeletons.people import unusable

MAX_FILE_BYTES = 512 << 20


def read_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        VideoError: NO_SKELETON, the file cannot be read, is too large, or holds no JSON object.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise unusable(f"{path} has more than {MAX_FILE_BYTES} bytes")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(f"{path} is not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise unusable(f"{path} holds a {type(content).__name__}, not an object")
    return content


def numbers(values: Any, count: int, what: str) -> npt.NDArray[np.float64]:  # noqa: ANN401 (any JSON value)
    """(count,) a list of numbers.

    Raises:
        VideoError: NO_SKELETON, it is something else.
    """
    if not isinstance(values, list) or len(values) != count or any(type(value) not in (int, float) for value in values):
        length = f"{len(values)} entries" if isinstance(values, list) else "no list"
        raise unusable(f"{what} has {length}, expected {count} numbers")
    try:
        return np.array(values, np.float64)
    except OverflowError:
        raise unusable(f"{what} has a whole number of hundreds of digits") from None
