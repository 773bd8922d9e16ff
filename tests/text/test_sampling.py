"""From logits to tokens: greedy ties, temperature, nucleus, seeds, and the residual of speculative sampling."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.errors import DSV4Error, SettingError
from dsv4.text.sampling import Sampler, nucleus, residual

LOGITS = np.array([0.5, -1.0, 2.0, 0.0, 2.0, -3.0])


def distributions(size):
    """Probabilities of `size` tokens, some of them zero and some equal."""
    weights = st.lists(st.sampled_from([0, 0, 1, 1, 2, 5, 40, 1e-9]), min_size=size, max_size=size)
    return weights.filter(any).map(lambda numbers: np.array(numbers, float) / sum(numbers))


pairs = st.integers(1, 7).flatmap(lambda size: st.tuples(distributions(size), distributions(size)))


def sampler(temperature=1.0, top_p=1.0, seed=0, batch=1):
    return Sampler(temperature, top_p, seed, batch)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.parametrize("top_p", [1.0, 0.3])
def test_greedy_takes_the_lowest_id_among_equals(top_p):
    greedy = sampler(temperature=0, top_p=top_p)
    np.testing.assert_array_equal(greedy.distribution(LOGITS, 0), [0, 0, 1, 0, 0, 0])
    assert {greedy.draw(greedy.distribution(LOGITS, 0), 0) for _ in range(50)} == {2}


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature_divides_the_logits(temperature):
    found = sampler(temperature).distribution(LOGITS.astype(np.float32), 0)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, softmax(LOGITS / temperature), rtol=1e-12)


@pytest.mark.parametrize("temperature", [1e-3, 1e-300, 5e-324])
def test_the_smallest_temperatures_share_between_the_best(temperature):
    np.testing.assert_allclose(sampler(temperature).distribution(LOGITS, 0), [0, 0, 0.5, 0, 0.5, 0])


def test_logits_of_minus_infinity_are_never_drawn_and_large_ones_do_not_overflow():
    found = sampler().distribution(np.array([-np.inf, 3e4, 3e4, -np.inf], np.float32), 0)
    np.testing.assert_array_equal(found, [0, 0.5, 0.5, 0])


def test_draws_follow_the_distribution():
    """Chi-square over 20000 draws: 11 degrees of freedom, of which 45 is far beyond the one-in-10000 bound."""
    one, count = sampler(seed=3), 20000
    logits = np.random.default_rng(0).standard_normal(12)
    found = np.bincount([one.draw(one.distribution(logits, 0), 0) for _ in range(count)], minlength=12)
    expected = count * softmax(logits)
    assert ((found - expected) ** 2 / expected).sum() < 45


@given(probabilities=st.integers(1, 8).flatmap(distributions), place=st.floats(0, 1, exclude_max=True))
def test_a_draw_is_the_token_in_whose_share_the_number_falls(probabilities, place):
    one = sampler()
    one.chance = lambda sequence: place
    drawn = one.draw(probabilities, 0)
    assert probabilities[drawn] > 0
    before = probabilities[:drawn].sum()
    assert before - 1e-12 <= place <= before + probabilities[drawn] + 1e-12


@given(probabilities=st.integers(1, 8).flatmap(distributions), top_p=st.floats(0.01, 1))
def test_nucleus_keeps_the_likeliest_until_they_reach_top_p(probabilities, top_p):
    kept, mass = set(), 0.0
    for token in sorted(range(len(probabilities)), key=lambda t: (-probabilities[t], t)):
        if abs(mass - top_p) < 1e-9:  # sums that hit top_p exactly may be rounded to either side
            return
        if mass < top_p:
            kept.add(token)
            mass += probabilities[token]
    found = nucleus(probabilities, top_p)
    expected = np.array([p if token in kept else 0.0 for token, p in enumerate(probabilities)])
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-9)


def test_nucleus_ends_where_the_likeliest_alone_reach_top_p():
    """The mass of the likelier tokens is exactly 0.4, where a difference of sums would fall below it."""
    np.testing.assert_array_equal(nucleus(np.array([0.1, 0.4, 0.2, 0.3]), 0.4), [0, 1, 0, 0])


def test_nucleus_includes_the_token_that_reaches_top_p():
    np.testing.assert_array_equal(nucleus(np.array([0.25, 0.5, 0.25]), 0.5), [0, 1, 0])
    np.testing.assert_allclose(nucleus(np.array([0.25, 0.5, 0.25]), 0.51), [1 / 3, 2 / 3, 0])


def test_top_p_of_1_keeps_every_token():
    probabilities = np.array([1 - 1e-17, 1e-17, 0.0])
    np.testing.assert_array_equal(nucleus(probabilities, 1.0), probabilities)


def test_nucleus_cuts_what_temperature_made():
    found = sampler(temperature=2.0, top_p=0.5).distribution(LOGITS, 0)
    np.testing.assert_allclose(found, nucleus(softmax(LOGITS / 2), 0.5))
    assert np.count_nonzero(found) == 2


def draws(one, sequence, count=20):
    return [one.draw(np.full(1000, 0.001), sequence) for _ in range(count)]


def test_seeds_repeat_and_differ():
    assert draws(sampler(seed=7), 0) == draws(sampler(seed=7), 0)
    assert draws(sampler(seed=7), 0) != draws(sampler(seed=8), 0)
    assert draws(sampler(seed=None), 0) != draws(sampler(seed=None), 0)


def test_a_sequence_draws_the_same_whatever_the_others_do():
    alone, together = sampler(seed=7, batch=2), sampler(seed=7, batch=5)
    draws(together, 0), draws(together, 4)
    assert draws(alone, 1) == draws(together, 1)
    assert draws(sampler(seed=7, batch=2), 0) != draws(sampler(seed=7, batch=2), 1)


WITHOUT_A_BEST = [
    ([1, np.nan, 2, np.nan], "expected numbers below infinity, found nan for token 1"),
    ([1, 0, np.inf, -np.inf], "expected numbers below infinity, found inf for token 2"),
    ([-np.inf, np.nan, -np.inf], "expected numbers below infinity, found nan for token 1"),
    ([-np.inf] * 3, "expected a number for at least one token, found -inf for all of them"),
    ([-np.inf], "expected a number for at least one token, found -inf for all of them"),
]


@pytest.mark.parametrize("top_p", [1.0, 0.5])
@pytest.mark.parametrize("temperature", [0, 1, 5e-324])
@pytest.mark.parametrize(("logits", "message"), WITHOUT_A_BEST)
def test_logits_that_are_no_numbers_are_an_error(logits, message, temperature, top_p):
    """`choose` says it by a −1, and only for the sequence that it is about."""
    with pytest.raises(DSV4Error, match=f"logits: {message}"):
        sampler(temperature, top_p).distribution(np.array(logits), 0)
    rows = np.array([np.arange(len(logits)), logits, np.zeros(len(logits))])
    first, second, third = sampler(temperature, top_p, batch=3).choose(rows)
    assert second == -1
    assert 0 <= first < len(logits) and 0 <= third < len(logits)


@given(
    logits=st.lists(st.sampled_from([-np.inf, np.inf, np.nan, -1e300, -3.0, 0.0, 1.0, 1e300]), min_size=1, max_size=6),
    temperature=st.sampled_from([0, 5e-324, 0.7, 1e300]),
    top_p=st.sampled_from([1e-9, 0.5, 1.0]),
)
def test_a_token_is_one_that_may_be_drawn_or_there_is_an_error(logits, temperature, top_p):
    one, array = sampler(temperature, top_p), np.array(logits)
    (token,) = one.choose(array[None])
    if np.isnan(array).any() or max(logits) in (np.inf, -np.inf):
        assert token == -1
        with pytest.raises(DSV4Error, match="logits: expected"):
            one.distribution(array, 0)
    else:
        assert 0 <= token < len(logits) and logits[token] > -np.inf
        shares = one.distribution(array, 0)
        np.testing.assert_allclose(shares.sum(), 1)
        assert not shares[array == -np.inf].any()


@pytest.mark.parametrize("probabilities", [[0.0, 0.0], [0.5, np.nan], [np.nan, 0.5]])
def test_probabilities_from_which_nothing_can_be_drawn(probabilities):
    with pytest.raises(DSV4Error, match=r"probabilities: expected a sum .*, found (0\.0|nan)"):
        sampler().draw(np.array(probabilities), 0)


@pytest.mark.parametrize("sequence", [2, -1, 0.0, True, None])
def test_a_sequence_that_there_is_not(sequence):
    with pytest.raises(SettingError, match=f"sequence: expected an integer from 0 to 1, found {sequence}"):
        sampler(batch=2).chance(sequence)


@pytest.mark.parametrize("logits", [[0.0, 1.0], np.zeros((1, 4)), np.zeros(0), np.float64(3), None])
def test_logits_of_another_shape(logits):
    with pytest.raises(SettingError, match=r"logits: expected an array of shape \[vocab\], found"):
        sampler().distribution(logits, 0)
    for rows in (logits, np.zeros((3, 5))):
        with pytest.raises(SettingError, match=r"logits: expected an array of shape \[2, vocab\], found"):
            sampler(batch=2).choose(rows)


def test_greedy_at_the_released_vocabulary_needs_no_more_than_a_row():
    """129280 tokens: a matrix of one-hot rows would need 125 GiB."""
    logits = np.zeros(129280, np.float32)
    logits[77777] = 1
    assert np.flatnonzero(sampler(0).distribution(logits, 0)).tolist() == [77777]


@given(pairs)
def test_accepting_and_refusing_drafts_gives_the_target(pair):
    """A draft stands with probability min(1, target / draft); the sum over both ways is the target itself."""
    target, draft = pair
    accepted = np.minimum(target, draft)  # draft · min(1, target / draft)
    outcome = accepted + (1 - accepted.sum()) * residual(target, draft)
    np.testing.assert_allclose(outcome, target, atol=1e-12)


def test_the_residual_of_equal_distributions_is_the_target():
    np.testing.assert_array_equal(residual(np.array([0.25, 0.75]), np.array([0.25, 0.75])), [0.25, 0.75])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("temperature", value) for value in (-0.1, np.nan, np.inf, "0", None, True, 1j, [1.0, 1.0], 10**400)],
        *[("top_p", value) for value in (0.0, -1.0, 1.01, np.nan, "1", None, True)],
        *[("seed", value) for value in (-1, 3.0, "3", True)],
        *[("batch", value) for value in (0, 2.0, None, True)],
    ],
)
def test_settings_out_of_range(name, value):
    found = "an integer of about 401 digits" if value == 10**400 else re.escape(repr(value))
    with pytest.raises(SettingError, match=f"^{name}: expected .*, found {found}$"):
        sampler(**{name: value})


def test_numbers_of_numpy_are_numbers():
    plain = sampler(0.5, 0.75, 3, 2)
    numpys = sampler(np.float32(0.5), np.float64(0.75), np.uint8(3), np.int64(2))
    assert [draws(plain, 1), plain.temperatures, plain.top_ps] == [draws(numpys, 1), [0.5] * 2, [0.75] * 2]
    np.testing.assert_array_equal(sampler(np.int64(1)).distribution(LOGITS, 0), sampler(1.0).distribution(LOGITS, 0))


@pytest.mark.parametrize("seed", range(5))
def test_settings_of_its_own_make_a_sequence_draw_as_in_a_batch_with_these_settings(seed):
    temperatures, top_ps = [0, 0.5, 2.0, 1], np.array([1.0, 0.9, 0.4, 0.7])
    logits = np.random.default_rng(seed).standard_normal((4, 40))
    mixed = Sampler(temperatures, top_ps, seed, 4)
    uniform = [Sampler(temperature, top_p, seed, 4) for temperature, top_p in zip(temperatures, top_ps, strict=True)]
    for _ in range(20):
        expected = [one.choose(logits)[number] for number, one in enumerate(uniform)]
        assert mixed.choose(logits).tolist() == expected
    for number, one in enumerate(uniform):
        np.testing.assert_array_equal(mixed.distribution(logits[0], number), one.distribution(logits[0], number))


@pytest.mark.parametrize(
    ("temperature", "top_p", "message"),
    [
        ([1.0], 1.0, "temperature: expected a number, or one for each of 2 sequences, found"),
        (1.0, (1.0, 1.0, 1.0), "top_p: expected a number, or one for each of 2 sequences, found"),
        ([1.0, -1.0], 1.0, "temperature: expected a number of at least 0, found"),
        (1.0, [1.0, 0.0], "top_p: expected a number above 0 and at most 1, found"),
        ([1.0, "0"], 1.0, "temperature: expected a finite number, found"),
    ],
)
def test_settings_of_sequences_must_fit(temperature, top_p, message):
    with pytest.raises(SettingError, match=f"^{message}"):
        Sampler(temperature, top_p, 0, 2)
