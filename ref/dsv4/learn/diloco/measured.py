"""Measure the rows of docs/diloco.md: `python -m dsv4.learn.diloco.measured DIRECTORY [SEED …]`.

It takes minutes for each row. What is in the directory is gone on with, so it can be stopped at any moment.
"""

import sys
import tempfile
from pathlib import Path

from dsv4.config import Config
from dsv4.errors import DSV4Error
from dsv4.learn.diloco.chaos import QUIET, Chaos
from dsv4.learn.diloco.goodput.fit import FITTED
from dsv4.learn.diloco.reach import Run, Variant, drawn_kills, reach
from dsv4.learn.diloco.settings import Settings
from dsv4.learn.diloco.world import JITTER, STEP_SECONDS
from dsv4.learn.recipe import Recipe, Stage
from dsv4.learn.texts.bundled_text import HELD_OUT, download, editions

CONFIG = Config(
    vocab_size=384,
    hidden_size=64,
    num_hidden_layers=1,
    num_hash_layers=0,
    num_nextn_predict_layers=0,
    num_attention_heads=4,
    head_dim=32,
    qk_rope_head_dim=16,
    q_lora_rank=32,
    o_lora_rank=32,
    o_groups=2,
    sliding_window=16,
    compress_ratios=(4,),
    index_n_heads=2,
    index_head_dim=16,
    index_topk=8,
    rope_theta=10000.0,
    compress_rope_theta=10000.0,
    rope_scaling=None,
    max_position_embeddings=512,
    n_routed_experts=4,
    n_shared_experts=1,
    num_experts_per_tok=1,
    moe_intermediate_size=32,
    scoring_func="sqrtsoftplus",
    norm_topk_prob=True,
    topk_method="noaux_tc",
    routed_scaling_factor=1.5,
    swiglu_limit=10.0,
    hc_mult=2,
    hc_sinkhorn_iters=5,
    hc_eps=1e-6,
    rms_norm_eps=1e-6,
    bos_token_id=0,
    eos_token_id=1,
    tie_word_embeddings=False,
    torch_dtype="float32",
    quantised=False,
)
"""One CSA layer, 112,977 parameters."""

STEPS, WARM_START = 288, 72
"""A quarter of the steps as one: DiLoCo (2311.08105) begins with 24,000 of 88,000."""

PLAYS = 16
"""That are learnt from, the first by name."""

JUDGED = slice(20_000, 36_000)
"""Characters of the play that is not."""

RIGID_GOODPUT = 0.27
"""Of a rigid program with as many failures as learners have together: published for 1.2 million chips."""


def main(arguments: list[str]) -> int:
    """Print a row for each variant and seed as it is there; 2 with one line of reason where that cannot be done."""
    if not arguments or not all(seed.isdecimal() for seed in arguments[1:]):
        print("usage: python -m dsv4.learn.diloco.measured DIRECTORY [SEED …]", file=sys.stderr)
        return 2
    try:
        directory = Path(arguments[0])
        texts, held_out = _texts(directory / "texts")
        for seed in map(int, arguments[1:] or ("0", "1", "2")):
            for name, variant in variants(seed).items():
                [row] = reach(recipe(seed), texts, held_out, directory / str(seed), {name: variant})
                print(_line(seed, row), flush=True)
    except DSV4Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def recipe(seed: int) -> Recipe:
    """Of one learner: 64 sequences of 64 tokens in a step, the last quarter with a falling learning rate."""
    decay = STEPS // 4
    return Recipe(
        model=CONFIG,
        stages=(Stage("dense", STEPS - decay, 64, 64), Stage("decay", decay, 64, 64)),
        learning_rate=0.02,
        final_learning_rate=0.002,
        warmup_steps=20,
        checkpoint_interval=24,
        quantise=False,
        seed=seed,
    )


def variants(seed: int) -> dict[str, Variant]:
    """The rows: one learner; 4 and 8 with a warm start, undisturbed and killed; and 4 and 8 without one."""
    rows = {"one": Variant(None)}
    for learners in (4, 8):
        settings = Settings(learners, outer_learning_rate=1.0, outer_momentum=0.0, warm_start=WARM_START)
        kills = drawn_kills(learners, STEPS - WARM_START, steps_between_kills(learners), _gone(), seed)
        for name, chaos in ("undisturbed", QUIET), ("killed", Chaos(kills)):
            rows[f"{learners} {name}"] = Variant(settings, chaos)
    for learners in (4, 8):
        rows[f"{learners} cold"] = Variant(Settings(learners, outer_learning_rate=1.0, outer_momentum=0.0))
    return rows


def steps_between_kills(learners: int) -> float:
    """Of a learner, on average, where the failures of all would leave a rigid program RIGID_GOODPUT."""
    failures_a_second = (1 / RIGID_GOODPUT - 1) / FITTED.restart
    return learners / failures_a_second / (STEP_SECONDS * (1 + JITTER / 2))


def _gone() -> float:
    """Seconds for which a learner stands after a failure."""
    return FITTED.reconfiguration + FITTED.scale_up


def _texts(directory: Path) -> tuple[list[Path], str]:
    """Files of the plays that are learnt from, and the text that is judged by."""
    if not directory.exists():
        with tempfile.TemporaryDirectory() as temporary:
            texts = editions(download(Path(temporary)))
        directory.mkdir(parents=True)
        for name, text in texts.items():
            (directory / name).write_text(text, encoding="utf-8")
    plays = sorted(file for file in directory.iterdir() if file.name != HELD_OUT)
    return plays[:PLAYS], (directory / HELD_OUT).read_text(encoding="utf-8")[JUDGED]


def _line(seed: int, row: Run) -> str:
    sizes = f"{row.bytes_up:,.0f} and {row.bytes_down:,.0f} bytes up and down"
    return f"seed {seed}  {row.name:14} {row.nats:.4f} nats  {row.tokens:,} tokens  goodput {row.goodput:.1%}  {sizes}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
