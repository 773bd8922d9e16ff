"""`dsv4 serve` as a process of its own, which is stopped, killed and started again while clients ask."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from serve.soak.pool import PREFILL_CHUNK

SETTINGS = {
    "--prefill-chunk": PREFILL_CHUNK,
    "--running": 4,
    "--waiting": 8,
    "--prefix-memory": "8MiB",  # so little that it is full soon
    "--max-body": "64KiB",
}


class ServerProcess:
    """The server of the bundled model, always on the same port.

    Attributes:
        port: of the loopback address.
        life: counts how often it was started, from 1.
        is_up: whether it is meant to answer.
        processor_seconds: what all lives took that have ended.
    """

    def __init__(self, directory: Path, backend: str) -> None:
        """directory: for the log. Nothing is started yet."""
        self.log, self._backend = directory / "log", backend
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.life, self.is_up, self.processor_seconds = 0, False, 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, grace: float) -> None:
        """Start it, and return when it answers. grace: its own --grace."""
        settings = {"--port": self.port, "--backend": self._backend, "--grace": grace} | SETTINGS
        options = [str(part) for setting in settings.items() for part in setting]
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "dsv4", "serve", *options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        while not self._answers():
            if self._process.poll() is not None:
                raise RuntimeError(f"dsv4 serve ended: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        self.life, self.is_up = self.life + 1, True

    def stop(self, how: signal.Signals) -> int:
        """End it; its exit status."""
        assert self._process is not None
        self.is_up = False
        self.processor_seconds += self._seconds()
        self._process.send_signal(how)
        return self._process.wait()

    def has_stopped_since(self, life: int) -> bool:
        """Whether an answer that was asked for in that life may have met the server's end."""
        return self.life != life or not self.is_up

    def used(self) -> float:
        """The processor time of all lives, in seconds."""
        return self.processor_seconds + (self._seconds() if self.is_up else 0.0)

    def size(self) -> dict[str, int]:
        """What the process has now: bytes of memory, all of it and its own; open files; threads."""
        fields = dict(re.findall(r"^(\w+):\s+(\d+)", (self._proc / "status").read_text(), re.MULTILINE))
        files = len(list((self._proc / "fd").iterdir()))
        memory = {"memory": int(fields["VmRSS"]) * 1024, "own_memory": int(fields["RssAnon"]) * 1024}
        return memory | {"files": files, "threads": int(fields["Threads"])}

    def figures(self) -> dict[str, float]:
        """What the server says of its engine at /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        found = re.findall(r'^dsv4_engine_(\w+)(?:\{kind="(\w+)"\})? (\S+)$', text, re.MULTILINE)
        return {f"{name} {kind}".strip(): float(value) for name, kind, value in found}

    def failures(self) -> list[str]:
        """Lines of the log that tell of a mistake of the server's own."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if "Traceback" in line or "a request failed" in line or "Error" in line][:20]

    @property
    def _proc(self) -> Path:
        assert self._process is not None
        return Path("/proc") / str(self._process.pid)

    def _seconds(self) -> float:
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=60) as answer:
                found: Any = json.load(answer)
                return bool(found == {"status": "ok"})
        except OSError:
            return False
