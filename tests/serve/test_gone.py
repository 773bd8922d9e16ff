"""A client that goes away before its answer is whole: its job ends, whether or not anything was sent."""

import pytest

import serve.needed  # noqa: F401
from serve.scripted import ScriptedEngine, ids_of
from serve.serving import serving
from serve.test_bad_clients import connected, request, status_of, until


@pytest.mark.parametrize("stream", [False, True])
def test_the_job_of_a_client_that_is_gone_is_cancelled(stream):
    engine = ScriptedEngine(ids_of("word " * 20))
    engine.held.clear()
    with serving(engine) as server:
        with connected(server) as connection:
            connection.sendall(request(stream=stream))
            until(lambda: engine.jobs)
        until(lambda: not server.server_state.tasks)
        engine.held.set()
        until(lambda: engine.ended)
        assert engine.cancelled == engine.jobs
        assert status_of(server, request()) == 200
