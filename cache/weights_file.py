"""From what a person writes for weights (a tag, a path or `none`) to a file and its sha256, without torch.

Why random weights have a name: a run with weights that nobody trained is useful for tests and for timing, and must
never happen because a download failed. So absence is always an error that says where to get the file.
"""

import errno
import http.client
import logging
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cache import atomic
from cache.errors import StorageError, WeightsError
from cache.fingerprint import RANDOM_WEIGHTS

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Released weights: where they come from and under which terms."""

    name: str
    """The tag."""
    url: str
    """A page or a file to download by hand; the file itself unless hf_repo is given."""
    licence: str
    """Of the weights, not of the code."""
    filename: str
    """As in the repository or at the end of the url."""
    hf_repo: str | None = None
    """Hugging Face repository, where there is one."""
    alternatives: tuple[str, ...] = ()
    """Other file names of the same weights in that repository, tried in this order."""
    note: str = ""
    """One phrase for the error message."""

    def __post_init__(self) -> None:
        if not self.url.startswith("https://"):
            raise ValueError(f"{self.name}: the url {self.url!r} must start with https://")


_OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_OPEN_CLIP_LICENCES = {
    "openai": "MIT",
    "laion": "MIT",
    "datacomp": "MIT",
    "commonpool": "MIT",
    "metaclip": "CC-BY-NC-4.0",
    "dfn": "Apple Machine Learning Research Model License",
}


def open_clip_source(tag: str, hub: str) -> WeightsSource:
    """Where one of open_clip's tags is.

    Args:
        tag: the tag.
        hub: open_clip's own entry for it: `repository/` or `repository/file`.
    """
    repository, _, filename = hub.rpartition("/")
    licences = (terms for start, terms in _OPEN_CLIP_LICENCES.items() if tag.startswith(start))
    return WeightsSource(
        name=tag,
        url=f"https://huggingface.co/{repository}",
        licence=next(licences, "see the model card"),
        filename=filename or _OPEN_CLIP_FILES[0],
        hf_repo=repository,
        alternatives=() if filename else _OPEN_CLIP_FILES[1:],
    )


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """Weights on this machine, or random ones."""

    name: str
    """The tag, or the file's name."""
    path: Path | None
    """None: random weights."""
    sha256: str
    """Of the file; "none" for random weights."""
    licence: str
    """"unknown" for a file that a person gave."""

    def __post_init__(self) -> None:
        if (self.path is None) != (self.sha256 == RANDOM_WEIGHTS):
            raise ValueError(f"weights {self.name!r}: path {self.path} does not go with sha256 {self.sha256!r}")

    @property
    def random(self) -> bool:
        """True if random weights were asked for by name."""
        return self.path is None


def find_weights(
    given: str, *, sources: Mapping[str, WeightsSource], what: str, key: str, offline: bool = False
) -> WeightsFile:
    """The weights that a configuration names.

    A known tag is looked for in the local caches (`HF_HOME`, `TORCH_HOME`) and then downloaded, unless
    `HF_HUB_OFFLINE` is set. A file whose name equals a tag is given as `./tag`.

    Args:
        given: a tag of `sources`, a path, or `none` for random weights.
        sources: tag -> source.
        what: the model, for messages.
        key: configuration key that holds `given`, for messages.
        offline: never download.

    Raises:
        WeightsError: neither a tag nor a file, or not to be had; says where to get it and how to point at a file.
        StorageError: the disk refused the download.
    """
    if given == RANDOM_WEIGHTS:
        return WeightsFile(name=RANDOM_WEIGHTS, path=None, sha256=RANDOM_WEIGHTS, licence="")
    source = sources.get(given)
    if source is None:
        path = _existing(given, sources=sources, what=what, key=key)
        return WeightsFile(name=path.name, path=path, sha256=atomic.sha256_file(path), licence="unknown")
    found = _in_local_caches(source)
    if found is None:
        if offline or is_offline():
            why_not = " and downloads are off (HF_HUB_OFFLINE)" if is_offline() else ""
            raise _absent(source, what, key, f"it is not on this machine{why_not}")
        logger.info("%s: downloading %s (licence: %s)", what, source.url, source.licence)
        found = _download(source, what, key)
    return WeightsFile(name=source.name, path=found, sha256=atomic.sha256_file(found), licence=source.licence)


def is_offline() -> bool:
    """True if the environment forbids downloads."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")


def hub_folder() -> Path:
    """Where huggingface_hub keeps files, by its own rules (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME)."""
    if explicit := os.environ.get("HF_HUB_CACHE"):
        return Path(explicit).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def checkpoints_folder() -> Path:
    """Where torch keeps downloaded weights, by its own rules (TORCH_HOME, XDG_CACHE_HOME)."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _existing(given: str, *, sources: Mapping[str, WeightsSource], what: str, key: str) -> Path:
    path = Path(given).expanduser()
    if path.is_file():
        return path
    kind = "is a folder" if path.is_dir() else "is neither a known tag nor a file"
    raise WeightsError(
        f"{what} weights: {key} = {given!r} {kind}. Known tags: {', '.join(sources) or 'none for this model'}. "
        f"Say `--set {key}=TAG`, `--set {key}=PATH`, or `--set {key}=none` for random weights"
    )


def _in_local_caches(source: WeightsSource) -> Path | None:
    if source.hf_repo is not None:
        from huggingface_hub import try_to_load_from_cache

        for filename in (source.filename, *source.alternatives):
            cached = try_to_load_from_cache(source.hf_repo, filename, cache_dir=hub_folder())
            if isinstance(cached, str) and Path(cached).is_file():
                return Path(cached)
    path = checkpoints_folder() / source.filename
    return path if source.hf_repo is None and path.is_file() else None


def _download(source: WeightsSource, what: str, key: str) -> Path:
    return _download_from_hub(source, what, key) if source.hf_repo else _download_from_url(source, what, key)


def _download_from_hub(source: WeightsSource, what: str, key: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    # The base of its HTTP error is that of its HTTP library, which differs between its major versions.
    transport_error = cast("type[Exception]", HfHubHTTPError.__mro__[1])
    assert source.hf_repo is not None
    for filename in (source.filename, *source.alternatives):
        try:
            return Path(hf_hub_download(source.hf_repo, filename, cache_dir=hub_folder()))
        except LocalEntryNotFoundError as error:
            raise _absent(source, what, key, f"the download failed ({_first_line(error)})") from error
        except EntryNotFoundError:
            continue
        except (transport_error, OSError) as error:
            _raise_if_disk(error, hub_folder())
            raise _absent(source, what, key, f"the download failed ({_first_line(error)})") from error
    raise _absent(source, what, key, f"the repository {source.hf_repo} has no such file")


def _download_from_url(source: WeightsSource, what: str, key: str) -> Path:
    target = checkpoints_folder() / source.filename
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        request = urllib.request.Request(source.url, headers={"User-Agent": "deconfound"})
        with (
            urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response,
            tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{source.filename}.", delete=False) as file,
        ):
            temporary = Path(file.name)
            shutil.copyfileobj(response, file, length=2**20)
            _check_length(response.headers.get("Content-Length"), file.tell())
        temporary.replace(target)
    except (OSError, http.client.HTTPException) as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        _raise_if_disk(error, target)
        raise _absent(source, what, key, f"the download failed ({_first_line(error)})") from error
    return target


def _check_length(announced: str | None, received: int) -> None:
    if announced is not None and int(announced) != received:
        raise http.client.IncompleteRead(b"", int(announced) - received)


def _raise_if_disk(error: BaseException, path: Path) -> None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        raise StorageError(
            f"cannot write {path}: {error.strerror}. Make room and run the same command again"
        ) from error


def _absent(source: WeightsSource, what: str, key: str, reason: str) -> WeightsError:
    note = f"; {source.note}" if source.note else ""
    return WeightsError(
        f"{what} weights {source.name!r}: {reason}. Get {source.filename} from {source.url} (licence: "
        f"{source.licence}{note}) and say `--set {key}=PATH`, or say `--set {key}=none` for random weights"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
