"""The configurations of released models, by name.

Each is the config.json of a release, as it was published.

    from dsv4.presets import preset

    preset("flash").num_hidden_layers      # 43
    preset("v4.1").num_hidden_layers       # 40
"""

from importlib.resources import files
from pathlib import Path
from typing import Literal, overload

from dsv4.checkpoint import read_any_config
from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.errors import ConfigError, quoted

PRESETS = ("flash", "pro", "flash-0731", "pro-0813", "v4.1")
"""V4-Flash and V4-Pro, as released in April 2026; V4-Flash-0731 and V4-Pro-0813, which have a DSpark drafter;
V4.1-Flash."""


@overload
def preset(name: Literal["flash", "pro", "flash-0731", "pro-0813"]) -> Config: ...
@overload
def preset(name: Literal["v4.1"]) -> Config41: ...
@overload
def preset(name: str) -> Config | Config41: ...
def preset(name: str) -> Config | Config41:
    """The configuration of a released model, a `Config41` for V4.1.

    name: one of PRESETS. Raises ConfigError for another name.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, found {quoted(name)}")
    return read_any_config(Path(str(files("dsv4"))) / "presets" / f"{name}.json")
