"""DeepSeek-V4.1: its products and cache, counted as those of V4, and what a token of a prompt uses.

Its report gives 552B parameters and 196B in tables, 8B active in a prompt and 16B in an answer, and 890 bytes of cache
for each token; docs/cost.md says what each of these counts.
"""

from collections.abc import Iterator
from fractions import Fraction

from dsv4.config41 import Config41
from dsv4.cost import memory
from dsv4.cost.memory import NUMBER_BYTES, CacheFormat
from dsv4.cost.products import Product, matrix_products, merge, stream_products
from dsv4.ops.quantise import FP4_BLOCK
from dsv4.parameters41 import parameters41

KEY_BLOCK, ENTRY_BLOCK = 32, 16
"""Channels that share a scale byte: of a window key in FP8, and of an entry in FP4."""

PARTS = (*memory.PARTS, "token classes")
"""What a layer's cache holds, by the names of `Cache.nbytes`."""

CLASS_BYTES = 8
"""A token class, as the reference keeps it, in every format."""


def token_products(config: Config41, context: int) -> list[Product]:
    """What the main model computes for one token, as `dsv4.cost.products.token_products` counts it.

    An index source behind the pool scores the entries in it alone. An index key is made by the token that completes its
    block. Rows of an Engram's table are looked up.
    """
    ratios = config.compress_ratios
    waiting = tuple(f"layers.{n}.attn.indexer.wk." for n in config.kv_source_layer_ids if context % ratios[n])
    table = parameters41(config, include_mtp=False).values()
    multiplied = [each for each in table if not _is_looked_up(each.name) and not each.name.startswith(waiting)]
    weights = matrix_products(multiplied, config.num_experts_per_tok)
    return merge([*weights, *_cache_products(config, context), *stream_products(config)])


def table_size(config: Config41) -> int:
    """The numbers in the tables of the Engrams, which are looked up row by row."""
    return sum(config.engram.num_embeddings) * config.engram.head_dim if config.engram else 0


def prompt_active(config: Config41) -> int:
    """The parameters that a token of a long prompt uses, where the decoder is not computed for it.

    All layers from the last kv source on read its entries, which that layer makes from what goes into it. So for most
    tokens of a prompt only the layers before it are computed, and of it what makes entries and index keys: its norm,
    its hyper-connection and its compressor. (The rest is computed for the last w tokens, which the windows need.)
    """
    last = config.kv_source_layer_ids[-1] if config.kv_source_layer_ids else config.num_hidden_layers
    makers = tuple(f"layers.{last}.{part}" for part in ("attn_norm", "hc_attn", "attn.compressor", "attn.indexer.k"))
    total = 0
    for parameter in parameters41(config, include_mtp=False).values():
        parts = parameter.name.split(".")
        is_before = parts[0] == "layers" and int(parts[1]) < last
        is_maker = parameter.name.startswith((*makers, f"layers.{last}.attn.indexer.wk."))
        idle = ".experts." in parameter.name and int(parts[4]) >= config.num_experts_per_tok
        if (is_before or is_maker) and not idle and not parameter.name.endswith("engram.embed.weight"):
            total += parameter.size
    return total + _rows_read(config, last)


def global_bytes(config: Config41, cache_format: CacheFormat) -> Fraction:
    """The bytes that each further token adds to a long sequence's cache: entries and index keys of the kv sources."""
    entry, key = entry_bytes(config, cache_format), _index_key_bytes(config, cache_format)
    return sum((Fraction(entry + key, config.compress_ratios[n]) for n in config.kv_source_layer_ids), Fraction(0))


def cache_bytes(config: Config41, context: int, cache_format: CacheFormat, draft_context: int = 0) -> dict[str, int]:
    """The bytes of each part that `Cache.nbytes` names, for one sequence; as `dsv4.cost.memory.cache_bytes`."""
    parts = dict.fromkeys(PARTS, 0)
    for layer in range(len(config.compress_ratios)):
        length = context if layer < config.num_hidden_layers else draft_context
        for part, size in layer_cache_bytes(config, layer, length, cache_format).items():
            parts[part] += size
    return parts


def layer_cache_bytes(config: Config41, layer: int, length: int, cache_format: CacheFormat) -> dict[str, int]:
    """The bytes of each part for one layer, or stage of the drafter, after `length` tokens."""
    parts = dict.fromkeys(PARTS, 0)
    parts["window"] = min(length, config.sliding_window) * window_bytes(config, cache_format)
    if config.engram and config.is_engram_layer(layer):
        parts["token classes"] = min(length, config.engram.max_ngram_size - 1) * CLASS_BYTES
    if config.is_kv_source(layer):
        ratio, width = config.compress_ratios[layer], config.head_dim
        parts["compressed"] = length // ratio * entry_bytes(config, cache_format)
        parts["indexer keys"] = length // ratio * _index_key_bytes(config, cache_format)
        parts["pending"] = 2 * (length % ratio) * width * NUMBER_BYTES.get(cache_format, 4)
    return parts


def window_bytes(config: Config41, cache_format: CacheFormat) -> int:
    """A window key: packed, FP8 in all channels."""
    c = config.head_dim
    return c + -(-c // KEY_BLOCK) if cache_format == "packed" else c * NUMBER_BYTES[cache_format]


def entry_bytes(config: Config41, cache_format: CacheFormat) -> int:
    """A compressed entry: packed, FP4 in all channels."""
    c = config.head_dim
    return c // 2 + -(-c // ENTRY_BLOCK) if cache_format == "packed" else c * NUMBER_BYTES[cache_format]


def _index_key_bytes(config: Config41, cache_format: CacheFormat) -> int:
    width = config.index_head_dim
    return width // 2 + -(-width // FP4_BLOCK) if cache_format == "packed" else width * NUMBER_BYTES[cache_format]


def _cache_products(config: Config41, context: int) -> Iterator[Product]:
    """Query times key and weight times value of each key that is read, and scores of those that may be chosen."""
    for layer, ratio in enumerate(config.compress_ratios[: config.num_hidden_layers]):
        keys = min(context, config.sliding_window)
        entries = context // ratio if ratio else 0
        if config.is_index_source(layer):
            scored = _in_pool(config, entries) if config.has_candidates(layer) else entries
            heads, width = config.index_n_heads, config.index_head_dim
            yield Product("indexer scores", "fp4", scored * heads * width)
            yield Product("indexer scores", "bf16", scored * heads)
        read = keys + min(entries, config.index_topk)
        yield Product("core attention", "bf16", 2 * read * config.num_attention_heads * config.head_dim)


def _in_pool(config: Config41, entries: int) -> int:
    """How many visible entries a pool holds: whole blocks, and of the newest block, which is always in it, a part."""
    size, count = config.candidate_block_size, config.candidate_topk_blocks
    return entries if -(-entries // size) <= count else (count - 1) * size + (entries - 1) % size + 1


def _is_looked_up(name: str) -> bool:
    """Whether a parameter of an Engram is a table, or the weight of a norm that is as wide as all streams."""
    return name.endswith(("engram.embed.weight", "engram.q_weight", "engram.k_weight"))


def _rows_read(config: Config41, last: int) -> int:
    """The numbers of the rows that one token reads of the tables before a layer."""
    engram = config.engram
    return sum(engram.columns * engram.head_dim for layer in engram.layer_ids if layer < last) if engram else 0
