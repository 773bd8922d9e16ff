"""How much to think: three efforts, each with a window of its own and a price for length (report §5.1.1).

The report trains each effort with another length penalty and another context window, and prints no formula. The one
here is ours: an answer of n tokens in a window of W costs `penalty · n / W`.
"""

from dataclasses import dataclass
from typing import Any

from dsv4.errors import SettingError, quoted
from dsv4.learn.sections import check_numbers

DEFAULTS = {"non-think": (32, 0.3), "high": (64, 0.1), "max": (96, 0.0)}
"""The window, and the penalty, of each of April's modes: the more thought is wanted, the cheaper it is."""

MODES = tuple(DEFAULTS)


@dataclass(frozen=True)
class Effort:
    """A mode of the chat format, and what an answer in it may cost."""

    mode: str
    """ "non-think", "high" or "max"."""
    window: int
    """The most tokens of an answer, thoughts included; one that needs more is cut, and worth nothing."""
    penalty: float
    """What an answer costs that fills its window."""
    worlds: tuple[str, ...] = ()
    """The worlds that are asked in it, where a stage has efforts for some of its worlds alone; else none."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise SettingError(f"effort: mode: expected one of {', '.join(MODES)}, found {quoted(self.mode)}")
        check_numbers(self, f"effort {self.mode}", "", ("penalty",))

    @classmethod
    def named(cls, mode: Any) -> "Effort":
        """The default of a mode. Raises SettingError for another."""
        if mode not in MODES:
            raise SettingError(f"effort: mode: expected one of {', '.join(MODES)}, found {quoted(mode)}")
        return cls(mode, *DEFAULTS[mode])

    def reward(self, score: float, tokens: int) -> float:
        """score − penalty · tokens / window: what an answer of so many tokens teaches. Not in the report."""
        return score - self.penalty * tokens / self.window
