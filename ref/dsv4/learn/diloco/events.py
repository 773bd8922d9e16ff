"""What happens in virtual time."""

from typing import Any, NamedTuple


class Stepped(NamedTuple):
    """A learner's step ends."""

    learner: int
    life: int
    seconds: float


class Arrived(NamedTuple):
    """A message is there."""

    to: int | str
    life: int
    """Of the receiver when it was sent: what has been killed since does not get it."""
    message: Any


class Copied(NamedTuple):
    """A peer's state is there."""

    learner: int
    state: Any
    """None where there was no peer."""


class Due(NamedTuple):
    """A round may open (None), close, or has to be announced again."""

    what: str
    round: int | None
    life: int


class Started(NamedTuple):
    """Somebody who was killed is started again."""

    who: int | str
