"""An engine that says what a test has written down, and a service around it."""

import threading
from collections.abc import Callable
from types import SimpleNamespace

import dsv4
import serve.needed  # noqa: F401
from dsv4.serve.job import Chosen, Ended, Figures, Job, LogProb, Prefilled
from dsv4.serve.service import Service
from dsv4.text.generation_config import GenerationConfig

MODEL = dsv4.load(backend="numpy")
TOKENIZER = dsv4.Tokenizer.from_file(dsv4.bundled_model())
CONTROL_IDS = {text: number for number, text in TOKENIZER.control_of_id.items()}


class ScriptedEngine:
    """Answers every job with the tokens of a script, in a thread of the job's own, unless it is cancelled.

    script: a list of token ids, or what gives one for a job. reason, message: how jobs end that no end token ends.
    held: the jobs say nothing before this is set.
    """

    def __init__(self, script: list[int] | Callable[[Job], list[int]], reason: str = "length", message: str = ""):
        self.script, self.reason, self.message = script, reason, message
        self.jobs: list[Job] = []
        self.cancelled: list[Job] = []
        self.ended: list[Job] = []
        self.held = threading.Event()
        self.held.set()
        self.refusal: Exception | None = None
        self.cached = 0
        self.accepted: frozenset[int] = frozenset()  # the places of tokens that were accepted drafts

    def submit(self, job: Job, on_event):
        if self.refusal:
            raise self.refusal
        self.jobs.append(job)
        gone = threading.Event()
        threading.Thread(target=self._run, args=(job, on_event, gone), daemon=True).start()
        return SimpleNamespace(cancel=gone.set)

    def figures(self) -> Figures:
        return Figures(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {"stop": 0, "length": 0})

    def stop(self, finish: bool = True, timeout: float | None = None) -> None:
        """Nothing runs for longer than a script."""

    def _run(self, job: Job, on_event, gone: threading.Event) -> None:
        self.held.wait()
        tokens = (self.script(job) if callable(self.script) else self.script)[: job.max_new_tokens]
        prompt = [_logprob(job, token) for token in job.ids]
        on_event(Prefilled(self.cached, (None, *prompt[1:]) if job.prompt_logprobs else ()))
        reason = self.reason
        for place, token in enumerate(tokens):
            if gone.is_set():
                break
            on_event(Chosen(token, _logprob(job, token), place in self.accepted))
            if token in job.stop_ids:
                reason = "stop"
                break
        if gone.is_set():
            self.cancelled.append(job)
            reason = "cancelled"
        self.ended.append(job)
        on_event(Ended(reason, len(tokens), len(self.accepted) + 1, len(self.accepted), self.message))


def _logprob(job: Job, token: int) -> LogProb | None:
    """Made up, the same for a token every time."""
    if job.top_logprobs is None:
        return None
    top = tuple((other, -0.5 - number) for number, other in enumerate(range(300, 300 + job.top_logprobs)))
    return LogProb(token, -token / 1000, top)


def service(engine, **more) -> Service:
    """The bundled model behind that engine."""
    wanted = GenerationConfig.load(MODEL.checkpoint)
    settings = {"mode": "non-think", "revision": "april"} | more
    return Service(MODEL, TOKENIZER, engine, "bundled", wanted, **settings)


def ids_of(text: str, end: bool = True) -> list[int]:
    """The tokens of an answer that is written as the model would write it, control tokens and all."""
    return TOKENIZER.encode(text, allow_special=True) + ([TOKENIZER.eos_id] if end else [])


def bytewise(text: str, end: bool = True) -> list[int]:
    """The same, every byte of text a token of its own."""
    ids: list[int] = []
    for token in ids_of(text, end):
        ids += (
            [token] if token in TOKENIZER.control_of_id else [BYTE_IDS[byte] for byte in TOKENIZER.token_bytes(token)]
        )
    return ids


BYTE_IDS = {
    TOKENIZER.token_bytes(number)[0]: number
    for number in range(TOKENIZER.vocab_size)
    if len(TOKENIZER.token_bytes(number)) == 1
}
