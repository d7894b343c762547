import math
from collections.abc import Callable

import pytest

from extract.config import DecodingConfig, ExtractConfig, FramesConfig, ImageEncoderConfig, PoseConfig
from extract.video.sampling import Sampling


def test_the_defaults_are_those_of_the_papers_and_need_no_boxes() -> None:
    config = ExtractConfig()
    assert (config.num_frames, config.streams) == (64, ("frames", "visual_prompts", "text"))
    assert config.pose.boxes is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExtractConfig(num_frames=0), "num_frames = 0"),
        (lambda: ExtractConfig(shard_size=0), "shard_size = 0"),
        (lambda: ExtractConfig(streams=()), "choose one or more"),
        (lambda: ExtractConfig(streams=("frames", "frames")), "twice"),
        (lambda: ExtractConfig(streams=("flow",)), "choose one or more"),  # type: ignore[arg-type]
        (lambda: ImageEncoderConfig(batch_size=0), "batch_size = 0"),
        (lambda: ImageEncoderConfig(pretrained=""), "may not be empty"),
        (lambda: PoseConfig(boxes="file"), "boxes_file = PATH"),
        (lambda: PoseConfig(input_height=100), "multiple of 32"),
        (lambda: PoseConfig(detect_every=0), "detect_every = 0"),
        (lambda: PoseConfig(max_gap=0), "max_gap = 0"),
        (lambda: PoseConfig(min_box_score=1.5), "min_box_score = 1.5: it must lie between 0 and 1"),
        (lambda: PoseConfig(min_box_area=-0.1), "min_box_area = -0.1: it must lie between 0 and 1"),
        (
            lambda: PoseConfig(detect_every=11),
            "detect_every = 11, but boxes are interpolated over at most max_gap = 10",
        ),
        (lambda: FramesConfig(quality=101), "between 1 and 100"),
        (lambda: DecodingConfig(timeout_seconds=0), "must be positive"),
        (lambda: DecodingConfig(min_decodable=1.5), "between 0 and 1"),
        (lambda: DecodingConfig(max_clip_bytes=0), "max_clip_bytes = 0"),
        (lambda: ExtractConfig(sampling="dense"), "choose one of uniform, fps, every_nth"),  # type: ignore[arg-type]
        (lambda: ExtractConfig(sampling="fps"), "sampling = 'fps' needs fps"),
        (lambda: ExtractConfig(sampling="every_nth"), "sampling = 'every_nth' needs every_nth"),
        (lambda: ExtractConfig(sampling="fps", fps=-1.0), "fps = -1.0"),
        (lambda: ExtractConfig(sampling="fps", fps=math.inf), "fps = inf"),
        (lambda: ExtractConfig(sampling="every_nth", every_nth=-1), "every_nth = -1"),
        (lambda: ExtractConfig(fps=2.0), "fps = 2.0, but sampling = 'uniform': set sampling = 'fps', or fps = 0"),
        (lambda: ExtractConfig(sampling="fps", fps=2.0, every_nth=3), "set sampling = 'every_nth', or every_nth = 0"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_with_its_value(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_policy_chooses_the_key_that_counts() -> None:
    assert ExtractConfig(num_frames=5).instants == Sampling(num_frames=5)
    assert ExtractConfig(sampling="fps", fps=2, num_frames=5).instants == Sampling(fps=2.0)
    assert ExtractConfig(sampling="every_nth", every_nth=3).instants == Sampling(every_nth=3)
