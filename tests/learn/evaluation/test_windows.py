"""Windows of a text: where they begin, and what is left out."""

import numpy as np
import pytest

from dsv4.errors import TextError
from dsv4.learn.evaluation.windows import windows


def test_windows_by_hand():
    np.testing.assert_array_equal(windows(range(8), 3, 2), [[0, 1, 2], [2, 3, 4], [4, 5, 6]])
    np.testing.assert_array_equal(windows(range(9), 3, 3), [[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    np.testing.assert_array_equal(windows(range(8), 3, 3), [[0, 1, 2], [3, 4, 5]])


def test_a_text_shorter_than_a_window_is_named():
    with pytest.raises(TextError, match="expected at least a window of 9 tokens, found 8"):
        windows(range(8), 9, 1)
