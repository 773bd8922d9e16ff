"""A whole run in virtual time as one file: learners, syncer, and the messages that are on their way.

Between two events nothing happens anywhere, so this is a consistent cut of all processes and channels, as Chandy and
Lamport's algorithm finds one where processes cannot be stopped.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from dsv4.errors import TrainingError, reason
from dsv4.learn.diloco.chaos import Kill
from dsv4.learn.diloco.events import Arrived, Copied, Due, Started, Stepped
from dsv4.learn.diloco.few_bits import Packed
from dsv4.learn.diloco.messages import Change, Fragment, Progress, Request, Update
from dsv4.learn.diloco.syncer import Round
from dsv4.learn.diloco.world import World

KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kinds in (
        (Arrived, Copied, Due, Started, Stepped),
        (Change, Fragment, Packed, Progress, Request, Update),
        (Kill, Round),
    )
    for kind in kinds
}
"""What a snapshot may hold, by name."""

WORLD = "world"
"""The array with all that is no array: JSON, which refers to the others by number."""


def taken(world: World) -> dict[str, Any]:
    """The world as arrays by name; it goes on as it was. An array that several hold is there once."""
    arrays: dict[str, Any] = {}
    known: dict[int, str] = {}
    syncer = world.syncer
    values = {
        "time": world.time,
        "queue": sorted(world.queue, key=lambda entry: entry[:2]),
        "counts": dict(world.counts),
        "tokens": dict(world.tokens),
        "lives": world.lives,
        "inboxes": world.inboxes,
        "kills": world.kills,
        "saved": world.saved,
        "learners": {m: learner.state() for m, learner in world.learners.items()},
        "syncer": None if syncer is None else [syncer.rounds, syncer.learners, syncer.averages, sorted(syncer.ended)],
        "opens": world.opens,
        "is_over": world.is_over,
    }
    text = json.dumps(_plain(values, arrays, known))
    return {**arrays, WORLD: np.frombuffer(text.encode(), np.uint8)}


def put_back(world: World, state: Mapping[str, Any]) -> None:
    """Bring a world that was made in the same way to a snapshot. Raises TrainingError for what is none."""
    try:
        values = _living(json.loads(bytes(state[WORLD]).decode()), state)
        world.time, world.queue = values["time"], [tuple(entry) for entry in values["queue"]]
        world.counts, world.tokens = Counter(values["counts"]), Counter(values["tokens"])
        world.lives, world.inboxes = values["lives"], values["inboxes"]
        world.kills, world.saved = values["kills"], values["saved"]
        world.opens, world.is_over = values["opens"], values["is_over"]
        world.learners = {m: world.make_learner(m) for m in values["learners"]}
        for m, learner in world.learners.items():
            learner.load_state(values["learners"][m])
        world.syncer = None if values["syncer"] is None else world.make_syncer()
        if world.syncer is not None:
            for place, saved in world.saved.items():
                world.syncer.load_state(saved, [place])
            world.syncer.rounds, heard, world.syncer.averages, ended = values["syncer"]
            world.syncer.ended = set(ended)
            world.syncer.learners = {m: tuple(entry) for m, entry in heard.items()}
    except (KeyError, ValueError, TypeError) as error:
        raise TrainingError(f"snapshot: expected a run of Decoupled DiLoCo, found: {reason(error)}") from error


def _plain(value: Any, arrays: dict[str, Any], known: dict[int, str]) -> Any:
    """A value as JSON has it; its arrays go into `arrays`."""
    match value:
        case np.ndarray():
            name = known.setdefault(id(value), str(len(arrays)))
            arrays[name] = value
            return {"array": name}
        case Round():
            parts = [value.opened, value.updates, value.closes, value.is_last]
            return {"kind": "Round", "values": [_plain(one, arrays, known) for one in parts]}
        case tuple() if type(value).__name__ in KINDS:
            return {"kind": type(value).__name__, "values": [_plain(one, arrays, known) for one in value]}
        case tuple() | list():
            return [_plain(one, arrays, known) for one in value]
        case Mapping():
            return {"keys": list(value), "values": [_plain(one, arrays, known) for one in value.values()]}
    return value


def _living(value: Any, arrays: Mapping[str, Any]) -> Any:
    """What `_plain` made plain; lists stay lists, but for a shape, which is compared with one."""
    match value:
        case {"array": name}:
            return arrays[name]
        case {"kind": "Packed", "values": [codes, scales, shape, bits]}:
            return Packed(_living(codes, arrays), _living(scales, arrays), tuple(shape), bits)
        case {"kind": name, "values": values}:
            return KINDS[name](*(_living(one, arrays) for one in values))
        case {"keys": keys, "values": values}:
            return dict(zip(keys, (_living(one, arrays) for one in values), strict=True))
        case list():
            return [_living(one, arrays) for one in value]
    return value
