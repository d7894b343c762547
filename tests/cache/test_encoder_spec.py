import dataclasses

import pytest

from cache.encoder_spec import ImageEncoderSpec, canonical_architecture
from cache.errors import CacheError
from cache.fingerprint import Fingerprint

SPEC = ImageEncoderSpec(
    model="ViT-B-16-quickgelu",
    quick_gelu=True,
    embed_dim=512,
    image_size=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    weights_sha256="ab" * 32,
)


def through_a_file(spec: ImageEncoderSpec) -> ImageEncoderSpec:
    model, preprocessing = spec.to_fingerprint()
    model |= {"weights_name": "openai", "precision": "fp32"}
    mark = Fingerprint(stream="visual_prompts", dtype="float16", model=model, preprocessing=preprocessing)
    return ImageEncoderSpec.from_fingerprint(Fingerprint.from_json(mark.to_json()))


def test_a_spec_survives_the_fingerprint() -> None:
    assert through_a_file(SPEC) == SPEC


def test_a_custom_architecture_survives_too() -> None:
    architecture = {"vision_cfg": {"layers": 2, "image_size": 96}, "embed_dim": 64}
    spec = dataclasses.replace(SPEC, architecture=canonical_architecture(architecture))
    assert through_a_file(spec) == spec
    assert canonical_architecture(dict(reversed(architecture.items()))) == spec.architecture


def test_the_other_activation_is_a_difference() -> None:
    other = dataclasses.replace(SPEC, quick_gelu=False)
    assert SPEC.difference(other) == ["quick_gelu: True here, False there"]
    assert SPEC.difference(SPEC) == []


def test_random_weights_are_known_as_such() -> None:
    assert dataclasses.replace(SPEC, weights_sha256="none").random_weights
    assert not SPEC.random_weights


def test_a_stream_of_something_else_is_refused() -> None:
    with pytest.raises(CacheError, match="visual_prompts"):
        ImageEncoderSpec.from_fingerprint(Fingerprint(stream="frames", dtype="uint8"))


@pytest.mark.parametrize("change", [{"std": (1.0, 0.0, 1.0)}, {"interpolation": "nearest"}, {"embed_dim": 0}])
def test_impossible_values_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="ViT-B-16"):
        ImageEncoderSpec(**{**vars(SPEC), **change})
