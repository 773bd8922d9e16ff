"""`dsv4 serve` in a process of its own: where it serves, what it refuses, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from command import is_one_line, runner

pytest.importorskip("uvicorn")


@pytest.fixture
def dsv4(monkeypatch, capfd):
    """Run the command in this process: arguments -> exit status, standard output, standard error."""
    return runner(monkeypatch, capfd)


@pytest.fixture
def served():
    """Starts the command on a free port: arguments -> the process, and its address."""
    processes = []

    def start(*arguments: str, **environment: str) -> tuple[subprocess.Popen, str]:
        command = [sys.executable, "-m", "dsv4", "serve", "--port", "0", "--backend", "numpy", *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
        )
        processes.append(process)
        line = process.stdout.readline()
        assert line.startswith("serving ") and " at http://127.0.0.1:" in line, (line, process.stderr.read())
        return process, line.split()[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def asked(address: str, key: str = "") -> dict:
    body = json.dumps({"messages": [{"role": "user", "content": "SECRET"}], "max_tokens": 3, "seed": 1}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{address}/v1/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def test_it_serves_until_ctrl_c(served):
    process, address = served("--name", "small", DSV4_API_KEY="sesame")
    assert asked(address, "sesame")["model"] == "small"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and out == ""
    lines = err.splitlines()
    assert len(lines) == 1 and "POST '/v1/chat/completions' 200" in lines[0] and "SECRET" not in err


def test_it_serves_within_a_budget_of_memory(served):
    """Less than the weights take: a conversation whose prefix is kept has the same answers as without a bound."""
    answers = []
    for budget in ([], ["--memory", "3MiB", "--prefix-memory", "1MiB"]):
        _, address = served(*budget)
        answers.append([asked(address)["choices"] for _ in range(2)])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mode", "loud"], "mode: expected one of"),
        (["--mode", "low"], "mode: expected one of"),
        (["--api-key", ""], "--api-key: expected a key that is not empty"),
        (["--max-body", "big"], "--max-body: expected a size"),
        (["--prefix-memory", "big"], "--prefix-memory: expected a size"),
        (["--time-limit", "0"], "time_limit: expected"),
        (["--memory", "8MiB"], "memory: expected at least 26"),
        (["--memory", "8MiB", "--prefix-memory", "8MiB"], "for the prefixes of --prefix-memory, the head, one layer"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid --port 8000: expected an address"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1 --port 8000: expected an address"),
        (["no/such/model"], "no/such/model"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(dsv4, arguments, said):
    status, out, err = dsv4("serve", "--backend", "numpy", *arguments)
    assert status == 2 and out == "" and is_one_line(err) and said in err


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "prometheus_client"])
def test_a_missing_extra_is_said_in_one_line(dsv4, monkeypatch, package):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    status, _, err = dsv4("serve")
    assert status == 2 and is_one_line(err) and "pip install 'dsv4[serve]'" in err and package in err
