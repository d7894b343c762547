"""A tiny dataset with real files, real failures, and a tiny CLIP: what the tests of extraction share."""

import json
import sys
from pathlib import Path

from cache.manifest import Clip, Dataset, Task
from cache.verify import verify
from extract.config import ExtractConfig, ImageEncoderConfig, PoseConfig, Stream
from extract.extractor import extract
from tests.extract.videos import make_video

NUM_FRAMES = 6
TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TASK = Task(name="activity", kind="single", class_names=("tea", "toast"), prompts=("making tea", "making toast"))
FAILURES = {"01-gone": "missing", "03-text": "not_a_video", "05-late": "too_short"}


def make_dataset(folder: Path, num_plain: int = 4) -> Dataset:
    """Plain videos, three clips of one long video, a short one, and three that fail."""
    videos = folder / "videos"
    videos.mkdir(parents=True)
    sizes = [(96, 128), (128, 96), (64, 160), (80, 80)]
    for number in range(num_plain):
        make_video(videos / f"{number}.mp4", num_frames=20, size=sizes[number % 4], seed=number)
    make_video(videos / "long.avi", codec="mpeg4", num_frames=90, seed=77)
    make_video(videos / "short.mkv", num_frames=3, seed=78)
    (videos / "text.mp4").write_text("not a video\n" * 100)
    clips = [
        Clip(id=f"{number:02d}-plain", video=f"{number}.mp4", labels={"activity": ("tea",)})
        for number in range(num_plain)
    ]
    clips += [
        Clip(id=f"04-long-{part}", video="long.avi", start_seconds=part * 1.0, end_seconds=part + 1.5)
        for part in range(3)
    ]
    clips += [
        Clip(id="05-short", video="short.mkv"),
        Clip(id="01-gone", video="gone.mp4"),
        Clip(id="03-text", video="text.mp4"),
        Clip(id="05-late", video="0.mp4", start_seconds=99.0),
    ]
    return Dataset(name="kitchen", version="1", tasks=(TASK,), protocols={}, clips=tuple(clips), video_root=videos)


def make_config(folder: Path, *streams: Stream, shard_size: int = 4, batch_size: int = 8) -> ExtractConfig:
    """The tiny CLIP with random weights; HRNet on a small input."""
    model = folder / "tiny-clip.json"
    if not model.exists():
        model.write_text(json.dumps(TINY_CLIP))
    encoder = ImageEncoderConfig(model=str(model), pretrained="none", batch_size=batch_size)
    pose = PoseConfig(weights="none", boxes="whole_frame", input_height=64, input_width=64, batch_size=4)
    return ExtractConfig(
        streams=streams or ("frames", "visual_prompts", "text"),
        num_frames=NUM_FRAMES,
        shard_size=shard_size,
        image_encoder=encoder,
        pose=pose,
    )


def contents(cache: Path) -> dict[str, str | None]:
    """content_sha256 of every stream, after every check that `verify --deep` makes."""
    reports = verify(cache, deep=True)
    assert not any(report.problems for report in reports.values())
    return {stream: report.content_sha256 for stream, report in reports.items()}


if __name__ == "__main__":  # a run that a test can kill: FOLDER CACHE WORKERS
    given, target, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    extract(Dataset.read(given / "dataset", videos=given / "videos"), target, make_config(given), workers=count)
