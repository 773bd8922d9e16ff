"""The configuration of DeepSeek-V4.1's text path: the settings of its config.json as one frozen dataclass.

As `dsv4.config` for V4. Which layer owns what follows from the lists of sources, and is asked here and nowhere else.
`dsv4.checkpoint.config41_json` reads the file.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from dsv4.config import (
    Yarn,
    check_choices,
    check_drafter,
    check_heads,
    check_sizes,
    is_rising,
    require,
    require_of,
    typed,
)
from dsv4.ops.engram import engram_moduli

LayerKind41 = Literal["SWA", "Full", "Reindex", "Reuse"]
"""A window only; or a window and entries: made and chosen here, only chosen here, or neither."""

LARGEST_TABLE, LARGEST_MODULUS = 2**40, 2**31
"""Rows of an Engram table, and the smallest of its primes, at most; the released tables have 4 · 10⁸ rows."""

MOST_COLUMNS = 2**10
"""Primes of all Engram layers together at most; the released model has 48."""


@dataclass(frozen=True)
class Engram:
    """The settings of the Engram layers, which config.json has under these names with `engram_` in front.

    layer_ids: the layers with a table; num_embeddings: the rows of each table; max_ngram_size: N, the longest n-gram;
    vocab_size: the smallest number that may be a modulus; n_heads: moduli for each order 2 … N; head_dim: the width of
    a row; pad_token_id: the token that stands before the first one; compressed_vocab_size: the number of token classes.
    """

    layer_ids: tuple[int, ...]
    num_embeddings: tuple[int, ...]
    max_ngram_size: int
    vocab_size: int
    n_heads: int
    head_dim: int
    pad_token_id: int
    compressed_vocab_size: int

    @property
    def columns(self) -> int:
        """The rows that a token reads of a table: one for each head of each order."""
        return (self.max_ngram_size - 1) * self.n_heads


@dataclass(frozen=True)
class DSpark41:
    """The settings of V4.1's DSpark drafter, which config.json has under these names with `dspark_` in front.

    As `dsv4.config.DSpark`; and n_routed_experts, num_experts_per_tok: those of a stage.
    """

    block_size: int
    noise_token_id: int
    target_layer_ids: tuple[int, ...]
    markov_rank: int
    n_routed_experts: int
    num_experts_per_tok: int


@dataclass(frozen=True)
class Config41:
    """The settings of one DeepSeek-V4.1 model, under the names of config.json's text_config.

    A Config41 that exists is consistent: the constructor raises ConfigError naming file, key, expected and found.
    `compress_ratios` has one entry per layer and one per stage of the drafter, of which there are
    `num_nextn_predict_layers`. `engram`, `dspark` and `candidate_source_layer_id` are None where there are none.
    `eos_token_id`, `quantised`, `expert_dtype` and `source` are as in `dsv4.Config`.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_nextn_predict_layers: int
    num_attention_heads: int
    head_dim: int
    qk_rope_head_dim: int
    q_lora_rank: int
    o_lora_rank: int
    o_groups: int
    sliding_window: int
    compress_ratios: tuple[int, ...]
    kv_source_layer_ids: tuple[int, ...]
    index_source_layer_ids: tuple[int, ...]
    index_n_heads: int
    index_head_dim: int
    index_topk: int
    candidate_source_layer_id: int | None
    candidate_topk_blocks: int
    candidate_block_size: int
    rope_theta: float
    compress_rope_theta: float
    rope_scaling: Yarn | None
    max_position_embeddings: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    scoring_func: str
    norm_topk_prob: bool
    topk_method: str
    routed_scaling_factor: float
    swiglu_limit: float
    hc_mult: int
    hc_sinkhorn_iters: int
    hc_eps: float
    rms_norm_eps: float
    bos_token_id: int
    eos_token_id: int | tuple[int, ...]
    tie_word_embeddings: bool
    torch_dtype: str
    quantised: bool
    expert_dtype: str = "fp4"
    engram: Engram | None = None
    dspark: DSpark41 | None = None
    source: str = field(default="Config41", compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_types(self)
        check_sizes(self)
        check_choices(self)
        check_heads(self)
        _check_sources(self)
        _check_candidates(self)
        _check_engram(self)
        _check_dspark(self)

    @property
    def draft_layers(self) -> int:
        """How many stages draft behind the main model's layers."""
        return self.num_nextn_predict_layers

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokens that end a text, one or several."""
        return (self.eos_token_id,) if isinstance(self.eos_token_id, int) else self.eos_token_id

    def without_draft_layers(self) -> "Config41":
        """The same main model, without the DSpark drafter."""
        ratios = self.compress_ratios[: self.num_hidden_layers]
        return replace(self, num_nextn_predict_layers=0, compress_ratios=ratios, dspark=None)

    def layer_kind(self, layer: int) -> LayerKind41:
        """The attention of a layer; stages of the drafter are numbered on from num_hidden_layers."""
        if self.compress_ratios[layer] == 0:
            return "SWA"
        if self.is_kv_source(layer):
            return "Full"
        return "Reindex" if self.is_index_source(layer) else "Reuse"

    def is_kv_source(self, layer: int) -> bool:
        """Whether the layer makes entries and index keys."""
        return layer in self.kv_source_layer_ids

    def is_index_source(self, layer: int) -> bool:
        """Whether the layer chooses entries."""
        return layer in self.index_source_layer_ids

    def is_candidate_source(self, layer: int) -> bool:
        """Whether the layer makes the pool of candidates in which later ones choose."""
        return layer == self.candidate_source_layer_id

    def kv_source(self, layer: int) -> int:
        """The layer whose entries a layer of ratio > 0 reads: the latest one that makes any, itself included."""
        return max(source for source in self.kv_source_layer_ids if source <= layer)

    def has_candidates(self, layer: int) -> bool:
        """Whether an index source chooses inside the pool: every one behind the candidate source."""
        source = self.candidate_source_layer_id
        return source is not None and layer > source

    def is_engram_layer(self, layer: int) -> bool:
        """Whether the layer begins with an Engram."""
        return self.engram is not None and layer in self.engram.layer_ids


def _check_types(config: Config41) -> None:
    """What a file holds has been checked; a Config41 may also be made from values, or changed with `replace`."""
    sections = {"rope_scaling": Yarn, "engram": Engram, "dspark": DSpark41}
    for key, kind in sections.items():
        found = getattr(config, key)
        require(config, found is None or isinstance(found, kind), key, f"{kind.__name__} or None")
    for section in (config, config.rope_scaling, config.engram, config.dspark):
        for entry in fields(section) if section else ():
            found = getattr(section, entry.name)
            if isinstance(entry.type, type):
                typed(found, entry.type, config.source, entry.name)
            elif entry.type == tuple[int, ...]:
                are_integers = isinstance(found, tuple) and all(type(one) is int for one in found)
                require_of(config, are_integers, entry.name, "a tuple of integers", found)
    are_integers = all(type(one) is int for one in config.eos_token_ids)
    require(config, are_integers, "eos_token_id", "an integer or a tuple of integers")


def _check_sources(config: Config41) -> None:
    """A ratio for each layer and stage; whoever reads entries finds a source of the same ratio, or is one."""
    layers, stages, ratios = config.num_hidden_layers, config.num_nextn_predict_layers, config.compress_ratios
    expected = f"{layers} entries for num_hidden_layers and {stages} for num_nextn_predict_layers"
    require(config, len(ratios) == layers + stages, "compress_ratios", expected)
    require(config, all(0 <= ratio <= 128 for ratio in ratios), "compress_ratios", "ratios from 0 to 128")
    require(config, not any(ratios[layers:]), "compress_ratios", f"ratios of 0 behind {layers} layers, for the stages")
    for key in ("kv_source_layer_ids", "index_source_layer_ids"):
        found = getattr(config, key)
        fits = is_rising(found) and all(0 <= layer < layers and ratios[layer] > 0 for layer in found)
        require(config, fits, key, f"layers of a ratio above 0, below {layers} and in rising order")
    are_both = set(config.kv_source_layer_ids) <= set(config.index_source_layer_ids)
    require(config, are_both, "kv_source_layer_ids", "layers that are among index_source_layer_ids, too")
    for layer in range(layers):
        if ratios[layer]:
            sources = [source for source in config.kv_source_layer_ids if source <= layer]
            fits = bool(sources) and ratios[max(sources)] == ratios[layer]
            expected = f"for layer {layer} of ratio {ratios[layer]} a source of this ratio, itself or before it"
            require(config, fits, "kv_source_layer_ids", expected)


def _check_candidates(config: Config41) -> None:
    """The pool names blocks of entries: those who choose in it have entries of the same ratio."""
    source = config.candidate_source_layer_id
    if source is None:
        return
    expected = "None, or a layer that is among kv_source_layer_ids"
    require(config, type(source) is int and config.is_kv_source(source), "candidate_source_layer_id", expected)
    ratios = {config.compress_ratios[layer] for layer in config.index_source_layer_ids if layer >= source}
    require(config, len(ratios) == 1, "candidate_source_layer_id", "one ratio of all index sources from it on")


def _check_engram(config: Config41) -> None:
    engram, layers = config.engram, config.num_hidden_layers
    if engram is None:
        return
    ids, rows = engram.layer_ids, engram.num_embeddings
    fits = {
        "layer_ids": (
            len(ids) > 0 and is_rising(ids) and all(0 <= layer < layers for layer in ids),
            f"layers from 0 and below {layers}, in rising order",
        ),
        "num_embeddings": (
            len(rows) == len(ids) and all(1 <= one <= LARGEST_TABLE for one in rows),
            f"one number of rows for each of {len(ids)} layers, each from 1 to {LARGEST_TABLE}",
        ),
        "max_ngram_size": (2 <= engram.max_ngram_size <= 64, "an integer from 2 to 64"),
        "vocab_size": (2 <= engram.vocab_size <= LARGEST_MODULUS, f"an integer from 2 to {LARGEST_MODULUS}"),
        "n_heads": (1 <= engram.n_heads <= 2**10, "an integer from 1 to 1024"),
        "head_dim": (1 <= engram.head_dim <= 2**14, f"an integer from 1 to {2**14}"),
        "pad_token_id": (
            0 <= engram.pad_token_id < config.vocab_size,
            f"a token from 0 and below vocab_size {config.vocab_size}",
        ),
        "compressed_vocab_size": (
            1 <= engram.compressed_vocab_size <= config.vocab_size,
            f"an integer from 1 to vocab_size {config.vocab_size}",
        ),
    }
    for key, (holds, expected) in fits.items():
        require_of(config, holds, f"engram_{key}", expected, getattr(engram, key))
    columns = len(ids) * engram.columns
    require_of(config, columns <= MOST_COLUMNS, "engram_n_heads", f"at most {MOST_COLUMNS} moduli in all", columns)
    moduli = engram_moduli(len(ids), engram.max_ngram_size, engram.n_heads, engram.vocab_size)
    sums = tuple(int(of_layer.sum()) for of_layer in moduli)
    require_of(config, rows == sums, "engram_num_embeddings", f"{sums}, the sums of each layer's primes", rows)


def _check_dspark(config: Config41) -> None:
    """A drafter has a stage at least, and reads layers of the main model."""
    dspark = config.dspark
    stages = config.num_nextn_predict_layers
    expected = "at least 1 with a DSpark drafter, 0 without one"
    require(config, (stages > 0) == (dspark is not None), "num_nextn_predict_layers", expected)
    if dspark is None:
        return
    check_drafter(config)
    experts, k = dspark.n_routed_experts, dspark.num_experts_per_tok
    require_of(config, 1 <= experts <= 2**14, "dspark_n_routed_experts", f"an integer from 1 to {2**14}", experts)
    require_of(config, 1 <= k <= experts, "dspark_num_experts_per_tok", f"an integer from 1 to {experts}", k)
