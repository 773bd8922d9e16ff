"""Backends by name: which one `auto` is, what the environment says, packages that add one, one line for what fails."""

import importlib.metadata
import sys
import types
import warnings
from importlib.metadata import EntryPoint

import pytest

from dsv4 import backends, entry_points, load
from dsv4.backends import VARIABLE, backend, backend_names
from dsv4.errors import BackendError
from dsv4.ops import Ops


class Abacus(Ops):
    """A backend from another package."""

    name = "abacus"


def broken_for(message):
    """A backend that cannot be made, as where a library finds no device."""

    def fail():
        raise OSError(message)

    return fail


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def numba_is(monkeypatch):
    """Makes Numba seem to be installed, with this class as its backend, or seem to be missing."""

    def make(found):
        original = backends.find_spec
        monkeypatch.setattr(backends, "find_spec", lambda name: found if name == "numba" else original(name))
        module = types.ModuleType("dsv4_accel.numba")
        module.NumbaOps = found or Ops
        monkeypatch.setitem(sys.modules, "dsv4_accel.numba", module)

    return make


@pytest.fixture
def register(monkeypatch):
    """Adds an entry point of the group, as an installed package does: name, value, and what the value stands for."""
    points = []
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: points if group == "dsv4.ops" else [])

    def add(name, thing):
        module = types.ModuleType(f"plugin_{name}")
        module.Backend = thing
        monkeypatch.setitem(sys.modules, module.__name__, module)
        points.append(EntryPoint(name, f"{module.__name__}:Backend", "dsv4.ops"))

    return add


def in_one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_auto_is_numba_where_numba_is_installed(numba_is):
    numba_is(Abacus)
    assert backend().name == backend("auto").name == "abacus"


def test_auto_is_the_real_numba_backend():
    pytest.importorskip("numba")
    assert backend().name == load().ops.name == "numba"


def test_auto_is_numpy_without_numba_and_says_nothing(numba_is):
    numba_is(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(backend()) is type(load().ops) is Ops


def test_numba_by_name_without_numba_says_how_to_get_it(numba_is):
    numba_is(None)
    with pytest.raises(BackendError, match=r"^backend numba: .* pip install 'dsv4\[numba\]'$") as caught:
        backend("numba")
    in_one_line(caught)


@pytest.mark.parametrize("call", [backend, load])
def test_auto_warns_once_where_numba_fails_and_takes_numpy(numba_is, call):
    numba_is(broken_for("Numba needs\n another NumPy"))
    with pytest.warns(RuntimeWarning) as caught:
        found = call()
    assert type(getattr(found, "ops", found)) is Ops
    [warning] = caught
    message = str(warning.message)
    assert "numba" in message
    assert "OSError: Numba needs another NumPy" in message
    assert message.endswith("; using numpy instead")
    assert "\n" not in message


def test_the_warning_points_at_who_called_load(numba_is):
    numba_is(broken_for("no"))
    with pytest.warns(RuntimeWarning) as caught:
        load()
    assert caught[0].filename == __file__


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_named_backend_that_fails_is_an_error_in_one_line(numba_is, monkeypatch, by_variable):
    numba_is(broken_for("Numba needs\n another NumPy"))
    monkeypatch.setenv(VARIABLE, "numba" if by_variable else "numpy")
    with pytest.raises(BackendError, match=r"NumbaOps, found OSError: Numba needs another NumPy$") as caught:
        backend("auto" if by_variable else "numba")
    assert in_one_line(caught).startswith("DSV4_BACKEND numba: " if by_variable else "backend numba: ")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("error", [ImportError, SyntaxError, AttributeError, RuntimeError, KeyError])
def test_code_from_outside_may_fail_in_any_way(register, error):
    def fail():
        raise error("a reason")

    register("abacus", fail)
    with pytest.raises(BackendError, match=f"plugin_abacus:Backend, found {error.__name__}: .*a reason") as caught:
        backend("abacus")
    in_one_line(caught)


def test_the_variable_names_a_backend(register, monkeypatch, numba_is):
    numba_is(broken_for("never asked for"))
    register("abacus", Abacus)
    monkeypatch.setenv(VARIABLE, "abacus")
    assert backend().name == load().ops.name == "abacus"
    assert backend("numpy").name == "numpy", "a name in the call comes first"
    monkeypatch.setenv(VARIABLE, "numpy")
    assert type(backend()) is Ops


@pytest.mark.parametrize("value", ["", "auto"])
def test_a_variable_that_names_none_is_none(numba_is, monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    numba_is(Abacus)
    assert backend().name == "abacus"
    numba_is(None)
    assert type(backend()) is Ops


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(register):
    register("zither", Abacus)
    with pytest.raises(BackendError) as caught:
        backend("lyre")
    assert str(caught.value) == "backend: expected one of auto, numpy, cuda, numba, zither, found lyre"


def test_an_unknown_name_in_the_variable_is_the_variables_error(monkeypatch):
    monkeypatch.setenv(VARIABLE, "lyre")
    with pytest.raises(BackendError, match=r"^DSV4_BACKEND: expected one of auto, numpy, .*, found lyre$") as caught:
        load()
    in_one_line(caught)
    assert type(backend("numpy")) is Ops


def test_a_class_that_is_no_backend_is_refused(register):
    register("list", list)
    with pytest.raises(BackendError, match=r"^backend list: expected a subclass of dsv4\.ops\.Ops, found plugin_list:"):
        backend("list")


def test_a_package_adds_a_backend_and_auto_does_not_take_it(register, numba_is):
    numba_is(None)
    register("abacus", Abacus)
    assert backend("abacus").name == "abacus"
    assert type(backend()) is Ops
    assert backend_names() == ["numpy", "abacus", "cuda", "numba"]


def test_our_backends_need_no_installed_package(monkeypatch, numba_is):
    """In a source tree that nobody has installed there are no entry points."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [])
    assert backend_names() == ["numpy", "cuda", "numba"]
    numba_is(Abacus)
    assert (backend("numpy").name, backend("numba").name, backend().name) == ("numpy", "abacus", "abacus")


def test_without_the_accelerated_package_only_the_reference_is_there(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [])
    monkeypatch.setattr(entry_points, "find_spec", lambda name: None)
    assert backend_names() == ["numpy"]
    assert type(backend()) is Ops
    with pytest.raises(BackendError, match="expected one of auto, numpy, found numba"):
        backend("numba")
