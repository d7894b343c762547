"""A cache folder opened for reading: streams by name, rows by clip id, straight out of memory maps.

Reads are not checked (a crc per read costs nine times the read); `verify_once` hashes every shard once per cache and
remembers it. Shards are opened on first use and in each process anew, so a store may be handed to worker processes.
A reader may ask why every clip's view is kept once it was made: making one costs as much as a third of copying it.
"""

import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cache import atomic, fingerprint
from cache.array_file import Array
from cache.errors import CacheError, CorruptShard, FailedClip, MissingClip, StorageError
from cache.fingerprint import Fingerprint
from cache.manifest import Task
from cache.rows import SCHEMAS, TOKEN_STREAMS, Failure, Joints, Provenance
from cache.shard import Shard, read_shard
from cache.sidecar import Sidecar, read_sidecar, sidecars
from cache.text import TextFeatures

logger = logging.getLogger(__name__)
_VERIFIED = "verified.json"
_SEVERAL_ARRAYS = ("frames", "joints")
SETTINGS = "settings.json"
"""In a cache: the settings that each stream was asked for with; fingerprints say what came of them."""


class StreamReader:
    """One stream of a cache. `reader[clip_id]` gives that clip's rows, `reader.batch(clip_ids)` those of many.

    visual_prompts: (F, D) float16; frames: F bytes-like JPEG files; joints: `Joints`; video_tokens: (L, d_v) float32;
    image_tokens: (V * L, 1 + P, d) float16.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fingerprint: Fingerprint = fingerprint.load(folder)
        self.stream = self.fingerprint.stream
        self.failures: dict[str, Failure] = {}
        self._places: dict[str, tuple[Sidecar, int]] = {}
        self._shards: dict[int, Shard] = {}
        self._rows: dict[str, Array] = {}
        self._bytes: dict[str, memoryview] = {}
        for sidecar in sidecars(folder):
            self._index(sidecar)

    def _index(self, sidecar: Sidecar) -> None:
        if sidecar.fingerprint_sha256 != self.fingerprint.sha256:
            raise CorruptShard(
                f"{self.folder / sidecar.file} was made with other settings than {fingerprint.FILE_NAME} beside it; "
                "delete it and its .json, then extract again"
            )
        for index, clip in enumerate(sidecar.clips):
            if clip.failure is None:
                self._places[clip.id] = (sidecar, index)
            else:
                self.failures[clip.id] = clip.failure

    def __reduce__(self) -> tuple[type["StreamReader"], tuple[Path]]:
        return type(self), (self.folder,)

    def __repr__(self) -> str:
        return f"StreamReader({self.stream!r}, {len(self)} clips, {len(self.failures)} failed)"

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._places

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """Ids of the clips that have rows."""
        return tuple(self._places)

    def __getitem__(self, clip_id: str) -> Any:  # noqa: ANN401 (the class says what each stream gives)
        """The clip's rows; see the class.

        Raises:
            FailedClip: extraction failed on this clip; says why.
            MissingClip: the stream has no row for it.
        """
        rows = self._rows.get(clip_id)
        return self._read(clip_id) if rows is None else rows

    def batch(self, clip_ids: Sequence[str], *, out: Array | None = None) -> Array:
        """Rows of n clips with F rows each, copied into one array.

        Args:
            clip_ids: n of them, one or more; a clip may be named twice.
            out: where to copy to, C-contiguous; a new array without it.

        Returns:
            (n, F, ...) in the stream's dtype: `out`, if it was given.

        Raises:
            ValueError: the stream has no plain arrays (frames, joints), no clip is named, or `out` does not fit.
            CacheError: the clips have different numbers of rows; names two of them.
            FailedClip: extraction failed on one of them.
            MissingClip: the stream has no row for one of them.
        """
        if self.stream in _SEVERAL_ARRAYS or not clip_ids:
            raise ValueError(f"batch of {len(clip_ids)} clips of {self.stream!r}: give clips of a stream of one array")
        first, pieces = self[clip_ids[0]], self._pieces(clip_ids)
        shape = (len(clip_ids), *first.shape)
        if out is None:
            out = np.empty(shape, first.dtype)
        elif out.shape != shape or out.dtype != first.dtype or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.dtype} {out.shape}; expected {first.dtype} {shape}, C-contiguous")
        target = out.data.cast("B")
        try:
            for span, piece in zip(_spans(len(clip_ids), first.nbytes), pieces, strict=True):
                target[span] = piece  # a bare memmove: numpy's own assignment has three times the overhead
        except ValueError:  # another size
            raise self._uneven(clip_ids) from None
        return out

    def pts_seconds(self, clip_id: str) -> npt.NDArray[np.float64]:
        """(F,) true presentation times of the clip's rows, in seconds."""
        shard, start, stop = self._find(clip_id)
        return shard.arrays["pts_seconds"][start:stop]

    def frame_index(self, clip_id: str) -> npt.NDArray[np.int64]:
        """(F,) index of each row's frame in its video, counted in display order."""
        shard, start, stop = self._find(clip_id)
        return shard.arrays["frame_index"][start:stop]

    def num_rows(self, clip_id: str) -> int:
        """F of this clip."""
        sidecar, index = self._place(clip_id)
        return sidecar.clips[index].num_rows

    def source_sha256(self, clip_id: str) -> str:
        """Identity of the file that the clip's rows come from; empty if it is not known."""
        sidecar, index = self._place(clip_id)
        return sidecar.clips[index].source_sha256

    def provenance(self, clip_id: str) -> Provenance:
        """Where the clip's rows come from."""
        sidecar, index = self._place(clip_id)
        return self._shard(sidecar).provenance(index)

    def _read(self, clip_id: str) -> Any:  # noqa: ANN401 (as __getitem__)
        shard, start, stop = self._find(clip_id)
        if self.stream == "frames":
            return _blobs(shard.arrays, "jpeg", start, stop)
        if self.stream == "joints":
            return Joints(**{entry.name: shard.arrays[entry.name][start:stop] for entry in SCHEMAS["joints"].fields})
        rows = self._rows[clip_id] = shard.arrays[self.stream][start:stop]
        return rows

    def _pieces(self, clip_ids: Sequence[str]) -> Sequence[memoryview]:
        """Every clip's rows as bytes; looked up together, which on a cold processor cache takes half the time."""
        try:
            return itemgetter(*clip_ids)(self._bytes) if len(clip_ids) > 1 else (self._bytes[clip_ids[0]],)
        except KeyError:
            for clip_id in clip_ids:
                self._bytes[clip_id] = memoryview(self[clip_id]).cast("B")
            return [self._bytes[clip_id] for clip_id in clip_ids]

    def _uneven(self, clip_ids: Sequence[str]) -> CacheError:
        counts = {clip_id: self.num_rows(clip_id) for clip_id in clip_ids}
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        return CacheError(
            f"{self.folder}: a batch needs clips with equal numbers of rows, but {least!r} has {counts[least]} and "
            f"{most!r} has {counts[most]}; read such clips one by one"
        )

    def _find(self, clip_id: str) -> tuple[Shard, int, int]:
        sidecar, index = self._place(clip_id)
        shard = self._shards.get(sidecar.number) or self._shard(sidecar)
        return shard, shard.row_offsets[index], shard.row_offsets[index + 1]

    def _place(self, clip_id: str) -> tuple[Sidecar, int]:
        try:
            return self._places[clip_id]
        except KeyError:
            pass
        failure = self.failures.get(clip_id)
        if failure is not None:
            raise FailedClip(clip_id, failure.code, failure.message)
        raise MissingClip(
            f"{self.folder} has no clip {clip_id!r}; run `deconfound extract` with the dataset that names it"
        )

    def _shard(self, sidecar: Sidecar) -> Shard:
        shard = self._shards.get(sidecar.number)
        if shard is None:
            shard = self._shards[sidecar.number] = self._read_shard(sidecar)
        return shard

    def _read_shard(self, sidecar: Sidecar) -> Shard:
        if not (self.folder / sidecar.file).exists():
            current = read_sidecar(self.folder, sidecar.number)
            if current is not None and _same_rows(current, sidecar):  # made again (a retry) since this was opened
                return read_shard(self.folder, current)
        return read_shard(self.folder, sidecar)


class FeatureStore:
    """A cache folder opened for reading.

    Example:
        store = FeatureStore.open(Path("CACHE"))
        store.visual_prompts["P03_cam01_P03_cereals"]  # (F, D) float16
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "plan.json").exists():
            raise CacheError(f"{folder} is not a cache (no plan.json); make one with `deconfound extract`")
        self.folder = folder
        self._readers: dict[str, StreamReader] = {}

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Opens a cache.

        Raises:
            CacheError: the folder is not a cache.
        """
        return cls(folder)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r}, streams={self.streams})"

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams that the cache has, text included."""
        names = (path.parent.name for path in self.folder.glob(f"*/{fingerprint.FILE_NAME}"))
        return tuple(sorted(names))

    def stream(self, name: str) -> StreamReader:
        """The reader of one stream.

        Raises:
            CacheError: the cache has no such stream; says what it has and what to run.
        """
        if name not in self._readers:
            if name not in SCHEMAS or not (self.folder / name / fingerprint.FILE_NAME).exists():
                raise CacheError(
                    f"{self.folder} has no stream {name!r}; it has {list(self.streams)}. "
                    f"Run `deconfound extract DATASET --cache {self.folder} --streams {name}`"
                )
            self._readers[name] = StreamReader(self.folder / name)
        return self._readers[name]

    @property
    def visual_prompts(self) -> StreamReader:
        """CLIP embeddings of frames."""
        return self.stream("visual_prompts")

    @property
    def frames(self) -> StreamReader:
        """JPEG frames."""
        return self.stream("frames")

    @property
    def joints(self) -> StreamReader:
        """Joint coordinates."""
        return self.stream("joints")

    def fingerprint(self, stream: str) -> Fingerprint:
        """What made a stream; `text` too."""
        if stream not in self.streams:
            raise CacheError(f"{self.folder} has no stream {stream!r}; it has {list(self.streams)}")
        return fingerprint.load(self.folder / stream)

    def text(self, task: Task) -> TextFeatures:
        """Text embeddings of a task's classes and prompts."""
        return TextFeatures.read(self.folder, task)

    @property
    def notices(self) -> tuple[str, ...]:
        """What every product made from this cache must repeat: streams of random weights."""
        return tuple(
            f'{name}: {mark.model.get("name")} with random weights (pretrained = "none"): features carry no knowledge'
            for name in self.streams
            if (mark := self.fingerprint(name)).random_weights
        )

    def verify_once(self) -> int:
        """Checks the sha256 of every shard that was not checked before; returns how many were hashed.

        Raises:
            CorruptShard: a shard's bytes are not what was committed.
        """
        remembered = _read_verified(self.folder / _VERIFIED)
        current: dict[str, list[Any]] = {}
        hashed = 0
        for stream, folder in stream_folders(self.folder).items():
            for sidecar in sidecars(folder):
                path = folder / sidecar.file
                key = f"{stream}/{sidecar.file}"
                current[key] = [sidecar.sha256, *_identity(path)]
                if remembered.get(key) != current[key]:
                    hashed += 1
                    if atomic.sha256_file(path) != sidecar.sha256:
                        raise CorruptShard(
                            f"{path} does not match its sha256; delete it and its .json, then extract again"
                        )
        if current != remembered:
            try:
                atomic.write_json(self.folder / _VERIFIED, {"shards": current})
            except (PermissionError, StorageError):
                logger.info("%s is read-only: the check of its shards is not remembered", self.folder)
        return hashed


def stream_settings(cache: Path) -> dict[str, Any]:
    """Stream -> the keys of [extract] that it was made with; empty for a cache of an earlier version."""
    try:
        return dict(atomic.read_json(cache / SETTINGS)["streams"])
    except FileNotFoundError:
        return {}


@lru_cache(maxsize=16)
def _spans(count: int, size: int) -> tuple[slice, ...]:
    """Consecutive pieces of `size`."""
    return tuple(slice(number * size, (number + 1) * size) for number in range(count))


def _same_rows(first: Sidecar, second: Sidecar) -> bool:
    rows = [[(clip.id, clip.num_rows) for clip in sidecar.clips] for sidecar in (first, second)]
    return rows[0] == rows[1] and first.fingerprint_sha256 == second.fingerprint_sha256


def stream_folders(cache: Path) -> dict[str, Path]:
    """Every stream of a cache by name; tokens of frozen encoders by kind, as `video_tokens/<digest>`."""
    marks = [*cache.glob(f"*/{fingerprint.FILE_NAME}")]
    for stream in TOKEN_STREAMS:
        marks += cache.glob(f"{stream}/*/{fingerprint.FILE_NAME}")
    return {path.parent.relative_to(cache).as_posix(): path.parent for path in sorted(marks)}


def _blobs(arrays: Mapping[str, Array], name: str, start: int, stop: int) -> list[memoryview]:
    offsets = arrays[f"{name}_offsets"][start : stop + 1].tolist()
    data = arrays[name].data
    return [data[first:last] for first, last in itertools.pairwise(offsets)]


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise CorruptShard(f"{path} is gone though its .json names it; delete that file and extract again") from None
    return status.st_size, status.st_mtime_ns


def _read_verified(path: Path) -> dict[str, list[Any]]:
    try:
        return json.loads(json.dumps(atomic.read_json(path)["shards"]))
    except FileNotFoundError:
        return {}
    except CorruptShard:
        logger.warning("%s is damaged: all shards are checked again", path)
        return {}
