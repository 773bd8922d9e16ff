"""lm-evaluation-harness: its client of local completions scores a task here as the model's own logits do."""

import json

import numpy as np
import pytest

import serve.needed  # noqa: F401
from dsv4.serve.engine import Engine
from serve.scripted import MODEL, TOKENIZER
from serve.serving import serving

pytestmark = pytest.mark.filterwarnings("default")  # what its packages warn of is not ours to mend

QUESTIONS = [
    {"question": "To be, or not to", "choices": [" be", " xylophone", " the"], "answer": 0},
    {"question": "My lord, I", "choices": [" am", "qq", " zzz"], "answer": 0},
    {"question": "What say", "choices": ["zzz", " you"], "answer": 1},
]


def scores(question: str, choice: str) -> float:
    """The log-probability of a choice behind its question, by one pass of the model."""
    begin = len(TOKENIZER.encode(question))
    ids = TOKENIZER.encode(question + choice)
    logits = MODEL([ids])[0].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return sum(logprobs[place - 1, ids[place]] for place in range(begin, len(ids)))


def test_a_task_is_scored_as_by_the_models_own_logits(tmp_path):
    lm_eval = pytest.importorskip("lm_eval")
    data = tmp_path / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, QUESTIONS)), encoding="utf-8")
    task = {
        "task": "questions",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    with serving(Engine(MODEL)) as server:
        arguments = {"model": "bundled", "base_url": f"{server.address}/v1/completions", "tokenizer_backend": "remote"}
        found = lm_eval.simple_evaluate("local-completions", model_args=arguments, tasks=[task], log_samples=True)
    right = 0
    for question, sample in zip(QUESTIONS, found["samples"]["questions"], strict=True):
        theirs = [float(reply[0]) for reply, *_ in sample["resps"]]
        ours = [scores(question["question"], choice) for choice in question["choices"]]
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)
        right += int(np.argmax(ours)) == question["answer"]
    assert found["results"]["questions"]["acc,none"] == pytest.approx(right / len(QUESTIONS))
