"""An even load for the experts: the sequence-wise balance loss, and the routing bias (DeepSeek-V3 §2.1.2).

Both are for layers that choose their experts by score. A hash layer's table says which expert a token visits, and no
loss or bias could change it; not in the report: other trainers leave these layers out, too.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from dsv4.config import Config
from dsv4.learn.losses.real_tokens import real_tokens
from dsv4.ops.moe import expert_scores
from dsv4.ops.types import Array, Ints, Mask


def balance_loss(scores: Array, k: int, mask: Mask) -> Array:
    """Σ_i f_i P_i of each sequence, the mean over the sequences. A perfect balance gives 1, and times α exactly α.

    f_i = E / (k T) · Σ_t [expert i is among the k best by score]; P_i = 1/T · Σ_t score_i / Σ_j score_j, over the T
    real tokens of a sequence. f takes the scores without the bias, whose choice is another one. f is a count and has no
    gradient: that of the loss goes through P alone.
    scores [B, S, E] float, as `expert_scores` gives them; k: experts for each token; mask [B, S]: true for real tokens;
    a sequence that has none adds nothing. Returns a number of the scores' dtype. Source: V3's report (2412.19437),
    equations 17 to 20, without the factor α, which is 0.0001 in the report's §4.2.
    """
    experts = scores.shape[-1]
    tokens = np.maximum(mask.sum(axis=1), 1)[:, None].astype(scores.dtype)  # [B, 1]
    chosen = np.argsort(-scores, axis=-1, kind="stable")[..., :k]  # [B, S, k]
    counted = (chosen[..., None] == np.arange(experts)).any(axis=-2) & mask[..., None]  # [B, S, E]
    frequency = counted.sum(axis=1).astype(scores.dtype) * (experts / k) / tokens  # [B, E]: f
    share = scores / np.sum(scores, axis=-1, keepdims=True)
    probability = np.sum(np.where(mask[..., None], share, 0), axis=1) / tokens  # [B, E]: P
    loss: Array = (frequency * probability).sum() / len(mask)
    return loss


def expert_load(indices: Ints, experts: int, mask: Mask) -> Ints:
    """How many tokens visit each expert. indices [B·S, k] expert numbers; mask [B, S]: true for real tokens.

    Returns [experts] int64. The loads of several batches may be added: the bias follows the load of a whole step.
    """
    return np.bincount(indices[mask.reshape(-1)].reshape(-1), minlength=experts)


def balanced_bias(bias: Array, load: Ints, speed: float) -> Array:
    """b_i + γ · sign(mean load − load_i): an expert with less than its share is chosen more often next time.

    bias [E] float; load [E] of a whole step; speed γ. Returns [E] of the bias's dtype. This comes after the optimiser's
    step, which knows nothing of the bias: it has neither gradient nor decay. Source: V3's report §2.1.2 and §4.2;
    the report's §4.2: γ = 0.001. In training of a few thousand steps γ must be larger, up to 0.05.
    """
    too_little: Array = np.sign(load.mean() - load).astype(bias.dtype)
    return bias + float(speed) * too_little


def balance_losses(config: Config, seen: Mapping[str, Any], mask: Mask) -> dict[str, Array]:
    """`balance_loss` for each layer that chooses experts by score, by the name of its gate; their sum is to be small.

    seen: what one pass from position 0 reported to its observer, with "….ffn.gate.logits" [B·S, E], and the MTP module
    where it was run; mask [B, S]: true for real tokens, as the pass took it.
    """
    losses = {}
    for gate in balanced_gates(config, seen):
        logits = seen[f"{gate}logits"]
        real = real_tokens(mask, gate, len(logits) // len(mask))
        scores = expert_scores(logits, config.scoring_func).reshape(*real.shape, config.n_routed_experts)
        losses[gate] = balance_loss(scores, config.num_experts_per_tok, real)
    return losses


def expert_loads(config: Config, seen: Mapping[str, Any], mask: Mask) -> dict[str, Ints]:
    """`expert_load` for each layer that chooses experts by score, by the name of its gate. Arguments as above.

    It counts the choice that was made, "….ffn.gate.indices" [B·S, k], with the bias.
    """
    loads = {}
    for gate in balanced_gates(config, seen):
        indices: Ints = seen[f"{gate}indices"]
        real = real_tokens(mask, gate, len(indices) // len(mask))
        loads[gate] = expert_load(indices, config.n_routed_experts, real)
    return loads


def balanced_gates(config: Config, seen: Collection[str]) -> Iterator[str]:
    """What the names of the gates begin with that choose by score, such as "layers.3.ffn.gate."."""
    for layer in range(config.num_hidden_layers):
        if not config.is_hash_layer(layer):
            yield f"layers.{layer}.ffn.gate."
    if "mtp.0.ffn.gate.logits" in seen:
        yield "mtp.0.ffn.gate."
