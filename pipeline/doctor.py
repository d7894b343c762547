"""What this machine has and what is missing for which command.

Weights are looked up where they would be found, never downloaded: asking is free.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.errors import WeightsError
from cache.weights_file import WeightsFile, find_weights
from pipeline.tables import format_bytes, format_table

_VIDEO_TAG = "8x32_224_K400"
_PACKAGES = (
    *("torch", "torchvision", "open_clip_torch", "timm", "av", "decord", "h5py", "numpy", "scikit-learn"),
    "simplejpeg",
)


@dataclass(kw_only=True)
class Findings:
    """Versions, devices, decoders, weights, and one line for everything that some command lacks."""

    versions: dict[str, str] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    decoders: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    disk_free_bytes: int = 0
    shared_memory_free_bytes: int = 0
    missing: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return dict(vars(self))

    def to_text(self) -> str:
        """Tables for the terminal."""
        parts = [
            format_table(("package", "version"), list(self.versions.items())),
            format_table(("device",), [(device,) for device in self.devices]),
            format_table(("decoder", "use"), list(self.decoders.items())),
            format_table(("weights", "found"), list(self.weights.items())),
            f"disk free here: {format_bytes(self.disk_free_bytes)}; "
            f"shared memory free: {format_bytes(self.shared_memory_free_bytes)}",
            "\n".join(f"missing: {line}" for line in self.missing) or "nothing is missing",
        ]
        return "\n\n".join(parts)


def examine() -> Findings:
    """Looks at this machine; loads torch to ask for its devices, nothing else."""
    findings = Findings(disk_free_bytes=shutil.disk_usage(Path.cwd()).free)
    shared = Path("/dev/shm")
    findings.shared_memory_free_bytes = shutil.disk_usage(shared).free if shared.exists() else 0
    findings.versions["python"] = platform.python_version()
    for name in _PACKAGES:
        findings.versions[name] = _version(name)
    findings.devices = _devices()
    _examine_decoders(findings)
    _examine_weights(findings)
    return findings


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _devices() -> list[str]:
    import torch

    gpus = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    return [f"cpu, {os.cpu_count()} cores", *gpus]


def _examine_decoders(findings: Findings) -> None:
    findings.decoders["PyAV"] = "all containers"
    if importlib.util.find_spec("decord"):
        findings.decoders["decord"] = "constant-rate mp4, mkv, webm: faster on sparse frames"
    else:
        findings.missing.append("decord: no wheel for this platform; PyAV decodes everything, more slowly")
    if len(findings.devices) == 1:
        findings.missing.append("a CUDA device: extract and train run on the CPU, for small data sets only")


def _examine_weights(findings: Findings) -> None:
    from extract.config import ImageEncoderConfig, PoseConfig
    from extract.image_encoder import image_encoder_spec
    from extract.pose.detector import detector_weights
    from extract.pose.estimator import pose_weights
    from train.weights import TIMESFORMER_SOURCES

    image, pose = ImageEncoderConfig(), PoseConfig()

    def video_encoder() -> WeightsFile:
        key = "train.video_encoder.pretrained"
        return find_weights(_VIDEO_TAG, sources=TIMESFORMER_SOURCES, what="TimeSformer", key=key, offline=True)

    searches: dict[str, tuple[str, Callable[[], WeightsFile]]] = {
        f"{image.model} {image.pretrained}": ("extract", lambda: image_encoder_spec(image, offline=True)[1]),
        pose.weights: ("extract --streams joints", lambda: pose_weights(pose, offline=True)),
        pose.detector: (
            f"extract --streams joints --detector {pose.detector}",
            lambda: detector_weights(pose, offline=True),
        ),
        _VIDEO_TAG: ("train", video_encoder),
    }
    for name, (command, search) in searches.items():
        try:
            findings.weights[name] = str(search().path)
        except WeightsError as error:
            findings.weights[name] = "absent"
            findings.missing.append(f"for `{command}`: {error}")
