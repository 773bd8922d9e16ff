"""The mixture-of-experts sub-layer (report §2.1)."""

from collections.abc import Sequence
from typing import Protocol

from dsv4.model.observe import Observer
from dsv4.model.part import Part
from dsv4.model.weights import read_expert
from dsv4.ops import Expert, Routing
from dsv4.ops.types import Array, Ints


class MoE:
    """Sends each token to a few routed experts and to the shared one, and adds their outputs."""

    def __init__(self, part: Part, by_id: bool) -> None:
        """by_id: whether this is a hash layer, whose experts come from a table of token ids."""
        self.config, self.ops, self.rounding, self.name = part.config, part.ops, part.rounding, part.name
        gate = part.under("gate.")
        self.gate_weight = gate["weight"]
        self.gate: Gate = (HashGate if by_id else TopKGate)(gate)
        self.experts = part.under("experts.").experts(part.config.n_routed_experts)
        self.shared = read_expert(part.weights.under("shared_experts."))

    def __call__(self, x: Array, ids: Ints, observe: Observer) -> Array:
        """[B, S, d], token ids [B, S] -> [B, S, d]"""
        ops, limit = self.ops, self.config.swiglu_limit
        tokens = x.reshape(-1, x.shape[-1])  # [T, d]
        logits = ops.linear(tokens, self.gate_weight)  # [T, E]
        routing = self.gate(logits, ids.reshape(-1))
        self.experts.ahead(routing.indices)
        observe(f"{self.name}gate.logits", logits)
        observe(f"{self.name}gate.weights", routing.weights)
        observe(f"{self.name}gate.indices", routing.indices)
        routed = self.experts.mixture(self._mix, tokens, routing)
        output = ops.add_expert(routed, tokens, self.shared, limit, self.rounding.on).reshape(x.shape)
        observe(f"{self.name}out", output)
        return output

    def expect(self, ids: Ints) -> None:
        """Tokens with these ids [B, S] will come: a hash layer knows its experts before it begins."""
        if isinstance(self.gate, HashGate):
            self.experts.ahead(self.gate.tid2eid[ids])

    def _mix(self, tokens: Array, routing: Routing, experts: Sequence[Expert]) -> Array:
        return self.ops.experts(tokens, routing, experts, self.config.swiglu_limit, self.rounding.on)


class Gate(Protocol):
    """Chooses experts, and says how much each counts."""

    def __call__(self, logits: Array, ids: Ints) -> Routing:
        """From logits [T, E] of the tokens with these ids [T]."""


class TopKGate:
    """Routing by score: the k best after adding a learned bias, weighted without it."""

    def __init__(self, part: Part) -> None:
        self.config, self.ops = part.config, part.ops
        self.bias = part["bias"]

    def __call__(self, logits: Array, ids: Ints) -> Routing:
        """As in `Gate`; the ids do not matter here."""
        config = self.config
        k, scale = config.num_experts_per_tok, config.routed_scaling_factor
        return self.ops.route(logits, self.bias, k, config.scoring_func, scale)


class HashGate:
    """Routing by token id: a table names the experts, and their scores weigh them."""

    def __init__(self, part: Part) -> None:
        self.config, self.ops = part.config, part.ops
        self.tid2eid = part["tid2eid"]

    def __call__(self, logits: Array, ids: Ints) -> Routing:
        """As in `Gate`."""
        config = self.config
        return self.ops.route_by_id(logits, self.tid2eid[ids], config.scoring_func, config.routed_scaling_factor)
