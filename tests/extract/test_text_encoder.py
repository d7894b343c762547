import json
import logging
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from cache.errors import ConfigError
from extract import open_clip_model
from extract.config import ImageEncoderConfig
from extract.text_encoder import encode_texts, tokenize
from tests.extract.tiny_clip import ARCHITECTURE, tiny_clip

CPU = torch.device("cpu")
PROMPTS = ["make tea", "cut the bread into slices", "pour milk"]


def tiny(folder: Path) -> ImageEncoderConfig:
    """Embeddings as large as trained ones, so that a wrong position is seen."""
    config = tiny_clip(folder)
    state = open_clip_model.build(config, CPU).state_dict()
    for key in ("token_embedding.weight", "positional_embedding"):
        state[key] = state[key] * 50
    torch.save(state, folder / "tiny.pt")
    return tiny_clip(folder, pretrained=str(folder / "tiny.pt"))


def test_sentences_equal_open_clips_encode_text(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    sentence, word, mask = encode_texts(config, PROMPTS, CPU)
    network = open_clip_model.build(config, CPU)
    tokens = open_clip.SimpleTokenizer(context_length=12)(PROMPTS)
    with torch.no_grad():
        expected = network.encode_text(tokens).numpy()  # type: ignore[operator]
    np.testing.assert_allclose(sentence, expected, rtol=1e-5, atol=1e-6)
    assert sentence.dtype == word.dtype == np.float32
    assert (sentence.shape, word.shape, mask.shape) == ((3, 24), (3, 12, 24), (3, 12))


def test_the_word_embedding_at_the_end_of_text_is_the_sentence(tmp_path: Path) -> None:
    sentence, word, mask = encode_texts(tiny(tmp_path), PROMPTS, CPU)
    for row, (words, marks) in enumerate(zip(word, mask, strict=True)):
        end = int(marks.sum()) + 1
        np.testing.assert_allclose(words[end], sentence[row], rtol=1e-5, atol=1e-6)
        assert not np.allclose(words[end - 1], sentence[row], atol=1e-3)


def test_the_mask_marks_words_and_not_begin_end_or_padding() -> None:
    tokens, mask = tokenize(PROMPTS, 12, 49408)
    assert mask.sum(axis=1).tolist() == [2, 5, 2]
    assert not mask[:, 0].any()
    assert (tokens.numpy()[mask] < 49406).all()
    assert (tokens.numpy()[mask] > 0).all()
    outside = set(tokens.numpy()[~mask].tolist())
    assert outside == {0, 49406, 49407}


def test_a_word_sees_only_what_stands_before_it(tmp_path: Path) -> None:
    _, word, _ = encode_texts(tiny(tmp_path), ["pour milk", "pour water"], CPU)
    np.testing.assert_allclose(word[0, :2], word[1, :2], rtol=1e-5, atol=1e-6)
    assert not np.allclose(word[0, 2], word[1, 2], atol=1e-3)


def test_a_prompt_that_is_too_long_is_cut_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = "take the small knife out of the drawer and cut the bread into thin slices"
    with caplog.at_level(logging.WARNING, logger="extract.text_encoder"):
        _, _, mask = encode_texts(tiny(tmp_path), ["make tea", long], CPU)
    assert mask.sum(axis=1).tolist() == [2, 10]
    assert [record.message for record in caplog.records if record.name == "extract.text_encoder"] == [
        f"the prompt {long!r} has 15 tokens; the model reads the first 10"
    ]


def test_rows_do_not_depend_on_the_other_prompts(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    many = [f"action number {i}" for i in range(40)]
    together = encode_texts(config, many, CPU)[0]
    np.testing.assert_allclose(encode_texts(config, many[35:], CPU)[0], together[35:], rtol=1e-5, atol=1e-6)


def test_prompts_without_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"classes \[1\]"):
        encode_texts(tiny_clip(tmp_path), ["make tea", "  "], CPU)
    with pytest.raises(ConfigError, match="no class prompts"):
        encode_texts(tiny_clip(tmp_path), [], CPU)


def test_a_token_that_the_model_has_no_row_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="knows 100 tokens"):
        tokenize(["make tea"], 12, 100)


def test_another_kind_of_text_tower_is_refused(tmp_path: Path) -> None:
    captioning = {**ARCHITECTURE, "custom_text": True, "text_cfg": {**ARCHITECTURE["text_cfg"], "embed_cls": True}}
    (tmp_path / "tiny-captioner.json").write_text(json.dumps(captioning))
    config = ImageEncoderConfig(model=str(tmp_path / "tiny-captioner.json"), pretrained="none")
    with pytest.raises(ConfigError, match="class token"):
        encode_texts(config, PROMPTS, CPU)


def test_a_text_tower_of_its_own_module_works_too(tmp_path: Path) -> None:
    separate = {**ARCHITECTURE, "custom_text": True}
    (tmp_path / "tiny-separate.json").write_text(json.dumps(separate))
    config = ImageEncoderConfig(model=str(tmp_path / "tiny-separate.json"), pretrained="none")
    sentence, word, mask = encode_texts(config, PROMPTS, CPU)
    ends = mask.sum(axis=1) + 1
    np.testing.assert_allclose(word[np.arange(3), ends], sentence, rtol=1e-5, atol=1e-6)
