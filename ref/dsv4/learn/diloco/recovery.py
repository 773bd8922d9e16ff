"""Where a learner that was killed begins again."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dsv4.learn.diloco.learner import Learner
from dsv4.learn.diloco.messages import Fragment
from dsv4.learn.diloco.syncer import Syncer

CLOCK, VERSIONS = "clock", "newest.versions"


def copy_of(learners: Mapping[int, Learner], syncer: Syncer | None, peer: int | None) -> dict[str, Any]:
    """What a returning learner is sent: a healthy peer's state, or without a peer the syncer's clock and fragments."""
    if peer is not None:
        return learners[peer].state()
    if syncer is None:
        raise AssertionError("neither a peer nor a syncer")
    clock = {CLOCK: np.array(syncer.clock, np.int64), VERSIONS: np.array(syncer.versions, np.int64)}
    return {**syncer.sent, **clock}


def rejoined(learner: Learner, state: Mapping[str, Any]) -> Learner:
    """A learner as at the start of the run, after it has taken what `copy_of` gave.

    Without a peer it has no optimiser's state: it begins at the syncer's clock with a fresh one.
    """
    if CLOCK not in state:
        learner.rejoin(state)
        return learner
    for place, version in enumerate(state[VERSIONS].tolist()):
        names = learner.fragments[place]
        learner.receive(Fragment(place, version, {name: state[name] for name in names}))
    learner.trainer.step = min(int(state[CLOCK]), learner.trainer.recipe.steps)
    return learner
