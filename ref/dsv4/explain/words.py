"""Tokens as people can read them, whatever bytes they are."""

from collections.abc import Iterable, Sequence

from dsv4.ops.types import Ints
from dsv4.text.chat import Control
from dsv4.text.tokenizer import Tokenizer

Word = tuple[str, str]
"""What a token is shown as, and its kind: "text", "control", "bytes" (in hexadecimal) or "none" (no text)."""


def word(tokenizer: Tokenizer, token_id: int) -> Word:
    """A token by itself."""
    stored = tokenizer.token_bytes(token_id)
    if not stored:
        return f"#{token_id}", "none"
    if isinstance(tokenizer.decode_pieces([token_id])[0], Control):
        return stored.decode(), "control"
    try:
        return stored.decode(), "text"
    except UnicodeDecodeError:
        return stored.hex(" ").upper(), "bytes"


def described_words(tokenizer: Tokenizer, ids: Iterable[int]) -> dict[str, Word]:
    """The word of each of these ids."""
    return {str(token_id): word(tokenizer, token_id) for token_id in sorted(ids)}


def pieces(tokenizer: Tokenizer, ids: Sequence[int] | Ints) -> list[str]:
    """What each token adds to the text: characters of several tokens stand at their last one, and before it nothing."""
    stream = tokenizer.stream()
    return [stream.push(token_id) for token_id in ids]
