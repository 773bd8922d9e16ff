"""The side of dsv4: models opened and run, and prompts on which every choice is clear."""

from pathlib import Path

import numpy as np

from dsv4 import Checkpoint, Model, generate
from dsv4.ops import Ops
from dsv4.ops.moe import expert_scores

DECIDED = 3e-5
"""How far apart, relative to the scores' spread, the last chosen and the first refused score must be: sums in another
order differ by less, so that both sides choose the same. Equal scores have no defined order in transformers."""


class Margins(Ops):
    """The NumPy backend, which also remembers how narrowly experts and entries were chosen."""

    def __init__(self) -> None:
        self.smallest = np.inf

    def index_top_k(self, queries, keys, weights, visible, k):
        scores = Ops.index_scores(queries, keys, weights)
        allowed = np.arange(scores.shape[-1]) < visible[..., None]
        self._note(np.where(allowed, scores, -np.inf), k, scores[allowed].std() if allowed.any() else 1)
        return Ops.top_k(scores, visible, k)

    def route(self, logits, bias, k, score_function, scale):
        scores = expert_scores(logits, score_function) + bias
        self._note(scores, k, scores.std())
        return Ops.route(logits, bias, k, score_function, scale)

    def _note(self, scores, k, spread) -> None:
        if k < scores.shape[-1]:
            ordered = -np.sort(-scores, axis=-1)
            chosen, refused = ordered[..., k - 1], ordered[..., k]
            real = np.isfinite(refused)
            self.smallest = min(self.smallest, (chosen[real] - refused[real]).min(initial=np.inf) / spread)


def open_directory(directory: Path, ops: Ops | None = None) -> Model:
    """The model of a directory, rounding nothing; ops: another backend than NumPy's."""
    checkpoint = Checkpoint.open(directory)
    checkpoint.validate()
    return Model(checkpoint, ops or Ops(), fake_quant=False)


def prompts(directory: Path, shortest: int, longest: int, generator: np.random.Generator) -> np.ndarray:
    """Two random prompts [2, S], S from shortest to longest, on which the directory's model chooses clearly."""
    model = open_directory(directory, margins := Margins())
    length, rows = int(generator.integers(shortest, longest + 1)), []
    for _ in range(40):
        row = generator.integers(0, model.config.vocab_size, length)
        margins.smallest = np.inf
        model.states(row)
        if margins.smallest > DECIDED:
            rows.append(row)
        if len(rows) == 2:
            return np.stack(rows)
    raise AssertionError("expected two prompts without a near tie among 40, found fewer")


def cached_logits(model: Model, ids: np.ndarray, sizes: list[int]) -> np.ndarray:
    """[B, S] -> [B, S, vocab], in chunks of these sizes through the cache."""
    cache = model.new_cache(len(ids))
    chunks = np.split(ids, np.cumsum(sizes)[:-1], axis=1)
    return np.concatenate([model(chunk, cache) for chunk in chunks], axis=1)


def greedy(model: Model, ids: np.ndarray, count: int) -> np.ndarray:
    """[B, S] -> [B, count]: the tokens that `generate` adds, whatever they are."""
    found: list[list[int]] = [[] for _ in ids]
    for token in generate(model, ids, max_new_tokens=count, temperature=0, stop_ids=()):
        found[token.sequence].append(token.id)
    return np.array(found)


def trace(model: Model, ids: np.ndarray) -> dict[str, np.ndarray]:
    """The results inside one pass under the observer's names, and "logits"."""
    seen: dict[str, np.ndarray] = {}
    seen["logits"] = model(ids, observe=lambda name, result: seen.update({name: result}))
    return seen
