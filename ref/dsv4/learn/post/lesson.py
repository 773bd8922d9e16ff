"""What a step of post-training learns from: parts of a batch, each of which says what its losses are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from dsv4.learn.learner import Learner
from dsv4.learn.trainable import TrainableModel
from dsv4.ops.types import Array


class Part(Protocol):
    """Some rows of a batch."""

    @property
    def share(self) -> float:
        """What its losses and gradients count in the sum over all parts of a step."""

    @property
    def tokens(self) -> int:
        """How many tokens are learned from."""

    def losses(self, model: TrainableModel) -> dict[str, Any]:
        """The losses by name, of one pass of the model: Tensors of one number each."""


class Lesson(Protocol):
    """Where the parts come from."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Of each loss in the sum, by name."""

    def parts(self, learner: Learner) -> Iterator[Sequence[Part]]:
        """The parts of the learner's next step, in runs that may be computed beside each other."""

    def measures(self) -> dict[str, float]:
        """What can be said of the step whose parts were asked for last, by name."""

    def state(self) -> dict[str, Array]:
        """What belongs to the state of a run besides the learner's, by name."""

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Go on where the lesson of `state` stood."""

    def forget(self, step: int) -> None:
        """Nobody goes back to steps before this one any more: what was kept on disk for them is not needed."""
