"""Small datasets and caches for tests, written through the real code."""

from pathlib import Path

import numpy as np

from cache import fingerprint
from cache.fingerprint import Fingerprint
from cache.manifest import Clip, Dataset, Task
from cache.plan import Plan
from cache.rows import ClipRows, Provenance
from cache.run import RunInfo, RunStatus
from cache.shard import write_shard
from cache.text import TextFeatures

ACTIVITY = Task(name="activity", kind="single", class_names=("tea", "toast", "egg"), prompts=("tea", "toast", "egg"))
ATOMIC = Task(
    name="atomic",
    kind="multi",
    class_names=("take", "pour", "stir", "cut"),
    prompts=("take a cup", "pour milk", "stir", "cut bread"),
)
ENCODER = "toy-clip"
"""The one model of the visual prompts and texts of `toy_cache`."""
PROVENANCE = Provenance(
    source_size=1000,
    source_sha256="ab" * 32,
    decoder="decord 0.6.0",
    height=48,
    width=64,
    nominal_num_frames=80,
    decoded_num_frames=80,
    num_distinct_frames=8,
)


def toy_dataset(num_clips: int = 12, *, video_root: Path = Path("videos")) -> Dataset:
    """`num_clips` clips over two tasks; two thirds train, the rest test; subjects alternate."""
    clips = tuple(
        Clip(
            id=f"clip-{number:03d}",
            video=f"{number:03d}.mp4",
            splits={"default": "train" if number % 3 else "test"},
            labels={
                "activity": (ACTIVITY.class_names[number % 3],),
                "atomic": tuple(name for bit, name in enumerate(ATOMIC.class_names) if number >> bit & 1),
            },
            groups={"subject": f"P{number % 2:02d}"},
        )
        for number in range(num_clips)
    )
    return Dataset(
        name="toy",
        version="1",
        tasks=(ACTIVITY, ATOMIC),
        protocols={"default": ("train", "test")},
        clips=clips,
        video_root=video_root,
    )


def toy_fingerprint(stream: str, *, num_frames: int = 8, weights: str = "none", name: str = "") -> Fingerprint:
    """A fingerprint as extraction would write it; `name` is the model's."""
    dtype = {"visual_prompts": "float16", "frames": "jpeg"}.get(stream, "float32")
    model = {} if stream == "frames" else {"name": name or f"toy-{stream}", "weights": weights, "seed": 0}
    return Fingerprint(
        stream=stream, dtype=dtype, model=model, sampling={"policy": "uniform", "num_frames": num_frames}
    )


def visual_prompt_rows(clip_id: str, *, num_frames: int = 8, dim: int = 16, seed: int = 0) -> ClipRows:
    """Random visual prompts of one clip, a function of its id and the seed alone."""
    generator = np.random.default_rng([seed, *clip_id.encode()])
    return ClipRows(
        clip_id=clip_id,
        fields={"visual_prompts": generator.standard_normal((num_frames, dim)).astype(np.float16)},
        pts_seconds=np.arange(num_frames) / 8.0,
        frame_index=np.arange(num_frames, dtype=np.int64),
        provenance=PROVENANCE,
    )


def toy_text(task: Task, *, dim: int = 16, seed: int = 0, name: str = "") -> TextFeatures:
    """Random text embeddings of a task's prompts."""
    generator = np.random.default_rng(seed)
    num_words = 5
    lengths = np.array([len(prompt.split()) for prompt in task.prompts])
    return TextFeatures(
        task=task.name,
        class_names=task.class_names,
        prompts=task.prompts,
        sentence=generator.standard_normal((task.num_classes, dim)).astype(np.float32),
        word=generator.standard_normal((task.num_classes, num_words, dim)).astype(np.float32),
        word_mask=np.arange(num_words) < lengths[:, None],
        fingerprint=toy_fingerprint("text", name=name),
    )


def toy_cache(folder: Path, dataset: Dataset, *, num_frames: int = 8, dim: int = 16, shard_size: int = 5) -> Path:
    """A cache with visual prompts and text embeddings for every clip and task of a dataset."""
    plan = Plan.ensure(folder, [clip.id for clip in dataset.clips], shard_size)
    mark = toy_fingerprint("visual_prompts", num_frames=num_frames, name=ENCODER)
    fingerprint.ensure(folder / "visual_prompts", mark)
    for number, clip_ids in plan.shards.items():
        rows = [visual_prompt_rows(clip_id, num_frames=num_frames, dim=dim) for clip_id in clip_ids]
        write_shard(folder / "visual_prompts", number, "visual_prompts", rows, fingerprint=mark)
    fingerprint.ensure(folder / "text", toy_fingerprint("text", name=ENCODER))
    for task in dataset.tasks:
        toy_text(task, dim=dim, name=ENCODER).write(folder)
    return folder


def frame_rows(clip_id: str, *, num_frames: int = 8) -> ClipRows:
    """Made-up JPEG bytes: what the cache stores, not what a decoder would accept."""
    blobs = [f"jpeg {number} of {clip_id}".encode() for number in range(num_frames)]
    return ClipRows(
        clip_id=clip_id,
        fields={"jpeg": blobs},
        pts_seconds=np.arange(num_frames) / 8.0,
        frame_index=np.arange(num_frames, dtype=np.int64),
        provenance=PROVENANCE,
    )


def joint_rows(clip_id: str, *, num_frames: int = 8, num_joints: int = 17) -> ClipRows:
    """Joints on a grid; joint 3 is always missing and nobody is in the last frame."""
    score = np.full((num_frames, num_joints), 0.5, np.float32)
    score[:, 3], score[-1] = 0, 0
    xy = np.stack(np.meshgrid(np.arange(num_joints), np.arange(num_frames)), axis=-1).astype(np.float32)
    box = np.tile(np.array([1, 2, 60, 40], np.float32), (num_frames, 1))
    valid = np.ones(num_frames, np.uint8)
    box[-1], valid[-1] = np.nan, 0
    return ClipRows(
        clip_id=clip_id,
        fields={
            "xy": np.where(score[..., None] > 0, xy, np.nan).astype(np.float32),
            "score": score,
            "valid": valid,
            "box": box,
            "box_score": valid.astype(np.float32),
            "track_id": np.where(valid, 0, -1).astype(np.int32),
            "box_source": (valid * 2).astype(np.uint8),
        },
        pts_seconds=np.arange(num_frames) / 8.0,
        frame_index=np.arange(num_frames, dtype=np.int64),
        provenance=PROVENANCE,
    )


def toy_run_info(*, status: RunStatus = "running") -> RunInfo:
    """A run of the toy dataset."""
    return RunInfo(
        name="run",
        method="cmdcl",
        variant="full",
        task="activity",
        dataset="toy",
        protocol="default",
        seed=0,
        recipe="toy",
        dataset_folder="dataset",
        cache_folder="cache",
        notices=("random weights",),
        status=status,
    )
