"""Which revision's texts a checkpoint was trained on."""

from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.errors import ChatError, quoted
from dsv4.text.chat.templates import EFFORTS

AUTO = "auto"
"""In place of a revision: the one that the configuration shows."""


def revision_of(config: Config | Config41, wanted: str = AUTO) -> str:
    """The revision whose texts `dsv4.chat.encode` should write for a model.

    wanted: "auto", or the name of one, which is then the result. For V4.1 it is "v4.1". Of V4's, a config.json with the
    settings of a DSpark drafter is taken for one of 0731 or 0813, whose texts are "0731"; all others are "april". The
    releases of June 2026, April's weights with such a drafter, have the same settings: for them, "april" must be asked
    for. Raises ChatError for an unknown revision.
    """
    if wanted != AUTO:
        if wanted not in EFFORTS:
            raise ChatError(f"revision: expected one of {', '.join((AUTO, *EFFORTS))}, found {quoted(wanted)}")
        return wanted
    if isinstance(config, Config41):
        return "v4.1"
    return "april" if config.dspark is None else "0731"
