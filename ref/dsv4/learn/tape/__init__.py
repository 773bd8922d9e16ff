"""A tape: arrays that remember what was done to them, so that the reference itself can be differentiated.

    from dsv4.learn import tape

    x = tape.leaf(np.ones(3))
    loss = np.sum(np.exp(x) * x)
    [d_x] = tape.gradients(loss, [x])

`Tensor` answers NumPy's protocols; each function of NumPy that the reference calls has one rule, its vector-Jacobian
product, and any other one is an error that names it. `TapeOps` is the backend on which a model's arrays are Tensors;
`DerivedOps` has products derived by hand behind the operations that a table names. `checkpointed` forgets, and computes
again.
"""

from dsv4.learn.tape.checkpointed import checkpointed
from dsv4.learn.tape.derived_ops import DerivedOps, Vjp
from dsv4.learn.tape.graph import Node
from dsv4.learn.tape.sweep import gradients
from dsv4.learn.tape.tape_ops import TapeOps, leaf, straight_through, without_gradient
from dsv4.learn.tape.tensor import RULES, Tensor, untaped

__all__ = [
    "RULES",
    "DerivedOps",
    "Node",
    "TapeOps",
    "Tensor",
    "Vjp",
    "checkpointed",
    "gradients",
    "leaf",
    "straight_through",
    "untaped",
    "without_gradient",
]
