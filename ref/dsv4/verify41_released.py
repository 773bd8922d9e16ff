"""The decode loop as V4.1 was released, with its stale index keys, so that a run can be held against that as well.

In the released loop one variable hands index keys from the layers that make them to those that choose, and it changes
only in a step that completes an entry. So in every other step, sources of ratio 2 score their queries against keys of
the last source, from the step before. Prefill does not. This model does what prefill does, in every step.
"""

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from dsv4.errors import SettingError
from dsv4.model.observe import Observer
from dsv4.model.rows import Entries
from dsv4.model.span import Span
from dsv4.model41.block import Block41
from dsv4.model41.cache import SourceCache
from dsv4.model41.indexer import Indexer41
from dsv4.model41.model import Model41
from dsv4.model41.source import KVSource, Published
from dsv4.ops.types import Array


def with_stale_keys(model: Model41) -> Model41:
    """The model as the released decode loop runs it, for one sequence; it shares its weights with the other.

    Raises SettingError for a model in a bounded memory, since all layers are held. Source: code: `shared_attn.index_k`,
    which Indexer assigns where Compressor has returned an entry.
    """
    if model.store is not None:
        raise SettingError("stale keys: expected a model without a bound of its memory, found one with a bound")
    handed, changed = HandedOn(), copy(model)
    changed.layers = [_with_stale_keys(block, handed) for block in model.layers]
    return changed


@dataclass
class HandedOn:
    """The one variable: the keys of the source that has completed an entry last."""

    keys: Entries | None = None


@dataclass(frozen=True)
class ReleasedSource:
    """A source that hands its keys on only where it completes an entry."""

    source: KVSource
    handed: HandedOn

    def __call__(self, x: Array, span: Span, cache: SourceCache, observe: Observer) -> None:
        """As in `KVSource`."""
        self.source(x, span, cache, observe)
        if span.starts[0] // cache.ratio < span.ends[0] // cache.ratio:
            self.handed.keys = cache.keys


@dataclass(frozen=True)
class ReleasedIndexer:
    """An indexer that scores the keys that were handed on last, whosever they are."""

    indexer: Indexer41
    handed: HandedOn

    def __call__(self, x: Array, qr: Array, span: Span, published: Published, observe: Observer) -> None:
        """As in `Indexer41`."""
        assert published.source is not None
        keys = published.source.keys if self.handed.keys is None else self.handed.keys
        seen = replace(published, source=replace(published.source, keys=keys))
        self.indexer(x, qr, span, seen, observe)
        published.chosen, published.pool = seen.chosen, seen.pool


def _with_stale_keys(block: Block41, handed: HandedOn) -> Block41:
    changed = copy(block)
    attn: Any = copy(block.attn)
    attn.source = attn.source and ReleasedSource(attn.source, handed)
    attn.indexer = attn.indexer and ReleasedIndexer(attn.indexer, handed)
    changed.attn = attn
    return changed
