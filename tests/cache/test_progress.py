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


def test_it_can_be_silenced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    with progress.Progress(2, "extract") as bar:
        bar.advance(2)
    assert capsys.readouterr().err == ""
