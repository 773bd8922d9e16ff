"""Fine-tuning's batches: conversations of their own in rows, and each token of the assistant's counted once."""

import numpy as np
import pytest

from dsv4.errors import TextError
from dsv4.learn.post.fine_tuning import FineTuning, conversation, part_of
from dsv4.learn.post.questions import questions
from dsv4.text.chat import join
from learn.post.stages import FINE, starting


def test_a_conversation_is_its_pieces_and_the_answer_is_what_is_said(tokenizer):
    for one in questions(starting(FINE, "x", worlds=("calculator", "rules")), 0, 8):
        pieces = one.task.conversation("high")
        found = conversation(pieces, tokenizer)
        assert found.ids.tolist() == tokenizer.encode_pieces(pieces)
        said = tokenizer.decode(found.ids[found.said].tolist())
        answer = join(pieces).removeprefix(join(one.task.prompt("high")))
        assert said.endswith(answer)
        assert said.count("<｜end▁of▁sentence｜>") == sum(one["role"] == "assistant" for one in one.task.messages) + 1


def test_shares_are_those_of_the_tokens(tokenizer):
    class Step:
        step = 3

    lesson = FineTuning(FINE, tokenizer, 256)
    [parts] = lesson.parts(Step)
    assert [len(part.ids) for part in parts] == [2, 2, 1]
    np.testing.assert_allclose(
        [part.share for part in parts], [part.tokens / sum(p.tokens for p in parts) for part in parts]
    )
    assert sum(part.share for part in parts) == pytest.approx(1)
    [again] = lesson.parts(Step)
    for part, other in zip(parts, again, strict=True):
        np.testing.assert_array_equal(part.ids, other.ids)


def test_rows_are_padded_behind_their_ends(tokenizer):
    rows = [conversation(one.task.conversation("non-think"), tokenizer) for one in questions(FINE, 0, 4)]
    part = part_of(rows, 100, indexer=False)
    for row, one in enumerate(rows):
        length = len(one.ids)
        np.testing.assert_array_equal(part.ids[row, :length], one.ids)
        assert part.mask[row].tolist() == [True] * length + [False] * (part.mask.shape[1] - length)
        assert not part.said[row, length:].any()


def test_a_conversation_that_is_too_long_is_named(tokenizer):
    class Step:
        step = 0

    with pytest.raises(TextError, match=r"^a task of sums in mode non-think: expected at most 9 tokens, found \d+$"):
        next(FineTuning(FINE, tokenizer, 9).parts(Step))
