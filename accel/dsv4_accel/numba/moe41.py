"""V4.1's routing and experts, on the kernels of V4's: mirrors dsv4.ops.moe41."""

from collections.abc import Sequence

from dsv4.ops import moe41 as reference
from dsv4.ops.moe import Expert, Routing
from dsv4.ops.moe41 import MX_BLOCK, SMALLEST_SUM
from dsv4.ops.quantise import Weight
from dsv4.ops.types import Array
from dsv4_accel.numba.linear import rounded_product, rounded_products
from dsv4_accel.numba.moe import activated, is_for_kernels, mixture
from dsv4_accel.numba.route import routed


def route41(logits: Array, bias: Array, k: int, score_function: str, scale: float) -> Routing:
    """As dsv4.ops.moe41.route41."""
    routing = routed(logits, bias, k, score_function, scale, SMALLEST_SUM, divides=k > 1)
    return reference.route41(logits, bias, k, score_function, scale) if routing is None else routing


def mx_linear(x: Array, weight: Weight, round_inputs: bool) -> Array:
    """As dsv4.ops.moe41.mx_linear."""
    product = rounded_product(x, weight, MX_BLOCK if round_inputs else 0)
    return reference.mx_linear(x, weight, round_inputs) if product is None else product


def mx_linears(x: Array, weights: Sequence[Weight], round_inputs: bool) -> tuple[Array, ...]:
    """Several such products of one input."""
    products = rounded_products(x, weights, MX_BLOCK if round_inputs else 0)
    return tuple(mx_linear(x, weight, round_inputs) for weight in weights) if products is None else products


def mx_expert(x: Array, share: Array, matrices: Expert, limit: float, round_inputs: bool) -> Array:
    """As dsv4.ops.moe41.mx_expert."""
    if not is_for_kernels(x, share, limit):
        return reference.mx_expert(x, share, matrices, limit, round_inputs)
    gate, up = mx_linears(x, (matrices.w1, matrices.w3), round_inputs)
    return mx_linear(activated(gate, up, share, limit), matrices.w2, round_inputs)


def mx_experts(x: Array, routing: Routing, expert_list: Sequence[Expert], limit: float, round_inputs: bool) -> Array:
    """As dsv4.ops.moe41.mx_experts."""

    def one(x: Array, share: Array, matrices: Expert) -> Array:
        return mx_expert(x, share, matrices, limit, round_inputs)

    total = mixture(x, routing, expert_list, limit, MX_BLOCK if round_inputs else 0, one)
    return reference.mx_experts(x, routing, expert_list, limit, round_inputs) if total is None else total
