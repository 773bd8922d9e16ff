"""Small stages of post-training, and a start for them: a tiny model with the tokenizer of the worlds."""

from dataclasses import replace

import numpy as np

import tiny
from dsv4.learn import new_model
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.recipe import GRPO, OPD, SFT, Imitation, PostRecipe, Teacher
from dsv4.learn.run_directory import RunDirectory
from learn.runs import KilledError, log_of, model_bytes

MODEL = tiny.config(
    vocab_size=768,
    max_position_embeddings=256,
    hidden_size=32,
    moe_intermediate_size=32,
    quantised=True,
    hc_eps=1e-6,
    swiglu_limit=7.0,
)

SHORT = (Effort("non-think", 6, 0.3), Effort("high", 8, 0.1))
COMMON = {"steps": 3, "learning_rate": 0.003, "checkpoint_interval": 1, "part": 2}
FINE = SFT("tuned", "new", ("sums", "strings"), batch=5, **COMMON)
REWARDED = GRPO("rewarded", "tuned", ("sums", "verse"), questions=2, group=3, efforts=SHORT, beta=0.1, **COMMON)
TAUGHT = OPD(
    "student",
    "tuned",
    ("sums", "strings"),
    questions=4,
    efforts=SHORT[:1],
    teachers=(Teacher("tuned", ("sums",), 0.5), Teacher("rewarded", ("strings",), 2.0)),
    **COMMON,
)
IMITATING = Imitation(
    "imitator", "tuned", TAUGHT.worlds, questions=4, efforts=SHORT[:1], teachers=TAUGHT.teachers, **COMMON
)
RECIPE = PostRecipe((FINE, REWARDED, TAUGHT), MODEL)


def checkpoint(directory, tokenizer_directory, seed=0, config=MODEL):
    """A random model as a checkpoint that a stage can start from."""
    files = [tokenizer_directory / name for name in ("tokenizer.json", "tokenizer_config.json")]
    new_model(config, seed, hc_scale=0.5).save(directory, extra_files=files)
    return directory


def starting(stage, start, **changes):
    return replace(stage, start=str(start), **changes)


def killed_after(count):
    """A watcher that ends a run after so many steps, of all stages together."""
    seen = []

    def watch(stage, report, seconds):
        seen.append((stage.name, report.step))
        if len(seen) == count:
            raise KilledError

    return watch


def assert_same_stage(found, expected):
    """Weights, optimiser, reference, log and model, to the last bit."""
    ours, theirs = (RunDirectory(one) for one in (found, expected))
    assert ours.steps() == theirs.steps()
    one, other = (run.load_state(run.newest())[0] for run in (ours, theirs))
    assert one.keys() == other.keys()
    for name, array in other.items():
        np.testing.assert_array_equal(one[name], array, err_msg=name)
    assert log_of(found) == log_of(expected)
    assert model_bytes(found) == model_bytes(expected)
