import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cache.errors import WeightsError
from cache.weights_file import find_weights
from extract.config import ImageEncoderConfig
from extract.image_encoder import ImageEncoder
from extract.pose.hrnet import HRNetPose, load_checkpoint
from extract.text_encoder import encode_texts
from pipeline.demo.frozen_models import MAX_BYTES, SHIPPED, FrozenModels, official_names, pack, train_all, unpack
from pipeline.demo.probe import probe
from pipeline.demo.scripts import ACTIONS
from pipeline.demo.tiny_image_encoder import TOKEN_EMBEDDING, contrastive_loss, token_embedding
from pipeline.demo.tiny_pose import VARIANT, pose_errors, target_heatmaps
from pipeline.demo.tiny_video_encoder import NUM_FRAMES_USED, VIDEO_ENCODER, random_batch
from train.weights import TIMESFORMER_SOURCES, load_timesformer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> FrozenModels:
    return unpack(tmp_path_factory.mktemp("models"))


def test_the_shipped_weights_take_four_megabytes_at_most_and_have_a_card_each() -> None:
    files = list(SHIPPED.iterdir())
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) == 3
    for path in weights:
        assert all(tensor.dtype == torch.float16 for tensor in load_file(path).values())
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        assert "Checks:" in card
        assert "FAILED" not in card


def test_the_token_embedding_is_the_same_on_every_machine_and_not_shipped(models: FrozenModels) -> None:
    embedding = token_embedding()
    assert embedding.shape == (49408, 96)
    assert float(embedding.std()) == pytest.approx(0.3, abs=0.001)
    quarters = (embedding * 65535).round().to(torch.int32).numpy()
    assert zlib.crc32(quarters.tobytes()) == 3850355849
    assert TOKEN_EMBEDDING not in load_file(SHIPPED / models.image_encoder.name)
    assert torch.equal(load_file(models.image_encoder)[TOKEN_EMBEDDING], embedding)


def test_the_image_and_text_encoder_load_through_the_public_code(models: FrozenModels) -> None:
    config = ImageEncoderConfig(model=str(models.image_encoder_architecture), pretrained=str(models.image_encoder))
    encoder = ImageEncoder.load(config, torch.device("cpu"))
    sentence, word, mask = encode_texts(config, ACTIONS, torch.device("cpu"))
    assert encoder.spec.embed_dim == sentence.shape[1] == word.shape[2] == 96
    assert encoder.spec.image_size == 64
    assert mask.sum(axis=1).min() >= 1


def test_the_pose_network_loads_strictly_from_official_names_and_finds_the_joints(models: FrozenModels) -> None:
    model = HRNetPose(VARIANT).eval()
    load_checkpoint(model, models.pose)
    stored = load_file(models.pose)
    assert "conv1.weight" in stored
    assert "final_layer.weight" in stored
    assert stored.keys() == official_names(model).keys()
    distances, pck = pose_errors(model, num_frames=60, seed=7)
    assert pck > 0.95
    assert np.nanmedian(distances) < 2.0


def test_the_video_encoder_loads_strictly_and_its_tokens_follow_the_frames(models: FrozenModels) -> None:
    weights = find_weights(str(models.video_encoder), sources=TIMESFORMER_SOURCES, what="TimeSformer", key="x.y")
    encoder = load_timesformer(VIDEO_ENCODER.timesformer(NUM_FRAMES_USED), weights).eval()
    frames, _ = random_batch(np.random.default_rng(0), 2)
    with torch.inference_mode():
        tokens = encoder(frames)
    assert tokens.shape == (2, 1 + 64 * NUM_FRAMES_USED, VIDEO_ENCODER.width)
    assert torch.isfinite(tokens).all()


def test_unpacking_again_leaves_right_files_and_repairs_wrong_ones(tmp_path: Path) -> None:
    first = unpack(tmp_path)
    before = first.pose.stat().st_mtime_ns
    content = first.video_encoder.read_bytes()
    first.video_encoder.write_bytes(content[:-1] + b"?")
    unpack(tmp_path)
    assert first.pose.stat().st_mtime_ns == before
    assert first.video_encoder.read_bytes() == content


def test_an_incomplete_installation_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="--train-frozen-models"):
        unpack(tmp_path, source=tmp_path)


def test_numbers_that_do_not_fit_into_halves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="running_var"):
        pack({"bn.running_var": torch.tensor([1e6])}, tmp_path / "model.safetensors")


def test_captions_are_positive_for_all_their_images() -> None:
    own = torch.tensor([0, 0, 1])
    right = torch.tensor([[20.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    assert float(contrastive_loss(right, own)) == pytest.approx(np.log(2) / 4, abs=1e-4)  # two images share one caption
    assert float(contrastive_loss(right.flip(1), own)) > 10


def test_target_heatmaps_peak_where_decoding_will_look() -> None:
    joints = np.full((1, 17, 2), 32.0, dtype=np.float32)
    joints[0, 0] = (12.0, 52.0)
    maps = target_heatmaps(joints)
    assert maps.shape == (1, 17, 16, 16)
    # The whole frame padded by a quarter is 80 pixels wide, 5 a heatmap pixel, its middle at (32, 32).
    assert divmod(int(maps[0, 0].argmax()), 16) == (8 + 4, 8 - 4)
    assert divmod(int(maps[0, 1].argmax()), 16) == (8, 8)


@pytest.mark.slow
def test_the_image_encoder_knows_actions_anywhere_and_takes_activities_from_the_scene(models: FrozenModels) -> None:
    from pipeline.demo.corpus import CORPUS

    config = ImageEncoderConfig(model=str(models.image_encoder_architecture), pretrained=str(models.image_encoder))
    rows = {(row.condition, row.question): row for row in probe(config, CORPUS)}
    top1 = {key: row.top1.estimate for key, row in rows.items()}
    assert top1["other surroundings", "atomic"] >= 0.8
    assert top1["as filmed", "activity"] - top1["other surroundings", "activity"] >= 0.5
    assert rows["cause covered", "activity"].kept.low > 0.25
    assert rows["cause covered", "atomic"].kept.high < 0.25


@pytest.mark.slow
def test_training_the_frozen_models_goes_the_whole_way(tmp_path: Path) -> None:
    out = train_all(tmp_path, quick=True)
    assert {path.name for path in out.iterdir()} == {
        path.name for path in SHIPPED.iterdir() if path.suffix in (".md", ".safetensors")
    }
    shapes = {path.name: {k: v.shape for k, v in load_file(path).items()} for path in out.glob("*.safetensors")}
    assert shapes == {
        path.name: {k: v.shape for k, v in load_file(path).items()} for path in SHIPPED.glob("*.safetensors")
    }
    assert "FAILED" in (out / "deconfound-tiny-clip.md").read_text(encoding="utf-8")
