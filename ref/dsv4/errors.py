"""The exceptions that a user can cause, one class per kind of input.

All derive from `DSV4Error`, so that one `except` catches what bad input can raise and nothing else. Each message
is one line that says what was wrong, where (file, tensor, position), what was expected and what was found.
"""

import math
import reprlib
from typing import Any

LONGEST_QUOTE = 120
"""Characters of a foreign text or value in a message."""


class DSV4Error(ValueError):
    """Some input is not what it must be. The command prints the message and exits with 2."""


class ConfigError(DSV4Error):
    """config.json is missing, unreadable, or holds a value that V4 does not know."""


class CheckpointError(DSV4Error):
    """A tensor file is missing, truncated, foreign, or holds a wrong dtype, shape or value."""


class TokenizerError(DSV4Error):
    """tokenizer.json is missing, unreadable, or lacks a token that the chat format needs."""


class ChatError(DSV4Error):
    """Messages that cannot be rendered, or a completion that is not well formed."""


class PromptError(DSV4Error):
    """Token ids out of range, an empty prompt, or a prompt longer than the model's context."""


class TextError(DSV4Error):
    """A text to learn from that is missing, empty, shorter than a sequence, or in no form that is known."""


class TrainingError(DSV4Error):
    """Training that cannot go on: a loss that is no number, a spike beyond repair, or a run of something else."""


class BackendError(DSV4Error):
    """A backend that does not exist or cannot run on this machine."""


class SettingError(DSV4Error):
    """An option that is out of range or unknown."""


def quoted(found: object) -> str:
    """A value as a message quotes it: its repr, without the middle where that is long."""
    return _cut(_BRIEF.repr(found))


def shortened(text: str) -> str:
    """A foreign text for a message, on one line and cut where it is long."""
    return _cut(" ".join(text.split()))


def reason(error: BaseException) -> str:
    """What an exception from elsewhere says: the system's words where there are some, else its own."""
    return shortened(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…"


class _Brief(reprlib.Repr):
    """repr that abbreviates a value without building the whole text first."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist = 2, 4, 8
        self.maxstring = self.maxother = 100

    def repr_int(self, value: int, level: int) -> str:
        """Python refuses to write out integers of thousands of digits."""
        digits = int(value.bit_length() * math.log10(2)) + 1
        return repr(value) if digits <= 40 else f"an integer of about {digits} digits"

    def repr_instance(self, value: Any, level: int) -> str:
        """What has line breaks in its repr, as arrays have, goes on one line."""
        return " ".join(super().repr_instance(value, level).split())


_BRIEF = _Brief()
