"""Pickles are read without being executed: what is plain comes out, everything else is refused by its name."""

import collections
import datetime
import os
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import ConfigError
from extract.skeletons import pickle_values, restricted_pickle
from extract.skeletons.restricted_pickle import load

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ARRAYS = {
    **{code: np.arange(6).reshape(2, 3).astype(code) for code in ("f2", "f4", "f8", "i2", "i8", "u1", "b1")},
    "other byte order": np.arange(3, dtype=">i4"),
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "with gaps": np.arange(12).reshape(3, 4)[:, ::2],
    "empty": np.zeros((0, 17, 2), np.float16),
    "no axes": np.array(3.5),
    "all bytes": np.frombuffer(bytes(range(256)), np.uint8),
}
PLAIN: dict[str, Any] = {
    "text": "äß€ \n",
    "long": -(2**62),
    "float": -1e300,
    "flags": [True, False, None],
    "nested": {"list": [1, (2, 3)], 5: {}, "empty": [(), [], ""]},
}


def written(folder: Path, value: object, protocol: int = 4) -> Path:
    path = folder / "skeletons.pkl"
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol=protocol))
    return path


def refusal(folder: Path, value: object, protocol: int = 4) -> str:
    path = written(folder, value, protocol)
    with pytest.raises(ConfigError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert "was executed" in message
    return message


def assert_same(read: Any, meant: Any) -> None:  # noqa: ANN401 (any plain value)
    assert type(read) is type(meant)
    if isinstance(meant, np.ndarray):
        assert read.dtype == meant.dtype
        np.testing.assert_array_equal(read, meant, strict=True)
    elif isinstance(meant, dict):
        assert list(read) == list(meant)
        for key in meant:
            assert_same(read[key], meant[key])
    elif isinstance(meant, list | tuple):
        assert len(read) == len(meant)
        for ours, theirs in zip(read, meant, strict=True):
            assert_same(ours, theirs)
    else:
        assert read == meant


def assert_plain(value: Any) -> None:  # noqa: ANN401 (anything)
    if isinstance(value, np.ndarray):
        assert type(value) is np.ndarray
        assert value.dtype.kind in "fiub"
        value.tolist()  # every byte of it is there
        return
    assert type(value) in (dict, list, tuple, str, int, float, bool, type(None))
    if isinstance(value, dict):
        value = [*value, *value.values()]
    for part in value if isinstance(value, list | tuple) else ():
        assert_plain(part)


class CallsSystem:
    """What every exploit of a pickle does."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_out_as_it_went_in(tmp_path: Path, name: str, protocol: int) -> None:
    assert_same(load(written(tmp_path, ARRAYS[name], protocol)), ARRAYS[name])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_come_out_as_they_went_in(tmp_path: Path, protocol: int) -> None:
    assert_same(load(written(tmp_path, PLAIN, protocol)), PLAIN)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_scalar_of_numpy_becomes_a_number(tmp_path: Path, protocol: int) -> None:
    given = [np.int64(-3), np.float16(0.5), np.bool_(True), np.uint8(200)]
    assert_same(load(written(tmp_path, given, protocol)), [-3, 0.5, True, 200])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_numpy_1_wrote_is_read_by_its_old_names(tmp_path: Path, protocol: int) -> None:
    value = {"keypoint": ARRAYS["f2"], "label": np.int64(3)}
    content = pickle.dumps(value, protocol=protocol)
    for name in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        shorter = name.replace(b"_core", b"core")
        if protocol >= 4:  # names have their length before them
            content = content.replace(bytes([len(name)]) + name, bytes([len(shorter)]) + shorter)
        content = content.replace(name, shorter)
    if protocol >= 4:
        content = content[:2] + content[11:]  # without the frame, whose length is another now
    assert b"_core" not in content
    assert_same(load(written(tmp_path, content)), {"keypoint": ARRAYS["f2"], "label": 3})


def test_one_array_in_two_places_is_one_array(tmp_path: Path) -> None:
    for protocol in PROTOCOLS:
        first, second = load(written(tmp_path, [ARRAYS["f4"]] * 2, protocol))
        assert first is second


def test_arrays_cannot_be_written_to(tmp_path: Path) -> None:
    for protocol in PROTOCOLS:
        assert not load(written(tmp_path, ARRAYS["f8"], protocol)).flags.writeable


def test_a_real_pickle_of_mmaction2_gives_what_the_unsafe_reader_gives() -> None:
    path = Path(os.environ["DECONFOUND_TEST_DATA"]) / "annotations" / "skeleton" / "mmaction2_sample.pkl"
    meant = pickle.loads(path.read_bytes())
    assert_same(load(path), meant)
    assert len(meant["annotations"]) == 100


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "was-here"
    message = refusal(tmp_path, {"annotations": [CallsSystem(mark)]}, protocol)
    assert re.search(r"is refused: it asks for (posix|nt)\.system\.", message)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "INST (os system)"),
        (b"cbuiltins\neval\n(V1\ntR.", "builtins.eval"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "_reconstruct.__globals__"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "NEWOBJ"),
        (b"cnumpy\nndarray\n(I9\ntR.", "it calls the function ndarray"),
        (b"\x80\x02\x82\x01.", "EXT1 (1)"),
        (b"Psomewhere\n.", "PERSID (somewhere)"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"cnumpy\ndtype\n.", "it holds the function dtype"),
        (b"cnumpy\ndtype\n(Vf4\nI00\nI01\ntR.", "it holds a dtype"),
        (b"cnumpy\ndtype\n(Vf4\nI00\nI01\ntR}b.", "record"),
        (b"]}b.", "it sets the state of a value of type list"),
        (b"}I1\na.", "it appends to a value of type dict"),
        (b"]I1\nI2\ns.", "it sets items of a value of type list"),
        (b"}(lI2\ns.", "a value of type list as a key"),
        (b"I" + b"9" * 30 + b"\n.", "more than 64 bits"),
    ],
)
def test_what_is_found_is_said(tmp_path: Path, content: bytes, found: str) -> None:
    assert found in refusal(tmp_path, content)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        np.array([{"a": 1}, None], dtype=object),
        np.array(["a", "b"]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.array([1j]),
        np.ma.masked_array([1, 2], mask=[True, False]),
        {1, 2},
        frozenset([1]),
        collections.OrderedDict(a=1),
        collections.defaultdict(list),
        datetime.date(2020, 1, 1),
        Path("relative"),
        [b"bytes"],
        bytearray(b"bytes"),
        1j,
        range(3),
        slice(1),
        len,
    ],
    ids=repr,
)
def test_what_is_not_plain_is_refused(tmp_path: Path, value: object, protocol: int) -> None:
    assert "is refused: it " in refusal(tmp_path, value, protocol)


def test_every_beginning_of_a_pickle_is_refused(tmp_path: Path) -> None:
    for protocol in PROTOCOLS:
        content = pickle.dumps({"a": [1, (2.5, ARRAYS["f2"])]}, protocol=protocol)
        for length in range(len(content)):
            refusal(tmp_path, content[:length])


def test_changed_bytes_never_lead_to_anything_but_a_refusal_or_plain_values(tmp_path: Path) -> None:
    generator, num_read = np.random.default_rng(0), 0
    for protocol in PROTOCOLS:
        meant = pickle.dumps({"a": [1, (2.5, ARRAYS["f2"])], "b": np.int64(3)}, protocol=protocol)
        for _ in range(300):
            content = bytearray(meant)
            content[generator.integers(len(content))] = generator.integers(256)
            try:
                value = load(written(tmp_path, bytes(content)))
            except ConfigError:
                continue
            assert_plain(value)
            num_read += 1
    assert num_read > 100  # most changes are to numbers and texts


def test_what_is_no_pickle_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\x00", b"PK\x03\x04 a zip", b"\x89HDF\r\n", b'{"people": []}', b".", b"I1\nI2\n."):
        refusal(tmp_path, content)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "absent.pkl")


def test_an_array_that_states_more_than_it_has_is_refused(tmp_path: Path) -> None:
    content = pickle.dumps(np.zeros((2, 3), np.float16), protocol=4)
    for old, new in ((b"K\x02K\x03\x86", b"K\xffK\xff\x86"), (b"K\x02K\x03\x86", b"K\x01K\x03\x86")):
        assert old in content
        assert "would need" in refusal(tmp_path, content.replace(old, new))
    huge = b"J" + struct.pack("<i", 2**30)
    bomb = content.replace(b"K\x02K\x03\x86", huge * 2 + b"\x86")
    assert "would need" in refusal(tmp_path, bomb[:2] + bomb[11:])
    negative = content.replace(b"K\x02K\x03\x86", b"J\xff\xff\xff\xffK\x03\x86")
    assert "the shape (-1, 3)" in refusal(tmp_path, negative[:2] + negative[11:])


def test_lengths_and_places_beyond_the_file_take_no_memory(tmp_path: Path) -> None:
    far = struct.pack("<Q", 2**40)
    for content in (b"\x8e" + far + b"x.", b"\x96" + far + b"x.", b"\x8d" + far + b"x."):
        refusal(tmp_path, b"\x80\x05" + content)
    load(written(tmp_path, b"\x80\x04Nr\xff\xff\xff\xff."))  # Python's own reader makes room for all places up to it


def test_bytes_that_are_unpacked_again_and_again_are_refused(tmp_path: Path) -> None:
    text = b"V" + b"a" * 1000 + b"\np0\n"
    again = b"".join(b"cbuiltins\nbytes\n0c_codecs\nencode\n(g0\nVlatin1\ntR0" for _ in range(100))
    assert "more bytes than it has" in refusal(tmp_path, text + again + b".")


def test_deep_nesting_is_refused_however_it_is_made(tmp_path: Path) -> None:
    value: Any = 1
    for _ in range(pickle_values.MAX_NESTING):
        value = [value]
    load(written(tmp_path, value))
    assert "nested more than 20 deep" in refusal(tmp_path, [value])
    assert "nested more than 20 deep" in refusal(tmp_path, b"\x80\x02N" + b"\x85" * 200_000 + b".")
    itself: list[Any] = []
    itself.append(itself)
    assert "nested more than 20 deep" in refusal(tmp_path, itself)


@pytest.mark.parametrize(
    "around",
    [
        b"cnumpy\ndtype\n(%sI00\nI01\ntR.",
        b"c_codecs\nencode\n(%sVlatin1\ntR.",
        b"c_codecs\nencode\n(Va\n%stR.",
        b"}%sI1\ns.",
        b"%s}b.",
        b"%sVname\n\x93.",
        b"cnumpy.core.numeric\n_frombuffer\n(C\x01acnumpy\ndtype\n(Vu1\nI00\nI01\ntR%sVC\ntR.",
    ],
)
def test_a_tower_of_tuples_topples_nothing_that_meets_it(tmp_path: Path, around: bytes) -> None:
    tower = b"N" + b"\x85" * 200_000
    assert "is refused: it " in refusal(tmp_path, b"\x80\x04" + around.replace(b"%s", tower))


def test_lists_of_lists_of_lists_are_walked_once(tmp_path: Path) -> None:
    laughs: Any = "ha"
    for _ in range(pickle_values.MAX_NESTING - 1):
        laughs = [laughs] * 10
    assert len(load(written(tmp_path, laughs))) == 10  # 10 ** 19 texts, to one who follows every path


def test_limits_on_what_a_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(written(tmp_path, "a" * pickle_values.MAX_TEXT))
    assert "a text of 65537 characters" in refusal(tmp_path, "a" * (pickle_values.MAX_TEXT + 1))
    wide = "\N{SNOWMAN}" * (pickle_values.MAX_TEXT + 1)
    assert "a text of 65537 characters" in refusal(tmp_path, pickle.dumps(wide)[:-1] + b"0N.")  # thrown away again
    monkeypatch.setattr(restricted_pickle, "MAX_FILE_BYTES", 50)
    assert "more than 50" in refusal(tmp_path, list(range(100)))
