import errno
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from cache import file_lock
from cache.file_lock import locked

_HOLDER = """
import sys
from pathlib import Path
from cache.file_lock import locked
with locked(Path(sys.argv[1]), wait=True):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_a_lock_that_another_process_holds_is_refused_until_it_dies(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), locked(path, wait=False):
            pass
        holder.kill()
        holder.wait()
        with locked(path, wait=False):
            assert path.exists()


def test_a_lock_is_free_again_after_an_error_inside(path: Path) -> None:
    with pytest.raises(KeyError), locked(path, wait=True):
        raise KeyError
    with locked(path, wait=False):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_work_goes_on_after_one_warning(
    path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(file_lock, "_lock", refuse)
    entered = 0
    with caplog.at_level(logging.WARNING, "cache.file_lock"):
        for _ in range(3):
            with locked(path, wait=True):
                entered += 1
    assert entered == 3
    assert caplog.text.count("cannot be locked (no locks here)") == 1


def test_an_error_that_is_not_about_locks_is_raised(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(file_lock, "_lock", refuse)
    with pytest.raises(OSError, match="broken disk"), locked(path, wait=True):
        pass
