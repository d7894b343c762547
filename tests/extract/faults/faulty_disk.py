"""The command line on a disk that refuses, once for every operation at which it can: run as a program by the tests.

One process imports the package and forks for every fault, so that a hundred runs cost seconds. What each run said and
how it ended stands in `outcomes.json`; its cache is left for the test to judge.

    python -m tests.extract.faults.faulty_disk FOLDER DATASET {read,open,write,...} ERRNO {once,always}
    python -m tests.extract.faults.faulty_disk FOLDER DATASET size LIMIT [LIMIT ...]
"""

import errno
import functools
import itertools
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from extract import extractor  # noqa: F401 (loaded once, before all forks)
from pipeline import cli
from tests.extract.faults.watched_disk import Operation, watched

SETTINGS = ("--set", "extract.num_frames=2", "--set", "extract.shard_size=2")
NEVER_CAME = 255
MORE_ROOM = ("open", "write", "mkdir")


class Fault:
    """Refuses the operation of a kind that comes as number `when`, and with `always` all changes after it."""

    def __init__(self, kind: str, code: int, when: int, *, always: bool) -> None:
        self.kind, self.code, self.when, self.always = kind, code, when, always
        self.count = 0

    def before(self, operation: Operation) -> None:
        self.count += operation.kind == self.kind
        has_come = self.count >= self.when if self.always else self.count == self.when
        if has_come and operation.kind in (self.kind, *(MORE_ROOM if self.always else ())):
            raise OSError(self.code, os.strerror(self.code), str(operation.path))


def run_command(dataset: Path, cache: Path) -> int:
    """Exit code of `deconfound extract`."""
    words = ["extract", str(dataset), "--cache", str(cache), "--streams", "frames", "--workers", "1", *SETTINGS]
    sys.argv = ["deconfound", *words]
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def with_fault(fault: Fault, dataset: Path, cache: Path) -> int:
    """NEVER_CAME if the fault did not."""
    with watched(cache.parent, fault.before):
        code = run_command(dataset, cache)
    return code if fault.count >= fault.when else NEVER_CAME


def with_limit(limit: int, dataset: Path, cache: Path) -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    return run_command(dataset, cache)


def forked(work: Callable[[], int]) -> tuple[int, str]:
    """Exit code (negative: a signal) and what was said on stderr."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.close(reading)
        os.close(writing)
        try:
            code = work()
            sys.stderr.flush()
            os._exit(code)
        finally:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text


def main(folder: Path, dataset: Path, kind: str, words: list[str]) -> None:
    """Runs with the fault at the first operation, at the second, ... until it never comes; or with every limit."""
    outcomes = {}
    for number in itertools.count(1):
        name = f"{number:03d}"
        (folder / name).mkdir(parents=True)
        cache = folder / name / "cache"
        work: Callable[[], int]
        if kind == "size":
            work = functools.partial(with_limit, int(words[number - 1]), dataset, cache)
        else:
            fault = Fault(kind, getattr(errno, words[0]), number, always=words[1] == "always")
            work = functools.partial(with_fault, fault, dataset, cache)
        outcomes[name] = forked(work)
        if outcomes[name][0] == NEVER_CAME or (kind == "size" and number == len(words)):
            break
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
