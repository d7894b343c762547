"""Who runs the loop over shards: this process, a process for each of several devices, or actors of a Ray cluster.

All of them do the same idempotent work on the same files and know nothing of each other; a launcher only says who gets
which shards, and listens.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, Self

from cache.errors import ConfigError
from cache.fingerprint import Fingerprint
from extract.frozen_models import FrozenModels
from extract.launch.failure_policy import Watch
from extract.shards.loop import WorkSettings, fill_shards
from extract.shards.work import ShardTask


class Launcher(AbstractContextManager["Launcher"], Protocol):
    """Entered before anything is written to the cache."""

    def start(self, check: Callable[[], None]) -> None:
        """Loads the models, to fail now if it fails.

        Raises:
            ConfigError: weights or a device that do not exist.
        """

    def fill(
        self,
        marks: Mapping[str, Fingerprint],
        tasks: Iterable[ShardTask],
        watch: Watch,
        check: Callable[[], None],
    ) -> None:
        """Makes what these shards lack; see `shards.loop.fill_shards`."""


class OneDevice:
    """This process does the work."""

    def __init__(self, settings: WorkSettings, device: str) -> None:
        self._settings = settings
        self._models = FrozenModels(settings.config, device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def start(self, check: Callable[[], None]) -> None:
        """Loads the models here; see `Launcher`."""
        check()
        self._models.load(self._settings.streams)

    def fill(
        self,
        marks: Mapping[str, Fingerprint],
        tasks: Iterable[ShardTask],
        watch: Watch,
        check: Callable[[], None],
    ) -> None:
        """See `Launcher`."""
        fill_shards(self._settings, marks, tasks, self._models, watch=watch, check=check)


def launcher(settings: WorkSettings, devices: list[str], ray: str | None) -> Launcher:
    """Whoever fits: actors if a Ray cluster is named, else a process for each of several devices."""
    if ray is not None:
        from extract.launch.ray_cluster import RayActors

        return RayActors(settings, devices, ray)
    if len(devices) == 1:
        return OneDevice(settings, devices[0])
    from extract.launch.device_processes import DeviceProcesses

    return DeviceProcesses(settings, devices)


def device_names(text: str) -> list[str]:
    """`cuda:0,cuda:1` as a list; `all` is every GPU that torch sees.

    Raises:
        ConfigError: nothing is named, or there is no GPU.
    """
    if text == "all":
        import torch

        names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if not names:
            raise ConfigError("--device all: torch sees no GPU here; use cpu, or install a CUDA build of torch")
        return names
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"--device {text!r}: give cpu, cuda, cuda:0,cuda:1 (a process each), all or auto")
    return names
