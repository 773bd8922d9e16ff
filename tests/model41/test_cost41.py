"""The predicted costs of V4.1: its report's figures, and what real passes ask for and keep."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from counting import CountingOps, NamedCheckpoint
from dsv4.checkpoint import open_checkpoint, read_config41
from dsv4.cost import cost, v41
from dsv4.model41.model import Model41
from dsv4.ops import Ops
from dsv4.parameters41 import parameters41
from model41.golden41 import GOLDEN, expected, prompt

RELEASED = read_config41(Path(__file__).parents[1] / "data" / "configs" / "deepseek-v4.1-flash.json")


def test_figures_of_the_report():
    """552B parameters and 196B in tables; 8B active in a prompt and 16B in an answer; 890 bytes for each token."""
    found = cost(RELEASED, 2**20)
    tables = found.of_v41.tables
    assert round((found.count.total - tables) / 1e9) == 552
    assert tables // 10**9 == 196
    assert round(found.of_v41.prompt_active / 1e9) == 8
    assert round(found.count.active / 1e9) == 16
    assert found.of_v41.global_bytes == 890


def test_a_row_of_each_kind_has_the_released_bytes():
    assert (v41.window_bytes(RELEASED, "packed"), v41.entry_bytes(RELEASED, "packed")) == (512 + 16, 256 + 32)
    grows = cost(RELEASED, 2**20 + 4).cache_bytes - cost(RELEASED, 2**20).cache_bytes
    assert grows == 4 * 890
    assert v41.global_bytes(RELEASED, "bf16") == 2.5 * 2 * (512 + 128)


def test_the_layers_before_the_last_source_are_what_a_prompt_uses():
    """Counted once more by leaving layers out: 20 of 40 layers, without head, and little of layer 20."""
    before = replace(
        RELEASED.without_draft_layers(),
        num_hidden_layers=20,
        compress_ratios=RELEASED.compress_ratios[:20],
        kv_source_layer_ids=(2, 8, 14),
        index_source_layer_ids=(2, 8, 14),
        candidate_source_layer_id=None,
        dspark=None,
    )
    found = cost(before, 1)
    layers = found.count.active - found.parameters["head"].active - RELEASED.hidden_size
    d, c, dim, n = 5120, 512, 128, 4
    maker = d + c * d + c + dim * c + dim + (2 + n) * n * (n * d + 1) + 3
    assert v41.prompt_active(RELEASED) == layers + maker


class NamedCheckpoint41(NamedCheckpoint):
    """As its base, for V4.1."""

    def __init__(self, checkpoint) -> None:
        self._checkpoint, self._given = checkpoint, {}
        self._table = parameters41(checkpoint.config)


class CountingOps41(CountingOps):
    """As its base, with the operations of V4.1; the pool is made of scores that the choice has asked for."""

    def mx_expert(self, x, share, matrices, limit, round_inputs):
        self._count_expert(len(x), matrices)
        return Ops.mx_expert(x, share, matrices, limit, round_inputs)

    def mx_experts(self, x, routing, expert_list, limit, round_inputs):
        for number, visits in zip(*np.unique(routing.indices, return_counts=True), strict=True):
            self._count_expert(visits, expert_list[number])
        return Ops.mx_experts(x, routing, expert_list, limit, round_inputs)

    def index_top_k_among(self, queries, keys, weights, visible, pool, size, k):
        starts = np.where(pool < 0, visible[..., None], pool * size)
        scores = int(np.clip(visible[..., None] - starts, 0, size).sum())
        _, _, heads, width = queries.shape
        self.asked["indexer scores", "fp4"] += scores * heads * width
        self.asked["indexer scores", "bf16"] += scores * heads
        return Ops.index_top_k_among(queries, keys, weights, visible, pool, size, k)


def model_of(name, ops, checkpoint):
    return Model41(checkpoint, ops, False, token_classes=expected(name)["engram.token_map"])


@pytest.mark.parametrize("name", ["v41_float", "v41_quant"])
def test_a_model_asks_for_what_is_predicted_part_by_part(name):
    """In a prompt and single tokens; the pool is smaller than the number of entries."""
    named = NamedCheckpoint41(open_checkpoint(GOLDEN / name))
    ops = CountingOps41(named)
    model = model_of(name, ops, named)
    ids, length = prompt(name, "p0")
    cache = model.new_cache(drafts=False)
    for part in np.split(ids[None], [length, length + 1, length + 2], axis=1)[:3]:
        model(part, cache)
    asked, predicted = Counter(), Counter()
    for (part, _), count in ops.asked.items():
        asked[part] += count
    for context in range(1, length + 3):
        for product in v41.token_products(model.config, context):
            predicted[product.part] += product.multiply_adds
    assert dict(asked) == dict(predicted)


def test_a_cache_has_the_predicted_bytes_at_every_length():
    checkpoint = open_checkpoint(GOLDEN / "v41_float")
    model = model_of("v41_float", Ops(), checkpoint)
    ids, _ = prompt("v41_float", "p0")
    cache = model.new_cache(drafts=False)
    seen = 0
    for length in (1, 1, 1, 13, 9, 1, 20):
        model(ids[None, seen : seen + length], cache)
        seen += length
        assert cache.nbytes() == v41.cache_bytes(model.config, seen, "float32")
