"""A library in Rust that panics says so on standard error, at length, before Python knows: here it is kept from it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsv4.text.tokenizer import Tokenizer


class QuietTokenizer(Tokenizer):
    """A tokenizer whose library is silent where it fails: the one line that the command says of it is enough."""

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """As in `Tokenizer`."""
        with _silence():
            return super().from_file(path)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """As in `Tokenizer`."""
        with _silence():
            return super().encode(text, allow_special)


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what is written to the number of standard error: Rust does so before Python has a word in the matter."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
