"""Supervised fine-tuning: the good answers of tasks, of which the assistant's tokens teach (report §5.1.1)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dsv4.errors import TextError
from dsv4.learn.gradients import LOSSES, Pass
from dsv4.learn.learner import Learner
from dsv4.learn.losses.sft import assistant_pieces, predicts_said, sft
from dsv4.learn.post.questions import questions
from dsv4.learn.post.recipe import SFT
from dsv4.learn.trainable import TrainableModel
from dsv4.ops.types import Array, Ints, Mask
from dsv4.text.chat import Piece
from dsv4.text.tokenizer import Tokenizer


class Conversation(NamedTuple):
    """A conversation to learn from."""

    ids: Ints
    """[n] token ids."""
    said: Mask
    """[n] whether the assistant wrote it."""


class ConversationPart(NamedTuple):
    """Rows of a batch, each a conversation by itself: nothing attends from one to another."""

    ids: Ints
    mask: Mask
    said: Mask
    share: float
    indexer: bool
    """Whether the indexer learns, too."""

    @property
    def tokens(self) -> int:
        """The assistant's."""
        return int(predicts_said(self.mask, self.said).sum())

    def losses(self, model: TrainableModel) -> dict[str, Any]:
        """As of `Part`."""
        run = Pass(model, self.ids, self.mask, observes=self.indexer)
        found = {"sft": sft(run.logits, self.ids, self.mask, self.said)}
        return found | ({"indexer": LOSSES["indexer"].compute(run)} if self.indexer else {})


class FineTuning:
    """The lesson of a stage of fine-tuning."""

    def __init__(self, stage: SFT, tokenizer: Tokenizer, context: int) -> None:
        """context: the most tokens that the model takes."""
        self.stage, self.tokenizer, self.context = stage, tokenizer, context
        self.weights: Mapping[str, float] = {"sft": 1.0, "indexer": stage.indexer_weight}

    def parts(self, learner: Learner) -> Iterator[Sequence[ConversationPart]]:
        """As of `Lesson`. Raises TextError for a conversation that is longer than the context."""
        stage = self.stage
        asked = questions(stage, learner.step * stage.batch, stage.batch)
        found = [conversation(one.task.conversation(one.effort.mode), self.tokenizer) for one in asked]
        for one, each in zip(found, asked, strict=True):
            if len(one.ids) > self.context:
                name = f"a task of {each.world.name} in mode {each.effort.mode}"
                raise TextError(f"{name}: expected at most {self.context} tokens, found {len(one.ids)}")
        found.sort(key=lambda one: len(one.ids))  # rows of one part are filled up to the longest
        total = sum(int(one.said[1:].sum()) for one in found)
        runs = [found[start : start + stage.part] for start in range(0, len(found), stage.part)]
        yield [part_of(run, total, stage.indexer_weight > 0) for run in runs]

    def measures(self) -> dict[str, float]:
        """Nothing beside the losses."""
        return {}

    def state(self) -> dict[str, Array]:
        """Nothing: a step's conversations are a function of the stage and of its number."""
        return {}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """There is nothing to load."""

    def forget(self, step: int) -> None:
        """There is nothing on disk."""


def conversation(pieces: Sequence[Piece], tokenizer: Tokenizer) -> Conversation:
    """The tokens of a conversation, and which of them the assistant wrote."""
    ids: list[int] = []
    said: list[bool] = []
    for piece, is_said in zip(pieces, assistant_pieces(pieces), strict=True):
        tokens = tokenizer.encode_pieces([piece])
        ids += tokens
        said += [is_said] * len(tokens)
    return Conversation(np.array(ids, np.int64), np.array(said))


def part_of(rows: Sequence[Conversation], total: int, indexer: bool) -> ConversationPart:
    """Some conversations as rows of one length. total: the tokens that the whole step learns from."""
    longest = max(len(row.ids) for row in rows)
    ids, said = (
        np.stack([np.pad(one, (0, longest - len(one))) for one in column]) for column in zip(*rows, strict=True)
    )
    mask = np.arange(longest) < np.array([len(row.ids) for row in rows])[:, None]
    share = int(predicts_said(mask, said).sum()) / total
    return ConversationPart(ids, mask, said, share, indexer)
