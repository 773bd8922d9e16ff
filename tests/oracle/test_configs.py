"""config.json in both spellings: each side reads what the other writes, and understands the same by it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsv4 import Config
from dsv4.checkpoint import config_as_json, read_config
from dsv4.model.attention import layer_frequencies
from oracle.cases import CASES, case_config

pytestmark = pytest.mark.oracle

RELEASED = Path(__file__).parents[1] / "data" / "configs"
NAMES = [*CASES, "deepseek-v4-flash", "deepseek-v4-pro"]


def config_named(name: str) -> Config:
    return case_config(name) if name in CASES else read_config(RELEASED / f"{name}.json")


def write(raw: dict, directory: Path) -> None:
    (directory / "config.json").write_text(json.dumps(raw), encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_ours_is_understood_there(theirs, tmp_path, name) -> None:
    """What they read from our config.json is what they build from the same values in their own spelling."""
    config = config_named(name)
    write(config_as_json(config), tmp_path)
    found, expected = theirs.read_config(tmp_path), theirs.config_of(config)
    for key in theirs.SHARED_FIELDS:
        assert getattr(found, key) == getattr(expected, key), key
    for key in ("layer_types", "mlp_layer_types", "compress_rates", "partial_rotary_factor", "qk_rope_head_dim"):
        assert getattr(found, key) == getattr(expected, key), key
    for kind, section in expected.rope_parameters.items():
        assert {key: found.rope_parameters[kind][key] for key in section} == section, kind


@pytest.mark.parametrize("name", NAMES)
def test_theirs_is_understood_here(theirs, tmp_path, name) -> None:
    """The dtype and the quantisation are not part of a model's sizes: transformers writes them with the tensors."""
    config = config_named(name)
    theirs.config_of(config).save_pretrained(tmp_path)
    found = read_config(tmp_path)
    assert found == replace(config, quantised=False, torch_dtype=found.torch_dtype)


@pytest.mark.parametrize("name", NAMES)
def test_the_way_there_and_back_changes_nothing(theirs, tmp_path, name) -> None:
    config = config_named(name)
    write(config_as_json(config), tmp_path)
    theirs.read_config(tmp_path).save_pretrained(tmp_path)
    assert read_config(tmp_path) == config


@pytest.mark.parametrize("name", NAMES)
def test_the_rotary_frequencies_are_the_same(theirs, name) -> None:
    config = config_named(name)
    expected = theirs.frequencies(theirs.config_of(config))
    for ratio, kind in ((0, "main"), (4, "compress"), (128, "compress")):
        np.testing.assert_allclose(layer_frequencies(config, ratio), expected[kind], rtol=2e-6, err_msg=kind)
