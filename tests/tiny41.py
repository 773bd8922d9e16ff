"""Tiny random models of V4.1 that use every part of the real ones, as `tiny` has them of V4.

Layer plan: 0 a window with an Engram, 1 Full of ratio 2, 2 Reindex of ratio 2, 3 Full of ratio 1 with an Engram, the
candidate source, 4 Reuse, 5 Reindex in the pool; then two stages of a drafter.
"""

from dataclasses import replace

import numpy as np

from dsv4.config41 import Config41, DSpark41, Engram
from dsv4.model41.model import Model41
from dsv4.ops.engram import engram_moduli
from dsv4.ops.quantise import quantise_fp4, quantise_fp8
from dsv4.parameters41 import parameters41
from tiny import CONFIG as V4
from tiny import TinyCheckpoint

MODULI = engram_moduli(2, 3, 2, 20)

CONFIG = Config41(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=6,
    num_nextn_predict_layers=2,
    num_attention_heads=4,
    head_dim=12,
    qk_rope_head_dim=8,
    q_lora_rank=10,
    o_lora_rank=6,
    o_groups=2,
    sliding_window=6,
    compress_ratios=(0, 2, 2, 1, 1, 1, 0, 0),
    kv_source_layer_ids=(1, 3),
    index_source_layer_ids=(1, 2, 3, 5),
    index_n_heads=2,
    index_head_dim=8,
    index_topk=3,
    candidate_source_layer_id=3,
    candidate_topk_blocks=2,
    candidate_block_size=3,
    rope_theta=50.0,
    compress_rope_theta=160.0,
    rope_scaling=V4.rope_scaling,
    max_position_embeddings=600,
    n_routed_experts=6,
    n_shared_experts=1,
    num_experts_per_tok=2,
    moe_intermediate_size=12,
    scoring_func="sqrtsoftplus",
    norm_topk_prob=True,
    topk_method="noaux_tc",
    routed_scaling_factor=1.5,
    swiglu_limit=0.8,
    hc_mult=4,
    hc_sinkhorn_iters=3,
    hc_eps=1e-3,
    rms_norm_eps=1e-20,
    bos_token_id=0,
    eos_token_id=1,
    tie_word_embeddings=False,
    torch_dtype="float32",
    quantised=False,
    engram=Engram((0, 3), tuple(int(one.sum()) for one in MODULI), 3, 20, 2, 8, 2, 15),
    dspark=DSpark41(4, 39, (3, 5), 6, 3, 1),
    source="tiny",
)

CLASSES = np.arange(40) % 15
"""Of the tokens; that of the token which stands before the first one, 2, is 2."""


def config(**changes) -> Config41:
    """The tiny configuration with some fields changed."""
    return replace(CONFIG, **changes)


def checkpoint(seed: int = 0, **changes) -> TinyCheckpoint:
    """A random float32 checkpoint of the tiny configuration with some fields changed."""
    chosen, generator = config(**changes), np.random.default_rng(seed)
    weights = {name: _random(generator, parameter) for name, parameter in parameters41(chosen).items()}
    return TinyCheckpoint(chosen, weights)


def quantised(source: TinyCheckpoint) -> TinyCheckpoint:
    """The checkpoint in released storage: FP4 experts, FP8 linear maps and tables."""
    table = parameters41(source.config)
    weights = {name: _stored(weight, table[name]) for name, weight in source.weights.items()}
    return TinyCheckpoint(replace(source.config, quantised=True), weights)


def model(ops, source: TinyCheckpoint | None = None, fake_quant: bool = False, **changes) -> Model41:
    """A tiny model on a backend: the reference computes in float64, others in float32."""
    dtype = np.float64 if ops.name == "numpy" else np.float32
    return Model41(source or checkpoint(**changes), ops, fake_quant, dtype, CLASSES)


def _stored(weight, parameter):
    if parameter.format == "fp4":
        return quantise_fp4(weight)
    return quantise_fp8(weight, parameter.block) if parameter.format == "fp8" else weight


def _random(generator: np.random.Generator, parameter) -> np.ndarray:
    """Numbers at a scale at which the parameter matters."""
    name, shape = parameter.name, parameter.shape
    numbers = generator.standard_normal(shape)
    if "norm" in name or name.endswith(("q_weight", "k_weight")):
        numbers = 1 + 0.3 * numbers
    elif name.endswith(("_scale", "gate.bias")):
        numbers = 0.5 + 0.5 * numbers
    elif len(shape) == 2 and not name.endswith("embed.weight"):
        numbers = 1.5 * numbers / np.sqrt(shape[1])
    return numbers.astype(np.float32)
