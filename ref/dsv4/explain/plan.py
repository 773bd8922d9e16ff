"""Which layer makes the entries that a layer reads, and which one chooses among them: of V4 and of V4.1."""

from typing import NamedTuple

from dsv4.config import CSA_RATIO, Config
from dsv4.config41 import Config41
from dsv4.cost import memory, v41
from dsv4.cost.memory import RowBytes


class Place(NamedTuple):
    """What a layer of the plan does about entries; layers by their numbers."""

    kind: str
    ratio: int
    makes: bool
    """Whether it makes entries."""
    chooses: bool
    """Whether it chooses entries."""
    source: int | None
    """The layer that makes the entries that it reads; None where it reads none."""
    chooser: int | None
    """The layer that chooses them; None where all are read."""


def plan(config: Config | Config41) -> list[Place]:
    """The place of every layer of the main model."""
    layers = range(config.num_hidden_layers)
    if isinstance(config, Config41):
        return [_place41(config, layer) for layer in layers]
    return [_place(config, layer) for layer in layers]


def _place(config: Config, layer: int) -> Place:
    ratio = config.compress_ratios[layer]
    chooses = ratio == CSA_RATIO
    source, chooser = layer if ratio else None, layer if chooses else None
    return Place(config.layer_kind(layer), ratio, ratio > 0, chooses, source, chooser)


def _place41(config: Config41, layer: int) -> Place:
    ratio, kind = config.compress_ratios[layer], config.layer_kind(layer)
    if not ratio:
        return Place(kind, ratio, False, False, None, None)
    chooser = max(one for one in config.index_source_layer_ids if one <= layer)
    return Place(
        kind, ratio, config.is_kv_source(layer), config.is_index_source(layer), config.kv_source(layer), chooser
    )


def cache_parts(config: Config | Config41, layer: int, length: int) -> dict[str, int]:
    """The bytes of each part of a layer's cache after `length` tokens, as the released model stores them."""
    if isinstance(config, Config41):
        return v41.layer_cache_bytes(config, layer, length, "packed")
    return memory.layer_cache_bytes(config, config.compress_ratios[layer], length, "packed")


def key_bytes(config: Config | Config41) -> int:
    """The bytes of one key of a token in a window, stored likewise."""
    return v41.window_bytes(config, "packed") if isinstance(config, Config41) else RowBytes.of(config, "packed").entry
