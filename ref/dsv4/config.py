"""The model's configuration: the settings of config.json as one frozen dataclass, checked once (report §4.2.1).

The fields carry the names of the released config.json, which are the report's quantities. Nothing is filled in from the
settings of another model. `dsv4.checkpoint.config_json` reads and writes the file.
"""

import math
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal

from dsv4.errors import ConfigError, quoted

LayerKind = Literal["SWA", "CSA", "HCA"]
"""Sliding-window attention only, compressed sparse attention, or heavily compressed attention (report §2.3)."""

CSA_RATIO, HCA_RATIO = 4, 128
"""m and m′: how many tokens an entry of a compressing layer stands for. An entry of CSA reads the block before, too."""

LAYER_KINDS: dict[int, LayerKind] = {0: "SWA", CSA_RATIO: "CSA", HCA_RATIO: "HCA"}
"""The compression ratios that V4 knows, 0 for none."""

SCORING_FUNCTIONS = ("sqrtsoftplus", "sigmoid", "softmax")

MOST = {
    "vocab_size": 2**24,
    "hidden_size": 2**18,
    "num_hidden_layers": 2**10,
    "num_attention_heads": 2**14,
    "head_dim": 2**14,
    "qk_rope_head_dim": 2**14,
    "q_lora_rank": 2**18,
    "o_lora_rank": 2**18,
    "sliding_window": 2**14,
    "index_n_heads": 2**14,
    "index_head_dim": 2**14,
    "index_topk": 2**16,
    "max_position_embeddings": 2**40,
    "n_routed_experts": 2**14,
    "moe_intermediate_size": 2**18,
    "hc_mult": 2**8,
    "hc_sinkhorn_iters": 2**10,
}
"""The largest value of each size that no other one bounds, far above V4-Pro's: beyond it, a file is damaged, and
loops over layers, experts or iterations would not end."""

MOST_EXPERTS = 2**18
"""Routed experts of all layers together at most; V4-Pro has 23,424."""

LONGEST_LIST = 2**11
"""Entries of a list at most: those with one for each layer are the longest."""

LARGEST_FLOAT = 1e30
"""No setting is larger; float32, in which they take part, ends at 3.4e38."""

LARGEST_BLOCK, LARGEST_RANK = 2**8, 2**14
"""A DSpark draft has no more tokens, its Markov head no larger rank; released ones have 5, and 256 or 512."""

TYPE_NAMES = {int: "an integer", float: "a finite number", str: "a string", bool: "true or false"}


@dataclass(frozen=True)
class Yarn:
    """How YaRN stretches the rotary frequencies of the layers that compress.

    factor: by how much the context grew; original_max_position_embeddings: the context before; beta_fast and
    beta_slow: the rotations over that context between which frequencies pass from kept to divided by `factor`.
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float
    beta_slow: float


@dataclass(frozen=True)
class DSpark:
    """The settings of a DSpark drafter, which config.json has under these names with `dspark_` in front.

    block_size: γ, the tokens that one pass drafts; noise_token_id: the id at the places of a block whose token is not
    known; target_layer_ids: the layers of the main model, from 0, whose output the drafter reads; markov_rank: the rank
    of the head that makes each drafted token depend on the one before it. Source: DSpark, arXiv 2607.05147.
    """

    block_size: int
    noise_token_id: int
    target_layer_ids: tuple[int, ...]
    markov_rank: int


@dataclass(frozen=True)
class Config:
    """The settings of one DeepSeek-V4 model, under the names of config.json.

    A Config that exists is consistent: the constructor raises ConfigError naming file, key, expected and found.
    `compress_ratios` has one entry per layer and one per draft layer: the MTP layer of the first releases, or a stage
    of a DSpark drafter, whose number `num_nextn_predict_layers` does not tell. `dspark` is None without such a
    drafter. `eos_token_id` is a tuple where config.json has a list; `eos_token_ids` has them in either case.
    `quantised` says whether the file has a quantization_config, `expert_dtype` in which format such a checkpoint stores
    the routed experts.
    `source` is the file that the messages name; it does not take part in comparison.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_hash_layers: int
    num_nextn_predict_layers: int
    num_attention_heads: int
    head_dim: int
    qk_rope_head_dim: int
    q_lora_rank: int
    o_lora_rank: int
    o_groups: int
    sliding_window: int
    compress_ratios: tuple[int, ...]
    index_n_heads: int
    index_head_dim: int
    index_topk: int
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
    dspark: DSpark | None = None
    source: str = field(default="Config", compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_types(self)
        check_sizes(self)
        check_choices(self)
        check_heads(self)
        _require_power_of_two(self)
        _check_layers(self)
        _check_dspark(self)

    @property
    def draft_layers(self) -> int:
        """How many layers draft behind the main model's: MTP layers, or stages of a DSpark drafter."""
        return len(self.compress_ratios) - self.num_hidden_layers

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokens that end a text, one or several."""
        return (self.eos_token_id,) if isinstance(self.eos_token_id, int) else self.eos_token_id

    def without_draft_layers(self) -> "Config":
        """The same main model, without the MTP layer or DSpark drafter."""
        ratios = self.compress_ratios[: self.num_hidden_layers]
        return replace(self, num_nextn_predict_layers=0, compress_ratios=ratios, dspark=None)

    def layer_kind(self, layer: int) -> LayerKind:
        """The attention of a layer; draft layers are numbered on from num_hidden_layers."""
        return LAYER_KINDS[self.compress_ratios[layer]]

    def is_hash_layer(self, layer: int) -> bool:
        """Whether the layer routes by the table tid2eid and not by the router's choice (report §2.1)."""
        return layer < self.num_hash_layers


def typed(value: Any, expected: type, source: str, key: str) -> Any:
    """A value of the type that its key needs; an integer serves as a float. Raises ConfigError for another one."""
    found = value
    if expected is float and type(value) is int and abs(value) < 2**1000:
        value = float(value)
    if type(value) is not expected or (type(value) is float and not math.isfinite(value)):
        raise ConfigError(f"{source}: {key}: expected {TYPE_NAMES[expected]}, found {quoted(found)}")
    if type(value) is int and abs(value) >= 2**63:
        raise ConfigError(f"{source}: {key}: expected an integer below 2^63, found {quoted(found)}")
    return value


def token_ids(value: Any, source: str, key: str) -> int | tuple[int, ...]:
    """A token id, or several as a tuple where the file has a list. Raises ConfigError for anything else."""
    if not isinstance(value, list):
        return int(typed(value, int, source, key))
    if not 1 <= len(value) <= LONGEST_LIST:
        raise ConfigError(f"{source}: {key}: expected from 1 to {LONGEST_LIST} token ids, found {len(value)}")
    return tuple(typed(entry, int, source, key) for entry in value)


def require(config: Any, condition: bool, key: str, expected: str) -> None:
    """Raises ConfigError for a setting of a configuration, the one that `key` names, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{config.source}: {key}: expected {expected}, found {quoted(getattr(config, key))}")


def _check_types(config: Config) -> None:
    """What a file holds has been checked; a Config may also be made from values, or changed with `replace`."""
    require(config, isinstance(config.rope_scaling, Yarn | None), "rope_scaling", "a Yarn or None")
    require(config, isinstance(config.dspark, DSpark | None), "dspark", "a DSpark or None")
    for section in (config, config.rope_scaling, config.dspark):
        for entry in fields(section) if section else ():
            if isinstance(entry.type, type):
                typed(getattr(section, entry.name), entry.type, config.source, entry.name)
    for key, found in (("compress_ratios", config.compress_ratios), ("eos_token_id", config.eos_token_ids)):
        are_integers = isinstance(found, tuple) and all(type(entry) is int for entry in found)
        require(config, are_integers, key, "a tuple of integers")


def check_sizes(config: Any) -> None:
    """Every size is at least 1 and has a bound; counts that may be 0 and numbers that must be positive."""
    may_be_zero = {"num_hash_layers", "num_nextn_predict_layers", "bos_token_id"}
    for entry in fields(config):
        value = getattr(config, entry.name)
        if entry.type is int:
            least = 0 if entry.name in may_be_zero else 1
            require(config, value >= least, entry.name, f"an integer of at least {least}")
        if entry.type is float:
            require(config, value <= LARGEST_FLOAT, entry.name, f"a number of at most {LARGEST_FLOAT:g}")
    for key, most in MOST.items():
        require(config, getattr(config, key) <= most, key, f"an integer of at most {most}")
    for key in ("rms_norm_eps", "hc_eps", "swiglu_limit", "routed_scaling_factor"):
        require(config, getattr(config, key) > 0, key, "a positive number")
    for key in ("rope_theta", "compress_rope_theta"):
        require(config, getattr(config, key) > 1, key, "a number above 1")
    for key, ids in (("bos_token_id", (config.bos_token_id,)), ("eos_token_id", config.eos_token_ids)):
        expected = f"a token from 0 and below vocab_size {config.vocab_size}"
        require(config, all(0 <= token < config.vocab_size for token in ids), key, expected)


def check_choices(config: Any) -> None:
    """Settings of which V4 and V4.1 have one value, and the experts' numbers."""
    require(config, config.n_shared_experts == 1, "n_shared_experts", "1")
    require(config, config.scoring_func in SCORING_FUNCTIONS, "scoring_func", f"one of {SCORING_FUNCTIONS}")
    require(config, config.norm_topk_prob, "norm_topk_prob", "true")
    require(config, config.topk_method == "noaux_tc", "topk_method", "'noaux_tc'")
    require(config, not config.tie_word_embeddings, "tie_word_embeddings", "false")
    require(config, config.expert_dtype in ("fp4", "fp8"), "expert_dtype", "'fp4' or 'fp8'")
    experts, chosen = config.n_routed_experts, config.num_experts_per_tok
    require(config, chosen <= experts, "num_experts_per_tok", f"at most n_routed_experts {experts}")
    per_layer = MOST_EXPERTS // config.num_hidden_layers
    expected = f"at most {per_layer} for {config.num_hidden_layers} layers"
    require(config, experts <= per_layer, "n_routed_experts", expected)


def check_heads(config: Any) -> None:
    """The widths of the heads, the groups of the output projection, and YaRN."""
    rope = config.qk_rope_head_dim
    require(config, rope % 2 == 0, "qk_rope_head_dim", "an even number")
    require(config, config.head_dim >= rope, "head_dim", f"at least qk_rope_head_dim {rope}")
    require(config, config.index_head_dim >= rope, "index_head_dim", f"at least qk_rope_head_dim {rope}")
    heads = config.num_attention_heads
    require(config, heads % config.o_groups == 0, "o_groups", f"a divisor of num_attention_heads {heads}")
    yarn = config.rope_scaling
    if yarn is not None:
        require(config, yarn.factor >= 1, "rope_scaling", "a factor of at least 1")
        require(config, yarn.factor <= LARGEST_FLOAT, "rope_scaling", f"a factor of at most {LARGEST_FLOAT:g}")
        context = yarn.original_max_position_embeddings
        require(config, context >= 1, "rope_scaling", "original_max_position_embeddings of at least 1")
        sane = 1e6 > yarn.beta_fast > yarn.beta_slow > 1e-6 and context < 2**53
        require(config, sane, "rope_scaling", "10^6 > beta_fast > beta_slow > 10^−6 and a context below 2^53")


def _require_power_of_two(config: Config) -> None:
    """The width of the indexer's heads, which the Hadamard rotation takes."""
    require(config, config.index_head_dim.bit_count() == 1, "index_head_dim", "a power of two")


def _check_layers(config: Config) -> None:
    """One known compression ratio per layer and per draft layer, and no more hash layers than layers."""
    layers, mtp_layers = config.num_hidden_layers, config.num_nextn_predict_layers
    require(config, mtp_layers <= 1, "num_nextn_predict_layers", "0 or 1")
    require(config, config.num_hash_layers <= layers, "num_hash_layers", f"at most num_hidden_layers {layers}")
    require(config, set(config.compress_ratios) <= set(LAYER_KINDS), "compress_ratios", "ratios of 0, 4 or 128")
    if config.dspark is None and len(config.compress_ratios) != layers + mtp_layers:
        raise ConfigError(
            f"{config.source}: compress_ratios: expected {layers} entries for num_hidden_layers and {mtp_layers} for "
            f"num_nextn_predict_layers, found {len(config.compress_ratios)} entries"
        )


def _check_dspark(config: Config) -> None:
    """A drafter has a stage at least, none of which compresses, and reads layers of the main model."""
    dspark, layers = config.dspark, config.num_hidden_layers
    if dspark is None:
        return
    stages = config.compress_ratios[layers:]
    expected = f"entries of 0 for the stages of a DSpark drafter behind {layers} for num_hidden_layers"
    require(config, len(stages) > 0 and not any(stages), "compress_ratios", expected)
    check_drafter(config)


def check_drafter(config: Any) -> None:
    """The settings that DSpark drafters of V4 and of V4.1 have in common."""
    dspark, layers = config.dspark, config.num_hidden_layers
    token, targets = dspark.noise_token_id, dspark.target_layer_ids
    are_targets = len(targets) > 0 and is_rising(targets) and all(0 <= layer < layers for layer in targets)
    limits = {
        "block_size": (1 <= dspark.block_size <= LARGEST_BLOCK, f"an integer from 1 to {LARGEST_BLOCK}"),
        "markov_rank": (1 <= dspark.markov_rank <= LARGEST_RANK, f"an integer from 1 to {LARGEST_RANK}"),
        "noise_token_id": (0 <= token < config.vocab_size, f"a token from 0 and below vocab_size {config.vocab_size}"),
        "target_layer_ids": (are_targets, f"layers from 0 and below {layers}, in rising order"),
    }
    for key, (holds, expected) in limits.items():
        require_of(config, holds, f"dspark_{key}", expected, getattr(dspark, key))


def require_of(config: Any, condition: bool, key: str, expected: str, found: object) -> None:
    """Raises ConfigError for a setting of a section of the configuration, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{config.source}: {key}: expected {expected}, found {quoted(found)}")


def is_rising(numbers: tuple[int, ...]) -> bool:
    """Whether each is larger than the one before."""
    return all(before < after for before, after in pairwise(numbers))
