"""A Ray cluster: an actor for each GPU, shards handed out to whoever is free (the extra `[ray]`).

Ray Core, not Ray Data: the unit that fails there is a block, and one bad video would take good ones along. Here every
clip's error is caught inside the actor and becomes its row, an actor that dies is restarted with its models loaded
again, and the shards that it had are made once more. Cache and videos must have the same paths on all machines.
"""

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from cache.errors import ConfigError, DeconfoundError
from cache.fingerprint import Fingerprint
from cache.rows import Failure
from extract.frozen_models import FrozenModels
from extract.launch.failure_policy import Watch
from extract.shards.loop import WorkSettings, fill_shards
from extract.shards.work import ShardTask

logger = logging.getLogger(__name__)

_SHARES_PER_ACTOR = 4
_MAX_RESTARTS = 2
_SECONDS_BETWEEN_CHECKS = 1.0


class RayActors:
    """Actors that fill shards; enter it to connect to the cluster.

    Args:
        settings: what every actor must know.
        devices: `cpu`, `cuda` for an actor on each GPU of the cluster, or `auto`: GPUs if it has any.
        address: `auto` (the cluster that this machine is part of), `local` (one on this machine alone), or an address.
    """

    def __init__(self, settings: WorkSettings, devices: Sequence[str], address: str) -> None:
        self._ray = _import_ray()
        dataset = replace(settings.dataset, video_root=settings.dataset.video_root.absolute())
        self._settings = replace(settings, dataset=dataset, cache=settings.cache.absolute())  # actors live elsewhere
        self._device = _device_kind(devices)
        self._address = address
        self._actors: list[Any] = []

    def __enter__(self) -> Self:
        address = None if self._address == "local" else self._address
        handler = signal.getsignal(signal.SIGTERM)  # Ray sets its own
        try:
            self._ray.init(address=address, logging_level=logging.WARNING, log_to_driver=True)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"--ray {self._address}: {error}. Give auto, local, or HOST:PORT of a head") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def start(self, check: Callable[[], None]) -> None:
        """Starts an actor for each GPU, or for each group of cores; see `Launcher`."""
        is_gpu = self._device == "cuda" or (self._device == "auto" and "GPU" in self._ray.cluster_resources())
        resource, amount = ("GPU", 1) if is_gpu else ("CPU", self._settings.workers)
        needs = {"num_gpus" if is_gpu else "num_cpus": amount}
        count = int(self._ray.cluster_resources().get(resource, 0) // amount)
        if count == 0:
            raise ConfigError(
                f"--ray {self._address}: no machine of the cluster has {amount} {resource} for an actor; use another "
                "--device, or fewer --workers"
            )
        actor = self._ray.remote(max_restarts=_MAX_RESTARTS, max_task_retries=_MAX_RESTARTS, **needs)(ShardActor)
        self._actors = [actor.remote(self._settings, "cuda" if is_gpu else "cpu") for _ in range(count)]
        for call in [each.load.remote() for each in self._actors]:
            while not self._ray.wait([call], timeout=_SECONDS_BETWEEN_CHECKS)[0]:
                check()
            self._answer(call)

    def fill(
        self,
        marks: Mapping[str, Fingerprint],
        tasks: Iterable[ShardTask],
        watch: Watch,
        check: Callable[[], None],
    ) -> None:
        """Makes what these shards lack; see `Launcher`.

        Failures are counted when a share of shards is done. A run that is stopped drops the shards at work.
        """
        pile, free = deque(tasks), deque(self._actors)
        at_work: dict[Any, Any] = {}
        while pile or at_work:
            check()
            while pile and free:
                actor = free.popleft()
                size = max(1, len(pile) // (_SHARES_PER_ACTOR * len(self._actors)))
                share = [pile.popleft() for _ in range(size)]
                at_work[actor.fill.remote(dict(marks), share)] = actor
            finished, _ = self._ray.wait(list(at_work), timeout=_SECONDS_BETWEEN_CHECKS)
            for call in finished:
                free.append(at_work.pop(call))
                for clip_id, failure in self._answer(call):
                    if failure is not None:
                        watch.failed(clip_id, failure)
                    watch.done(clip_id)

    def _answer(self, call: Any) -> Any:  # noqa: ANN401 (whatever the actor's method returns)
        """The result of a call.

        Raises:
            DeconfoundError: what the actor had to say, or that it died too often.
        """
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            raise DeconfoundError(
                f"an actor failed, or died more than {_MAX_RESTARTS} times; the same command continues. Ray says: "
                f"{error}"
            ) from error
        if isinstance(answer, DeconfoundError):
            raise answer
        return answer


class ShardActor:
    """The work of one actor; errors made for people come back as values, because Ray wraps those that are raised."""

    def __init__(self, settings: WorkSettings, device: str) -> None:
        self._settings = settings
        self._models = FrozenModels(settings.config, device)

    def load(self) -> DeconfoundError | None:
        """Loads the models; returns what is wrong with them."""
        try:
            self._models.load(self._settings.streams)
        except DeconfoundError as error:
            return error
        return None

    def fill(
        self, marks: Mapping[str, Fingerprint], tasks: Sequence[ShardTask]
    ) -> list[tuple[str, Failure | None]] | DeconfoundError:
        """Makes what these shards lack; returns every clip with its failure, if it has one."""
        watch = _Outcomes()
        try:
            fill_shards(self._settings, marks, tasks, self._models, watch=watch, check=lambda: None)
        except DeconfoundError as error:
            return error
        clip_ids = sorted({clip_id for task in tasks for clip_id in task.clip_ids})
        return [(clip_id, watch.failures.get(clip_id)) for clip_id in clip_ids]


class _Outcomes:
    """Collects failures until the share is done."""

    def __init__(self) -> None:
        self.failures: dict[str, Failure] = {}

    def failed(self, clip_id: str, failure: Failure) -> None:
        self.failures.setdefault(clip_id, failure)

    def done(self, clip_id: str) -> None:
        """Counted by the driver."""


def _device_kind(devices: Sequence[str]) -> str:
    kinds = {device.partition(":")[0] for device in devices}
    if len(kinds) == 1 and kinds <= {"auto", "cpu", "cuda"}:
        return kinds.pop()
    raise ConfigError(f"--ray with --device {','.join(devices)}: give cpu, or cuda for an actor on each GPU, or auto")


def _import_ray() -> Any:  # noqa: ANN401 (a module that may be absent)
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ConfigError('--ray needs the package ray: pip install "deconfound[ray]"') from error
    return ray
