"""DeepSeek-V4, executable: a NumPy reference of every component, from a checkpoint to text.

    import dsv4

    model = dsv4.load("path/to/checkpoint")          # without a path: the small model that comes with the package
    logits = model([[5, 17, 3]])                     # [batch, length] ids -> [batch, length, vocab] float32
    cache = model.new_cache()                        # decode: model(chunk, cache), any chunking
    for token in dsv4.generate(model, [5, 17, 3], max_new_tokens=20, temperature=0):
        print(token.id)
    wanted = dsv4.GenerationConfig.load(model.checkpoint)    # temperature, top-p, end tokens: generation_config.json
    dsv4.generate(model, [5, 17, 3], **wanted.settings)

`dsv4.ops` defines every operation, `dsv4.model` composes them, `dsv4.Tokenizer` and `dsv4.chat` stand between ids and
people, `dsv4.cost` tells what a model costs, `dsv4.learn` how it is trained. `dsv4.check` runs the project's properties
for a function of your own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dsv4.checkpoint import Checkpoint, read_config
from dsv4.config import Config
from dsv4.errors import (
    BackendError,
    ChatError,
    CheckpointError,
    ConfigError,
    DSV4Error,
    PromptError,
    SettingError,
    TokenizerError,
)
from dsv4.loading import bundled_model, load
from dsv4.model.model import Model
from dsv4.text import chat
from dsv4.text.generate import generate
from dsv4.text.generation_config import GenerationConfig
from dsv4.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from dsv4 import cost, learn
    from dsv4.checking import check

__all__ = [
    "BackendError",
    "ChatError",
    "Checkpoint",
    "CheckpointError",
    "Config",
    "ConfigError",
    "DSV4Error",
    "GenerationConfig",
    "Model",
    "PromptError",
    "SettingError",
    "Tokenizer",
    "TokenizerError",
    "bundled_model",
    "chat",
    "check",
    "cost",
    "generate",
    "learn",
    "load",
    "read_config",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The packages that not everybody needs are imported when they are first asked for."""
    if name in ("cost", "learn"):
        return import_module(f"dsv4.{name}")
    if name == "check":
        return import_module("dsv4.checking").check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
