"""RUN/tensorboard: every number of metrics.jsonl over epochs, for TensorBoard (the extra `[tensorboard]`).

The decision to question: metrics.jsonl is the truth and these files are made from it again whenever training begins or
continues. A purge step would leave them wrong where a kill fell between the two files; made again they hold every
epoch once, also for a run that was begun without this log. The new file has a new name, so that a TensorBoard that is
watching follows it.
"""

import io
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cache import atomic
from cache.errors import ConfigError

_FORMAT = "brain.Event:2"  # what readers expect in the first record


class TensorBoardLog:
    """Scalars of one run, written by one process.

    A scalar's tag is its key in metrics.jsonl, with `validation/map_macro` for `validation.map_macro`: TensorBoard
    groups by what stands before the slash. Its time is the time trained so far, whenever and however often the run
    was stopped.
    """

    def __init__(self, folder: Path) -> None:
        """Writes nothing yet.

        Raises:
            ConfigError: the package tensorboard is absent.
        """
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise ConfigError(
                f'--tensorboard needs the package tensorboard: pip install "deconfound[tensorboard]" ({error})'
            ) from error
        self._event, self._summary, self._writer = Event, Summary, RecordWriter
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.deconfound"
        self._seconds = 0.0

    def begin(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Puts a file of these rows of metrics.jsonl in the place of all that is there."""
        rows = list(rows)
        self._seconds = time.time() - sum(row["seconds"] for row in rows)
        first = self._record(self._event(wall_time=self._seconds, file_version=_FORMAT))
        atomic.write_bytes(self._path, first + b"".join(map(self._scalars, rows)))
        for path in self._path.parent.glob("*tfevents*"):
            if path != self._path:
                path.unlink(missing_ok=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds one more row, after `begin`; StorageError if the disk refuses."""
        with atomic.storage_errors(self._path), self._path.open("ab") as file:
            file.write(self._scalars(row))

    def _scalars(self, row: Mapping[str, Any]) -> bytes:
        """One event with every number of the row, at the step of its epoch."""
        self._seconds += row["seconds"]
        numbers = {key: value for key, value in row.items() if isinstance(value, int | float) and key != "epoch"}
        values = [
            self._summary.Value(tag=key.replace(".", "/", 1), simple_value=value) for key, value in numbers.items()
        ]
        return self._record(
            self._event(wall_time=self._seconds, step=row["epoch"], summary=self._summary(value=values))
        )

    def _record(self, event: Any) -> bytes:  # noqa: ANN401 (a message of tensorboard's)
        buffer = io.BytesIO()
        self._writer(buffer).write(event.SerializeToString())
        return buffer.getvalue()
