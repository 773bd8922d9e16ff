"""How much of a pass a page has room for: everything of a small model, a choice of a large one.

At 256 tokens a page stays below 5 MB whatever the model: the more layers and heads there are, the fewer shares of each
query are kept, and neighbouring heads are shown together.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.explain.plan import plan

KEY_BYTES, SUM_BYTES, SCORE_BYTES = 1_600_000, 600_000, 700_000
"""What shares, sums of shares and indexer scores may take before they are deflated, each in a text of 256 tokens."""

LEAST_KEYS = 16
"""Shares of a query that are kept in any case."""

FINE = 4096
"""Up to so many tokens in all layers together there are 16 bits for each number, else 8."""


@dataclass(frozen=True)
class Room:
    """What of a pass is kept."""

    keys: int
    """The largest shares of each query."""
    groups: int
    """Of how many groups of neighbouring heads the shares are kept: a divisor of the number of heads."""
    sums: int
    """Of how many groups of heads it is kept how much goes to the window, to entries and to the sink."""
    scores: int
    """Entries for each query whose indexer scores are kept: those chosen first, then the best of those refused."""
    experts: int
    """Experts for each token whose scores are kept: those chosen first, then the next best."""
    bits: int
    """8 or 16, for numbers that are not whole."""

    @classmethod
    def of(cls, config: Config | Config41, length: int) -> "Room":
        """What there is room for, of `length` tokens."""
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        choosing = [place.ratio for place in plan(config) if place.chooses]
        indexed, entries = max(1, len(choosing)), length // min(choosing, default=length)
        per_layer = layers * min(length, 256)  # a longer text has a larger page
        groups = _largest(heads, lambda count: per_layer * (count + 1) * LEAST_KEYS * 3 <= KEY_BYTES)
        sums = _largest(heads, lambda count: per_layer * (count + 1) * 3 <= SUM_BYTES)
        most = config.sliding_window + max(config.index_topk, length // 128)
        keys = min(most, max(LEAST_KEYS, KEY_BYTES // (layers * length * (groups + 1) * 4)))
        return cls(
            keys=keys,
            groups=groups,
            sums=sums,
            scores=min(max(1, entries), max(LEAST_KEYS, SCORE_BYTES // (4 * indexed * min(length, 1024)))),
            experts=min(config.n_routed_experts, max(2 * config.num_experts_per_tok, 8)),
            bits=16 if layers * min(length, 1024) <= FINE else 8,
        )


def _largest(heads: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor of the number of heads that fits, and 1 where none does."""
    return max(count for count in range(1, heads + 1) if heads % count == 0 and (count == 1 or fits(count)))
