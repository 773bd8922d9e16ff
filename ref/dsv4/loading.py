"""From the path of a checkpoint to a model."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsv4.arguments import integer
from dsv4.backends import backend as backend_named
from dsv4.checkpoint import Checkpoint41, open_checkpoint
from dsv4.errors import SettingError, quoted
from dsv4.model.language_model import LanguageModel
from dsv4.model.model import Model
from dsv4.model.weight_store import WeightStore
from dsv4.model41.model import Model41
from dsv4.ops.types import Ints
from dsv4.text.engram_classes import token_classes
from dsv4.text.tokenizer import Tokenizer

FAKE_QUANT = ("auto", "on", "off")


def load(
    path: str | Path | None = None,
    backend: str = "auto",
    fake_quant: str = "auto",
    dtype: npt.DTypeLike = np.float32,
    memory: int | None = None,
    token_classes: npt.ArrayLike | None = None,
) -> LanguageModel:
    """Open a checkpoint as a model: a `Model` for V4, a `Model41` for V4.1, as its config.json says.

    path: a directory with config.json and safetensors files; None for the bundled model. backend: the backend
    to compute with, "numpy", "numba" or another installed one; "auto" is the one that the environment variable
    DSV4_BACKEND names, without it "numba" where Numba is installed and works, and else "numpy"; `model.ops.name` is its
    name.
    fake_quant: "on" rounds the KV entries to FP8 and the indexer's vectors to FP4 (in V4.1 window keys to FP8, entries
    and index keys to FP4), and the inputs of the products whose
    weights are stored in FP8 or FP4 to FP8, as the released model does; "off" rounds nothing; "auto" is "on" when
    config.json has a quantization_config. dtype: of activations and caches, float32, or float64 for a ground truth.

    memory: bytes that weights and caches may take together; None for no bound. With it, weights are read shortly before
    they are needed and given back when there is no room: the results are the same.

    A model of V4.1 with Engram layers needs the classes of its tokens. They are made from the tokenizer beside its
    weights; where there is none, token_classes has them, an integer [vocab] for each token.

    The files stay on disk, mapped into memory, FP4 and FP8 weights packed. Raises ConfigError, CheckpointError,
    TokenizerError, BackendError or SettingError, each naming what was expected and found.
    """
    if not isinstance(path, str | os.PathLike | None):
        raise SettingError(f"path: expected the path of a directory, or None, found {quoted(path)}")
    if not isinstance(backend, str):
        raise SettingError(f"backend: expected the name of a backend, found {quoted(backend)}")
    if fake_quant not in FAKE_QUANT:
        raise SettingError(f"fake_quant: expected one of {', '.join(FAKE_QUANT)}, found {quoted(fake_quant)}")
    chosen = _float_type(dtype)
    checkpoint = open_checkpoint(bundled_model() if path is None else path)
    checkpoint.validate()
    rounds = checkpoint.config.quantised if fake_quant == "auto" else fake_quant == "on"
    ops = backend_named(backend)
    most = None if memory is None else integer("memory", memory, least=1)
    if token_classes is not None and not isinstance(checkpoint, Checkpoint41):
        raise SettingError("token_classes: expected none for a model of V4, found some")
    store = None if most is None else WeightStore(checkpoint, ops, most)
    if isinstance(checkpoint, Checkpoint41):
        classes = _classes(checkpoint) if token_classes is None else np.asarray(token_classes)
        return Model41(checkpoint, ops, rounds, chosen, classes, store)
    return Model(checkpoint, ops, rounds, chosen, store)


def _classes(checkpoint: Checkpoint41) -> Ints | None:
    """The classes of the model's tokens, where it has an Engram. Raises TokenizerError."""
    if checkpoint.config.engram is None:
        return None
    return token_classes(Tokenizer.from_file(checkpoint.directory), checkpoint.config)


def bundled_model() -> Path:
    """The directory of the model that comes with the package."""
    return Path(__file__).parent / "bundled"


def _float_type(dtype: npt.DTypeLike) -> np.dtype:
    """The dtype, which must be float32 or float64. Raises SettingError for any other."""
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise SettingError(f"dtype: expected float32 or float64, found {quoted(dtype)}") from error
    if dtype is None or found not in (np.float32, np.float64):
        raise SettingError(f"dtype: expected float32 or float64, found {'None' if dtype is None else found}")
    return found
