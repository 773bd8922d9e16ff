"""The table of a V4.1 model's parameters: name, shape, stored format and part of each, as in the released files.

As `dsv4.parameters` for V4, from which it takes what is alike. FP8 weights have one scale for each 32 × 32 square, the
tables of the Engrams one for each 32 channels of a row.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from dsv4.config41 import Config41
from dsv4.ops.quantise import FP4_BLOCK, FP8_SQUARE
from dsv4.parameters import Count, Parameter, attention_parameters, expert_parameters, mhc_parameters

SQUARE = 32, 32
"""Rows and columns that share one scale of an FP8 weight."""

TABLE_BLOCK = 1, FP4_BLOCK
"""The same of an Engram's table."""


def parameters41(config: Config41, include_mtp: bool = True) -> dict[str, Parameter]:
    """Every parameter of the text path by its official name, in file order: embedding, layers, head, stages.

    include_mtp: whether the stages of the DSpark drafter, `mtp.*`, take part. Source: the released headers.
    """
    table = {}
    for parameter in _model(config, include_mtp):
        block = SQUARE if parameter.block == FP8_SQUARE else parameter.block
        table[parameter.name] = replace(parameter, block=block)
    return table


def count_by_part41(config: Config41) -> dict[str, Count]:
    """The total and the active parameters of each part of the main model, counted as those of V4.

    Active of an Engram are its projection and its norms, and of its table the rows that one token reads.
    """
    sizes: Counter[str] = Counter()
    for parameter in _model(config, include_mtp=False):
        sizes[parameter.part] += parameter.size
    active = sizes | {
        "embedding": 0,
        "routed experts": sizes["routed experts"] // config.n_routed_experts * config.num_experts_per_tok,
    }
    if config.engram:
        idle = sum(config.engram.num_embeddings) - len(config.engram.layer_ids) * config.engram.columns
        active["engram"] -= idle * config.engram.head_dim
    return {part: Count(total, active[part]) for part, total in sizes.items()}


def count_drafter41(config: Config41) -> Count:
    """The total and the active parameters of the stages, `mtp.*`, counted as those of V4's drafter."""
    assert config.dspark is not None
    sizes = {each.name: each.size for each in _stages(config)}
    routed = sum(size for name, size in sizes.items() if ".ffn.experts." in name)
    read = sum(size for name, size in sizes.items() if name.endswith(".markov_head.embed.weight"))
    total, experts = sum(sizes.values()), config.dspark.n_routed_experts
    return Count(total, total - read - routed + routed // experts * config.dspark.num_experts_per_tok)


def _model(config: Config41, include_mtp: bool) -> Iterator[Parameter]:
    d = config.hidden_size
    yield Parameter("embed.weight", (config.vocab_size, d), "bf16", "embedding")
    for layer in range(config.num_hidden_layers):
        prefix = f"layers.{layer}."
        if config.is_engram_layer(layer):
            yield from _engram(config, layer, f"{prefix}engram.")
        yield from _layer(config, layer, prefix, config.n_routed_experts)
    yield Parameter("norm.weight", (d,), "bf16", "norm")
    yield Parameter("head.weight", (config.vocab_size, d), "bf16", "head")
    if include_mtp and config.dspark:
        yield from _stages(config)


def _stages(config: Config41) -> Iterator[Parameter]:
    for stage in range(config.draft_layers):
        for parameter in _stage(config, stage):
            yield replace(parameter, part="mtp")


def _stage(config: Config41, stage: int) -> Iterator[Parameter]:
    """A window layer. The first stage has what reads the main model, the last one the heads."""
    assert config.dspark is not None
    d, prefix, dspark = config.hidden_size, f"mtp.{stage}.", config.dspark
    if stage == 0:
        yield Parameter(f"{prefix}main_proj.weight", (d, len(dspark.target_layer_ids) * d), "fp8", "mtp")
        yield Parameter(f"{prefix}main_norm.weight", (d,), "bf16", "mtp")
    yield from _layer(config, config.num_hidden_layers + stage, prefix, dspark.n_routed_experts)
    if stage == config.draft_layers - 1:
        yield Parameter(f"{prefix}norm.weight", (d,), "bf16", "mtp")
        for name in ("embed", "head"):
            shape = config.vocab_size, dspark.markov_rank
            yield Parameter(f"{prefix}markov_head.{name}.weight", shape, "bf16", "mtp")
        yield Parameter(f"{prefix}confidence_head.proj.weight", (1, d + dspark.markov_rank), "bf16", "mtp")


def _layer(config: Config41, layer: int, prefix: str, experts: int) -> Iterator[Parameter]:
    """Attention, then mixture of experts, each with its norm and its hyper-connection."""
    d, n = config.hidden_size, config.hc_mult
    yield Parameter(f"{prefix}attn_norm.weight", (d,), "bf16", "norm")
    yield from attention_parameters(config, f"{prefix}attn.")
    if config.is_kv_source(layer):
        yield from _compressor(config, f"{prefix}attn.compressor.", config.compress_ratios[layer])
    yield from _indexer(config, layer, f"{prefix}attn.indexer.")
    yield Parameter(f"{prefix}ffn_norm.weight", (d,), "bf16", "norm")
    yield Parameter(f"{prefix}ffn.gate.weight", (experts, d), "bf16", "router")
    for name in ("bias", "bias_vl"):
        yield Parameter(f"{prefix}ffn.gate.{name}", (experts,), "f32", "router")
    yield from expert_parameters(f"{prefix}ffn.", d, config.moe_intermediate_size, experts, config.expert_dtype)
    for sublayer in ("attn", "ffn"):
        yield from mhc_parameters(config, f"{prefix}hc_{sublayer}", (2 + n) * n, 3)


def _compressor(config: Config41, prefix: str, ratio: int) -> Iterator[Parameter]:
    """One projection to entries, and one to the scores of a block's tokens where a block has several."""
    d, c = config.hidden_size, config.head_dim
    yield Parameter(f"{prefix}wkv.weight", (c, d), "bf16", "compressor")
    if ratio > 1:
        yield Parameter(f"{prefix}wgate.weight", (c, d), "bf16", "compressor")
    yield Parameter(f"{prefix}norm.weight", (c,), "bf16", "norm")


def _indexer(config: Config41, layer: int, prefix: str) -> Iterator[Parameter]:
    """Queries and their weights at every index source, keys at those that make entries, too."""
    heads, width = config.index_n_heads, config.index_head_dim
    if config.is_index_source(layer):
        yield Parameter(f"{prefix}wq_b.weight", (heads * width, config.q_lora_rank), "fp8", "indexer")
        yield Parameter(f"{prefix}weights_proj.weight", (heads, config.hidden_size), "bf16", "indexer")
    if config.is_kv_source(layer):
        yield Parameter(f"{prefix}wk.weight", (width, config.head_dim), "bf16", "indexer")
        yield Parameter(f"{prefix}k_norm.weight", (width,), "bf16", "norm")


def _engram(config: Config41, layer: int, prefix: str) -> Iterator[Parameter]:
    """The table, the projection to n keys and a value, and the weights of the two norms."""
    assert config.engram is not None
    d, n, engram = config.hidden_size, config.hc_mult, config.engram
    rows = engram.num_embeddings[engram.layer_ids.index(layer)]
    yield Parameter(f"{prefix}embed.weight", (rows, engram.head_dim), "fp8", "engram", TABLE_BLOCK)
    yield Parameter(f"{prefix}wkv.weight", ((n + 1) * d, engram.columns * engram.head_dim), "fp8", "engram")
    for name in ("q_weight", "k_weight"):
        yield Parameter(f"{prefix}{name}", (n, d), "bf16", "engram")
