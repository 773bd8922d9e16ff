"""What errors are measured against: the terms of the sums, and nothing that has no part in them."""

import numpy as np
import pytest

from dsv4.checking.cases import by_size, example
from dsv4.checking.examples41 import EVERY_CALL
from dsv4.checking.magnitudes import magnitude
from dsv4.checking.properties import numpys
from verdicts import in_dtype


@pytest.mark.parametrize("name", EVERY_CALL)
def test_no_result_is_larger_than_its_terms(name):
    for case in by_size(name):
        arguments = in_dtype(case.arguments, np.float64)
        terms = magnitude(name.split()[0], arguments)
        sums = [one for one in numpys(name)(arguments) if one.dtype.kind == "f"]
        largest = max((np.abs(one).max(initial=0) for one in sums), default=0)
        assert terms is None or largest <= 1.1 * terms  # inputs that are rounded may grow a little


def test_keys_that_nobody_names_have_no_part():
    queries, window, window_index, entries, entry_index, sink = in_dtype(example("sparse_attention"), np.float64)
    window[:, 0], window_index[window_index == 0] = 1e9, 1
    assert magnitude("sparse_attention", (queries, window, window_index, entries, entry_index, sink)) < 10


def test_excluded_slots_have_no_part():
    kv, score = in_dtype(example("compress"), np.float64)
    kv[:, :, 0], score[:, :, 0] = 1e9, -np.inf
    assert magnitude("compress", (kv, score)) < 10


def test_terms_that_cancel_count():
    x = np.array([[1000.0, -1000.0]])
    assert magnitude("linear", (x, np.ones((1, 2)))) == 2000
