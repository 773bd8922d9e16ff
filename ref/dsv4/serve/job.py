"""What is asked of the engine, and what it says while it works: plain data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from dsv4.ops.types import Mask


class Constraint(Protocol):
    """What the next token may be, for an answer in a given form. A constraint belongs to one job alone."""

    def allowed(self) -> Mask | None:
        """[vocab] true for each token that may come next, at least one; None: all of them."""

    def accept(self, token: int) -> None:
        """This token was chosen, and the next one is to come. It is one of those that were allowed, or a stop id."""


@dataclass(frozen=True)
class Job:
    """A prompt to continue. The settings mean what they mean for `dsv4.generate`."""

    ids: tuple[int, ...]
    """Token ids of the prompt, at least one."""
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    """None: other draws every time."""
    stop_ids: frozenset[int] = frozenset()
    """The answer ends with the first of these, which is still given. Empty: no token ends it."""
    top_logprobs: int | None = None
    """None: no log-probabilities; n: those of the chosen token and of the n most likely ones."""
    prompt_logprobs: bool = False
    """Whether `Prefilled` has the log-probabilities of the prompt's tokens, each with `top_logprobs` likely ones."""
    constraint: Constraint | None = None
    speculative: bool = False
    """Whether what the checkpoint has to draft with drafts for this job."""


@dataclass(frozen=True)
class LogProb:
    """How likely the model held a token, whatever the temperature, the nucleus and the constraint."""

    token: int
    logprob: float
    """The natural logarithm of its probability: `dsv4.text.sampling.log_probabilities`."""
    top: tuple[tuple[int, float], ...]
    """The most likely tokens with theirs, the likeliest first, of equals the lower id first."""


@dataclass(frozen=True)
class Prefilled:
    """The prompt is read."""

    cached: int
    """How many of its tokens were not computed again."""
    prompt: tuple[LogProb | None, ...]
    """One for each of its tokens, None for the first; empty if the job did not ask for them."""


@dataclass(frozen=True)
class Chosen:
    """One more token."""

    token: int
    logprob: LogProb | None
    """None if the job did not ask for it."""
    accepted: bool
    """Whether it was drafted, and kept."""


Reason = Literal["stop", "length", "context", "cancelled", "time", "error"]
"""Why a job ended: with a stop id, at max_new_tokens, where the model's context ends, because it was cancelled, because
its time was over, or because of an error."""


@dataclass(frozen=True)
class Ended:
    """The last event of every job."""

    reason: Reason
    tokens: int
    """How many were given."""
    drafted: int
    """How many drafts were checked."""
    accepted: int
    """How many of them were kept."""
    message: str = ""
    """What went wrong, in one line, where something did."""


Event = Prefilled | Chosen | Ended
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Figures:
    """What an engine does and has done since it began."""

    running: int
    """Jobs whose prompt is being read or whose answer is being made."""
    waiting: int
    tokens: int
    """Tokens of answers."""
    prompt_tokens: int
    """Prompt tokens that the model has read."""
    cached_tokens: int
    """Prompt tokens that need not be read, because a stored prefix held them."""
    prefix_bytes: int
    prefix_entries: int
    steps: int
    """Passes of the model, chunks of prompts included."""
    drafted: int
    accepted: int
    ended: dict[str, int]
    """Jobs that ended, by reason; every reason is there."""
