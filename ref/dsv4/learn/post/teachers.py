"""Teachers, of which there may be more than memory would hold: one at a time is read, and of it as little as will do.

What a teacher thinks of an answer is kept as its last hidden states, which are as wide as the model and not as its
vocabulary; from them and from the matrix of its head its logits come back when they are needed (report §5.2.2).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsv4.checkpoint import Checkpoint
from dsv4.checkpoint.atomic import replacing
from dsv4.errors import TrainingError, reason
from dsv4.learn.post.replay import replay_of
from dsv4.learn.post.rollout_log import Rollout
from dsv4.model.model import Model
from dsv4.ops import Ops
from dsv4.ops.quantise import dequantise
from dsv4.ops.types import Array
from dsv4.text.tokenizer import Tokenizer


class TeacherModel:
    """A checkpoint that teaches. Nothing of its weights is held between two calls."""

    def __init__(self, path: Path, tokenizer: Tokenizer, vocab_size: int) -> None:
        """tokenizer, vocab_size: the student's. Raises TrainingError for a teacher with another vocabulary: its
        probabilities are of other tokens. CheckpointError and ConfigError as `dsv4.Checkpoint` does."""
        self.path = path
        found = Checkpoint.open(path).config.vocab_size
        if found != vocab_size:
            raise TrainingError(f"{path}: expected a teacher with the student's {vocab_size} tokens, found {found}")
        if Tokenizer.from_file(path).vocabulary != tokenizer.vocabulary:
            raise TrainingError(f"{path}: expected a teacher with the student's tokenizer, found another")

    def hidden(self, rollouts: Sequence[Rollout], rows: int, ops: Ops, file: Path) -> Array:
        """What the teacher's head reads at each drawn token of these answers, [tokens, d] float32, from a file.

        The file is written first where there is none: then the teacher is loaded, reads so many rows at a time, and is
        forgotten. Raises TrainingError for a damaged file.
        """
        tokens = sum(len(one.answer) for one in rollouts)
        if not file.exists():
            with replacing(file) as temporary, temporary.open("wb") as opened:
                np.save(opened, self._read(rollouts, rows, ops))
        try:
            found: Array = np.load(file)
        except (OSError, ValueError, EOFError) as error:
            raise TrainingError(f"{file}: expected hidden states of a teacher, found: {reason(error)}") from error
        if found.ndim != 2 or len(found) != tokens:
            raise TrainingError(f"{file}: expected hidden states of {tokens} tokens, found shape {found.shape}")
        return found

    def actor(self, ops: Ops) -> Model:
        """The teacher as a model that answers: it is read now, and forgotten with the result."""
        checkpoint = Checkpoint.open(self.path)
        checkpoint.validate()
        return Model(checkpoint, ops, checkpoint.config.quantised)

    def head(self) -> Array:
        """The matrix of its head, [vocab, d] float32."""
        checkpoint = Checkpoint.open(self.path)
        checkpoint.check_values("head.weight")
        return dequantise(checkpoint.weight("head.weight"), np.float32)

    def _read(self, rollouts: Sequence[Rollout], rows: int, ops: Ops) -> Array:
        model = self.actor(ops)
        parts = []
        for start in range(0, len(rollouts), rows):
            batch = replay_of(rollouts[start : start + rows], model.config)
            states = model.states(batch.ids, mask=batch.mask)
            parts.append(ops.to_numpy(model.head.last_hidden(states))[batch.drawn])
        return np.concatenate(parts).astype(np.float32)
