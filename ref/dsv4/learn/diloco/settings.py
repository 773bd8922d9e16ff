"""What a run of Decoupled DiLoCo is made by, beside the recipe of its learners."""

from dataclasses import dataclass
from typing import Literal

from dsv4.arguments import integer, number
from dsv4.errors import SettingError, quoted


@dataclass(frozen=True)
class Settings:
    """Learners, fragments, and how they are merged. The constructor raises SettingError, which names the value.

    Defaults: P = H = 24, τ = 2 and K = 1 are Decoupled DiLoCo's (2604.21428, second-hand); η .7 and μ .9 are DiLoCo's
    (2311.08105), Streaming DiLoCo has η .4; γ is not published: .9 is ours.
    """

    learners: int = 2
    """M: replicas of the model, each with its own data."""
    fragments: int = 24
    """P: parts of the model, each of which is merged by itself."""
    inner_steps: int = 24
    """H: steps between two merges of the same fragment; a multiple of P."""
    delay: int = 2
    """τ: steps that a fragment may be on its way, and how many rounds may be open at a time."""
    quorum: int = 1
    """K: learners for which a round waits."""
    grace: float = 0.9
    """γ: the share of the time that is left after the quorum in which a round waits for the others."""
    outer_learning_rate: float = 0.7
    """η of the outer step."""
    outer_momentum: float = 0.9
    """μ of the outer step."""
    bits: Literal[2, 4, 32] = 4
    """Of each number that learners send: integers of two or four bits, or float32."""
    return_bits: Literal[2, 4, 32] = 4
    """Of each number that the syncer sends: of a fragment's change, or with 32 the whole fragment in float32."""
    warm_start: int = 0
    """Steps that all do as one, with the batches of all, before they part: data parallelism."""
    merge: Literal["radial", "mean"] = "radial"
    """How differences of learners become one: `merge.radial_mean`, the embedding's aside, or `merge.weighted_mean`."""

    def __post_init__(self) -> None:
        integer("learners", self.learners, least=1, most=1024)
        integer("fragments", self.fragments, least=1, most=2**20)
        integer("inner_steps", self.inner_steps, least=1, most=2**20)
        if self.inner_steps % self.fragments:
            expected = f"a multiple of the {self.fragments} fragments"
            raise SettingError(f"inner_steps: expected {expected}, found {self.inner_steps}")
        integer("delay", self.delay, least=1, most=self.inner_steps)
        integer("quorum", self.quorum, least=1, most=self.learners)
        integer("warm_start", self.warm_start, least=0, most=2**40)
        for name, value, most in (
            ("grace", self.grace, 1.0),
            ("outer_learning_rate", self.outer_learning_rate, 10.0),
            ("outer_momentum", self.outer_momentum, 1.0),
        ):
            if not 0 <= number(name, value) <= most:
                raise SettingError(f"{name}: expected a number from 0 to {most:g}, found {value}")
        bits = 2, 4, 32
        for name, known in (("bits", bits), ("return_bits", bits), ("merge", ("radial", "mean"))):
            found = getattr(self, name)
            if type(found) is not type(known[0]) or found not in known:
                raise SettingError(f"{name}: expected one of {', '.join(map(str, known))}, found {quoted(found)}")

    @property
    def numbers(self) -> range:
        """The learners' numbers."""
        return range(self.learners)

    @property
    def steps_per_round(self) -> int:
        """H / P: after so many steps of the quickest learner, the next fragment is due."""
        return self.inner_steps // self.fragments
