import contextlib
import fcntl
import os
import pty
import struct
import termios

import pytest

from cache import progress


def test_off_a_terminal_a_plain_line_comes_every_thirty_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with progress.Progress(10, "extract", unit="clip") as bar:
        bar.advance(2)
        now += 31.0
        bar.advance(3, failed=1)
        bar.advance(5)
    assert capsys.readouterr().err == "extract: 5/10 clips, 0.161/s, 31 s left, failed 1\n"


def test_a_line_keeps_the_last_facts_and_counts_what_was_done_before_without_its_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with progress.Progress(1000, "seed0", unit="step", done=900) as bar:
        bar.advance(10)
        bar.advance(0, epoch=91, loss="0.1250")
        now += 40.0
        bar.advance(10)
    assert capsys.readouterr().err == "seed0: 920/1000 steps, 0.5/s, 160 s left, epoch 91, loss 0.1250\n"


def test_it_can_be_silenced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    with progress.Progress(2, "extract") as bar:
        bar.advance(2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("size", [(0, 0), (24, 90)])
def test_a_terminal_shows_a_bar_whatever_size_it_admits_to(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        with progress.Progress(4, "extract", unit="clip", done=1) as bar:
            bar.advance(0, failed=1)
            bar.advance(3)
    shown = b""
    with contextlib.suppress(OSError):  # how the end of a closed terminal is told
        while chunk := os.read(main, 10_000):
            shown += chunk
    os.close(main)
    assert b"4/4" in shown
    assert b"failed=1" in shown
