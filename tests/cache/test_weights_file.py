import errno
import hashlib
import http.client
import io
import urllib.error
from pathlib import Path

import pytest

from cache.errors import StorageError, WeightsError
from cache.weights_file import WeightsFile, WeightsSource, checkpoints_folder, find_weights

CONTENT = b"tensors" * 1000
URL_SOURCE = WeightsSource(
    name="web", url="https://example.org/models/web.pth", licence="MIT", filename="web.pth", note="small"
)
HUB_SOURCE = WeightsSource(
    name="hub",
    url="https://huggingface.co/someone/model",
    licence="MIT",
    filename="model.safetensors",
    hf_repo="someone/model",
    alternatives=("model.bin",),
)
SOURCES = {source.name: source for source in (URL_SOURCE, HUB_SOURCE)}


def find(given: str, *, offline: bool = False) -> WeightsFile:
    return find_weights(given, sources=SOURCES, what="toy model", key="extract.toy.weights", offline=offline)


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


class Response(io.BytesIO):
    def __init__(self, content: bytes, length: int | None) -> None:
        super().__init__(content)
        self.headers = {} if length is None else {"Content-Length": str(length)}


def serve(monkeypatch: pytest.MonkeyPatch, answer: Response | Exception) -> None:
    def urlopen(*_args: object, **_options: object) -> Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("urllib.request.urlopen", urlopen)


def put_into_hub(folder: Path, filename: str, content: bytes) -> Path:
    repo = folder / "hub" / "models--someone--model"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    (snapshot / filename).write_bytes(content)
    return snapshot / filename


def test_none_is_random_weights_by_name() -> None:
    weights = find("none")
    assert weights.random
    assert weights.sha256 == "none"


def test_a_path_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in (str(tmp_path / "mine.pth"), "~/mine.pth"):
        weights = find(given)
        assert weights.path == tmp_path / "mine.pth"
        assert weights.name == "mine.pth"
        assert weights.sha256 == hashlib.sha256(CONTENT).hexdigest()
        assert not weights.random


def test_what_is_neither_tag_nor_file_lists_the_tags(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"neither a known tag nor a file\. Known tags: web, hub.*toy.weights=none"):
        find("wbe")
    with pytest.raises(WeightsError, match="is a folder"):
        find(str(tmp_path))


@pytest.mark.parametrize("given", ["web", "hub"])
def test_offline_says_where_to_get_it(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = rf"{SOURCES[given].url}.*MIT.*toy\.weights=PATH.*toy\.weights=none"
    with pytest.raises(WeightsError, match=rf"not on this machine\. .*{where}"):
        find(given, offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match=rf"HF_HUB_OFFLINE.*{where}"):
        find(given)


def test_files_in_the_local_caches_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checkpoints_folder().mkdir(parents=True)
    (checkpoints_folder() / "web.pth").write_bytes(CONTENT)
    cached = put_into_hub(tmp_path / "hf", "model.bin", CONTENT)
    assert find("web").path == tmp_path / "torch" / "hub" / "checkpoints" / "web.pth"
    assert find("hub").path == cached
    assert find("hub").name == "hub"


def test_a_download_lands_whole_and_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, Response(CONTENT, len(CONTENT)))
    weights = find("web")
    assert weights.path is not None
    assert weights.path.read_bytes() == CONTENT
    assert weights.licence == "MIT"
    serve(monkeypatch, AssertionError("a second download"))
    assert find("web") == weights


@pytest.mark.parametrize(
    "answer",
    [
        Response(CONTENT[:100], len(CONTENT)),
        urllib.error.URLError("no route to host"),
        urllib.error.HTTPError("https://example.org", 404, "Not Found", http.client.HTTPMessage(), io.BytesIO()),
        TimeoutError("timed out"),
        http.client.BadStatusLine("?"),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_a_failed_download_says_where_to_get_it_and_leaves_nothing(
    answer: Response | Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, answer)
    with pytest.raises(WeightsError, match=r"download failed.*https://example\.org/models/web\.pth"):
        find("web")
    assert list(checkpoints_folder().iterdir()) == []


def test_a_full_disk_is_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(StorageError, match="No space left"):
        find("web")


def test_hub_failures_say_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    asked: list[str] = []

    def fail(_repo: str, filename: str, **_options: object) -> str:
        asked.append(filename)
        raise errors[len(asked) - 1]

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    for errors in (
        [LocalEntryNotFoundError("no connection")],
        [EntryNotFoundError("404"), ConnectionError("reset")],
        [EntryNotFoundError("404"), EntryNotFoundError("404")],
    ):
        asked.clear()
        with pytest.raises(WeightsError, match=r"https://huggingface\.co/someone/model"):
            find("hub")
        assert asked == ["model.safetensors", "model.bin"][: len(errors)]


def test_a_source_must_be_https() -> None:
    with pytest.raises(ValueError, match="https"):
        WeightsSource(name="x", url="http://example.org/x", licence="", filename="x")
