"""The table of a model's parameters: name, shape, stored format and part of each, as in the released files.

Loading, checking, inspecting, converting and costing all read this one table. Names are those of the official
checkpoints. The formats are the released ones (report §3.4): FP4 for routed experts, FP8 for most other linear maps,
bf16 for embeddings, norms, the router and the compressors, float32 for mHC, position biases, sinks and router biases.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, NamedTuple

from dsv4.config import CSA_RATIO, Config
from dsv4.config41 import Config41
from dsv4.ops.quantise import FP4_BLOCK, FP8_SQUARE

Format = Literal["fp4", "fp8", "bf16", "f32", "i64"]

BITS: dict[Format, int] = {"fp4": 4, "fp8": 8, "bf16": 16, "f32": 32, "i64": 64}
"""Of one number of each format."""

PartName = Literal[
    "embedding",
    "attention",
    "indexer",
    "compressor",
    "routed experts",
    "shared experts",
    "router",
    "mhc",
    "norm",
    "head",
    "engram",
    "mtp",
]


@dataclass(frozen=True)
class Parameter:
    """One tensor of a checkpoint, not counting the scales beside it.

    name: the official tensor name; shape: the logical shape, so [out, in] for a packed FP4 weight, too;
    format: how released checkpoints store it; part: what it belongs to, "mtp" for all of the draft layers, an MTP layer
    or the stages of a DSpark drafter; block: the rows and columns that share one scale of an FP8 weight.
    """

    name: str
    shape: tuple[int, ...]
    format: Format
    part: PartName
    block: tuple[int, int] = FP8_SQUARE

    @property
    def size(self) -> int:
        """The number of numbers."""
        return prod(self.shape)

    @property
    def scale_name(self) -> str:
        """The name of the tensor of scales that stands beside a quantised weight."""
        return self.name.removesuffix(".weight") + ".scale"

    @property
    def scale_shape(self) -> tuple[int, int] | None:
        """The shape of the scales: one per 32 columns for FP4, one per block for FP8, None otherwise."""
        if self.format == "fp4":
            return self.shape[0], self.shape[1] // FP4_BLOCK
        if self.format == "fp8":
            return -(-self.shape[0] // self.block[0]), -(-self.shape[1] // self.block[1])
        return None

    @property
    def nbytes(self) -> int:
        """The bytes of the tensor in a released checkpoint, with those of its scales."""
        return self.size * BITS[self.format] // 8 + prod(self.scale_shape or (0, 0))


class Count(NamedTuple):
    """Numbers of parameters: all of them, and those that one token uses."""

    total: int
    active: int


def parameters(config: Config, include_mtp: bool = True) -> dict[str, Parameter]:
    """Every parameter of the model by its official name, in file order: embedding, layers, head, draft layers.

    include_mtp: whether the draft layers that the configuration declares, `mtp.*`, take part. Source: report §2; code:
    the names, shapes and formats of the released checkpoints.
    """
    return {parameter.name: parameter for parameter in _model(config, include_mtp)}


def count_parameters(config: Config) -> Count:
    """The total and the active parameters, counted as the report's figures are (284B/13B and 1.6T/49B).

    The sums of `count_by_part`, which says what is counted.
    """
    return summed(count_by_part(config).values())


def summed(counts: Iterable[Count]) -> Count:
    """The totals and the active parameters of several parts together."""
    totals, actives = zip(*counts, strict=True)
    return Count(sum(totals), sum(actives))


def count_by_part(config: Config) -> dict[str, Count]:
    """The total and the active parameters of each part of the main model.

    Counted are the numbers in the main model's tensors: not the scales of quantised weights, not the table tid2eid,
    which holds expert numbers, and not the draft layers. Active are those that one token uses: of the routed experts
    num_experts_per_tok, and all else but the embedding table, of which a token reads one row and multiplies nothing.
    """
    sizes: Counter[str] = Counter()
    for parameter in _model(config, include_mtp=False):
        if parameter.format != "i64":
            sizes[parameter.part] += parameter.size
    active = sizes | {
        "embedding": 0,
        "routed experts": sizes["routed experts"] // config.n_routed_experts * config.num_experts_per_tok,
    }
    return {part: Count(total, active[part]) for part, total in sizes.items()}


def count_drafter(config: Config) -> Count:
    """The total and the active parameters of the draft layers, `mtp.*`, counted as those of the main model.

    Active are those that one drafted token uses: of the routed experts num_experts_per_tok in each layer, and not the
    first table of a Markov head, of which a token reads one row. The embedding and the head are the main model's.
    """
    sizes = {each.name: each.size for each in _draft_layers(config)}
    routed = sum(size for name, size in sizes.items() if ".ffn.experts." in name)
    read = sum(size for name, size in sizes.items() if name.endswith(".markov_w1.weight"))
    total = sum(sizes.values())
    return Count(total, total - read - routed + routed // config.n_routed_experts * config.num_experts_per_tok)


def _model(config: Config, include_mtp: bool) -> Iterator[Parameter]:
    d = config.hidden_size
    yield Parameter("embed.weight", (config.vocab_size, d), "bf16", "embedding")
    for layer in range(config.num_hidden_layers):
        yield from _layer(config, layer, f"layers.{layer}.")
    yield Parameter("norm.weight", (d,), "bf16", "norm")
    yield Parameter("head.weight", (config.vocab_size, d), "bf16", "head")
    yield from mhc_parameters(config, "hc_head", config.hc_mult, 1)
    if include_mtp:
        yield from _draft_layers(config)


def _draft_layers(config: Config) -> Iterator[Parameter]:
    draft_layer = _dspark_stage if config.dspark else _mtp_layer
    for number in range(config.draft_layers):
        for parameter in draft_layer(config, number):
            yield replace(parameter, part="mtp")


def _mtp_layer(config: Config, mtp: int) -> Iterator[Parameter]:
    """One MTP layer: two projections with their norms, a layer, and an own end of the residual streams (§2.5)."""
    d, prefix = config.hidden_size, f"mtp.{mtp}."
    for name in ("e_proj", "h_proj"):
        yield Parameter(f"{prefix}{name}.weight", (d, d), "fp8", "mtp")
    for name in ("enorm", "hnorm"):
        yield Parameter(f"{prefix}{name}.weight", (d,), "bf16", "mtp")
    yield from _layer(config, config.num_hidden_layers + mtp, prefix)
    yield Parameter(f"{prefix}norm.weight", (d,), "bf16", "mtp")
    yield from mhc_parameters(config, f"{prefix}hc_head", config.hc_mult, 1)


def _dspark_stage(config: Config, stage: int) -> Iterator[Parameter]:
    """One stage of a DSpark drafter: a layer. The first stage has what reads the main model, the last one the heads."""
    assert config.dspark is not None
    d, prefix, dspark = config.hidden_size, f"mtp.{stage}.", config.dspark
    if stage == 0:
        yield Parameter(f"{prefix}main_proj.weight", (d, len(dspark.target_layer_ids) * d), "fp8", "mtp")
        yield Parameter(f"{prefix}main_norm.weight", (d,), "bf16", "mtp")
    yield from _layer(config, config.num_hidden_layers + stage, prefix)
    if stage == config.draft_layers - 1:
        yield Parameter(f"{prefix}norm.weight", (d,), "bf16", "mtp")
        yield from mhc_parameters(config, f"{prefix}hc_head", config.hc_mult, 1)
        for name in ("markov_w1", "markov_w2"):
            yield Parameter(
                f"{prefix}markov_head.{name}.weight", (config.vocab_size, dspark.markov_rank), "bf16", "mtp"
            )
        yield Parameter(f"{prefix}confidence_head.proj.weight", (1, d + dspark.markov_rank), "bf16", "mtp")


def _layer(config: Config, layer: int, prefix: str) -> Iterator[Parameter]:
    """Attention, then mixture of experts, each with its norm and its hyper-connection."""
    d, n = config.hidden_size, config.hc_mult
    yield Parameter(f"{prefix}attn_norm.weight", (d,), "bf16", "norm")
    yield from attention_parameters(config, f"{prefix}attn.")
    ratio = config.compress_ratios[layer]
    if ratio:
        yield from _compressor(config, f"{prefix}attn.compressor.", ratio, config.head_dim, "compressor")
    if config.layer_kind(layer) == "CSA":
        yield from _indexer(config, f"{prefix}attn.indexer.", ratio)
    yield Parameter(f"{prefix}ffn_norm.weight", (d,), "bf16", "norm")
    yield from _experts(config, f"{prefix}ffn.", config.is_hash_layer(layer))
    for sublayer in ("attn", "ffn"):
        yield from mhc_parameters(config, f"{prefix}hc_{sublayer}", (2 + n) * n, 3)


def attention_parameters(config: Config | Config41, prefix: str) -> Iterator[Parameter]:
    """One shared KV head, low-rank queries, grouped low-rank output (report §2.3)."""
    d, heads, c = config.hidden_size, config.num_attention_heads, config.head_dim
    rank = config.o_groups * config.o_lora_rank
    yield Parameter(f"{prefix}attn_sink", (heads,), "f32", "attention")
    yield Parameter(f"{prefix}wq_a.weight", (config.q_lora_rank, d), "fp8", "attention")
    yield Parameter(f"{prefix}q_norm.weight", (config.q_lora_rank,), "bf16", "norm")
    yield Parameter(f"{prefix}wq_b.weight", (heads * c, config.q_lora_rank), "fp8", "attention")
    yield Parameter(f"{prefix}wkv.weight", (c, d), "fp8", "attention")
    yield Parameter(f"{prefix}kv_norm.weight", (c,), "bf16", "norm")
    yield Parameter(f"{prefix}wo_a.weight", (rank, heads * c // config.o_groups), "fp8", "attention")
    yield Parameter(f"{prefix}wo_b.weight", (d, rank), "fp8", "attention")


def _compressor(config: Config, prefix: str, ratio: int, width: int, part: PartName) -> Iterator[Parameter]:
    """Projections to entries of `width` channels; twice as many where blocks overlap, that is in CSA (§2.3.1)."""
    channels = 2 * width if ratio == CSA_RATIO else width
    yield Parameter(f"{prefix}ape", (ratio, channels), "f32", part)
    yield Parameter(f"{prefix}wkv.weight", (channels, config.hidden_size), "bf16", part)
    yield Parameter(f"{prefix}wgate.weight", (channels, config.hidden_size), "bf16", part)
    yield Parameter(f"{prefix}norm.weight", (width,), "bf16", "norm")


def _indexer(config: Config, prefix: str, ratio: int) -> Iterator[Parameter]:
    """The lightning indexer with its own compressor (report §2.3.1, eq. 13–17)."""
    heads, width = config.index_n_heads, config.index_head_dim
    yield Parameter(f"{prefix}wq_b.weight", (heads * width, config.q_lora_rank), "fp8", "indexer")
    yield Parameter(f"{prefix}weights_proj.weight", (heads, config.hidden_size), "bf16", "indexer")
    yield from _compressor(config, f"{prefix}compressor.", ratio, width, "indexer")


def _experts(config: Config, prefix: str, is_hash_layer: bool) -> Iterator[Parameter]:
    """The router with its bias or table, the routed experts, the shared expert (report §2.1)."""
    d, experts, width = config.hidden_size, config.n_routed_experts, config.moe_intermediate_size
    yield Parameter(f"{prefix}gate.weight", (experts, d), "bf16", "router")
    if is_hash_layer:
        yield Parameter(f"{prefix}gate.tid2eid", (config.vocab_size, config.num_experts_per_tok), "i64", "router")
    else:
        yield Parameter(f"{prefix}gate.bias", (experts,), "f32", "router")
    yield from expert_parameters(prefix, d, width, experts, config.expert_dtype)


def expert_parameters(prefix: str, d: int, width: int, experts: int, expert_dtype: str) -> Iterator[Parameter]:
    """The routed experts, so many, and the shared one."""
    routed: Format = "fp8" if expert_dtype == "fp8" else "fp4"
    shapes = {"w1": (width, d), "w2": (d, width), "w3": (width, d)}
    for expert in range(experts):
        for name, shape in shapes.items():
            yield Parameter(f"{prefix}experts.{expert}.{name}.weight", shape, routed, "routed experts")
    for name, shape in shapes.items():
        yield Parameter(f"{prefix}shared_experts.{name}.weight", shape, "fp8", "shared experts")


def mhc_parameters(config: Config | Config41, prefix: str, rows: int, scales: int) -> Iterator[Parameter]:
    """The three tensors of one hyper-connection (report §2.2)."""
    yield Parameter(f"{prefix}_fn", (rows, config.hc_mult * config.hidden_size), "f32", "mhc")
    yield Parameter(f"{prefix}_base", (rows,), "f32", "mhc")
    yield Parameter(f"{prefix}_scale", (scales,), "f32", "mhc")
