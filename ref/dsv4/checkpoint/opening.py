"""Checkpoints of V4 and of V4.1: which configuration and which table of parameters each has."""

from pathlib import Path

from dsv4.checkpoint.config41_json import is_config41, read_config41
from dsv4.checkpoint.config_json import read_config
from dsv4.checkpoint.reading import StoredModel
from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.parameters import Parameter, parameters
from dsv4.parameters41 import parameters41


class Checkpoint(StoredModel[Config]):
    """A checkpoint of V4."""

    @staticmethod
    def read_config(directory: Path) -> Config:
        """As in `StoredModel`."""
        return read_config(directory)

    @staticmethod
    def table(config: Config, include_mtp: bool) -> dict[str, Parameter]:
        """As in `StoredModel`."""
        return parameters(config, include_mtp)


class Checkpoint41(StoredModel[Config41]):
    """A checkpoint of V4.1: its text path. What belongs to the vision encoder is left alone."""

    others = ("vision.", "aligner.", "image_start", "image_end", "image_newline")

    @staticmethod
    def read_config(directory: Path) -> Config41:
        """As in `StoredModel`."""
        return read_config41(directory)

    @staticmethod
    def table(config: Config41, include_mtp: bool) -> dict[str, Parameter]:
        """As in `StoredModel`."""
        return parameters41(config, include_mtp)


def read_any_config(path: str | Path) -> Config | Config41:
    """Read the config.json of either model, given itself or its directory. Raises ConfigError."""
    return read_config41(path) if is_config41(path) else read_config(path)


def open_checkpoint(directory: str | Path) -> Checkpoint | Checkpoint41:
    """Open a checkpoint of either model, as the model_type of its config.json says. Raises as `StoredModel.open`."""
    return Checkpoint41.open(directory) if is_config41(directory) else Checkpoint.open(directory)
