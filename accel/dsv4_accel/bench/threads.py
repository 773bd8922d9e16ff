"""How many threads the contestants may use, for rows that are about one thread."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec


@contextmanager
def limited_to(threads: int) -> Iterator[None]:
    """Numba, torch and NumPy's matrix library compute with so many threads, as far as they are loaded.

    NumPy's can be told only where threadpoolctl is installed. ggml is told by each of its contestants.
    """
    with ExitStack() as restore:
        for name in ("numba", "torch"):
            if name in sys.modules:
                library = sys.modules[name]
                restore.callback(library.set_num_threads, library.get_num_threads())
                library.set_num_threads(min(threads, library.get_num_threads()))
        if find_spec("threadpoolctl"):
            limits = import_module("threadpoolctl").threadpool_limits(threads, user_api="blas")
            restore.enter_context(limits)
        yield
