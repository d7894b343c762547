"""Where features live while a model trains: on disk behind a memory map, in RAM, or on the device.

The result does not depend on it. A reader may ask why half of the free memory is the limit of `auto`: the model, its
optimiser and what a step computes come afterwards, and other runs may share the machine. JPEG frames stay on disk: what
a step sees of them is another draw in every epoch.
"""

import logging
from collections.abc import Iterable, Mapping

import torch

from cache.errors import ConfigError
from cache.log_level import NOTE
from train.config import Residency
from train.free_memory import free_on, free_ram
from train.read_ahead import num_threads
from train.row_table import RowTable

logger = logging.getLogger(__name__)

SHARE = 0.5
"""Of what is free, how much `auto` takes."""
_CPU = torch.device("cpu")


def settle(tables: Iterable[RowTable], asked: Residency, device: torch.device) -> None:
    """Moves tables to where they shall live, and says where in one line.

    Args:
        tables: those that are read in every epoch; the tables of one name stay together.
        asked: train.features.
        device: where batches are needed.

    Raises:
        ConfigError: they do not fit where they were asked to live.
    """
    streams: dict[str, dict[int, RowTable]] = {}
    for table in tables:
        streams.setdefault(table.name, {})[id(table)] = table
    sizes = {name: sum(table.nbytes for table in own.values()) for name, own in streams.items()}
    places = _places(sizes, asked, device)
    for name, place in places.items():
        for table in streams[name].values():
            if place is not None:
                table.load(place)
    logger.log(NOTE, "features: %s (train.features = %s)", _in_words(sizes, places) or _decoded(), asked)


def _places(sizes: Mapping[str, int], asked: Residency, device: torch.device) -> dict[str, torch.device | None]:
    """Stream -> where it lives, None being the disk; with `auto` the smallest ones are nearest."""
    if asked == "memory_map":
        return dict.fromkeys(sizes)
    if asked != "auto":
        place = device if asked == "device" else _CPU
        _refuse_if_too_large(sum(sizes.values()), asked, place)
        return dict.fromkeys(sizes, place)
    left = {place: SHARE * (_free(place) or 0) for place in dict.fromkeys((device, _CPU))}
    places: dict[str, torch.device | None] = {}
    for name in sorted(sizes, key=sizes.__getitem__):
        nearest = places[name] = next((place for place, room in left.items() if sizes[name] <= room), None)
        if nearest is not None:
            left[nearest] -= sizes[name]
    return places


def _refuse_if_too_large(nbytes: int, asked: Residency, place: torch.device) -> None:
    free = _free(place)
    if free is not None and nbytes > free:
        others = '"memory_map"' if place == _CPU else '"ram" or "memory_map"'
        raise ConfigError(
            f'train.features = "{asked}": features of {_gigabytes(nbytes)} do not fit into the {_gigabytes(free)} that '
            f"are free {_where(place)}; set train.features = {others}"
        )


def _free(place: torch.device) -> int | None:
    return free_ram() if place == _CPU else free_on(place)


def _in_words(sizes: Mapping[str, int], places: Mapping[str, torch.device | None]) -> str:
    return ", ".join(f"{name} ({_gigabytes(sizes[name])}) {_where(place)}" for name, place in places.items())


def _decoded() -> str:
    """Where nothing is the same in every epoch."""
    return f"on disk, memory-mapped; every epoch decodes other views of them, in {num_threads()} threads"


def _where(place: torch.device | None) -> str:
    if place is None:
        return "on disk, memory-mapped"
    return "in RAM" if place == _CPU else f"on {place}"


def _gigabytes(nbytes: int) -> str:
    return f"{nbytes / 1e9:.3g} GB"
