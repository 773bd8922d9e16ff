"""DeepSeek-V3.2, the model that the report compares with: its matrices, products and cache.

Source: the published config.json and inference code of V3.2. A V3 with multi-head latent attention (MLA), of which
each query reads the 2048 keys that an indexer chooses among all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dsv4.cost.memory import NUMBER_BYTES, CacheFormat
from dsv4.cost.products import NumberFormat, Product, merge
from dsv4.parameters import Count


@dataclass(frozen=True)
class V32:
    """The settings of V3.2 under the names of its config.json."""

    vocab_size: int = 129280
    hidden_size: int = 7168
    num_hidden_layers: int = 61
    first_k_dense_replace: int = 3
    intermediate_size: int = 18432
    moe_intermediate_size: int = 2048
    n_routed_experts: int = 256
    n_shared_experts: int = 1
    num_experts_per_tok: int = 8
    num_attention_heads: int = 128
    q_lora_rank: int = 1536
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    index_n_heads: int = 64
    index_head_dim: int = 128
    index_topk: int = 2048


PUBLISHED = V32()
"""The settings as they were published; there is no other model of this kind to describe."""


@dataclass(frozen=True)
class Matrices:
    """Equal matrices of one part: how many there are, how many of them a token is multiplied with, and how."""

    part: str
    shape: tuple[int, int]
    count: int
    used: int
    format: NumberFormat


def count_by_part(model: V32) -> dict[str, Count]:
    """The total and the active parameters of each part, counted as those of V4 are."""
    counts: dict[str, Count] = {}
    vectors = _vector_sizes(model)
    for part, total, active in [
        ("embedding", model.vocab_size * model.hidden_size, 0),
        *((each.part, _size(each) * each.count, _size(each) * each.used) for each in _matrices(model)),
        *((part, size, size) for part, size in vectors.items()),
    ]:
        known = counts.get(part, Count(0, 0))
        counts[part] = Count(known.total + total, known.active + active)
    return counts


def token_products(model: V32, context: int) -> list[Product]:
    """What the model computes for one token that is the last of `context`: as `dsv4.cost.products` counts it.

    Attention runs in its absorbed form, as in decoding: the queries are taken into the latent space, keys are the
    latent and rotated channels, values the latent ones, all in bf16. The indexer scores every token in FP8.
    """
    heads, index_heads = model.num_attention_heads, model.index_n_heads
    latent, layers = model.kv_lora_rank, model.num_hidden_layers
    read = min(context, model.index_topk)
    key_and_value = latent + model.qk_rope_head_dim + latent
    return merge(
        [
            *(Product(each.part, each.format, _size(each) * each.used) for each in _matrices(model)),
            Product("indexer scores", "fp8", layers * context * index_heads * model.index_head_dim),
            Product("indexer scores", "bf16", layers * context * index_heads),
            Product("core attention", "bf16", layers * read * heads * key_and_value),
        ]
    )


def cache_bytes(model: V32, context: int, cache_format: CacheFormat) -> dict[str, int]:
    """The bytes of the latent entries and of the indexer's keys of one sequence of `context` tokens.

    packed: as V3.2 is served: 512 latent channels in FP8 with a float32 scale per 128, 64 rotated ones in bf16, so 656
    bytes; an indexer key in FP8 with one float32 scale, so 132 bytes.
    """
    latent, rotated, width = model.kv_lora_rank, model.qk_rope_head_dim, model.index_head_dim
    if cache_format == "packed":
        entry, index_key = latent + 4 * (latent // 128) + 2 * rotated, width + 4
    else:
        number = NUMBER_BYTES[cache_format]
        entry, index_key = number * (latent + rotated), number * width
    tokens = model.num_hidden_layers * context
    return {"latent": tokens * entry, "indexer keys": tokens * index_key}


def _matrices(model: V32) -> Iterator[Matrices]:
    d, layers, heads = model.hidden_size, model.num_hidden_layers, model.num_attention_heads
    q_rank, latent, rotated = model.q_lora_rank, model.kv_lora_rank, model.qk_rope_head_dim

    def each_layer(part: str, out: int, width: int, number_format: NumberFormat) -> Matrices:
        return Matrices(part, (out, width), layers, layers, number_format)

    yield each_layer("attention", q_rank, d, "fp8")
    yield each_layer("attention", heads * (model.qk_nope_head_dim + rotated), q_rank, "fp8")
    yield each_layer("attention", latent + rotated, d, "fp8")
    # Stored in FP8; absorbed into the query and the output it multiplies dequantised, as V4's wo_a does.
    yield each_layer("attention", heads * (model.qk_nope_head_dim + model.v_head_dim), latent, "bf16")
    yield each_layer("attention", d, heads * model.v_head_dim, "fp8")
    yield each_layer("indexer", model.index_n_heads * model.index_head_dim, q_rank, "fp8")
    yield each_layer("indexer", model.index_head_dim, d, "fp8")
    yield each_layer("indexer", model.index_n_heads, d, "bf16")
    yield from _feed_forward(model)
    yield Matrices("head", (model.vocab_size, d), 1, 1, "bf16")


def _feed_forward(model: V32) -> Iterator[Matrices]:
    """The first layers have one dense SwiGLU, the others experts; each SwiGLU has three matrices."""
    d, width, dense = model.hidden_size, model.moe_intermediate_size, model.first_k_dense_replace
    sparse = model.num_hidden_layers - dense
    shared, routed = 3 * sparse * model.n_shared_experts, 3 * sparse * model.n_routed_experts
    yield Matrices("dense feed-forward", (model.intermediate_size, d), 3 * dense, 3 * dense, "fp8")
    yield Matrices("routed experts", (width, d), routed, 3 * sparse * model.num_experts_per_tok, "fp8")
    yield Matrices("shared experts", (width, d), shared, shared, "fp8")
    yield Matrices("router", (model.n_routed_experts, d), sparse, sparse, "bf16")


def _vector_sizes(model: V32) -> dict[str, int]:
    """What is no matrix: the norms, of which the indexer's has a weight and a bias, and the routers' biases."""
    layers, sparse = model.num_hidden_layers, model.num_hidden_layers - model.first_k_dense_replace
    per_layer = 2 * model.hidden_size + model.q_lora_rank + model.kv_lora_rank + 2 * model.index_head_dim
    return {"norm": layers * per_layer + model.hidden_size, "router": sparse * model.n_routed_experts}


def _size(matrices: Matrices) -> int:
    return matrices.shape[0] * matrices.shape[1]
