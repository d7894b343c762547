from pathlib import Path

import pytest

from cache.errors import ConfigError
from pipeline.config import load_recipe


def test_overrides_replace_single_values() -> None:
    recipe = load_recipe(None, ["extract.num_frames=16", "extract.image_encoder.pretrained=none"])
    assert recipe.extract.num_frames == 16
    assert recipe.extract.image_encoder.pretrained == "none"
    assert recipe.extract.shard_size == load_recipe(None).extract.shard_size


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("extract.num_frames", "give key=value"),
        ("num_frames=3", "keys begin with"),
        ("extract.num_frmes=3", r"did you mean extract\.num_frames"),
        ("extract.num_frames.more=3", "is a section|expected a whole number"),
    ],
)
def test_an_override_that_fits_nowhere_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _ = load_recipe(None, [override]).extract


def test_a_recipe_extends_another_and_changes_only_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("[extract]\nnum_frames = 32\n[extract.frames]\nquality = 90\n")
    child = tmp_path / "child.toml"
    child.write_text(f'extends = "{tmp_path / "base.toml"}"\n[extract.frames]\nshort_side = 128\n')
    built = load_recipe(str(child)).extract
    assert (built.num_frames, built.frames.quality, built.frames.short_side) == (32, 90, 128)


def test_recipes_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.toml"
    path.write_text(f'extends = "{path}"\n')
    with pytest.raises(ConfigError, match="circle"):
        load_recipe(str(path))


@pytest.mark.parametrize("text", ["extract = 5", "extends = 5", "[extrac]", "= 3", 'extract.num_frames = "\\u00e4"'])
def test_a_recipe_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        _ = load_recipe(str(path)).extract


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="cmdcl-breakfast-activity"):
        load_recipe("cmdcl-brekfast-activity")
