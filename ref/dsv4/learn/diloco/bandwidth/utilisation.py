"""Compute utilisation: which share of its time a site computes, given the network between sites."""

from dataclasses import dataclass, replace

from dsv4.arguments import integer, number
from dsv4.errors import SettingError
from dsv4.learn.diloco.bandwidth.dag import Node, finish_times

GIGA = 1e9


@dataclass(frozen=True)
class Job:
    """A model in training, and how its sites exchange what they learn. Defaults: data parallel, every step."""

    parameters: float
    """N."""
    step_seconds: float
    """What a step takes while the network is no hindrance."""
    bits: float
    """Bits that a site sends for each parameter that is reduced, the pattern of the reduction included."""
    layers: int
    """L, all of one size."""
    inner_steps: int = 1
    """H: steps between two reductions of the same layer; 1 is data parallel."""
    fragments: int = 1
    """P: parts in which the layers are reduced, one part every H/P steps; more than 1 is streaming."""
    delay: int = 0
    """τ: steps that go on without the result of a reduction; more than 0 is overlapped."""

    def __post_init__(self) -> None:
        for name in ("parameters", "step_seconds", "bits"):
            if number(name, getattr(self, name)) <= 0:
                raise SettingError(f"{name}: expected a number above 0, found {getattr(self, name)}")
        integer("layers", self.layers, least=1, most=4096)
        integer("inner_steps", self.inner_steps, least=1, most=4096)
        integer("fragments", self.fragments, least=1, most=min(self.layers, self.inner_steps))
        integer("delay", self.delay, most=self.inner_steps)
        if self.inner_steps % self.fragments:
            expected = f"a multiple of the {self.fragments} fragments"
            raise SettingError(f"inner_steps: expected {expected}, found {self.inner_steps}")


def utilisation(job: Job, gigabits: float) -> float:
    """The share of time in which a site computes, from 0 to 1, once training runs evenly.

    gigabits: what a site can send in a second, in units of 10⁹ bits. Two rounds of H steps are laid out, or three where
    results are waited for later, and the last one is measured.
    """
    rounds = 3 if job.delay else 2
    nodes, ends = _laid_out(job, gigabits, rounds * job.inner_steps + 1)
    done = finish_times(nodes)
    first, last = (done[ends[step * job.inner_steps]] for step in (rounds - 1, rounds))
    return job.inner_steps * job.step_seconds / (last - first)


def needed(job: Job, target: float, tolerance: float = 1e-4) -> float:
    """The bandwidth in Gbit/s from which on the utilisation reaches a target, within a relative tolerance.

    target: from above 0 to below 1. Raises SettingError for another one.
    """
    if not 0 < number("target", target) < 1:
        raise SettingError(f"target: expected a number between 0 and 1, found {target}")
    low, high = 1e-3, 1e-3
    while utilisation(job, high) < target:
        low, high = high, 4 * high
    while high > low * (1 + tolerance):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if utilisation(job, middle) >= target else (middle, high)
    return high


def data_parallel(job: Job) -> Job:
    """The same model with a reduction of everything in every step."""
    return replace(job, inner_steps=1, fragments=1, delay=0)


def _laid_out(job: Job, gigabits: float, steps: int) -> tuple[list[Node], list[int]]:
    """The nodes of so many steps, 4L − 1 in one that reduces all, and where the first forward node of each step is.

    Forward: a node for each layer, a third of the step. Backward: for each layer from the last, the gradients of its
    weights, then, except for the first layer, those of its inputs. Network: a layer's reduction once its gradients are
    there. A layer's forward node waits for its reduction of 1 + τ steps before.
    """
    layers = job.layers
    forward = job.step_seconds / 3 / layers
    backward = job.step_seconds * 2 / 3 / (2 * layers - 1)
    reduction = job.parameters * job.bits / layers / (gigabits * GIGA)
    nodes: list[Node] = []
    firsts: list[int] = []
    reduced: dict[tuple[int, int], int] = {}  # by step and layer
    for step in range(steps):
        firsts.append(len(nodes))
        for layer in range(layers):
            wanted = reduced.get((step - 1 - job.delay, layer))
            nodes.append(Node("compute", forward, () if wanted is None else (wanted,)))
        for layer in reversed(range(layers)):
            nodes.append(Node("compute", backward))
            if _is_due(job, step, layer):
                reduced[step, layer] = len(nodes)
                nodes.append(Node("network", reduction, (len(nodes) - 1,)))
            if layer > 0:
                nodes.append(Node("compute", backward))
    return nodes, firsts


def _is_due(job: Job, step: int, layer: int) -> bool:
    """Whether a layer is reduced after a step: the fragments in turn, each with every P-th layer."""
    turn, rest = divmod(step + 1, job.inner_steps // job.fragments)
    return rest == 0 and layer % job.fragments == turn % job.fragments
