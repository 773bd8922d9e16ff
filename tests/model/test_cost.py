"""The predicted costs against real passes: what the operations are asked for, and the bytes that caches hold."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from counting import UNCOUNTED, CountingOps, NamedCheckpoint
from dsv4 import Checkpoint, bundled_model, load
from dsv4.config import Config
from dsv4.cost.memory import cache_bytes
from dsv4.cost.products import token_products
from dsv4.model.model import Model
from dsv4.ops import Ops

DRAFTING = Path(__file__).parents[1] / "data" / "golden" / "dspark_quant"


def asked(checkpoint, passes, fake_quant: bool) -> Counter:
    """The multiply–adds by part and format that a model asks for in these passes, one after another."""
    named = NamedCheckpoint(checkpoint)
    ops = CountingOps(named)
    model = Model(named, ops, fake_quant)
    cache = model.new_cache(len(passes[0]))
    for ids in passes:
        model(ids, cache)
    return ops.asked


def predicted(config: Config, sequences: int, length: int) -> Counter:
    """The sum over every token of these sequences."""
    sums = Counter()
    for context in range(1, length + 1):
        for product in token_products(config, context):
            sums[product.part, product.format] += sequences * product.multiply_adds
    return sums


def by_part(counts: Counter) -> dict:
    sums = Counter()
    for (part, _), count in counts.items():
        sums[part] += count
    return dict(sums)


def test_every_operation_is_counted_or_known_to_be_small():
    operations = {name for name in vars(Ops) if not name.startswith("_")} - {"name", "batch_invariant"}
    counted = {name for name in vars(CountingOps) if not name.startswith("_")}
    assert counted | UNCOUNTED == operations
    assert not counted & UNCOUNTED


def test_the_bundled_model_asks_for_what_is_predicted_part_by_part_and_format_by_format():
    checkpoint = Checkpoint.open(bundled_model())
    ids = tiny.tokens(1, 2, 300, vocab=checkpoint.config.vocab_size)
    found = asked(checkpoint, np.split(ids, [270, *range(271, 300)], axis=1), fake_quant=True)
    assert dict(found) == dict(predicted(checkpoint.config, 2, 300))


@st.composite
def configs(draw) -> Config:
    """Random sizes for the tiny model, with any sequence of layer kinds."""
    heads, groups = draw(st.sampled_from([(4, 2), (3, 3), (2, 1)]))
    rotated = draw(st.sampled_from([2, 8]))
    layers = draw(st.lists(st.sampled_from([0, 4, 128]), min_size=1, max_size=4))
    experts = draw(st.integers(2, 6))
    return tiny.config(
        compress_ratios=(*layers, draw(st.sampled_from([0, 4]))),
        vocab_size=draw(st.integers(3, 40)),
        hidden_size=draw(st.integers(3, 20)),
        num_attention_heads=heads,
        o_groups=groups,
        head_dim=rotated + draw(st.integers(0, 70)),
        qk_rope_head_dim=rotated,
        q_lora_rank=draw(st.integers(1, 9)),
        o_lora_rank=draw(st.integers(1, 9)),
        sliding_window=draw(st.integers(1, 30)),
        index_n_heads=draw(st.integers(1, 3)),
        index_head_dim=draw(st.sampled_from([8, 16, 64])),
        index_topk=draw(st.integers(1, 40)),
        n_routed_experts=experts,
        num_experts_per_tok=draw(st.integers(1, experts)),
        moe_intermediate_size=draw(st.integers(1, 20)),
        hc_mult=draw(st.integers(1, 4)),
        num_hash_layers=draw(st.integers(0, len(layers))),
    )


@settings(max_examples=12)
@given(config=configs(), cut=st.integers(1, 129))
def test_random_models_ask_for_what_is_predicted_part_by_part(config, cut):
    checkpoint = tiny.checkpoint_of(config)
    ids = tiny.tokens(2, 2, 140, vocab=config.vocab_size)
    found = asked(checkpoint, np.split(ids, [cut, 130, 131, 132], axis=1), fake_quant=False)
    assert by_part(found) == by_part(predicted(config, 2, 140))


@settings(max_examples=12)
@given(config=configs(), length=st.integers(1, 300), drafted=st.integers(1, 300))
def test_a_cache_has_the_predicted_bytes_at_every_length(config, length, drafted):
    drafted = min(length, drafted)
    model = Model(tiny.checkpoint_of(config), Ops(), fake_quant=False)
    cache = model.new_cache()
    ids = tiny.tokens(3, length + 1, vocab=config.vocab_size)
    states = model.states(ids[:-1], cache)
    assert cache.nbytes() == cache_bytes(config, length, "float32")
    model.mtp_logits(states[:, :drafted], ids[1 : drafted + 1], cache)
    assert cache.nbytes() == cache_bytes(config, length, "float32", drafted)


@pytest.mark.parametrize(("packed", "cache_format"), [(False, "float32"), (True, "packed")])
def test_the_rings_of_a_drafter_have_the_predicted_bytes(packed, cache_format):
    model = load(DRAFTING, backend="numpy")
    cache = model.new_cache(packed=packed)
    seen = 0
    for length in (3, 20):  # the window is longer than the first part, and shorter than both
        model(tiny.tokens(4, 1, length, vocab=model.config.vocab_size), cache)
        seen += length
        assert cache.nbytes() == cache_bytes(model.config, seen, cache_format, draft_context=seen)


@pytest.mark.parametrize("length", [1, 3, 4, 127, 128, 131, 256])
def test_bytes_of_half_the_numbers_are_half_the_bytes(length):
    """bf16 is float32 with two bytes a number, in every part."""
    single, half = (cache_bytes(tiny.CONFIG, length, cache_format) for cache_format in ("float32", "bf16"))
    assert single == {part: 2 * size for part, size in half.items()}
