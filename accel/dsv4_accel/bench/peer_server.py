"""Servers as contestants: processes that load the same model and answer the same texts over OpenAI's protocol."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from dsv4.errors import BackendError

PATIENCE = 300.0
"""Seconds that a server has to start, and then to answer."""

COMMAND = "import sys; from {module} import main; sys.exit(main())"


class ServerProcess:
    """A server on a free port of this machine, until `close`."""

    def __init__(self, module: str, arguments: Sequence[str], model: Path, threads: int) -> None:
        """Start it and wait until it answers.

        module: whose `main` is the command; arguments: of the command, before `--port`; model: the directory that it
        serves; threads: for its products. Raises BackendError where it ends at once or does not begin.
        """
        self.port, self.model = _free_port(), model
        command = [sys.executable, "-c", COMMAND.format(module=module), *arguments, "--port", str(self.port)]
        limits = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
        environment = os.environ | limits | {"HF_HUB_OFFLINE": "1"}
        nowhere = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, env=environment)
        self._name = f"{module} {arguments[0]}"
        try:
            self._wait()
        except BackendError:
            self.close()
            raise

    def answers(self, prompts: Sequence[str], tokens: int) -> list[str]:
        """The greedy answers to prompts that are asked at the same time. Raises BackendError for a refusal."""
        with ThreadPoolExecutor(len(prompts)) as clients:
            return list(clients.map(lambda prompt: self._answer(prompt, tokens), prompts))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _answer(self, prompt: str, tokens: int) -> str:
        body = {"model": str(self.model), "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            content = {"content-type": "application/json"}
            connection.request("POST", "/v1/completions", json.dumps(body).encode(), content)
            answer = connection.getresponse()
            found = answer.read()
        if answer.status != 200:
            raise BackendError(f"{self._name}: expected an answer, found status {answer.status}: {found[:200]!r}")
        return str(json.loads(found)["choices"][0]["text"])

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < end:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
                try:
                    connection.request("GET", "/health")
                    if connection.getresponse().status == 200:
                        return
                except OSError:
                    time.sleep(0.1)
        status = self._process.poll()
        found = "none" if status is None else f"that it ended with status {status}"
        raise BackendError(f"{self._name}: expected a server that answers, found {found}")


def dsv4_server(model: Path, backend: str, threads: int) -> ServerProcess:
    """`dsv4 serve` for a checkpoint."""
    return ServerProcess("dsv4.cli", ["serve", str(model), "--backend", backend], model, threads)


def transformers_server(model: Path, threads: int) -> ServerProcess:
    """`transformers serve` for a checkpoint."""
    arguments = ["serve", str(model), "--host", "127.0.0.1", "--device", "cpu"]
    return ServerProcess("transformers.cli.transformers", arguments, model, threads)


def _free_port() -> int:
    with closing(socket.socket()) as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])
