"""A run once more, from its tape alone: who did a step, answered, received and was merged, in that order.

The clock, the network and the seed of the world play no part, so a tape of real processes is replayed like one of
virtual time, and the last bit of the model is the same.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dsv4.errors import TrainingError, quoted
from dsv4.learn.diloco.learner import Learner
from dsv4.learn.diloco.messages import Fragment, Request, Update
from dsv4.learn.diloco.recovery import copy_of, rejoined
from dsv4.learn.diloco.syncer import Round, Syncer


def replayed(
    tape: Iterable[Mapping[str, Any]], make_learner: Callable[[int], Learner], syncer: Syncer
) -> tuple[Syncer, dict[int, Learner]]:
    """The syncer and the learners as they are after the last line; one that was killed is as it was before.

    tape: lines as `World` logs them; make_learner, syncer: as at the start of the run. Raises TrainingError for a tape
    whose lines do not follow from each other.
    """
    learners = {m: make_learner(m) for m in range(syncer.settings.learners)}
    copies: dict[int, dict[str, Any]] = {}
    updates: dict[tuple[int, int, int], Update | None] = {}
    sent: dict[tuple[int, int], Fragment] = {}
    for number, line in enumerate(tape, start=1):
        try:
            match line["event"]:
                case "step":
                    learners[line["learner"]].step()
                case "answered":
                    request = Request(line["round"], line["round"] % len(syncer.fragments))
                    key = line["learner"], line["round"], line["steps"]
                    updates[key] = learners[line["learner"]].update(request)
                case "merged":
                    heard = zip(line["learners"], line["steps"], strict=True)
                    these = {m: updates[m, line["round"], n] for m, n in heard}
                    place = _merged(syncer, line["round"], these, line["last"])
                    sent[place, syncer.versions[place]] = syncer.newest(place)
                    updates = {key: one for key, one in updates.items() if key[1] != line["round"]}
                case "received":
                    learners[line["learner"]].receive(sent[line["fragment"], line["version"]])
                case "copied":
                    copies[line["learner"]] = copy_of(learners, syncer, line["peer"])
                case "returned":
                    learners[line["learner"]] = rejoined(make_learner(line["learner"]), copies[line["learner"]])
        except KeyError as error:
            raise TrainingError(f"tape: line {number}: expected what came before it, found no {error}") from error
    return syncer, learners


def _merged(syncer: Syncer, number: int, updates: Mapping[int, Update | None], is_last: bool) -> int:
    """Close a round with the updates that the tape names; its fragment."""
    if number // len(syncer.fragments) != syncer.versions[number % len(syncer.fragments)]:
        raise TrainingError(f"tape: expected the round that follows version {syncer.versions}, found {quoted(number)}")
    heard = {m: update for m, update in updates.items() if update is not None}
    syncer.rounds[number] = Round(0.0, heard, is_last=is_last)
    return syncer.close(number).fragment
