"""A small pickle does not become much memory, and honest ones are not taken for such."""

import tracemalloc
from pathlib import Path

import pytest

from extract.skeletons import restricted_pickle
from extract.skeletons.restricted_pickle import load
from tests.extract.skeletons.test_restricted_pickle import PROTOCOLS, refusal, written

HUNGRY = {
    "places": b"\x80\x04]" + b"\x94" * 100_000 + b".",
    "lists": b"(" + b"]" * 100_000 + b"l.",
    "marks": b"\x80\x04" + b"(" * 100_000 + b".",
    "arrays": b"\x80\x04cnumpy.core.multiarray\n_reconstruct\n\x94cnumpy\nndarray\nK\x00\x85C\x01b\x87\x94("
    + b"h\x00h\x01R" * 100_000
    + b"l.",
}
"""A byte or a few of the file for a hundred and more of memory."""


@pytest.mark.parametrize("name", HUNGRY)
def test_a_file_that_unpacks_into_many_times_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(restricted_pickle, "BUDGET_BASE", 0)
    assert "bytes of values, too many for its size" in refusal(tmp_path, HUNGRY[name])


def test_one_value_that_is_mentioned_many_times_takes_the_memory_of_its_mentions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restricted_pickle, "BUDGET_BASE", 10_000)
    for value in (b"K\x01", b"]", b"Va\n"):
        content = b"\x80\x04](" + value + b"2" * 50_000 + b"e."
        path = written(tmp_path, content)
        tracemalloc.start()
        try:
            assert len(load(path)) == 50_001
            assert tracemalloc.get_traced_memory()[1] < restricted_pickle.BUDGET_FACTOR * len(content)
        finally:
            tracemalloc.stop()
    monkeypatch.setattr(restricted_pickle, "MAX_BUDGET", 32 * 50_000)
    assert "too many for its size" in refusal(tmp_path, content)


def test_an_honest_file_without_arrays_is_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restricted_pickle, "BUDGET_BASE", 0)
    for protocol in PROTOCOLS:
        given = [{"frame_dir": f"clip-{n}", "label": n, "img_shape": (240, 320), "total_frames": n} for n in range(500)]
        assert load(written(tmp_path, given, protocol)) == given
        given_dict = {str(number): number for number in range(5000)}
        assert load(written(tmp_path, given_dict, protocol)) == given_dict
