"""Every error that Deconfound raises on purpose, and the exit code each one means.

    DeconfoundError                 2   something that the caller can put right
    ├── ConfigError                 2   a recipe, an option or a combination of them
    │   └── WeightsError            2   weights that are absent, untrusted or of another model
    ├── ManifestError               2   dataset.json or clips.jsonl
    ├── CacheError                  2   a cache folder
    │   ├── FingerprintMismatch     2   made by another model, sampling or preprocessing
    │   ├── CorruptShard            4   bytes that are not what was written
    │   └── MissingClip             2   a clip that the cache does not hold
    │       └── FailedClip          2   a clip that the cache holds as a failure
    ├── StorageError               75   disk full, I/O error, file-size limit: try again
    ├── TooManyFailures             3   extraction stopped because of its failures
    ├── Stopped       75, 130 or 143   extraction stopped by a signal; the same command continues
    └── VideoError                  3   one video; carries a FailureCode, never stops a run

`VideoError` is the only one that becomes data: extraction stores its code and message as the row of that clip.
"""

from enum import StrEnum
from typing import Any


class DeconfoundError(Exception):
    """Base of all errors with a message made for the person at the keyboard."""

    exit_code: int = 2


class ConfigError(DeconfoundError):
    """A recipe key, an option, or a combination that cannot work."""


class WeightsError(ConfigError):
    """Weights that are absent, refused as unsafe, or belong to another model."""


class ManifestError(DeconfoundError):
    """A dataset folder whose files contradict themselves or the format."""


class CacheError(DeconfoundError):
    """A cache folder that cannot serve what was asked."""


class FingerprintMismatch(CacheError):
    """A stream was made with other settings than the ones asked for."""


class CorruptShard(CacheError):
    """A file of the cache does not hold the bytes that were committed."""

    exit_code: int = 4


class MissingClip(CacheError):
    """The cache holds no row for this clip."""


class StorageError(DeconfoundError):
    """The disk refused: full, failing, or over a limit. Nothing committed is lost; run again."""

    exit_code: int = 75


class TooManyFailures(DeconfoundError):
    """Too many clips failed; `drop` says that what is not committed is worth nothing."""

    exit_code: int = 3

    def __init__(self, message: str, *, drop: bool = False) -> None:
        super().__init__(message)
        self.drop = drop

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), str(self), {"drop": self.drop})


class Stopped(DeconfoundError):
    """A signal asked to stop; nothing committed is lost."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), str(self), {"exit_code": self.exit_code})


def _rebuilt(kind: type[DeconfoundError], message: str, options: dict[str, Any]) -> DeconfoundError:
    """Errors go through pipes between processes; unpickling alone would forget keyword arguments."""
    return kind(message, **options)


class FailureCode(StrEnum):
    """Why one video gave no features. The value is what sidecars and `--json` print."""

    MISSING = "missing"
    PERMISSION = "permission"
    LOOP = "loop"
    NOT_A_FILE = "not_a_file"
    OUTSIDE_ROOT = "outside_root"
    EMPTY = "empty"
    NOT_A_VIDEO = "not_a_video"
    NO_VIDEO_STREAM = "no_video_stream"
    UNSUPPORTED_CODEC = "unsupported_codec"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    FRAME_COUNT = "frame_count"
    RESOLUTION_CHANGE = "resolution_change"
    TOO_LARGE = "too_large"
    TOO_SHORT = "too_short"
    TIMEOUT = "timeout"
    DECODER_DIED = "decoder_died"
    NON_FINITE = "non_finite"
    OUT_OF_MEMORY = "out_of_memory"
    NO_BOXES = "no_boxes"
    NO_SKELETON = "no_skeleton"


class VideoError(DeconfoundError):
    """One video could not be read; `code` says which cause of a closed list."""

    exit_code: int = 3

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type["VideoError"], tuple[FailureCode, str]]:
        # Worker processes send it through a pipe: without this, unpickling would call __init__ with one argument.
        return type(self), (self.code, self.message)


class FailedClip(MissingClip):
    """The cache holds this clip as a failure."""

    def __init__(self, clip_id: str, code: FailureCode, message: str) -> None:
        super().__init__(f"clip {clip_id!r} has no features: {code} ({message})")
        self.clip_id = clip_id
        self.code = code
