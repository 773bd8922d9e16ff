"""A real server on a free port of the loopback address, in a thread of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import serve.needed  # noqa: F401
from dsv4.serve.engine import Engine
from dsv4.serve.server import Server
from serve.scripted import MODEL, service


@contextmanager
def serving(engine=None, grace: float = 30.0, **more) -> Iterator[Server]:
    """A server of the bundled model, or of an engine of the test's own; it has stopped when the block is left."""
    server = Server(service(engine or Engine(MODEL), **more), port=0, grace=grace)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()
