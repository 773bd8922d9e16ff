"""Vector-Jacobian products of the operations, derived by hand and mirrored to `dsv4.ops` file by file.

Each function takes its operation's own arguments, as NumPy arrays with dense weights, and gives the operation's result
and its pullback: `result, pull = vjp.linear(x, weight)`, then `d_x, d_weight = pull(d_result)`. The pullback takes the
loss's gradient by the result, shaped as the result is, and returns a named tuple with the gradient by each argument
that has one, `d_` before the argument's name, in the order, shape and dtype of the arguments. Nothing is rounded: the
quantisers are not differentiated. Shapes are not checked again, and what `pull` needs must not be written to before.
"""

from collections.abc import Callable
from typing import Any

from dsv4.learn.vjp.attention import sparse_attention
from dsv4.learn.vjp.compressor import compress, overlap
from dsv4.learn.vjp.hadamard import hadamard
from dsv4.learn.vjp.indexer import index_scores
from dsv4.learn.vjp.linear import embedding, grouped_linear, linear
from dsv4.learn.vjp.mhc import mhc_collapse, mhc_head_weights, mhc_mix, mhc_weights
from dsv4.learn.vjp.moe import expert, experts
from dsv4.learn.vjp.norm import rms_norm, rms_scale
from dsv4.learn.vjp.rope import rope

VJPS: dict[str, Callable[..., Any]] = {
    "embedding": embedding,
    "linear": linear,
    "grouped_linear": grouped_linear,
    "rms_norm": rms_norm,
    "rms_scale": rms_scale,
    "rope": rope,
    "hadamard": hadamard,
    "compress": compress,
    "overlap": overlap,
    "index_scores": index_scores,
    "sparse_attention": sparse_attention,
    "mhc_weights": mhc_weights,
    "mhc_head_weights": mhc_head_weights,
    "mhc_collapse": mhc_collapse,
    "mhc_mix": mhc_mix,
    "experts": experts,
    "expert": expert,
}
"""The functions by the names of their operations in `Ops`."""

__all__ = ["VJPS", *VJPS]
