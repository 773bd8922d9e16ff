"""Checks one function against the definition of an operation: `dsv4.check(my_function, "sparse_attention")`.

The properties, the cases and the verdicts are those of the project's own tests, which run them for every backend
(`tests/ops/test_interface.py`). They need NumPy alone.
"""

from dsv4.checking.report import Failure, Finding, Report, Worst
from dsv4.checking.run import check

__all__ = ["Failure", "Finding", "Report", "Worst", "check"]
