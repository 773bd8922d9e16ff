"""A real headless Chromium for tests, spoken to over a pipe: no driver, no port, no further package.

Chromium reads commands of the DevTools protocol from file descriptor 3 and answers on 4, each message ended by a zero
byte. DSV4_CHROMIUM names the program where it has another name than those of PROGRAMS.
"""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

PROGRAMS = "chromium-headless-shell", "chrome-headless-shell", "chromium", "chromium-browser", "google-chrome"

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # where /dev/shm is small, pages would crash without a word
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-ipc-flooding-protection",  # it drops changes of the address that come too quickly, and says nothing
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)

SECONDS = 60
"""After so long without an answer, the browser is taken for dead."""


def program() -> str | None:
    """The path of a Chromium, or None."""
    names = [os.environ.get("DSV4_CHROMIUM"), *PROGRAMS]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _high_pipe() -> tuple[int, int]:
    """The ends of a pipe, for reading and for writing, above the numbers that Chromium wants."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high


class SilentError(Exception):
    """A browser has not answered in time, or has ended."""


class Browser:
    """One page of one Chromium; a context manager."""

    def __init__(self, path: str, profile: Path) -> None:
        """Raises SilentError for a program that shows no page here."""
        self.complaints: list[str] = []
        """What the console, failed loads and uncaught exceptions said."""
        self.requests: list[str] = []
        """The addresses that were asked for."""
        self._numbers, self._rest = itertools.count(1), b""
        command_end, self._commands = _high_pipe()
        self._answers, answer_end = _high_pipe()

        def place() -> None:
            os.dup2(command_end, 3)
            os.dup2(answer_end, 4)

        self._process = subprocess.Popen(
            [path, *ARGUMENTS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place,
            pass_fds=(3, 4),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_end)
        os.close(answer_end)
        try:
            self._begin()
        except SilentError:
            self.__exit__()
            raise

    _session: str | None = None

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # with the processes that it has started
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def _begin(self) -> None:
        """Speak to the first page, and see that it computes."""
        target = next(each for each in self.send("Target.getTargets")["targetInfos"] if each["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        assert self.run("1 + 1") == 2

    def send(self, method: str, **parameters: object) -> dict:
        """One command, and its result; events that come before it are noted."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        try:
            os.write(self._commands, json.dumps(message).encode() + b"\0")
        except BrokenPipeError as error:
            raise SilentError("the browser has ended") from error
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def open(self, path: Path, address: str = "", width: int = 1280, height: int = 900) -> None:
        """Load a file afresh and wait until the page has drawn itself."""
        self.resize(width, height)
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=f"{path.resolve().as_uri()}#{address}")
        begun = time.monotonic()
        while self.run("document.documentElement?.dataset.ready") != "true":
            assert time.monotonic() - begun < SECONDS, ("the page was never ready", self.complaints)
            time.sleep(0.05)

    def visit(self, place: Path | str, width: int = 1280, scheme: str = "light") -> None:
        """Load any file or address, and wait for its pictures and letters; scheme: "light" or "dark", of the system."""
        self.resize(width, 900)
        self.prefer(scheme)
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=place if isinstance(place, str) else place.resolve().as_uri())
        begun = time.monotonic()
        while not self.run("location.protocol !== 'about:' && document.readyState === 'complete'"):
            assert time.monotonic() - begun < SECONDS, f"{place} was never loaded"
            time.sleep(0.05)
        self.run("document.fonts.ready.then(() => new Promise(requestAnimationFrame))")

    def prefer(self, scheme: str) -> None:
        """The colours that the system asks for: "light" or "dark"."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def resize(self, width: int, height: int) -> None:
        """The size of the page in CSS pixels."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def run(self, expression: str) -> object:
        """The value of an expression of JavaScript."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """One key, as a person presses it."""
        text = {"text": key} if len(key) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def click(self, selector: str) -> None:
        """The middle of the first element that a selector finds, scrolled into view, with the mouse."""
        x, y = self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            "one.scrollIntoView({block: 'center'}); const r = one.getClientRects()[0];"
            "return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, path: Path) -> None:
        """What is to be seen, as a PNG file."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def _read(self) -> dict:
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], SECONDS)[0]:
                raise SilentError(f"no answer in {SECONDS} s")
            block = os.read(self._answers, 2**16)
            if not block:
                raise SilentError("the browser has ended")
            self._rest += block
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.complaints.append(f"console: {parameters['args']}")
            case "Runtime.exceptionThrown":
                self.complaints.append(f"exception: {parameters['exceptionDetails']}")
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"log: {parameters['entry']}")
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
