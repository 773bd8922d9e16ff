"""The actor as its own judge, where no rule can judge: it reads the rubric and the answer, and gives a score.

There is no second model with a number for its output. The model that writes also judges, learns to judge from a small
labelled set (the world "judging"), and its judgements are the reward of what it writes (report §5.1.1).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsv4.errors import ChatError
from dsv4.learn.post.answers import Answered, drawing_seed
from dsv4.learn.post.recipe import Sampled
from dsv4.learn.post.rollouts import Drawing, draw_rollouts
from dsv4.learn.post.worlds.judging import judged, question
from dsv4.learn.post.worlds.verse import rubric
from dsv4.model.model import Model
from dsv4.ops.types import Ints
from dsv4.text.chat import encode_pieces, parse
from dsv4.text.tokenizer import Tokenizer

MODE, WINDOW = "high", 64
"""A judge thinks first: it says how each line ends and how many syllables it has, and then gives the points."""

SEED_OF_JUDGE = 1_000_000
"""Apart from the numbers of the efforts, which have seeds of their own beside it."""


def judgements(
    model: Model, answered: Sequence[Answered], stage: Sampled, tokenizer: Tokenizer, file: Path, turn: int
) -> list[float]:
    """The score from 0 to 1 that the model gives to each answer by its rubric; 0 for what is no answer or no judgement.

    model: the actor; file: for the rollouts of the judge, which are logged and resumed as all others.
    """
    texts = [_text(one, tokenizer) for one in answered]
    written = [place for place, text in enumerate(texts) if text]
    if not written:
        return [0.0] * len(texts)
    prompts = [judge_prompt(rubric(answered[place].question.task), texts[place], tokenizer) for place in written]
    drawing = Drawing(WINDOW, stage.temperature, stage.top_p, drawing_seed(stage.seed, turn, SEED_OF_JUDGE))
    rollouts = draw_rollouts(model, prompts, drawing, file)
    found = dict(zip(written, (judgement(one.answer, tokenizer) for one in rollouts), strict=True))
    return [found.get(place, 0.0) for place in range(len(texts))]


def judge_prompt(of: str, text: str, tokenizer: Tokenizer) -> Ints:
    """[P] token ids: a rubric and what is to be judged by it."""
    return np.array(tokenizer.encode_pieces(encode_pieces(question(of, text), MODE)), np.int64)


def judgement(answer: Ints, tokenizer: Tokenizer) -> float:
    """The score that an answer of the judge gives; 0 where it has not the form."""
    try:
        score = judged(parse(tokenizer.decode_pieces(answer.tolist()), MODE))
    except ChatError:
        return 0.0
    return 0.0 if score is None else score


def _text(one: Answered, tokenizer: Tokenizer) -> str:
    """What an answer says; nothing where it is malformed."""
    try:
        message = parse(tokenizer.decode_pieces(one.rollout.answer.tolist()), one.question.effort.mode)
    except ChatError:
        return ""
    return str(message["content"]).strip()
