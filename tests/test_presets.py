"""The configurations of released models that come with the package."""

from pathlib import Path

import pytest

from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.errors import ConfigError
from dsv4.presets import PRESETS, preset

RELEASED = Path(__file__).parent / "data" / "configs"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_file_of_the_release(name):
    """Byte by byte: a fact that nobody edits."""
    released = "deepseek-v4.1-flash.json" if name == "v4.1" else f"deepseek-v4-{name}.json"
    assert Path(preset(name).source).read_bytes() == (RELEASED / released).read_bytes()


def test_every_file_has_its_name():
    folder = Path(preset("flash").source).parent
    assert {file.stem for file in folder.glob("*.json")} == set(PRESETS)


@pytest.mark.parametrize(
    ("name", "layers", "hidden"),
    [("flash", 43, 4096), ("pro", 61, 7168), ("flash-0731", 43, 4096), ("pro-0813", 61, 7168), ("v4.1", 40, 5120)],
)
def test_their_sizes_by_hand(name, layers, hidden):
    assert (preset(name).num_hidden_layers, preset(name).hidden_size) == (layers, hidden)


def test_a_name_says_which_model_it_is():
    assert isinstance(preset("v4.1"), Config41)
    assert all(isinstance(preset(name), Config) for name in PRESETS if name != "v4.1")


def test_another_name_lists_them():
    with pytest.raises(
        ConfigError, match=r"preset: expected one of flash, pro, flash-0731, pro-0813, v4\.1, found 'lite'"
    ):
        preset("lite")
