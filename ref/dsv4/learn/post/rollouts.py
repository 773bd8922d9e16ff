"""Answers drawn from a model: by the generation code of this package, on any backend, written down as they are made."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dsv4.arguments import integer
from dsv4.errors import DSV4Error, PromptError, TrainingError
from dsv4.learn.post.recording import RecordingModel, RecordingSampler
from dsv4.learn.post.rollout_log import Rollout, RolloutLog
from dsv4.model.model import Model
from dsv4.ops.types import Ints
from dsv4.text.decode import Batch
from dsv4.text.generate import Generation

PREFILL_CHUNK = 512


@dataclass(frozen=True)
class Drawing:
    """How the answers of a batch are drawn."""

    window: int
    """The most tokens that an answer may have: one that needs more is cut, and has no end."""
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


def draw_rollouts(
    model: Model,
    prompts: list[Ints],
    drawing: Drawing,
    file: Path,
    watch: Callable[[int], None] = lambda tokens: None,
) -> list[Rollout]:
    """Draw an answer to each prompt, or go on with those that a file holds.

    model: of any backend; its weights must not change meanwhile. prompts: token ids [P] of each; file: where every
    token is written down as soon as it is drawn. Where the file has tokens already, the model reads them again in the
    same order and in the same shapes, none is drawn anew, and what comes is what would have come: the whole is the
    same, to the last bit, however often it was interrupted. watch: called with the number of tokens drawn so far.

    Returns the rollouts as the file holds them; the model is not asked where all are at their ends. Raises PromptError
    for a prompt that leaves no room for the window in the model's context, TrainingError for a file of other rollouts
    and for logits that are no numbers.
    Source: report §5.2.3: a write-ahead log for each token; the rebuilt cache comes from it.
    """
    _check_room(model, prompts, drawing.window)
    log = RolloutLog(file, prompts, asdict(drawing))
    already = log.drawn()
    stops = frozenset(model.config.eos_token_ids)
    if all(tokens and (tokens[-1] in stops or len(tokens) == drawing.window) for tokens in already):
        return log.rollouts(model.config.index_topk)
    recording = RecordingModel(model, len(prompts))
    sampler = RecordingSampler(drawing.temperature, drawing.top_p, drawing.seed, len(prompts), already)
    batch = Batch(recording, sampler, stops, np.full(len(prompts), drawing.window))
    places = np.zeros(len(prompts), np.int64)
    try:
        with log.appending() as appender:
            for token in Generation(batch, prompts, None, PREFILL_CHUNK):
                draw, choices = sampler.last[token.sequence], recording.take(token.sequence)
                if places[token.sequence] >= len(already[token.sequence]) and draw is not None:
                    appender.token(token.sequence, draw, choices)
                places[token.sequence] += 1
                watch(int(places.sum()))
    except TrainingError:
        raise
    except DSV4Error as error:
        raise TrainingError(f"{file}: {error}") from error
    return log.rollouts(model.config.index_topk)


def _check_room(model: Model, prompts: list[Ints], window: int) -> None:
    """Each prompt and a whole window behind it fit in the model's context."""
    integer("window", window, least=1)
    context = model.config.max_position_embeddings
    for number, prompt in enumerate(prompts):
        if len(prompt) + window > context:
            room = f"at most {context - window} tokens, so that a window of {window} fits in the context of {context}"
            raise PromptError(f"prompt {number}: expected {room}, found {len(prompt)}")
