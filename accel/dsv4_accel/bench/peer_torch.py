"""torch as a contestant: its own functions where it has them, and the plain way to write an operation where not."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from dsv4.errors import BackendError
from dsv4.ops.types import Array, Ints

Call = Callable[[], object]


class Torch:
    """torch on the CPU, in float32."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.version = str(torch.__version__)

    def tensor(self, array: Array | Ints) -> Any:
        """The array as a tensor on the same memory."""
        return self.torch.from_numpy(array)

    def linear(self, x: Array, dense: Array, copies: int) -> list[tuple[Any, Any]]:
        """The arguments of `product`: x [M, in] with copies of the matrix [out, in], to be used in turn."""
        tokens, matrix = self.tensor(x), self.tensor(dense)
        return [(tokens, matrix.clone()) for _ in range(copies)]

    def linear_in_bfloat16(self, x: Array, dense: Array, copies: int) -> list[tuple[Any, Any]]:
        """As `linear`, with both in bfloat16."""
        return [(x.bfloat16(), matrix.bfloat16()) for x, matrix in self.linear(x, dense, copies)]

    def product(self, x: Any, matrix: Any) -> Any:
        """x @ matrix.T of tensors."""
        return self.torch.nn.functional.linear(x, matrix)

    def top_k(self, scores: Array, visible: Ints, k: int) -> Call:
        """The k largest along the last axis, where all entries are visible."""
        given = self.tensor(scores)
        return lambda: self.torch.topk(given, k)

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Call:
        """The normalisation of the last axis."""
        given, factors = self.tensor(x), self.tensor(weight)
        return lambda: self.torch.nn.functional.rms_norm(given, factors.shape, factors, eps)

    def index_scores(self, queries: Array, keys: Array, weights: Array) -> Callable[[], Any]:
        """Shapes as for `dsv4.ops.index_scores`, for one sequence."""
        q, k, w = (self.tensor(array) for array in (queries[0], keys[0], weights[0]))
        return lambda: w[:, None] @ self.torch.relu(q @ k.T)  # [S, 1, h] @ [S, h, T]

    def index_top_k(self, queries: Array, keys: Array, weights: Array, visible: Ints, k: int) -> Call:
        """The k entries with the highest scores, where all are visible."""
        score = self.index_scores(queries, keys, weights)
        return lambda: self.torch.topk(score(), k).indices

    def attention(
        self, queries: Array, window: Array, window_index: Ints, entries: Array, entry_index: Ints, sink: Array
    ) -> Call:
        """Shapes as for `dsv4.ops.sparse_attention`, for one sequence whose indices all name something."""
        torch, scale = self.torch, queries.shape[-1] ** -0.5
        q, near, near_index, far, far_index = map(
            self.tensor, (queries[0], window[0], window_index[0], entries[0], entry_index[0])
        )
        sinks = self.tensor(sink)[None, :, None].expand(len(q), -1, 1)

        def attend() -> Any:
            kv = torch.cat([near[near_index], far[far_index]], dim=1)  # [S, K, c]
            logits = torch.cat([q @ kv.transpose(1, 2) * scale, sinks], dim=-1)  # [S, H, K + 1]
            return torch.softmax(logits, dim=-1)[..., :-1] @ kv

        return attend

    def sinkhorn(self, logits: Array, iterations: int, eps: float) -> Callable[[], Any]:
        """logits [n, n, T]: tokens last, so that sums run along whole rows."""
        given = self.tensor(logits)

        def normalise() -> Any:
            comb = self.torch.softmax(given, dim=1) + eps
            comb = comb / (comb.sum(0, keepdim=True) + eps)
            for _ in range(iterations - 1):
                comb = comb / (comb.sum(1, keepdim=True) + eps)
                comb = comb / (comb.sum(0, keepdim=True) + eps)
            return comb

        return normalise


def open_peer() -> Torch:
    """torch, or BackendError where it cannot be imported."""
    try:
        return Torch(import_module("torch"))
    except (ImportError, OSError) as error:
        raise BackendError(f"torch: not compared, {error}") from error
