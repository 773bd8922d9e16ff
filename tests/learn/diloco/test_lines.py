"""Lines of the tape on their way: once each and in order, whatever is lost."""

import json

import numpy as np
import pytest

from dsv4.errors import TrainingError
from dsv4.learn.diloco.chaos import SYNCER
from dsv4.learn.diloco.real.files import lives_of, read_fragment, recovered_tape
from dsv4.learn.diloco.real.lines import Inbox, Outbox


def events(lines):
    return [line["event"] for line in lines]


def test_each_line_arrives_once_and_before_what_follows_from_it():
    outbox, inbox = Outbox("1.0"), Inbox()
    outbox.line({"event": "a"})
    first = outbox.tell("x")
    outbox.line({"event": "b"})
    second = outbox.tell("y")
    assert events(inbox.new(second)) == ["a", "b"]
    assert inbox.new(first) == []
    outbox.line({"event": "c"})
    assert events(inbox.new(outbox.tell("z"))) == ["c"]
    outbox.arrived(2)
    assert [number for number, _ in outbox.tell(None).lines] == [2]


def test_a_new_syncer_knows_from_the_tape_what_has_arrived():
    outbox, inbox = Outbox("1.0"), Inbox()
    outbox.line({"event": "a"})
    tape = inbox.new(outbox.tell(None))
    outbox.line({"event": "b"})
    assert events(Inbox(tape).new(outbox.tell(None))) == ["b"]
    assert events(Inbox().new(outbox.tell(None))) == ["a", "b"]


def test_lives_are_counted_apart():
    inbox = Inbox()
    for life in (0, 1):
        outbox = Outbox(f"1.{life}")
        outbox.line({"event": "a"})
        assert events(inbox.new(outbox.tell(None))) == ["a"]


def test_half_a_line_and_a_merge_that_was_not_written_have_not_happened(tmp_path):
    tape = tmp_path / "tape.jsonl"
    lines = [{"event": "merged", "fragment": 0, "version": version} for version in (1, 2)]
    lines.insert(1, {"event": "step", "sender": "2.1", "number": 0})
    tape.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": "st', encoding="utf-8")
    assert recovered_tape(tape, [1]) == lines[:2]
    assert [json.loads(line) for line in tape.read_text().splitlines()] == lines[:2]
    assert recovered_tape(tmp_path / "none", [1]) == []


def test_lives_go_on_where_the_tape_ends(tmp_path):
    assert lives_of(tmp_path / "tape.jsonl") == {}
    line = {"event": "step", "sender": "2.1", "number": 0}
    (tmp_path / "tape.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert lives_of(tmp_path / "tape.jsonl") == {SYNCER: 1, 2: 2}


def test_a_damaged_fragment_is_said_to_be_damaged(tmp_path):
    assert read_fragment(tmp_path, 0) is None
    (tmp_path / "fragment-00000.safetensors").write_bytes(np.zeros(9, np.uint8).tobytes())
    with pytest.raises(TrainingError, match="expected a fragment of the run"):
        read_fragment(tmp_path, 0)
