"""The costs of the released models against the report's figures, and how much other ways of counting would change them.

The report gives whole percents. A way of counting agrees with it where both models' figures round to the report's;
docs/cost.md shows the same table.
"""

from functools import cache
from pathlib import Path

import pytest

from dsv4.checkpoint import read_config
from dsv4.config import Config
from dsv4.cost import Cost, cost, cost_of_v32
from dsv4.cost.memory import cache_bytes, full_attention_bytes
from dsv4.cost.products import FP8_EQUIVALENT, Product
from dsv4.errors import SettingError
from dsv4.parameters import Count
from dsv4.presets import preset

DATA = Path(__file__).parent / "data"
MILLION = 2**20
"""The context of the released configurations."""

PAGE = (Path(__file__).parents[1] / "docs" / "cost.md").read_text(encoding="utf-8")

FLASH, PRO = (read_config(DATA / f"configs/deepseek-v4-{name}.json") for name in ("flash", "pro"))
cost_of = cache(cost)
"""The same cost is asked for in many tests, and the table of Pro's parameters is long."""

REPORTED_FLOPS = 10, 27
REPORTED_CACHE = 7, 10


def share(found: Cost, baseline: Cost, rates=FP8_EQUIVALENT, leave_out=()) -> float:
    """The FLOPs of a model in percent of a baseline's, when operations count as `rates` says."""

    def total(products: list[Product]) -> float:
        return sum(rates[each.format] * each.flops for each in products if each.part not in leave_out)

    return 100 * total(found.products) / total(baseline.products)


def shares(context=MILLION, leave_out=(), **rates) -> tuple[float, float]:
    """Those of Flash and Pro, to a tenth of a percent."""
    named = {name.replace("_x_", " × "): rate for name, rate in rates.items()}
    baseline = cost_of_v32(context)
    flash, pro = (
        share(cost_of(config, context), baseline, FP8_EQUIVALENT | named, leave_out) for config in (FLASH, PRO)
    )
    return round(flash, 1), round(pro, 1)


@pytest.mark.parametrize(("config", "total", "active"), [(FLASH, 284, 13), (PRO, 1573, 49)])
def test_parameters_of_the_report(config, total, active):
    count = cost_of(config, MILLION).count
    assert (round(count.total / 1e9), round(count.active / 1e9)) == (total, active)


def test_flops_of_the_report():
    assert shares() == (10.3, 27.2)
    assert tuple(map(round, shares())) == REPORTED_FLOPS


OTHER_WAYS_OF_COUNTING = {
    "1M is 10⁶ tokens": ({"context": 10**6}, (10.4, 27.6)),
    "every operation counts one": ({"fp4": 1, "bf16": 1, "f32": 1}, (12.1, 26.1)),
    "FP4 counts as FP8": ({"fp4": 1}, (14.0, 32.5)),
    "FP4 counts half, all else one": ({"bf16": 1, "f32": 1}, (8.2, 20.6)),
    "FP4 × FP8 counts 3/4": ({"fp4_x_fp8": 0.75}, (10.1, 26.2)),
    "float32 counts as bf16": ({"f32": 2}, (10.3, 27.2)),
    "no hyper-connections, router and head": ({"leave_out": ("mhc", "router", "head")}, (10.1, 26.9)),
}


@pytest.mark.parametrize("name", OTHER_WAYS_OF_COUNTING)
def test_flops_counted_in_another_way(name):
    way, expected = OTHER_WAYS_OF_COUNTING[name]
    assert shares(**way) == expected
    assert f"| {name} | {expected[0]} | {expected[1]} |" in PAGE


def test_cache_of_the_report():
    baseline = cost_of_v32(MILLION).cache_bytes
    percents = [100 * cost_of(config, MILLION).cache_bytes / baseline for config in (FLASH, PRO)]
    assert [round(percent, 2) for percent in percents] == [7.31, 10.46]
    assert tuple(map(round, percents)) == REPORTED_CACHE


def stored(config: Config, context=MILLION, padding=0, key_padding=0, cache_format="packed") -> int:
    """The bytes of a sequence's cache, with so many more in each entry and in each indexer key."""
    ratios = config.compress_ratios[: config.num_hidden_layers]
    keys = sum(context // ratio for ratio in ratios if ratio == 4)
    entries = sum(context // ratio for ratio in ratios if ratio) + config.sliding_window * len(ratios)
    total = sum(cache_bytes(config, context, cache_format).values())
    return total + padding * entries + key_padding * keys


OTHER_WAYS_OF_STORING = {
    "as stated": (stored, cost_of_v32(MILLION).cache_bytes, (7.31, 10.46)),
    "1M is 10⁶ tokens": (lambda config: stored(config, 10**6), cost_of_v32(10**6).cache_bytes, (7.32, 10.48)),
    "V4's entries padded to 584 bytes": (
        lambda config: stored(config, padding=1),
        cost_of_v32(MILLION).cache_bytes,
        (7.32, 10.48),
    ),
    "no window and no pending tail": (
        lambda config: sum(cache_bytes(config, MILLION, "packed")[part] for part in ("compressed", "indexer keys")),
        cost_of_v32(MILLION).cache_bytes,
        (7.30, 10.45),
    ),
    "no scales in either model": (
        lambda config: stored(config, padding=-7, key_padding=-4),
        61 * MILLION * (512 + 2 * 64 + 128),
        (7.37, 10.56),
    ),
    "the indexer's keys in FP8, as in V3.2": (
        lambda config: stored(config, key_padding=132 - 68),
        cost_of_v32(MILLION).cache_bytes,
        (8.01, 11.46),
    ),
    "bf16 in both models": (
        lambda config: stored(config, cache_format="bf16"),
        cost_of_v32(MILLION, "bf16").cache_bytes,
        (8.02, 11.48),
    ),
    "V3.2 in bf16": (stored, cost_of_v32(MILLION, "bf16").cache_bytes, (4.09, 5.86)),
}


@pytest.mark.parametrize("name", OTHER_WAYS_OF_STORING)
def test_cache_stored_in_another_way(name):
    size, baseline, expected = OTHER_WAYS_OF_STORING[name]
    assert tuple(round(100 * size(config) / baseline, 2) for config in (FLASH, PRO)) == expected
    assert f"| {name} | {expected[0]:.2f} | {expected[1]:.2f} |" in PAGE


@pytest.mark.parametrize("config", [FLASH, PRO])
def test_cache_beside_grouped_query_attention(config):
    """§2.3.4: about 2 % of eight key-value heads of width 128 in bf16."""
    keys_and_values = 2 * 8 * 128 * 2 * config.num_hidden_layers * MILLION
    assert full_attention_bytes(config.num_hidden_layers, MILLION) == keys_and_values
    assert round(100 * cost_of(config, MILLION).cache_bytes / keys_and_values) == 2


@pytest.mark.parametrize("config", [FLASH, PRO])
def test_mixed_storage_is_nearly_half_of_bf16(config):
    """§2.3.4, of the key-value entries."""
    packed, plain = (cache_bytes(config, MILLION, cache_format) for cache_format in ("packed", "bf16"))
    assert round(packed["compressed"] / plain["compressed"], 2) == 0.57
    assert packed["indexer keys"] / plain["indexer keys"] == 68 / 256


def test_baseline_has_its_published_size():
    """671B parameters, 37B active, as V3; the indexer, new in V3.2, comes on top."""
    baseline = cost_of_v32(1)
    indexer = baseline.parameters["indexer"].total
    assert round((baseline.count.total - indexer) / 1e9) == 671
    assert 0.8e9 < indexer < 0.9e9
    assert round((baseline.count.active - indexer) / 1e9) == 37
    assert baseline.parameters["embedding"] == Count(129280 * 7168, 0)


def test_baseline_by_hand():
    """One token after another: every key is scored, 2048 at most are read, 656 and 132 bytes are kept of each."""
    shorter, longer = cost_of_v32(3000), cost_of_v32(3001)
    scored = 61 * (64 * 128 + 64)
    assert longer.flops - shorter.flops == 2 * scored
    assert longer.cache_bytes - shorter.cache_bytes == 61 * (656 + 132)
    read = 61 * 128 * (512 + 64 + 512)
    assert cost_of_v32(2).flops - cost_of_v32(1).flops == 2 * (scored + read)
    assert cost_of_v32(7, "bf16").cache_bytes == 7 * 61 * 2 * (512 + 64 + 128)


def test_drafters_by_hand():
    """Three stages of Flash-0731: a window layer each, what reads three layers, and the two heads of the last."""
    d, experts, width, vocab, rank, streams = 4096, 256, 2048, 129280, 256, 4
    queries, keys, output = 1024 * d + 1024 + 64 * 512 * 1024, 512 * d + 512, 8 * 1024 * (64 * 512 // 8) + d * 8 * 1024
    attention = 64 + queries + keys + output
    mixing = 2 * (24 * streams * d + 24 + 3)
    moe = experts * d + experts + 3 * (experts + 1) * d * width
    stage = 2 * d + attention + mixing + moe
    ends = 3 * d * d + d + d + streams * streams * d + streams + 1 + 2 * vocab * rank + d + rank
    drafter = cost_of(preset("flash-0731"), MILLION).drafter
    idle = 3 * 3 * (experts - 6) * d * width + vocab * rank
    assert drafter.count == (3 * stage + ends, 3 * stage + ends - idle)
    assert drafter.cache_bytes == 3 * 128 * (448 + 7 + 2 * 64)


def test_one_more_token_costs_flash_one_more_row_of_each_kind():
    """128 tokens more: one entry more in each HCA layer, 32 more in each CSA layer to score, none more to read."""
    shorter, longer = cost_of(FLASH, 2**19), cost_of(FLASH, 2**19 + 128)
    products = dict.fromkeys(["core attention", "indexer scores"], 0)
    for sign, each in ((-1, shorter), (1, longer)):
        for product in each.products:
            if product.part in products:
                products[product.part] += sign * product.multiply_adds
    assert products == {"core attention": 20 * 64 * 2 * 512, "indexer scores": 21 * 32 * 64 * (128 + 1)}
    assert longer.flops - shorter.flops == 2 * sum(products.values())
    entry, index_key = 448 + 7 + 128, 64 + 4
    assert longer.cache_bytes - shorter.cache_bytes == 20 * entry + 21 * 32 * (entry + index_key)


@pytest.mark.parametrize("context", [0, -1])
@pytest.mark.parametrize("of", [lambda context: cost(FLASH, context), cost_of_v32])
def test_a_context_has_at_least_one_token(of, context):
    with pytest.raises(SettingError, match=f"context: expected at least 1 token, found {context}"):
        of(context)
