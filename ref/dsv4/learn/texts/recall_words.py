"""The words of recall documents: what is had, and who or what has it.

With the bundled tokenizer each word's last token is that of no other thing, and each answer's first token that of no
other answer, so that one token tells which it is (`tests/learn/texts/test_recall.py`).
"""

from typing import NamedTuple


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


THINGS = _words(
    "book crown glove knife robe ball bond cage glass horn lance rope sword bone spear wheel wine bell card letter "
    "pot wand bow bread gold quill sail cap gown flag mace ring"
)
PLACES = _words(
    "gate wall hall cave cell door grave hill park port road stable wood chapel bridge field castle garden palace "
    "window"
)
PERSONS = _words(
    "Kate Jack Tom Ned Hal Dick Mark Lear Page Gower Ford Adam Cassio Iago Oliver Simon Walter Edgar Viola Banquo"
)
TOWNS = _words(
    "Rome Dover France India London Milan Pisa Spain Troy Venice Wales Kent Athens Egypt Cyprus Naples Genoa Oxford "
    "Bristol Hungary"
)
PASSWORDS = _words(
    "love heart hand time friend day blood death fear honour war night heaven wit name head arm soul house world"
)


class Kind(NamedTuple):
    """A kind of facts: a question with {key} in it, and what may be asked for and answered."""

    question: str
    keys: tuple[str, ...]
    answers: tuple[str, ...]


KINDS = (
    Kind("Who hath the {key}?", THINGS, PERSONS),
    Kind("Where lies the {key}?", THINGS, TOWNS),
    Kind("What word hath the {key}?", PLACES, PASSWORDS),
)

SPEAKERS = ("KING", "DUKE", "TITUS", "FORD")
"""Who asks and who tells."""


def statement(key: str, answer: str) -> str:
    """The sentence that states a fact, and that answers its question: the answer stands right behind the key."""
    return f"The {key} {answer} hath."


def is_held_out(kind: Kind, key: str, answer: str) -> bool:
    """Whether a pair is kept for evaluation: of each key one in 20, so that no text to train on ever has it.

    More of them, or by a simpler rule, and a model would learn which answers a key never has, before it learns to look.
    """
    return (kind.keys.index(key) + kind.answers.index(answer)) % len(kind.answers) == 0
