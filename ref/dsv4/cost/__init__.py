"""What a model costs: parameters, FLOPs per token and cache bytes, from its configuration alone (report §2.3.4).

    from dsv4 import read_config
    from dsv4.cost import cost, cost_of_v32

    flash = cost(read_config("config.json"), context=2**20)
    flash.fp8_flops / cost_of_v32(context=2**20).fp8_flops

Tests compare the predictions with the model itself: the multiply–adds with those of the operations in real passes, the
bytes with `Cache.nbytes`. docs/cost.md states the assumptions.
"""

from dataclasses import dataclass
from fractions import Fraction

from dsv4 import parameters
from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.cost import memory, products, v32, v41
from dsv4.cost.memory import CacheFormat
from dsv4.cost.products import Product
from dsv4.errors import SettingError
from dsv4.parameters import Count
from dsv4.parameters41 import count_by_part41, count_drafter41

__all__ = ["CacheFormat", "Cost", "Drafter", "OfV41", "Product", "cost", "cost_of_v32"]


@dataclass(frozen=True)
class Drafter:
    """What the draft layers cost: an MTP layer, or the stages of a DSpark drafter."""

    name: str
    """ "MTP layer", or "DSpark, 3 stages"."""
    count: Count
    """All parameters of the layers, and those that a drafted token uses."""
    cache_bytes: int
    """Bytes of what the layers keep of the sequence."""


@dataclass(frozen=True)
class OfV41:
    """What only a model of V4.1 has; `dsv4.cost.v41` says how each is counted."""

    tables: int
    """The parameters in the tables of its Engrams, which no token is multiplied with."""
    prompt_active: int
    """The parameters that a token of a long prompt uses, where the decoder is not computed for it."""
    global_bytes: Fraction
    """The bytes that each further token of a long sequence adds to its cache."""


@dataclass(frozen=True)
class Cost:
    """What one model costs at one context."""

    context: int
    """How many tokens a sequence has."""
    parameters: dict[str, Count]
    """The total and the active parameters of each part of the main model."""
    products: list[Product]
    """What is computed for the last of the tokens, by part and format."""
    cache: dict[str, int]
    """Bytes of each part of the sequence's cache."""
    drafter: "Drafter | None" = None
    """What drafts for the main model, which is not counted above."""
    of_v41: "OfV41 | None" = None
    """What else the report of V4.1 gives figures of."""

    @property
    def count(self) -> Count:
        """All parameters, and those that one token uses."""
        return parameters.summed(self.parameters.values())

    @property
    def flops(self) -> int:
        """Floating-point operations for one token, whatever their format."""
        return sum(product.flops for product in self.products)

    @property
    def fp8_flops(self) -> float:
        """Equivalent FP8 FLOPs for one token, as the report measures."""
        return sum(product.fp8_flops for product in self.products)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the sequence's whole cache."""
        return sum(self.cache.values())


def cost(config: Config | Config41, context: int, cache_format: CacheFormat = "packed") -> Cost:
    """The cost of a model of V4 or V4.1 at a context of so many tokens, with its cache in this format.

    Raises SettingError for a context below 1.
    """
    _check(context)
    if isinstance(config, Config41):
        return _cost_of_v41(config, context, cache_format)
    return Cost(
        context,
        parameters.count_by_part(config),
        products.token_products(config, context),
        memory.cache_bytes(config, context, cache_format),
        _drafter(config, context, cache_format),
    )


def cost_of_v32(context: int, cache_format: CacheFormat = "packed") -> Cost:
    """The same for DeepSeek-V3.2, the report's baseline. Raises SettingError for a context below 1."""
    _check(context)
    return Cost(
        context,
        v32.count_by_part(v32.PUBLISHED),
        v32.token_products(v32.PUBLISHED, context),
        v32.cache_bytes(v32.PUBLISHED, context, cache_format),
    )


def _cost_of_v41(config: Config41, context: int, cache_format: CacheFormat) -> Cost:
    drafter, stages = None, config.draft_layers
    if config.dspark:
        rings = stages * min(context, config.sliding_window) * v41.window_bytes(config, cache_format)
        drafter = Drafter(f"DSpark, {stages} stages", count_drafter41(config), rings)
    return Cost(
        context,
        count_by_part41(config),
        v41.token_products(config, context),
        v41.cache_bytes(config, context, cache_format),
        drafter,
        OfV41(v41.table_size(config), v41.prompt_active(config), v41.global_bytes(config, cache_format)),
    )


def _drafter(config: Config, context: int, cache_format: CacheFormat) -> Drafter | None:
    if not config.draft_layers:
        return None
    name = f"DSpark, {config.draft_layers} stages" if config.dspark else "MTP layer"
    sizes = [
        sum(memory.layer_cache_bytes(config, ratio, context, cache_format).values())
        for ratio in config.compress_ratios[config.num_hidden_layers :]
    ]
    return Drafter(name, parameters.count_drafter(config), sum(sizes))


def _check(context: int) -> None:
    if context < 1:
        raise SettingError(f"context: expected at least 1 token, found {context}")
