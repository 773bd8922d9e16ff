"""The configurations of released models that come with the package."""

from pathlib import Path

import pytest

from dsv4.errors import ConfigError
from dsv4.presets import PRESETS, preset

RELEASED = Path(__file__).parent / "data" / "configs"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_file_of_the_release(name):
    """Byte by byte: a fact that nobody edits."""
    file = Path(preset(name).source)
    assert file.read_bytes() == (RELEASED / f"deepseek-v4-{name}.json").read_bytes()


def test_every_file_has_its_name():
    folder = Path(preset("flash").source).parent
    assert {file.stem for file in folder.glob("*.json")} == set(PRESETS)


@pytest.mark.parametrize(
    ("name", "layers", "hidden"),
    [("flash", 43, 4096), ("pro", 61, 7168), ("flash-0731", 43, 4096), ("pro-0813", 61, 7168)],
)
def test_their_sizes_by_hand(name, layers, hidden):
    assert (preset(name).num_hidden_layers, preset(name).hidden_size) == (layers, hidden)


def test_another_name_lists_them():
    with pytest.raises(ConfigError, match="preset: expected one of flash, pro, flash-0731, pro-0813, found 'lite'"):
        preset("lite")
