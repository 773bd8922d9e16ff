"""One model from several: the mean of their weights, which needs no training. Not in the report: a comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.checkpoint import Checkpoint
from dsv4.errors import CheckpointError
from dsv4.learn.snapshots import TOKENIZER_FILES
from dsv4.learn.trainable import Trainable


def average(models: Sequence[str | Path], out: str | Path) -> Path:
    """Write the mean of some checkpoints' weights, and give back the path of the new one.

    models: directories of checkpoints of one configuration, such as specialists of one start; out: the directory of
    the new one, which is made: float32, official names, the first one's tokenizer. What is an integer, the experts
    that a token's id chooses, must be the same in all. Raises CheckpointError for none, for another configuration or
    table, and where the target is in the way.
    """
    if not models:
        raise CheckpointError("models: expected at least one to take the mean of, found none")
    first, *others = (Trainable.of(Checkpoint.open(path), np.float32) for path in models)
    for path, other in zip(models[1:], others, strict=True):
        if other.config != first.config:
            raise CheckpointError(f"{path}: expected a model with the configuration of {models[0]}, found another")
    mean: dict[str, npt.NDArray[Any]] = {}
    for name, array in first.items():
        arrays = [array, *(other.weight(name) for other in others)]
        if array.dtype.kind == "i":
            if any((one != array).any() for one in arrays):
                raise CheckpointError(f"{name}: expected the same integers in all models, found others")
            mean[name] = array
        else:
            mean[name] = np.asarray(np.mean(arrays, axis=0, dtype=np.float64), np.float32)
    tokenizer = (Path(models[0]) / name for name in TOKENIZER_FILES)
    Trainable.from_arrays(first.config, mean).save(out, extra_files=[file for file in tokenizer if file.exists()])
    return Path(out)
