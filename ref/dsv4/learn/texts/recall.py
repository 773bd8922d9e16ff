"""Documents that need long-range attention: a play in which something said early is asked for late.

    DUKE.
    The ring Kate hath.
    …
    KING.
    Who hath the ring?

    DUKE.
    The ring Kate hath.

Between the two go on the speeches of a play in which the word "ring" does not occur. So whoever is to name Kate has to
find the one place far back where the ring was spoken of; the window of sliding attention does not reach so far.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dsv4.arguments import integer
from dsv4.errors import SettingError, TextError
from dsv4.learn.texts.recall_text import Answer, Encode, Filler, Writer
from dsv4.learn.texts.recall_words import KINDS, SPEAKERS, Kind, is_held_out
from dsv4.ops.types import Ints
from dsv4.text.tokenizer import Tokenizer

ROOM_FOR_A_QUESTION = 32
"""Tokens before the end of a document behind which nothing is begun."""


@dataclass(frozen=True)
class RecallDocument:
    """A document and where its answers stand."""

    text: str
    ids: Ints
    """[n] int64 with the begin and the end token."""
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class RecallPlan:
    """What recall documents are like.

    A document has at most `tokens` tokens, begin and end included. It tells of `facts` facts, all of one kind, with
    different keys and different answers, and comes back to each up to `again` times, at least `nearest` tokens behind
    where it last spoke of it: a share `asked` of the times with a question, else by saying it once more.
    Pairs of key and answer are those kept for evaluation, or all others.
    """

    tokens: int
    facts: int
    again: int = 3
    nearest: int = 80
    asked: float = 0.5
    held_out: bool = False

    def __post_init__(self) -> None:
        """Raises SettingError for numbers that leave no room."""
        integer("facts", self.facts, least=1, most=12 if self.held_out else 18)
        integer("again", self.again, least=1)
        integer("nearest", self.nearest, least=1)
        integer("tokens", self.tokens, least=self.nearest + 64)


def evaluation_plan(tokens: int, facts: int = 12) -> RecallPlan:
    """The plan of documents to measure with: asked once, at least three quarters of the document behind.

    Who guesses among the answers that the document has named is right once in `facts` times: 8.3 % for 12; who guesses
    among all answers of the kind, once in 20.
    """
    return RecallPlan(tokens, facts, again=1, nearest=3 * tokens // 4, asked=1, held_out=True)


def recall_documents(
    tokenizer: Tokenizer, plays: Sequence[Sequence[str]], plan: RecallPlan, count: int, seed: int
) -> Iterator[RecallDocument]:
    """Documents by a plan, each a function of the seed and its number.

    tokenizer: what their tokens are counted with; plays: the speeches of each play or scene, in order, which the
    document goes through from a place that is drawn. A document on which the plan is too tight for any answer is left
    out, and the next one takes its place.

    Raises TextError for plays without speeches, SettingError where a thousand documents in a row have no answer.
    """
    if not any(len(play) for play in plays):
        raise TextError("plays: expected speeches, found none")
    count = integer("count", count)
    number = made = empty = 0
    encode = lru_cache(maxsize=100_000)(tokenizer.encode)
    while made < count:
        document = _document(plan, tokenizer, encode, plays, np.random.default_rng((integer("seed", seed), number)))
        number += 1
        if document.answers:
            made, empty = made + 1, 0
            yield document
        elif (empty := empty + 1) == 1000:
            raise SettingError(f"plan: expected room for facts and answers, found none in {plan}")


def _document(
    plan: RecallPlan,
    tokenizer: Tokenizer,
    encode: Encode,
    plays: Sequence[Sequence[str]],
    generator: np.random.Generator,
) -> RecallDocument:
    kind = KINDS[generator.integers(len(KINDS))]
    facts = _facts(kind, plan, generator)
    asker, teller = (SPEAKERS[n] for n in generator.permutation(len(SPEAKERS))[:2])
    filler = Filler(plays, [key for key, _ in facts], encode, generator)
    most = plan.tokens - 2  # without the begin and the end token
    writer = Writer(encode, asker, teller, most)
    for time, number in _times(plan, generator):
        writer.fill(filler, int(time))
        key, answer = facts[number]
        asks = generator.random() < plan.asked
        writer.say(kind.question if asks else None, key, answer, plan.nearest)
    writer.fill(filler, most)
    ids = np.array([tokenizer.bos_id, *writer.ids, tokenizer.eos_id], np.int64)
    return RecallDocument(writer.text, ids, tuple(answer.behind(1) for answer in writer.answers))


def _facts(kind: Kind, plan: RecallPlan, generator: np.random.Generator) -> list[tuple[str, str]]:
    """Pairs of key and answer, all different; drawn again where the last keys find no answer that is left."""
    while True:
        free = list(kind.answers)
        pairs = []
        for key in generator.permutation(kind.keys)[: plan.facts].tolist():
            possible = [answer for answer in free if is_held_out(kind, key, answer) == plan.held_out]
            if possible:
                answer = possible[generator.integers(len(possible))]
                free.remove(answer)
                pairs.append((key, answer))
        if len(pairs) == plan.facts:
            return pairs


def _times(plan: RecallPlan, generator: np.random.Generator) -> list[tuple[float, int]]:
    """When each fact is spoken of, in tokens, in order: told somewhere, and again `nearest` tokens later or more."""
    last = plan.tokens - ROOM_FOR_A_QUESTION
    told = generator.uniform(0, last - plan.nearest, plan.facts)
    again = generator.uniform(told + plan.nearest, last, (plan.again, plan.facts))
    return sorted((time, fact) for times in (told, *again) for fact, time in enumerate(times.tolist()))
