"""`dsv4 random`: a checkpoint of random weights from a configuration, and its mistakes in one line."""

import json

import pytest

from command import is_one_line, runner
from dsv4 import Checkpoint
from dsv4.checkpoint import config_as_json, random_weights
from tiny_checkpoint import listing, tiny_config


@pytest.fixture
def dsv4(monkeypatch, capfd):
    return runner(monkeypatch, capfd)


@pytest.fixture
def config(tmp_path):
    """A config.json with a tokenizer's file beside it."""
    place = tmp_path / "from"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config_as_json(tiny_config(True, n_routed_experts=4))))
    (place / "tokenizer_config.json").write_text("{}")
    return place


@pytest.mark.parametrize("given", ["directory", "config.json"])
def test_what_it_writes_is_a_model(dsv4, tmp_path, config, given):
    source = config if given == "directory" else config / "config.json"
    target = tmp_path / "to"
    status, out, err = dsv4("random", source, target, "--layers", 2, "--experts", 3, "--seed", 5)
    assert (status, err) == (0, "")
    assert out.startswith(f"wrote {target}: ")
    assert out.endswith(" kB in 1 file(s)\n")
    checkpoint = Checkpoint.open(target)
    checkpoint.validate()
    assert (checkpoint.config.num_hidden_layers, checkpoint.config.n_routed_experts) == (2, 3)
    assert checkpoint.config.quantised
    assert "tokenizer_config.json" in listing(target)
    assert dsv4("inspect", target)[0] == 0


def test_floats(dsv4, tmp_path, config):
    assert dsv4("random", config, tmp_path / "to", "--float")[0] == 0
    checkpoint = Checkpoint.open(tmp_path / "to")
    assert not checkpoint.config.quantised
    assert {entry.dtype for entry in checkpoint.entries.values()} == {"F32", "I64"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", 4), "layers: expected an integer from 1 to 3, found 4"),
        (("--experts", 1), "num_experts_per_tok: expected at most n_routed_experts 1, found 2"),
    ],
)
def test_mistakes_are_one_line(dsv4, tmp_path, config, arguments, message):
    status, out, err = dsv4("random", config, tmp_path / "to", *arguments)
    assert (status, out) == (2, "")
    assert is_one_line(err)
    assert message in err
    assert listing(tmp_path) == ["from"]


def test_a_disk_without_room_is_one_line(dsv4, tmp_path, monkeypatch):
    monkeypatch.setattr(random_weights.shutil, "disk_usage", lambda place: type("", (), {"free": 10**10}))
    status, out, err = dsv4("random", "pro-0813", tmp_path / "to")
    assert (status, out) == (2, "")
    assert is_one_line(err)
    assert f"{tmp_path / 'to'}: expected 892.7 GB of room in {tmp_path}, found 10.0 GB" in err
    assert listing(tmp_path) == []
