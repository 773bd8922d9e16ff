"""What kernels report of numbers that name nothing, such as a token id beyond the vocabulary.

The reference looks at such numbers before it computes. Here that would make the host wait for the device inside an
operation, so a kernel skips what it must not read, notes the first such number, and the error is raised when a result
is next brought to the host.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FIELDS = 3
"""Of the note, uint64: a key of PROBLEMS or 0, the number found, how many there are."""


class Problem(NamedTuple):
    """An error of the reference."""

    error: type[Exception]
    message: str
    """With the number that was `found` and the `last` that would have been right."""


# The keys are those in status.cuh.
PROBLEMS = {
    1: Problem(IndexError, "embedding: token ids must lie in 0 … {last}, found {found}"),
    2: Problem(ValueError, "experts: numbers must lie in 0 … {last}, found {found}"),
    3: Problem(ValueError, "sparse_attention: window index {found} is beyond the {count} rows"),
    4: Problem(ValueError, "sparse_attention: entries index {found} is beyond the {count} rows"),
}


def raise_for(note: npt.NDArray[Any]) -> None:
    """Raises the error that a note [3] uint64 stands for, if it stands for one."""
    code, found, count = note.astype(np.int64).tolist()  # what was found may be negative
    if code:
        problem = PROBLEMS[code]
        raise problem.error(problem.message.format(found=found, last=count - 1, count=count))
