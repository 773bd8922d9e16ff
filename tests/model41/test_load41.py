"""`dsv4.load` opens a checkpoint of either model, and text is generated from both alike."""

import json
import shutil

import numpy as np
import pytest

import dsv4
from dsv4.checkpoint import Checkpoint41
from dsv4.errors import CheckpointError, ConfigError, SettingError, TokenizerError
from dsv4.model41.model import Model41
from dsv4.ops.quantise import fake_quant_fp8
from model41.golden41 import GOLDEN, STEPS, expected, prompt

FLOAT = GOLDEN / "v41_float"


@pytest.fixture
def with_classes(monkeypatch):
    """The small models have no tokenizer: their classes are handed over where a tokenizer's would be."""
    monkeypatch.setattr("dsv4.loading.Tokenizer.from_file", lambda directory: directory.name)
    monkeypatch.setattr("dsv4.loading.token_classes", lambda name, config: expected(name)["engram.token_map"])


def test_a_checkpoint_of_v41_is_a_model41(with_classes):
    model = dsv4.load(FLOAT, backend="numpy")
    assert isinstance(model, Model41) and isinstance(model.checkpoint, Checkpoint41)
    assert not model.rounds and dsv4.load(GOLDEN / "v41_quant", backend="numpy").rounds
    assert (model.mtp, model.store) == (None, None)


def test_v4_is_opened_as_before():
    assert isinstance(dsv4.load(GOLDEN / "small", backend="numpy"), dsv4.Model)


@pytest.mark.parametrize("prefixes", [False, True])
def test_greedy_text_is_the_official_one(with_classes, prefixes):
    """In one call or with what an earlier call has read; prompts of their own length beside each other."""
    model = dsv4.load(FLOAT, backend="numpy")
    texts = [prompt("v41_float", row) for row in ("p1", "p2")]
    known = dsv4.text.prefixes.Prefixes(10**7) if prefixes else None
    for _ in range(1 + prefixes):
        found = [[], []]
        ids = [text[:length] for text, length in texts]
        for token in dsv4.generate(model, ids, STEPS + 1, temperature=0, stop_ids=[], prefill_chunk=7, prefixes=known):
            found[token.sequence].append(token.id)
        for (text, length), tokens in zip(texts, found, strict=True):
            np.testing.assert_array_equal(tokens, text[length:])


def test_what_cannot_be_loaded(with_classes, tmp_path):
    with pytest.raises(SettingError, match=r"memory: expected at least \d+ bytes, for the head, .*, found 100$"):
        dsv4.load(FLOAT, backend="numpy", memory=100)
    with pytest.raises(ConfigError, match=r"DeepSeek-V4\.1, which dsv4 loads"):
        dsv4.Checkpoint.open(FLOAT)
    copy = tmp_path / "v41_float"
    shutil.copytree(FLOAT, copy)
    settings = json.loads((copy / "config.json").read_text())
    settings["text_config"]["q_lora_rank"] = 16
    (copy / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"wq_a.weight': expected shape \[16, 48\], found \[32, 48\]"):
        dsv4.load(copy, backend="numpy")


def test_an_engram_needs_a_tokenizer():
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        dsv4.load(FLOAT, backend="numpy")


def test_classes_that_are_given_stand_for_a_tokenizer():
    classes = expected("v41_float")["engram.token_map"]
    model = dsv4.load(FLOAT, backend="numpy", token_classes=classes.tolist())
    ids, length = prompt("v41_float", "p2")
    np.testing.assert_allclose(model([ids[:length]])[0], expected("v41_float")["p2.prefill.logits"], rtol=0, atol=2e-4)
    with pytest.raises(SettingError, match="token classes: expected one for each of 160 tokens, found"):
        dsv4.load(FLOAT, backend="numpy", token_classes=classes[:5])
    with pytest.raises(SettingError, match=r"token_classes: expected none for a model of V4, found some"):
        dsv4.load(GOLDEN / "small", backend="numpy", token_classes=classes)


def test_a_table_of_fp8_has_scales_for_32_channels_of_a_row(with_classes):
    model = dsv4.load(GOLDEN / "v41_quant", backend="numpy")
    table = model.checkpoint.weight("layers.1.engram.embed.weight")
    assert table.codes.shape == (304, 64) and table.scales.shape == (304, 2) and table.block == (1, 32)
    whole = dsv4.ops.dequantise(table)
    np.testing.assert_array_equal(fake_quant_fp8(whole, 32), whole)  # rounding them again changes nothing
