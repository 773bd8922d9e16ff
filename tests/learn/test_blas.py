"""One thread for each product, where something can say so."""

import sys
from types import ModuleType

import numpy as np
import pytest

from dsv4.learn import blas


def test_with_threadpoolctl():
    control = pytest.importorskip("threadpoolctl")
    np.ones((2, 2)) @ np.ones((2, 2))
    with blas.one_blas_thread():
        pools = [pool for pool in control.threadpool_info() if pool["user_api"] == "blas"]
        assert pools and {pool["num_threads"] for pool in pools} == {1}


def test_what_is_asked_of_it(monkeypatch):
    asked, control = [], ModuleType("threadpoolctl")
    control.threadpool_limits = lambda limits, user_api: asked.append((limits, user_api))
    monkeypatch.setitem(sys.modules, "threadpoolctl", control)
    monkeypatch.setattr(blas, "find_spec", lambda name: control)
    blas.one_blas_thread()
    assert asked == [(1, "blas")]


def test_without_it_nothing_changes(monkeypatch):
    monkeypatch.setattr(blas, "find_spec", lambda name: None)
    with blas.one_blas_thread() as limits:
        assert limits is None
