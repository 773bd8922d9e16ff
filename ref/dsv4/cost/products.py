"""The multiply–adds of one token, by part of the model and by number format (report §2.3.4).

Counted are the products of matrices: with the weights, which do not depend on the context, and with what the cache
holds, which do. Not counted is what touches each number once or a few times: norms, RoPE, Hadamard, softmax, Sinkhorn,
activation functions, the weighted sum inside the compressor, rounding, sorting. One multiply–add is two FLOPs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from dsv4.config import CSA_RATIO, Config
from dsv4.config41 import Config41
from dsv4.parameters import Parameter, parameters

NumberFormat = Literal["fp4", "fp4 × fp8", "fp8", "bf16", "f32"]
"""The formats of the two factors of a product; one name where both are the same."""

FP8_EQUIVALENT: dict[NumberFormat, float] = {"fp4": 0.5, "fp4 × fp8": 1, "fp8": 1, "bf16": 2, "f32": 4}
"""What one operation counts in FP8 operations: how much longer a tensor core takes for it, f32 being TF32.

The report measures in "equivalent FP8 FLOPs" and says that FP4 × FP8 runs at the speed of FP8 × FP8 (§1).
"""

MULTIPLIED_AS: dict[str, NumberFormat] = {"fp4": "fp4 × fp8", "fp8": "fp8", "bf16": "bf16", "f32": "f32"}
"""The format of a weight in the files, and that of its product: the input of an FP8 or FP4 weight is rounded to FP8."""


@dataclass(frozen=True)
class Product:
    """The products of one part in one format."""

    part: str
    format: NumberFormat
    multiply_adds: int

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiplication and an addition for each multiply–add."""
        return 2 * self.multiply_adds

    @property
    def fp8_flops(self) -> float:
        """The same in equivalent FP8 FLOPs."""
        return self.flops * FP8_EQUIVALENT[self.format]


def token_products(config: Config, context: int) -> list[Product]:
    """What the main model computes for one token, one Product for each part and format.

    context: how many tokens there are with this one, which stands at position context − 1 and gets its logits.
    The parts are those of `dsv4.parameters`, and two that have no weights: "core attention" and "indexer scores".
    The MTP layer, another pass that only drafts, is left out, as it is in the count of parameters.
    """
    return merge([*weight_products(config), *cache_products(config, context), *stream_products(config)])


def weight_products(config: Config) -> Iterator[Product]:
    """Each matrix once per token."""
    return matrix_products(parameters(config, include_mtp=False).values(), config.num_experts_per_tok)


def matrix_products(table: Iterable[Parameter], experts_per_token: int) -> Iterator[Product]:
    """Those of these parameters: [out, in] has out · in multiply–adds. Any k routed experts stand for those chosen."""
    for parameter in table:
        if _is_multiplied(parameter, experts_per_token):
            # code: wo_a is stored in FP8, but its input is not rounded.
            is_dequantised = parameter.name.endswith("wo_a.weight")
            number_format = "bf16" if is_dequantised else MULTIPLIED_AS[parameter.format]
            yield Product(parameter.part, number_format, parameter.size)


def cache_products(config: Config, context: int) -> Iterator[Product]:
    """Query times key and weight times value for each key that is read, and the indexer's scores of all its keys.

    KV entries are stored in FP8 and bf16 and multiplied in bf16; the indexer's vectors are FP4 (§2.3.4), the sum of
    its heads' scores bf16 (§3.4).
    """
    for ratio in config.compress_ratios[: config.num_hidden_layers]:
        keys = min(context, config.sliding_window)
        entries = context // ratio if ratio else 0
        if ratio == CSA_RATIO:
            heads, width = config.index_n_heads, config.index_head_dim
            yield Product("indexer scores", "fp4", entries * heads * width)
            yield Product("indexer scores", "bf16", entries * heads)
            entries = min(entries, config.index_topk)
        yield Product("core attention", "bf16", 2 * (keys + entries) * config.num_attention_heads * config.head_dim)


def merge(products: Iterable[Product]) -> list[Product]:
    """One Product for each part and format, in the order in which they first come."""
    sums: Counter[tuple[str, NumberFormat]] = Counter()
    for product in products:
        sums[product.part, product.format] += product.multiply_adds
    return [Product(part, number_format, count) for (part, number_format), count in sums.items()]


def stream_products(config: Config | Config41) -> Iterator[Product]:
    """How the n streams are collapsed, mixed with one another, and given the output, at each sub-layer.

    The head collapses them once more.
    """
    n, d = config.hc_mult, config.hidden_size
    collapse, mix, spread = n * d, n * n * d, n * d
    yield Product("mhc", "f32", 2 * config.num_hidden_layers * (collapse + mix + spread) + collapse)


def _is_multiplied(parameter: Parameter, experts_per_token: int) -> bool:
    """Whether one token is multiplied with this parameter; an embedding is looked up, an ape is added."""
    is_matrix = len(parameter.shape) == 2 and parameter.format != "i64"
    if not is_matrix or parameter.part == "embedding" or parameter.name.endswith(".ape"):
        return False
    if parameter.part == "routed experts":
        expert = int(parameter.name.split(".experts.")[1].split(".")[0])
        return expert < experts_per_token
    return True
