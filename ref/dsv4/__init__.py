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

if TYPE_CHECKING:
    from dsv4 import cost, learn, model, ops
    from dsv4.checking import check
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

_MODULES = {
    "dsv4.checking": ("check",),
    "dsv4.checkpoint": ("Checkpoint", "read_config"),
    "dsv4.config": ("Config",),
    "dsv4.errors": (
        "BackendError",
        "ChatError",
        "CheckpointError",
        "ConfigError",
        "DSV4Error",
        "PromptError",
        "SettingError",
        "TokenizerError",
    ),
    "dsv4.loading": ("bundled_model", "load"),
    "dsv4.model.model": ("Model",),
    "dsv4.text.generate": ("generate",),
    "dsv4.text.generation_config": ("GenerationConfig",),
    "dsv4.text.tokenizer": ("Tokenizer",),
}
"""Where each public name is defined. A module is imported when one of its names is first asked for."""

_PACKAGES = {
    "chat": "dsv4.text.chat",
    "cost": "dsv4.cost",
    "learn": "dsv4.learn",
    "model": "dsv4.model",
    "ops": "dsv4.ops",
}
"""The public packages, imported in the same way."""

_HOME = {name: module for module, names in _MODULES.items() for name in names}

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
    "model",
    "ops",
    "read_config",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What is public, from where it is defined: `import dsv4` alone imports next to nothing."""
    if name in _PACKAGES:
        return import_module(_PACKAGES[name])
    if name in _HOME:
        value = globals()[name] = getattr(import_module(_HOME[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
