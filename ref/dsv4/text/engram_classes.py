"""Which tokens count as one for V4.1's Engram: those whose texts are alike once they are normalised.

The classes are part of the model: its tables were filled by them, and their number is in every hash. So the Unicode
tables must be those of the official code, the ones that the package `tokenizers` has (Unicode 9.0 for marks).
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from dsv4.config41 import Config41
from dsv4.errors import TokenizerError
from dsv4.ops.types import Ints
from dsv4.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import normalizers

NOT_TEXT = "\ufffd"
"""In the text of a token that is not made of whole characters."""

ONE_SPACE = "\ue000"
"""Stands for a text that is one space while space at the ends is removed."""


def token_classes(tokenizer: Tokenizer, config: Config41) -> Ints:
    """The class of each token of a model, [vocab_size] int64: what `dsv4.model41` needs for its Engram layers.

    tokenizer: the checkpoint's. Raises TokenizerError where it gives another number of classes than the config has: a
    single one more or less would change every row that is looked up. Source: V4.1's report §2.4.2; code (engram.py).
    """
    assert config.engram is not None
    name_of_id = {number: name for name, number in tokenizer.vocabulary.items()}
    ids = range(config.vocab_size)
    classes = classes_of([tokenizer.decode([number]) for number in ids], [name_of_id.get(number, "") for number in ids])
    expected, found = config.engram.compressed_vocab_size, int(classes.max()) + 1
    if found != expected:
        where = f"{tokenizer.path}: token classes"
        raise TokenizerError(f"{where}: expected {expected}, as engram_compressed_vocab_size says, found {found}")
    return classes


def classes_of(texts: Sequence[str], names: Sequence[str]) -> Ints:
    """Number the classes of tokens by their first appearance.

    texts: of each token by itself, control tokens included; names: of each in the vocabulary, by which tokens go that
    are not made of whole characters. Returns int64, as long as these. Source: code (engram.py).
    """
    numbers: dict[str, int] = {}
    keys = (_key(text, name) for text, name in zip(texts, names, strict=True))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def normalise(text: str) -> str:
    """The text without what does not count: forms of characters, marks, case, and the kind and number of spaces.

    Lower case is taken character by character, so that a last sigma is as any other. Source: code (engram.py).
    """
    return _normaliser().normalize_str(text)


def _key(text: str, name: str) -> str:
    """What tokens of one class have in common; a text of which nothing would be left stays as it is."""
    return name if NOT_TEXT in text else normalise(text) or text


@cache
def _normaliser() -> "normalizers.Sequence":
    from tokenizers import Regex, normalizers  # slow to import, and a model without Engram can do without

    return normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.NFD(),
            normalizers.StripAccents(),  # marks of all three kinds: Mn, Mc and Me
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[ \t\r\n]+"), " "),
            normalizers.Replace(Regex("^ $"), ONE_SPACE),
            normalizers.Strip(),  # of Unicode's White_Space, to which U+001C to U+001F do not belong
            normalizers.Replace(ONE_SPACE, " "),
        ]
    )
