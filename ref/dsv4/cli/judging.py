"""How `dsv4 verify` judges differences, and how it shows them."""

import json
import math
import re
from typing import Any, NamedTuple

import typer

from dsv4.cli.ending import DONE, TOO_FAR
from dsv4.verify import Difference

OF_WHOLE_PASSES = r"(logits|main_hidden)$|decode\..*topk$"
"""Names of results to which every layer has added its differences."""

OF_ROUNDS = r"\bspec\."
"""Names of what a speculative run did."""


class Compared(NamedTuple):
    """What was found, to be judged."""

    found: list[Difference]
    rounds: bool
    """Whether the model rounds its activations."""


def judge(compared: Compared, tolerance: float | None, as_json: bool) -> None:
    """Print the differences, and exit with 1 where one is larger than allowed."""
    found, rounds = compared
    limit = tolerance if tolerance is not None else (1e-2 if rounds else 1e-5)
    whole_passes = 10 * limit if rounds else limit
    allowed = {each.name: whole_passes if re.search(OF_WHOLE_PASSES, each.name) else limit for each in found}
    if rounds:  # one flip of the main model changes what a round drafts, and not what the text is
        allowed |= {name: math.inf for name in allowed if re.search(OF_ROUNDS, name) and not name.endswith("text")}
    if as_json:
        print(json.dumps([_fields(each, allowed) for each in found], indent=1, allow_nan=False))
    else:
        _print_table(found, allowed)
    raise typer.Exit(DONE if all(each.relative <= allowed[each.name] for each in found) else TOO_FAR)


def _fields(difference: Difference, allowed: dict[str, float]) -> dict[str, Any]:
    """A difference for JSON, which has no word for what is not finite."""
    fields = vars(difference) | {"allowed": allowed[difference.name]}
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in fields.items()
    }


def _worst_per_layer(found: list[Difference]) -> list[Difference]:
    """The result of each layer that is farthest off, in the model's order."""
    worst: dict[str, Difference] = {}
    for difference in found:
        known = worst.get(difference.layer)
        if known is None or not difference.relative <= known.relative:  # a NaN is the worst of all
            worst[difference.layer] = difference
    return list(worst.values())


def _print_table(found: list[Difference], allowed: dict[str, float]) -> None:
    worst = _worst_per_layer(found)
    title = "largest difference of each layer"
    width = max(len(title), *(len(difference.name) for difference in worst))
    print(f"{title:<{width}}{'max |Δ|':>11}{'relative':>11}{'allowed':>9}")
    for difference in worst:
        limit = allowed[difference.name]
        verdict = "" if difference.relative <= limit else "  too large"
        print(f"{difference.name:<{width}}{difference.worst:>11.3g}{difference.relative:>11.3g}{limit:>9.3g}{verdict}")
    print(f"{len(found)} results compared")
