import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.log_level import NOTE
from pipeline.startup import configure_logging


@pytest.fixture(autouse=True)
def root_handlers() -> Iterator[None]:
    """Puts pytest's own handlers back."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers.clear()
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize("verbose", [False, True])
def test_notes_are_shown_without_being_asked_for_and_everything_is_kept_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    configure_logging(verbose=verbose, log_file=tmp_path / "logs" / "log")
    logger = logging.getLogger("train.residency")
    logger.info("a detail")
    logger.log(NOTE, "features: in RAM")
    logger.warning("random weights")
    shown = ["INFO: a detail"] if verbose else []
    assert capsys.readouterr().err.splitlines() == [*shown, "NOTE: features: in RAM", "WARNING: random weights"]
    kept = (tmp_path / "logs" / "log").read_text()
    assert all(words in kept for words in ("INFO train.residency: a detail", "NOTE", "WARNING"))
