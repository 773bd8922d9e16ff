"""The rows about V4.1: two of its layers in full size, with random weights, at a long context and for a prompt."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dsv4.checkpoint import Checkpoint41
from dsv4.config41 import Config41, Engram
from dsv4.model.cache import Cache
from dsv4.model.rows import Entries
from dsv4.model41.model import Model41
from dsv4.ops import Ops
from dsv4.ops.engram import engram_moduli
from dsv4.parameters41 import parameters41
from dsv4.presets import preset
from dsv4_accel.bench.case import ARITHMETIC, MEMORY, Case, Contest
from dsv4_accel.bench.layer import read_all, write_layer
from dsv4_accel.bench.stage import Stage
from dsv4_accel.bench.timing import Contestant

CONTEXTS = {"4k": 2**12, "256k": 2**18}

STEPS = 64
"""So many decoding steps differ; then the cache goes back to where it was before them."""

TABLE = Engram((0,), (int(engram_moduli(1, 4, 8, 1000).sum()),), 4, 1000, 8, 256, 2, 500)
"""The released Engram with smaller tables, of which a token reads as many rows."""

LAYERS = replace(
    preset("v4.1"),
    vocab_size=1024,
    num_hidden_layers=2,
    num_nextn_predict_layers=0,
    compress_ratios=(1, 1),
    kv_source_layer_ids=(0,),
    index_source_layer_ids=(0, 1),
    candidate_source_layer_id=0,
    n_routed_experts=16,
    engram=TABLE,
    dspark=None,
)
"""V4.1-Flash with two layers: the source of candidates, with an Engram in front, and one that chooses in its pool.

With few experts: a token visits no more of them.
"""


def v41_cases() -> list[Case]:
    """A decoding step at two contexts, and a prompt."""
    cases = [
        Case(
            f"v41.layers.decode.{name}",
            f"V4.1, 2 layers, 1 token after {name}",
            MEMORY,
            partial(_decode, length=length),
            large=True,
        )
        for name, length in CONTEXTS.items()
    ]
    what = "V4.1, 2 layers, 512 tokens"
    return [*cases, Case("v41.layers.prefill.512", what, ARITHMETIC, partial(_prefill, count=512), large=True)]


def open_layers(stage: Stage, config: Config41 = LAYERS) -> Checkpoint41:
    """A checkpoint of random weights in a temporary place. Raises SettingError where it cannot be written or held."""
    temporary = stage.resources.enter_context(TemporaryDirectory(prefix="dsv4-layers-"))
    directory = Path(temporary) / "layers"
    write_layer(directory, config)
    checkpoint = Checkpoint41.open(directory)
    read_all(checkpoint)
    return checkpoint


def model41(checkpoint: Checkpoint41, ops: Ops) -> Model41:
    """The layers on a backend, rounding as the released model does; its token classes are any."""
    config = checkpoint.config
    assert config.engram is not None
    return Model41(
        checkpoint, ops, True, token_classes=np.arange(config.vocab_size) % config.engram.compressed_vocab_size
    )


def filled_cache41(model: Model41, length: int, generator: np.random.Generator) -> Cache:
    """A cache with random numbers for all that a sequence of `length` tokens leaves there, and room for STEPS more."""
    cache = model.new_cache(max_rollback=STEPS)
    for layer in cache.main.layers:
        for store in layer.stores():
            _, capacity, width = store.rows.shape
            count = length + STEPS if isinstance(store, Entries) else capacity  # of ratio 1
            rows: Any = generator.standard_normal((1, count, width), np.float32)
            if store is layer.classes:
                rows = generator.integers(0, TABLE.compressed_vocab_size, (1, count, width))
            store.rows = model.ops.asarray(rows)
    cache.main.begin(np.array([length]))
    cache.main.finish(np.array([length]))
    return cache


def decode_bytes41(config: Config41, length: int) -> int:
    """The bytes that one token must read at the least at a context of `length` tokens.

    The layers' weights as they are stored, of the routed experts those that are chosen, of a table its rows; all index
    keys at the source, those of the pool behind it, the windows and the chosen entries, in float32.
    """
    assert config.engram is not None
    read = {"routed experts": config.num_experts_per_tok / config.n_routed_experts}
    weights = 0.0
    for name, parameter in parameters41(config).items():
        if name.startswith("layers."):
            table = config.engram.columns / parameter.shape[0] if ".engram.embed." in name else 1
            weights += parameter.nbytes * read.get(parameter.part, 1) * table
    pool = min(length, config.candidate_topk_blocks * config.candidate_block_size)
    rows = min(length, config.sliding_window) + min(length, config.index_topk)
    keys = (length + pool) * config.index_head_dim
    return int(weights) + 4 * (keys + config.num_hidden_layers * rows * config.head_dim)


def _decode(stage: Stage, length: int) -> Contest:
    checkpoint = open_layers(stage)

    def contestant(ops: Ops) -> Contestant:
        model = _with_experts(model41(checkpoint, ops))
        cache = filled_cache41(model, length - STEPS, stage.random)
        ids = stage.random.integers(0, model.config.vocab_size, (STEPS, 1, 1))
        now = {"step": 0}

        def step() -> object:
            if now["step"] == STEPS:
                cache.rollback(STEPS)
                now["step"] = 0
            now["step"] += 1
            return model.states(ids[now["step"] - 1], cache)

        return Contestant(step, stage.roof.read, single=True)

    contestants = {name: contestant(ops) for name, ops in stage.all_ops.items()}
    return Contest(contestants, decode_bytes41(checkpoint.config, length))


def _prefill(stage: Stage, count: int) -> Contest:
    checkpoint = open_layers(stage)
    ids = stage.random.integers(0, checkpoint.config.vocab_size, (1, count))

    def contestant(ops: Ops) -> Contestant:
        model = _with_experts(model41(checkpoint, ops))
        return Contestant(lambda: model.states(ids, model.new_cache(max_rollback=0)))

    return Contest({name: contestant(ops) for name, ops in stage.all_ops.items()}, None)


def _with_experts(model: Model41) -> Model41:
    """The model, whose experts have been found in the files and checked, which happens when each is first used."""
    for layer in model.layers:
        for number in range(len(layer.ffn.experts)):
            layer.ffn.experts[number]
    return model
