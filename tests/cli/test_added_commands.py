"""Commands of other packages: an entry point adds one, a broken one hinders nobody, none takes the place of ours."""

import importlib.metadata
import sys
import types
from importlib.metadata import EntryPoint

import pytest
import typer

from command import is_one_line, runner


@pytest.fixture
def dsv4(monkeypatch, capfd):
    """Run the command in this process: arguments -> exit status, standard output, standard error."""
    return runner(monkeypatch, capfd)


@pytest.fixture
def register(monkeypatch):
    """Adds an entry point of the group, as an installed package does: its name, and what it stands for."""
    points = []
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: points if group == "dsv4.commands" else [])

    def add(name, thing):
        module = types.ModuleType(f"plugin_{name}")
        module.command = thing
        monkeypatch.setitem(sys.modules, module.__name__, module)
        points.append(EntryPoint(name, f"{module.__name__}:command", "dsv4.commands"))

    return add


def count(words: list[str], loud: bool = False) -> None:
    """Count the words."""
    print(f"{len(words)} words{'!' * loud}")


def test_a_function_is_a_command(dsv4, register):
    register("count", count)
    assert dsv4("count", "one", "two", "--loud") == (0, "2 words!\n", "")
    assert "Count the words." in dsv4()[1]


def test_an_application_is_a_group_of_commands(dsv4, register):
    several = typer.Typer()
    several.command("count")(count)
    several.command("nothing")(lambda: None)
    register("several", several)
    assert dsv4("several", "count", "one") == (0, "1 words\n", "")


def test_errors_of_an_added_command_end_as_ours_do(dsv4, register):
    register("count", count)
    status, out, err = dsv4("count")
    assert (status, out) == (2, "")
    assert is_one_line(err)


def test_what_cannot_be_loaded_says_so_and_hinders_nobody(dsv4, register):
    register("count", count)
    register("broken", count)
    del sys.modules["plugin_broken"].command
    assert dsv4("count", "one")[0] == 0
    assert dsv4()[0] == 0
    status, out, err = dsv4("broken", "--anything", "at", "all")
    assert (status, out) == (2, "")
    assert is_one_line(err)
    assert err.startswith("dsv4: broken: expected to load plugin_broken:command, found AttributeError:")


def test_no_command_takes_the_place_of_ours(dsv4, register):
    register("cost", count)
    assert "FLOPs" in dsv4("cost", "--help")[1]
    assert "Count the words." not in dsv4()[1]


def test_nothing_is_looked_for_where_a_command_of_ours_is_asked_for(dsv4, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "entry_points", None)
    assert dsv4("cost", "--help")[0] == 0
