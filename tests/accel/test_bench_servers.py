"""The bench's rows about another server: what is asked, what is compared, and a server that does not begin."""

import pytest

from dsv4 import Tokenizer, bundled_model, generate, load
from dsv4.errors import BackendError
from dsv4.ops import Ops
from dsv4_accel.bench import peer_server, servers
from dsv4_accel.bench.layer import LargeLayer
from dsv4_accel.bench.peers import Peers
from dsv4_accel.bench.roof import Roof
from dsv4_accel.bench.stage import Stage
from dsv4_accel.bench.timing import QUICK


@pytest.fixture
def server():
    for package in servers.SERVER:
        pytest.importorskip(package, reason="the extra `serve` is not installed")
    started = peer_server.dsv4_server(bundled_model(), "numpy", 1)
    yield started
    started.close()
    assert started._process.returncode is not None


def test_a_server_answers_as_generate_does(server):
    model, tokenizer = load(backend="numpy"), Tokenizer.from_file(bundled_model())
    prompts = servers.PROMPTS[:3]

    def text(prompt):
        tokens = generate(model, tokenizer.encode(prompt), max_new_tokens=4, temperature=0)
        return tokenizer.decode([token.id for token in tokens])

    assert server.answers(prompts, 4) == [text(prompt) for prompt in prompts]


def test_a_refusal_names_the_server(server):
    with pytest.raises(BackendError, match=r"^dsv4.cli serve: expected an answer, found status 400: "):
        server.answers(["DUKE."], -1)


def test_a_server_that_ends_at_once(tmp_path):
    with pytest.raises(
        BackendError, match=r"^dsv4.cli serve: expected a server that answers, found that it ended with"
    ):
        peer_server.dsv4_server(tmp_path, "numpy", 1)


@pytest.mark.parametrize(("words", "same"), [({}, 16), ({"DUKE.": "another"}, 12)])
def test_the_rows_say_how_many_texts_are_the_same(monkeypatch, words, same):
    """Both servers are stood in for: the row asks both for the same, and tells where they differ."""
    asked = {"ours": [], "theirs": []}

    class Named:
        def __init__(self, name):
            self.name, self.is_closed = name, False

        def answers(self, prompts, tokens):
            asked[self.name].append((tuple(prompts), tokens))
            changed = words if self.name == "theirs" else {}
            return [changed.get(prompt.split("\n")[0], "text") for prompt in prompts]

        def close(self):
            self.is_closed = True

    made = {name: Named(name) for name in asked}
    monkeypatch.setattr(servers, "dsv4_server", lambda model, backend, threads: made["ours"])
    monkeypatch.setattr(servers, "transformers_server", lambda model, threads: made["theirs"])
    stage = Stage(Ops(), QUICK, Roof(2**20, 1), 1, 1, Peers(wanted=False), LargeLayer())
    with stage.resources:
        contest = servers._answers(stage, 16)
        assert contest.notes == [f"{same} of 16 texts are the same, 64 characters"]
        for contestant in contest.contestants.values():
            contestant.run()
        assert len(asked["ours"]) == 2
        assert asked["ours"] == asked["theirs"] == [(tuple(servers.PROMPTS), servers.TOKENS)] * 2
    assert [server.is_closed for server in made.values()] == [True, True]
