"""The bench's rows about V4.1: the shapes of the released layers, what a cache holds, and what a step reads."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsv4.checkpoint import read_any_config
from dsv4.ops import Ops
from dsv4_accel.bench import layers41
from dsv4_accel.bench.layer import LargeLayer
from dsv4_accel.bench.layers41 import LAYERS, STEPS, TABLE, decode_bytes41, filled_cache41, model41, open_layers
from dsv4_accel.bench.peers import Peers
from dsv4_accel.bench.roof import Roof
from dsv4_accel.bench.stage import NUMPY, Stage
from dsv4_accel.bench.timing import QUICK

TINY = replace(
    LAYERS,
    vocab_size=512,
    hidden_size=64,
    num_attention_heads=4,
    head_dim=64,
    qk_rope_head_dim=16,
    q_lora_rank=32,
    o_lora_rank=16,
    o_groups=2,
    sliding_window=8,
    index_n_heads=4,
    index_head_dim=32,
    index_topk=16,
    candidate_topk_blocks=6,
    candidate_block_size=4,
    n_routed_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
)
"""The layers in small."""


@pytest.fixture
def stage():
    with closing(LargeLayer()) as layer:
        scene = Stage(Ops(), QUICK, Roof(2**20, 1), 1, 1, Peers(wanted=False), layer)
        with scene.resources:
            yield scene


def test_the_layers_are_those_of_v41_flash():
    """Its source of candidates, and the layer behind it that chooses anew."""
    flash = read_any_config(Path(__file__).parents[1] / "data" / "configs" / "deepseek-v4.1-flash.json")
    names = ("num_hidden_layers", "num_nextn_predict_layers", "compress_ratios", "kv_source_layer_ids")
    names += ("index_source_layer_ids", "candidate_source_layer_id", "vocab_size", "n_routed_experts")
    given = {name: getattr(LAYERS, name) for name in (*names, "engram", "dspark", "eos_token_id")}
    assert replace(flash, **given) == LAYERS
    source = flash.candidate_source_layer_id
    assert flash.layer_kind(source) == "Full" and flash.layer_kind(source + 4) == "Reindex"
    assert [LAYERS.layer_kind(layer) for layer in (0, 1)] == ["Full", "Reindex"]
    fields = ("max_ngram_size", "n_heads", "head_dim", "pad_token_id")
    assert [getattr(TABLE, name) for name in fields] == [getattr(flash.engram, name) for name in fields]


def test_the_bytes_of_a_step_are_those_in_the_files_and_in_the_cache(stage):
    checkpoint = open_layers(stage, TINY)
    sizes = {name: entry.size for name, entry in checkpoint.entries.items() if name.startswith("layers.")}
    routed = sum(size for name, size in sizes.items() if ".ffn.experts." in name)
    table = sum(size for name, size in sizes.items() if ".engram.embed." in name)
    rows = 24 * (256 + 8)
    keys, window, chosen = (400 + 24) * 32, 2 * 8 * 64, 2 * 16 * 64
    expected = sum(sizes.values()) - routed + routed * 2 // 8 - table + rows + 4 * (keys + window + chosen)
    assert decode_bytes41(TINY, 400) == expected


def test_a_filled_cache_goes_on_as_one_that_has_read_so_many_tokens(stage):
    model = model41(open_layers(stage, TINY), Ops())
    cache = filled_cache41(model, 300, np.random.default_rng(0))
    assert cache.lengths.tolist() == [300]
    read = model.new_cache(max_rollback=STEPS)
    model.states(np.zeros((1, 300), int), read)
    for layer, other in zip(cache.main.layers, read.main.layers, strict=True):
        assert layer.nbytes(cache.lengths) == other.nbytes(cache.lengths)
        assert all(store.rows.any() for store in layer.stores())
    assert np.isfinite(model.states([[3]], cache)).all()


def test_decoding_begins_anew_at_the_end_of_the_context(stage, monkeypatch):
    monkeypatch.setattr(layers41, "open_layers", lambda scene: open_layers(scene, TINY))
    contest = layers41._decode(stage, length=200)
    step = contest.contestants[NUMPY].run
    first = step()
    others = [step() for _ in range(STEPS - 1)]
    np.testing.assert_array_equal(step(), first)
    assert not any(np.array_equal(one, first) for one in others)
    assert contest.bytes_moved == decode_bytes41(TINY, 200)


def test_a_prompt_is_read_by_the_layers(stage, monkeypatch):
    monkeypatch.setattr(layers41, "open_layers", lambda scene: open_layers(scene, TINY))
    found = layers41._prefill(stage, count=20).contestants[NUMPY].run()
    assert found.shape == (1, 20, TINY.hidden_size) and np.isfinite(found).all()
