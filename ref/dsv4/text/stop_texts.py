"""Where a text ends before one of several stop texts, as it comes in pieces that may cut those anywhere."""

from collections.abc import Sequence

from dsv4.errors import SettingError, quoted


class StopTexts:
    """Passes a text on up to the first stop text, which is left out, and holds back what may be the start of one.

    The first is the one that is whole first; of those that become whole at one place, the longest. So what comes out
    does not depend on how the text was cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """stops: any number of texts. Raises SettingError for what is no list of texts, and for an empty one."""
        if isinstance(stops, str) or not isinstance(stops, Sequence):
            raise SettingError(f"stop: expected a list of texts, found {quoted(stops)}")
        for stop in stops:
            if not isinstance(stop, str) or not stop:
                raise SettingError(f"stop: expected some text, found {quoted(stop)}")
        self._stops = stops
        self._held = ""
        self.ended = False
        """Whether a stop text has come: all that follows is left out."""
        self.found: str | None = None
        """The stop text that has come."""

    def push(self, piece: str) -> str:
        """The text that is certain to come before any stop text, now that this piece has come."""
        if self.ended:
            return ""
        text = self._held + piece
        found = [(text.find(stop) + len(stop), text.find(stop), stop) for stop in self._stops if stop in text]
        if found:
            _, begin, self.found = min(found)
            self.ended, self._held = True, ""
            return text[:begin]
        kept = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def flush(self) -> str:
        """End the text: give what is held back, since no stop text came of it."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of the stop text, but not all of it."""
    lengths = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)
