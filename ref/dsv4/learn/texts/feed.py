"""The batch of every step of a run, from its texts and its recipe alone."""

from collections.abc import Mapping, Sequence

import numpy as np

from dsv4.errors import SettingError, quoted
from dsv4.learn.recipe import Recipe
from dsv4.learn.schedule import moment
from dsv4.learn.texts.batches import Batch, Rows
from dsv4.ops.types import Ints


class TextFeed:
    """Batches of documents as a recipe's stages ask for them: functions of the step, so that a run can be resumed."""

    def __init__(self, recipe: Recipe, documents: Mapping[str, Sequence[Ints]]) -> None:
        """documents: token ids [n] of each document, by the name of the text that it comes from.

        Raises TextError for a text that is shorter than a sequence of a stage that reads it, SettingError for a stage
        with a share of a text that is not there.
        """
        self._rows = []
        for number, stage in enumerate(recipe.stages):
            for name in stage.shares or ():
                if name not in documents:
                    place = f"{recipe.source}: stages[{number}].shares"
                    raise SettingError(f"{place}: expected names of {', '.join(documents)}, found {quoted(name)}")
            shares = {name: share for name, share in stage.shares.items() if share} if stage.shares else None
            used = {name: these for name, these in documents.items() if shares is None or name in shares}
            self._rows.append(Rows(used, stage.length - 1, recipe.seed, number, shares))
        self._starts = np.cumsum([0, *(stage.steps for stage in recipe.stages)])
        sizes = np.fromiter((moment(recipe, step).batch for step in range(recipe.steps)), np.int64, recipe.steps)
        self._before = np.concatenate([[0], np.cumsum(sizes)])  # rows of all steps before each one

    def batch(self, step: int) -> Batch:
        """The batch of a step, from 0 on: rows of at most the stage's length."""
        stage = int(np.searchsorted(self._starts, step, "right")) - 1
        start, first, end = self._before[[self._starts[stage], step, step + 1]]
        return self._rows[stage].batch(int(first - start), int(end - first))
