"""How learners' differences become one: by hand, and by property in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.errors import SettingError
from dsv4.learn.diloco.merge import merged, pseudo_gradient, radial_mean, token_weight, weighted_mean

NAME = "layers.0.attn.wq_a.weight"


def drawn(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


class TestRadialMean:
    def test_by_hand(self):
        """Lengths 3 and 4 with weights 1 and 3: length 3.75; directions (1, 0) and (0, 1): (.25, .75)."""
        found = radial_mean([np.array([3.0, 0.0]), np.array([0.0, 4.0])], [1.0, 3.0])
        np.testing.assert_allclose(found, 3.75 * np.array([0.25, 0.75]) / np.hypot(0.25, 0.75), rtol=1e-15)

    @given(st.integers(2, 6), st.floats(1e-6, 1e6), st.lists(st.floats(0.01, 100), min_size=6, max_size=6))
    def test_orthogonal_differences_keep_their_length(self, count, length, weights):
        directions = np.linalg.qr(drawn(count, 8, 8))[0][:count]
        found = radial_mean([length * one.reshape(2, 4) for one in directions], weights[:count])
        np.testing.assert_allclose(np.linalg.norm(found), length, rtol=1e-12)
        plain = weighted_mean([length * one for one in directions], weights[:count])
        assert np.linalg.norm(plain) < length * 0.9999

    @given(st.integers(0, 1000), st.floats(0.1, 10))
    def test_learners_that_agree_are_as_one(self, seed, weight):
        one = drawn(seed, 3, 5)
        np.testing.assert_allclose(radial_mean([one, one, one], [1.0, weight, 2.0]), one, rtol=1e-12)

    def test_what_cancels_is_the_plain_mean(self):
        one = drawn(0, 4)
        np.testing.assert_allclose(radial_mean([2 * one, -one], [1.0, 1.0]), one / 2, rtol=1e-12)

    def test_what_nearly_cancels_in_float32_does_not_become_a_direction(self):
        one = drawn(1, 64).astype(np.float32)
        other = -one * np.float32(1 + 1e-7)
        assert np.linalg.norm(radial_mean([one, other], [1.0, 1.0])) < 1e-5 * np.linalg.norm(one)

    def test_differences_of_nothing_count_for_the_length_alone(self):
        one = drawn(2, 5)
        np.testing.assert_allclose(radial_mean([one, np.zeros(5)], [1.0, 1.0]), one / 2, rtol=1e-12)
        np.testing.assert_array_equal(radial_mean([np.zeros(5)], [1.0]), np.zeros(5))

    @given(st.integers(0, 1000), st.integers(1, 4))
    def test_it_turns_with_its_arguments(self, seed, count):
        """A rotation of all differences rotates the result: no axis is special."""
        differences, turn = drawn(seed, count, 6), np.linalg.qr(drawn(seed + 1, 6, 6))[0]
        weights = list(np.random.default_rng(seed).uniform(0.1, 1, count))
        expected = turn @ radial_mean(list(differences), weights)
        np.testing.assert_allclose(radial_mean([turn @ one for one in differences], weights), expected, atol=1e-10)


class TestMerged:
    def test_the_embedding_takes_the_mean_and_a_matrix_does_not(self):
        differences = [np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])]
        np.testing.assert_allclose(merged("embed.weight", differences, [1, 1]), [[1, 1]])
        np.testing.assert_allclose(merged(NAME, differences, [1, 1]), [[np.sqrt(2), np.sqrt(2)]])
        np.testing.assert_allclose(merged("head.weight", differences, [1, 1]), [[np.sqrt(2), np.sqrt(2)]])
        np.testing.assert_allclose(merged(NAME, differences, [1, 1], radially=False), [[1, 1]])

    def test_a_routers_bias_takes_the_mean(self):
        found = merged("layers.3.ffn.gate.bias", [np.array([2.0, 0.0]), np.array([0.0, 2.0])], [1, 3])
        np.testing.assert_allclose(found, [0.5, 1.5])

    @given(st.integers(0, 1000), st.sampled_from([NAME, "embed.weight"]))
    def test_a_learner_of_weight_0_changes_no_bit_whatever_it_says(self, seed, name):
        one, other = drawn(seed, 3, 4), drawn(seed + 1, 3, 4)
        alone = merged(name, [one, other], [1.0, 2.0])
        np.testing.assert_array_equal(merged(name, [one, np.full((3, 4), np.nan), other], [1.0, 0.0, 2.0]), alone)

    @given(st.integers(0, 1000), st.floats(1e-3, 1e3))
    def test_weights_count_relative_to_each_other(self, seed, factor):
        differences = list(drawn(seed, 3, 4))
        expected = merged(NAME, differences, [1.0, 2.0, 3.0])
        np.testing.assert_allclose(merged(NAME, differences, [factor, 2 * factor, 3 * factor]), expected, rtol=1e-9)

    def test_the_dtype_stays(self):
        assert merged(NAME, [np.ones(3, np.float32)] * 2, [1, 1]).dtype == np.float32
        assert merged("embed.weight", [np.ones(3, np.float32)] * 2, [1, 1]).dtype == np.float32

    @pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0], [1.0, -1.0], []])
    def test_weights_that_do_not_fit_are_refused(self, weights):
        with pytest.raises(SettingError, match="weights"):
            merged(NAME, [np.ones(2)] * 2, weights)


class TestWeightsAndSigns:
    def test_weights_by_hand(self):
        assert token_weight(6000, 3) == 12e6
        assert token_weight(0, 0) == 0

    def test_with_one_batch_size_a_learner_weighs_as_much_as_it_has_learnt_from(self):
        assert token_weight(300, 3) == 3 * token_weight(100, 1)

    @pytest.mark.parametrize("counters", [(-1, 1), (1, -1), (1, 0)])
    def test_impossible_counters_are_refused(self, counters):
        with pytest.raises(SettingError):
            token_weight(*counters)

    def test_the_pseudo_gradient_points_back(self):
        np.testing.assert_array_equal(pseudo_gradient(np.array([5.0, 1.0]), np.array([3.0, 2.0])), [2.0, -1.0])
