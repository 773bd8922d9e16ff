"""Any drafter, of any number of drafts: the text is the one without, and its distribution, too."""

import numpy as np
import pytest

import tiny
from dsv4.errors import SettingError
from dsv4.ops import Ops
from dsv4.text.drafts import Drafter, Drafts
from dsv4.text.generate import generate
from dsv4.text.sampling import Sampler
from text.test_generate import PROMPTS, exact, tally, texts

VOCAB = tiny.CONFIG.vocab_size


class Oracle:
    """Knows the texts, and drafts what comes next in them; now and then it is wrong by one."""

    def __init__(self, answers, most, wrong_every):
        self.answers, self.max_drafts, self.wrong_every = answers, most, wrong_every
        self.reads = [[] for _ in answers]

    def read(self, states, next_ids, cache, mask):
        assert states.shape[:2] == next_ids.shape == mask.shape
        for sequence, row in enumerate(mask):
            self.reads[sequence] += next_ids[sequence, row].tolist()

    def draft(self, sequence, sampler):
        start = len(self.reads[sequence])
        ids = [
            (token + (place % self.wrong_every == 0)) % VOCAB
            for place, token in enumerate(self.answers[sequence][start : start + self.max_drafts], start)
        ]
        return Drafts(ids, [np.eye(VOCAB)[token] for token in ids])


@pytest.mark.parametrize("most", [0, 1, 2, 5])
@pytest.mark.parametrize("wrong_every", [1, 3, 1000])
def test_any_number_of_drafts_leaves_the_greedy_text_as_it_is(backend, most, wrong_every):
    model, options = tiny.model(backend, tiny.checkpoint(seed=5)), {"temperature": 0, "stop_ids": []}
    plain = texts(generate(model, PROMPTS, 30, **options), len(PROMPTS))
    answers = [prompt[1:] + text for prompt, text in zip(PROMPTS, plain, strict=True)]
    drafter = Oracle(answers, most, wrong_every)
    assert isinstance(drafter, Drafter)
    generation = generate(model, PROMPTS, 30, **options, speculative=drafter, prefill_chunk=9)
    assert texts(generation, len(PROMPTS)) == plain
    for read, answer in zip(drafter.reads, answers, strict=True):
        assert read == answer[: len(read)]
    if wrong_every == 1000 and most:
        assert generation.acceptance_rate == 1
        assert generation.drafted == len(PROMPTS) * (29 - -(-29 // (1 + most)))
    if wrong_every == 1:
        assert generation.acceptance_rate == 0


class Blind:
    """Drafts that have nothing to do with the text, each from a distribution of its own."""

    max_drafts = 2

    def read(self, states, next_ids, cache, mask):
        pass

    def draft(self, sequence, sampler):
        guesses = [np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.7, 0, 0, 0.3])]
        return Drafts([sampler.draw(guess, sequence) for guess in guesses], guesses)


def test_two_drafts_do_not_change_the_distribution(backend):
    runs, vocab, prompt = 4000, 4, [1, 2, 3, 0, 2, 1]
    model = tiny.model(backend, vocab_size=vocab, compress_ratios=(4, 0), num_hash_layers=1, eos_token_id=0)
    generation = generate(model, [prompt] * runs, 3, seed=1, stop_ids=[], speculative=Blind())
    found = texts(generation, runs)
    assert 0.2 < generation.acceptance_rate < 0.9
    expected = exact(model, prompt, Sampler(1.0, 1.0, 0, 1))
    for shares, counts in zip(expected, tally(found, vocab), strict=True):
        chi_square = ((counts - runs * shares) ** 2 / (runs * shares)).sum()
        freedom = len(shares) - 1
        assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def test_what_is_no_drafter_is_refused():
    with pytest.raises(SettingError, match="speculative"):
        generate(tiny.model(Ops()), [1, 2], speculative=object())
