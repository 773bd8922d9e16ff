"""Generation with a DSpark drafter: the text without drafts, its distribution, and what is counted of them."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tiny
from dsv4.config import DSpark
from dsv4.errors import SettingError
from dsv4.ops import Ops
from dsv4.text.drafters import DSparkDrafter, MTPDrafter, drafter_of
from dsv4.text.drafts import Drafter, Drafts, accept
from dsv4.text.generate import generate
from dsv4.text.rounds import Rounds
from dsv4.text.sampling import Sampler
from text.test_generate import PROMPTS, exact, tally, texts

GOLDEN = json.loads((Path(__file__).parents[1] / "data/golden/dspark_verify.json").read_text())


def agreeing(**changes):
    """A checkpoint whose drafter is often right, and neither sure nor unsure.

    Blocks add little, so that a token mostly decides on the next one. The Markov head knows what the model says behind
    each token alone, and the stages say little besides.
    """
    settings = replace(tiny.DSPARK["dspark"], markov_rank=17)  # of rank 16 are the logits, but for a constant
    source = tiny.checkpoint(seed=5, **(tiny.DSPARK | {"dspark": settings} | changes))
    quiet = source.changed(
        wo_b__weight=lambda weight: weight / 4,
        w2__weight=lambda weight: weight / 4,
        mtp__2__norm__weight=lambda weight: weight / 32,
        confidence_head__proj__weight=lambda weight: weight / 8,
    )
    model = tiny.model(Ops(), quiet)
    bigrams = np.concatenate([model([token])[0] for token in range(source.config.vocab_size)])  # [vocab, vocab]
    left, values, right = np.linalg.svd(bigrams)
    rank, prefix = settings.markov_rank, "mtp.2.markov_head.markov_"
    quiet.weights[f"{prefix}w1.weight"] = (left[:, :rank] * values[:rank]).astype(np.float32)
    quiet.weights[f"{prefix}w2.weight"] = right[:rank].T.astype(np.float32)
    return quiet


@pytest.fixture(scope="module")
def model(backend):
    return tiny.model(backend, agreeing())


def greedy(model, prompts, count, **options):
    return texts(generate(model, prompts, count, **({"temperature": 0, "stop_ids": []} | options)), len(prompts))


RULES = {
    "all": {},
    "threshold": {"draft_threshold": 0.5},
    "none": {"draft_threshold": 1.0},
    "two": {"max_drafts": 2},
    "schedule": {"draft_schedule": True},
    "plain now and then": {"plain_steps": (0, 3, 4)},
}


@pytest.mark.parametrize("rule", RULES)
def test_drafts_do_not_change_greedy_text(model, rule):
    """Across the window of 8 and blocks of 4 and 128, in a batch whose prompts stand at different places in them."""
    plain = greedy(model, PROMPTS, 40)
    generation = generate(
        model, PROMPTS, 40, temperature=0, stop_ids=[], speculative=True, prefill_chunk=9, **RULES[rule]
    )
    assert texts(generation, len(PROMPTS)) == plain
    rounds = generation.rounds
    assert rounds.tokens == sum(map(len, plain)) - len(PROMPTS)  # each first one comes from the prompt
    assert rounds.accepted == rounds.tokens - rounds.steps
    if rule == "all":
        assert len(rounds.accepted_by_place) == 5 and rounds.accepted_by_place[1] > 0
        assert 0 < rounds.accepted < rounds.drafted
        assert rounds.tokens_per_step > 1.3
    if rule == "two":
        assert len(rounds.drafted_by_place) == 2
    if rule == "none":
        assert rounds.drafted == 0 and rounds.tokens_per_step == 1


@pytest.mark.parametrize("length", [144, 147, 148, 149, 150])
def test_the_context_ends_a_sequence(backend, length):
    model = tiny.model(backend, agreeing(max_position_embeddings=150))
    prompts = [tiny.tokens(9, length).tolist(), PROMPTS[0]]
    expected = greedy(model, prompts, 9)
    assert len(expected[0]) == min(9, 151 - length)
    assert greedy(model, prompts, 9, speculative=True) == expected


def test_a_prompt_of_one_token(model):
    for prompts in ([[5]], [[5], [1, 2, 3]]):
        assert greedy(model, prompts, 12, speculative=True) == greedy(model, prompts, 12)


def test_stop_ids_inside_and_behind_drafts(model):
    plain = greedy(model, PROMPTS, 20)
    for stop in sorted({ids[place] for ids in plain for place in (1, 2, 3, 4, 6)}):
        expected = [ids[: ids.index(stop) + 1] if stop in ids else ids for ids in plain]
        assert greedy(model, PROMPTS, 20, stop_ids=[stop], speculative=True) == expected


def test_samples_do_not_depend_on_the_other_prompts(model):
    options = {"seed": 5, "speculative": True, "draft_threshold": 0.4}
    together = texts(generate(model, PROMPTS, 10, **options), 4)
    assert together[:2] == texts(generate(model, PROMPTS[:2], 10, **options), 2)


@pytest.mark.parametrize(("temperature", "top_p", "threshold"), [(1.0, 1.0, 0.0), (0.7, 0.8, 0.0), (1.0, 1.0, 0.5)])
def test_drafts_do_not_change_the_distribution(backend, temperature, top_p, threshold):
    """All texts of three tokens: their frequencies in 4000 runs against their exact probabilities."""
    runs, vocab, prompt = 4000, 4, [1, 2, 3, 0, 2, 1]
    settings = {"compress_ratios": (4, 0, 0), "num_hidden_layers": 1, "dspark": DSpark(2, 3, (0,), 3)}
    model = tiny.model(backend, vocab_size=vocab, num_hash_layers=1, eos_token_id=0, **settings)
    options = {"temperature": temperature, "top_p": top_p, "seed": 1, "stop_ids": [], "draft_threshold": threshold}
    generation = generate(model, [prompt] * runs, 3, **options, speculative=True)
    found = texts(generation, runs)
    assert 0.1 < generation.acceptance_rate < 0.95
    if threshold:
        assert generation.rounds.drafted < 0.9 * 2 * runs
    shares = exact(model, prompt, Sampler(temperature, top_p, 0, 1))
    for expected, counts in zip(shares, tally(found, vocab), strict=True):
        assert not counts[expected == 0].any()
        possible = expected > 0
        chi_square = ((counts - runs * expected)[possible] ** 2 / (runs * expected)[possible]).sum()
        freedom = possible.sum() - 1
        assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


class Given:
    """A sampler whose random numbers are given; it keeps the distribution that it is to draw from."""

    def __init__(self, uniforms, temperature):
        self.uniforms, self.drawn_from = iter(uniforms), None
        self.distribution = Sampler(temperature, 1.0, 0, 1).distribution

    def chance(self, sequence):
        return next(self.uniforms)

    def draw(self, probabilities, sequence):
        self.drawn_from = probabilities
        return int(np.argmax(probabilities))


@pytest.mark.parametrize("case", GOLDEN["rejection"], ids=lambda case: f"{case['temperature']} {case['accepted']}")
def test_drafts_are_accepted_as_by_the_official_rule(case):
    sampler = Given(case["uniforms"], case["temperature"])
    batch = SimpleNamespace(sampler=sampler, stop_ids=frozenset(case["stop_ids"]), rounds=Rounds())
    target, guesses = (np.array(case[f"{part}_logits"], np.float32) for part in ("target", "draft"))
    drafts = Drafts(case["drafts"], [sampler.distribution(guess, 0) for guess in guesses])
    tokens = accept(batch, 0, drafts, target)
    assert batch.rounds.accepted == case["accepted"]
    assert tokens[: case["accepted"]] == case["drafts"][: case["accepted"]]
    assert len(tokens) == case["accepted"] + (not case["ended"])
    if case["ended"]:
        assert sampler.drawn_from is None and tokens[-1] in case["stop_ids"]
    else:
        np.testing.assert_allclose(sampler.drawn_from, case["next_distribution"], atol=1e-6)


def test_each_round_says_what_it_drafted_and_kept(model):
    generation, seen = generate(model, PROMPTS[:1], 25, temperature=0, stop_ids=[], speculative=True), []
    generation.rounds.watch = seen.append
    text = texts(generation)[0]
    answer, rebuilt = PROMPTS[0] + text, text[:1]
    for one in seen:
        assert one.given == rebuilt[-1] == answer[one.position + 1]
        assert len(one.drafts) in (0, 5) and one.accepted <= one.length <= 5
        rebuilt += one.drafts[: one.accepted] + one.following
    assert rebuilt == text


def test_a_speedup_needs_steps_with_and_without_drafts():
    rounds = Rounds()
    rounds.timed(2, 1.0, plain=True)
    assert rounds.speedup is None and rounds.tokens_per_step == 0
    rounds.timed(2, 4.0, plain=True)
    rounds.timed(2, 1.0, plain=True)
    rounds.timed(9, 2.0, plain=False)
    rounds.timed(3, 2.0, plain=False)
    assert rounds.speedup == pytest.approx(12 / 4 / 2)  # the slowest plain step does not count


def test_a_checkpoint_decides_what_drafts(model):
    assert isinstance(drafter_of(model), DSparkDrafter) and isinstance(drafter_of(model), Drafter)
    assert drafter_of(model).max_drafts == 5
    assert isinstance(drafter_of(tiny.model(Ops())), MTPDrafter)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drafts": 0}, "max_drafts: expected an integer of at least 1, found 0"),
        ({"draft_threshold": 1.5}, "draft_threshold: expected a number from 0 to 1, found 1.5"),
        ({"draft_threshold": "half"}, "draft_threshold: expected a finite number, found 'half'"),
        ({"draft_schedule": 1}, "draft_schedule: expected True or False, found 1"),
        (
            {"draft_schedule": True, "draft_threshold": 0.5},
            "draft_schedule: expected it without a draft_threshold, found 0.5",
        ),
    ],
)
def test_settings_out_of_range(model, options, message):
    with pytest.raises(SettingError, match=message):
        generate(model, PROMPTS, 3, speculative=True, **options)
