"""A configuration of V4.1 with less of what makes a checkpoint large: layers, experts, rows of Engram tables."""

from dataclasses import replace

from dsv4.arguments import integer
from dsv4.config41 import Config41, Engram
from dsv4.errors import SettingError
from dsv4.ops.engram import engram_moduli


def smaller41(
    config: Config41, layers: int | None = None, experts: int | None = None, engram_vocab_size: int | None = None
) -> Config41:
    """The configuration with fewer layers, the first ones, fewer routed experts, or smaller Engram tables.

    None: as many as it has. A DSpark drafter has no more experts than a layer, and reads the last layers that there
    are; sources behind the last layer go. engram_vocab_size: the smallest number that may be a modulus of the hashes; a
    table has about so many rows for each of them. Raises SettingError for more than there is or less than one,
    ConfigError for fewer experts than a token needs.
    """
    if experts is not None:
        config = _with_experts(config, integer("experts", experts, least=1, most=config.n_routed_experts))
    if layers is not None:
        config = _first_layers(config, integer("layers", layers, least=1, most=config.num_hidden_layers))
    if engram_vocab_size is None:
        return config
    if config.engram is None:
        raise SettingError(f"engram_vocab_size: expected a model with an Engram, found none in {config.source}")
    least = integer("engram_vocab_size", engram_vocab_size, least=2, most=config.engram.vocab_size)
    return replace(config, engram=_with_tables(config.engram, least))


def _with_experts(config: Config41, experts: int) -> Config41:
    dspark = config.dspark
    if dspark is not None:
        dspark = replace(dspark, n_routed_experts=min(experts, dspark.n_routed_experts))
    return replace(config, n_routed_experts=experts, dspark=dspark)


def _first_layers(config: Config41, layers: int) -> Config41:
    dspark, source = config.dspark, config.candidate_source_layer_id
    if dspark is not None and layers < config.num_hidden_layers:
        dspark = replace(dspark, target_layer_ids=tuple(range(layers))[-len(dspark.target_layer_ids) :])
    engram = config.engram
    if engram is not None:
        kept = tuple(layer for layer in engram.layer_ids if layer < layers)
        engram = replace(engram, layer_ids=kept, num_embeddings=engram.num_embeddings[: len(kept)]) if kept else None
    return replace(
        config,
        num_hidden_layers=layers,
        compress_ratios=config.compress_ratios[:layers] + config.compress_ratios[config.num_hidden_layers :],
        kv_source_layer_ids=tuple(layer for layer in config.kv_source_layer_ids if layer < layers),
        index_source_layer_ids=tuple(layer for layer in config.index_source_layer_ids if layer < layers),
        candidate_source_layer_id=source if source is not None and source < layers else None,
        engram=engram,
        dspark=dspark,
    )


def _with_tables(engram: Engram, least: int) -> Engram:
    moduli = engram_moduli(len(engram.layer_ids), engram.max_ngram_size, engram.n_heads, least)
    return replace(engram, vocab_size=least, num_embeddings=tuple(int(of_layer.sum()) for of_layer in moduli))
