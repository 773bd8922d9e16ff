"""How often the MTP module's guess of the token after next is what the model itself would say."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dsv4.arguments import integer
from dsv4.learn.evaluation.windows import windows
from dsv4.model.model import Model
from dsv4.text.generate import generate


def draft_agreement(model: Model, ids: npt.ArrayLike, window: int = 512) -> float:
    """Of all positions of a text, the share at which MTP's likeliest token is the model's.

    At position t the module has read the text up to t + 1, and guesses the token at t + 2; the model guesses the same
    one after reading the text up to t + 1. ids [n]: cut into windows that follow each other, each from a fresh start.
    Raises TextError for a text shorter than a window, CheckpointError without an MTP layer.
    """
    window = integer("window", window, least=2)
    agree = []
    for tokens in windows(ids, window, step=window)[:, None]:  # [1, w]
        states = model.states(tokens)
        target = model.ops.to_numpy(model.head(states)).argmax(axis=-1)  # [1, w]: at t the token t + 1
        draft = model.ops.to_numpy(model.mtp_logits(states[:, :-1], tokens[:, 1:])).argmax(axis=-1)  # at t, t + 2
        agree.append(draft == target[:, 1:])
    return float(np.mean(agree))


def draft_acceptance(model: Model, prompts: Sequence[Sequence[int]], tokens: int) -> float:
    """The share of drafts that greedy generation keeps, as `generate(speculative=True)` counts them.

    prompts: token ids to go on from, together; tokens: how many follow each, whether or not there is an end token
    among them. Raises what `generate` raises.
    """
    generation = generate(model, prompts, tokens, temperature=0, stop_ids=(), speculative=True)
    for _ in generation:
        pass
    return generation.acceptance_rate
