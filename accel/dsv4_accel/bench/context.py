"""The rows about a long context: a small model that reads its prompt by chunks and decodes at its end, packed."""

import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dsv4.config import Yarn
from dsv4.cost.memory import cache_bytes
from dsv4.model.cache import Cache
from dsv4.model.model import Model
from dsv4_accel.bench.case import ARITHMETIC, Case, Contest
from dsv4_accel.bench.layer import LAYER, LargeLayer
from dsv4_accel.bench.stage import Stage
from dsv4_accel.bench.timing import Contestant

CONTEXTS = {"4k": 2**12, "64k": 2**16, "1M": 2**20}

CHUNK = 2048
"""Tokens of the prompt that are put in at once."""

STEPS = 1024
"""Tokens before the end of the context that are left for decoding."""

PERIOD = 128
"""Every 128th token completes an entry of the HCA layer, which makes its step longer."""

SMALL = replace(
    LAYER,
    vocab_size=256,
    hidden_size=32,
    num_hidden_layers=3,
    compress_ratios=(0, 4, 128),
    num_attention_heads=1,
    head_dim=32,
    qk_rope_head_dim=16,
    q_lora_rank=16,
    o_lora_rank=16,
    o_groups=1,
    index_n_heads=1,
    index_head_dim=32,
    index_topk=64,
    rope_scaling=Yarn(16.0, 65536, 32.0, 1.0),
    n_routed_experts=2,
    num_experts_per_tok=1,
    moe_intermediate_size=32,
    hc_mult=2,
    hc_sinkhorn_iters=3,
)
"""A layer of each kind, as narrow as the formats allow, with the 1,048,576 positions of the released models."""


def context_cases() -> list[Case]:
    """A decoding step at the end of 4k, 64k and 1M tokens."""
    return [
        Case(
            f"context.decode.{name}",
            f"small model, packed, after {name}",
            ARITHMETIC,
            partial(_decode, length=length),
            large=length > CONTEXTS["4k"],
        )
        for name, length in CONTEXTS.items()
    ]


def small_model(stage: Stage) -> Model:
    """The small model on the stage's backend, rounding as the released one does."""
    layer = stage.resources.enter_context(closing(LargeLayer(config=SMALL)))
    return Model(layer.model(stage.ops).checkpoint, stage.ops, fake_quant=True)


def prefilled(model: Model, ids: np.ndarray[Any, Any], chunk: int) -> Cache:
    """A packed cache that has seen all of the prompt ids [1, S], put in by chunks of so many tokens."""
    cache = model.new_cache(max_rollback=0, packed=True)
    for start in range(0, ids.shape[1], chunk):
        model.states(ids[:, start : start + chunk], cache)
    return cache


def _decode(stage: Stage, length: int) -> Contest:
    model = small_model(stage)
    ids = stage.random.integers(0, model.config.vocab_size, (1, length))
    began = time.perf_counter()
    prompted = prefilled(model, ids[:, : length - STEPS], CHUNK)
    seconds = time.perf_counter() - began
    now: dict[str, Any] = {}

    def begin() -> None:
        now.update(cache=prompted.fork(), rest=iter(ids[0, length - STEPS :]))

    def step() -> object:
        return model(np.array([[next(now["rest"])]]), now["cache"])

    seen = length - STEPS
    found, predicted = (sum(sizes.values()) for sizes in (prompted.nbytes(), cache_bytes(SMALL, seen, "packed")))
    note = (
        f"after {length:,} tokens: prompt of {seen:,} in chunks of {CHUNK} in {seconds:.0f} s; "
        f"cache {found:,} bytes, {found / predicted:.2%} of what the cost model says"
    )
    name = next(iter(stage.all_ops))
    return Contest({name: Contestant(step, begin, period=PERIOD)}, None, [note])
