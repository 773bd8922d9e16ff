"""The mixture-of-experts sub-layer of V4.1, without hash layers (report §2.1)."""

from collections.abc import Sequence

import numpy as np

from dsv4.model.observe import Observer
from dsv4.model.weights import read_expert
from dsv4.model41.part import Part41
from dsv4.ops import Expert, Routing
from dsv4.ops.types import Array


class MoE41:
    """Sends each token to a few routed experts and to the shared one, and adds their outputs. Source: code: MoE."""

    def __init__(self, part: Part41, count: int, k: int) -> None:
        """count: routed experts of this layer; k: those that a token visits. `gate.bias_vl` is for image tokens."""
        self.config, self.ops, self.rounding, self.name = part.config, part.ops, part.rounding, part.name
        self.k = k
        self.gate_weight = part["gate.weight"]
        self.gate_bias = part["gate.bias"]
        self.experts = part.under("experts.").experts(count)
        self.shared = read_expert(part.weights.under("shared_experts."))

    def __call__(self, x: Array, observe: Observer) -> Array:
        """[B, S, d] -> [B, S, d]"""
        ops, config = self.ops, self.config
        tokens = x.reshape(-1, x.shape[-1])  # [T, d]
        logits = ops.linear(tokens, self.gate_weight)  # [T, E]
        routing = ops.route41(logits, self.gate_bias, self.k, config.scoring_func, config.routed_scaling_factor)
        self.experts.ahead(routing.indices)
        observe(f"{self.name}gate.logits", logits)
        observe(f"{self.name}gate.weights", routing.weights)
        observe(f"{self.name}gate.indices", routing.indices)
        ones = np.ones_like(tokens[:, 0])
        shared = ops.mx_expert(tokens, ones, self.shared, config.swiglu_limit, self.rounding.on)
        output = (self.experts.mixture(self._mix, tokens, routing) + shared).reshape(x.shape)
        observe(f"{self.name}out", output)
        return output

    def _mix(self, tokens: Array, routing: Routing, experts: Sequence[Expert]) -> Array:
        return self.ops.mx_experts(tokens, routing, experts, self.config.swiglu_limit, self.rounding.on)
