"""NumPy's backend made batch-invariant, slowly: what adds many numbers is called for each token by itself.

So what is promised of such backends can be tested where there is no compiled one.
"""

import numpy as np

from dsv4.ops import Ops, Routing
from dsv4.ops.mhc import MhcWeights


def rows_of(x, channels=1):
    """[..., channels] -> tokens that each stand alone, [1, channels]; channels: how many axes they have."""
    return x.reshape(-1, 1, *x.shape[x.ndim - channels :])


class OneByOne(Ops):
    """As `Ops`."""

    name = "one by one"
    batch_invariant = ("float32", "float64")

    def linear(self, x, weight, round_inputs=False):
        found = [Ops.linear(row, weight, round_inputs) for row in rows_of(x)]
        return np.concatenate(found).reshape(*x.shape[:-1], weight.shape[0])

    def linears(self, x, weights, round_inputs=False):
        return tuple(self.linear(x, weight, round_inputs) for weight in weights)

    def hadamard(self, x):
        return np.concatenate([Ops.hadamard(row) for row in rows_of(x)]).reshape(x.shape)

    def experts(self, x, routing, *others):
        weights, indices = (rows_of(part) for part in routing)
        parts = zip(rows_of(x), weights, indices, strict=True)
        return np.concatenate([Ops.experts(row, Routing(share, index), *others) for row, share, index in parts])

    def expert(self, x, share, *others):
        return np.concatenate(
            [Ops.expert(row, one, *others) for row, one in zip(rows_of(x), share[:, None], strict=True)]
        )

    def mhc_weights(self, streams, *others):
        found = [Ops.mhc_weights(token[:, None], *others) for token in rows_of(streams, 2)]
        lead = streams.shape[:2]
        return MhcWeights(
            *(np.concatenate(part).reshape(*lead, *part[0].shape[2:]) for part in zip(*found, strict=True))
        )

    def mhc_head_weights(self, streams, *others):
        found = [Ops.mhc_head_weights(token[:, None], *others) for token in rows_of(streams, 2)]
        return np.concatenate(found).reshape(streams.shape[:3])

    def sparse_attention(self, queries, window, window_index, entries, entry_index, attn_sink):
        """Only of the keys that a query has: how many the batch has room for must not show."""
        found = np.zeros_like(queries)
        for b, s in np.ndindex(queries.shape[:2]):
            named = [index[b : b + 1, s : s + 1][:, :, index[b, s] >= 0] for index in (window_index, entry_index)]
            query = queries[b : b + 1, s : s + 1]
            found[b, s] = Ops.sparse_attention(
                query, window[b : b + 1], named[0], entries[b : b + 1], named[1], attn_sink
            )[0, 0]
        return found

    def index_top_k(self, queries, keys, weights, visible, k):
        found = np.full((*visible.shape, min(k, keys.shape[1])), -1, np.int64)
        for b, s in np.ndindex(visible.shape):
            if seen := visible[b, s]:
                one = (slice(b, b + 1), slice(s, s + 1))
                best = Ops.index_top_k(queries[one], keys[b : b + 1, :seen], weights[one], visible[one], k)[0, 0]
                found[b, s, : len(best)] = best
        return found
