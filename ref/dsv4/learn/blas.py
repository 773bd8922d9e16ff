"""One thread for each of NumPy's products, where several threads of our own make them."""

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any


def one_blas_thread() -> AbstractContextManager[Any]:
    """While it lasts, a matrix product takes one thread, if threadpoolctl is there to say so (extra `train`).

    Two pools of threads on the same cores hinder each other: a step may take several times as long. Another number of
    threads may add in another order, too, and so give other bits. Without threadpoolctl the variable
    OPENBLAS_NUM_THREADS=1 does the same for a whole process.
    """
    if find_spec("threadpoolctl") is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits
