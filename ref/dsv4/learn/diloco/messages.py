"""What learners and the syncer say to each other: plain data, whoever carries it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dsv4.learn.diloco.few_bits import Packed, pack, unpack
from dsv4.ops.types import Array


class Request(NamedTuple):
    """From the syncer to all learners: a round has begun, say what you have learnt of its fragment."""

    round: int
    fragment: int


class Update(NamedTuple):
    """From a learner: how a fragment differs from what the syncer sent."""

    learner: int
    round: int
    fragment: int
    version: int
    """Of the fragment that the differences start from."""
    differences: Mapping[str, Packed | Array]
    """Δ by the tensor's name, in a few bits or as it is."""
    tokens: int
    steps: int
    """Both since that fragment came."""


class Fragment(NamedTuple):
    """From the syncer to a learner: a whole fragment, whatever the learner has of it."""

    fragment: int
    version: int
    """How many outer steps it has had."""
    tensors: Mapping[str, Array]


class Change(NamedTuple):
    """From the syncer to all learners: how a fragment differs from the one before, which they have."""

    fragment: int
    version: int
    """After the change; before it, one less."""
    differences: Mapping[str, Packed | Array]
    """What is to be added, by the tensor's name, in a few bits or as it is."""


class Progress(NamedTuple):
    """From a learner after each inner step: it is alive, and how fast it is."""

    learner: int
    step: int
    """Inner steps that its model has had."""
    seconds: float
    """That the last one took."""


def sendable(name: str, difference: Array, bits: int) -> Packed | Array:
    """A tensor's difference as it is sent: in so many bits, or as it is where they are 32.

    Router biases are sent as they are: they move by a fixed amount, and are few.
    """
    return pack(difference, bits) if bits < 32 and not name.endswith("gate.bias") else difference


def unpacked(difference: Packed | Array) -> Array:
    """A difference as float32, however it was sent."""
    return unpack(difference) if isinstance(difference, Packed) else difference


def changed(tensors: Mapping[str, Array], change: Change) -> dict[str, Array]:
    """The fragment's tensors after a change, float32.

    Learners and the syncer compute it alike, so they have the same bits, whatever was lost in rounding.
    """
    return {name: tensors[name] + unpacked(difference) for name, difference in change.differences.items()}


def size_of(message: Any) -> int:
    """Bytes of its arrays; what stands beside them is too little to count."""
    tensors = getattr(message, "differences", None) or getattr(message, "tensors", None) or {}
    return sum(tensor.nbytes for tensor in tensors.values())
