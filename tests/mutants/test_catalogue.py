"""The catalogue is in order. Unlike the mutants themselves this takes no time, so it is a part of every run."""

import pytest

from dsv4_accel.cuda import source
from mutants import document, runner
from mutants.catalogue import MUTANTS

RENEW = "run `PYTHONPATH=tests python -m mutants.document NAME` with the names of what is new"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_patch_fits(mutant):
    """A change of the source that leaves a mutant behind is noticed at once; `patch` raises StaleError."""
    package = {package.name: package for package in runner.PACKAGES}[mutant.package]
    source = (package / mutant.file).read_text(encoding="utf-8")
    assert mutant.patch(source) != source


def test_names_are_unique():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_mistakes_in_kernels_have_tests_of_kernels():
    """Tests that are named after neither Numba nor CUDA run for NumPy alone, which has no kernels."""
    for mutant in MUTANTS:
        backend = mutant.file.partition("/")[0] if mutant.package == "dsv4_accel" else None
        for test in mutant.tests:
            assert [name for name in ("numba", "cuda") if name in test] == ([backend] if backend else []), mutant.name


def test_each_file_of_cuda_kernels_has_a_mistake():
    assert {f"cuda/{file}" for file in source.files()} <= {mutant.file for mutant in MUTANTS}


def test_the_page_names_each_in_its_order():
    page = document.PAGE.read_text(encoding="utf-8")
    lines = [line.partition(" Found by `")[0] for line in page.splitlines() if line.startswith("- **")]
    assert lines == [document.beginning(one).partition(" Found by `")[0] for one in MUTANTS], RENEW


def test_the_page_names_a_test_for_each():
    """One of those that the mutant names, or in a file that it names."""
    killers = document.known_killers(document.PAGE.read_text(encoding="utf-8"))
    for mutant in MUTANTS:
        named = [test.partition("[")[0] for test in mutant.tests]
        assert killers[mutant.name].startswith(tuple(named)), f"{mutant.name}: {RENEW}"


def test_the_page_is_what_the_catalogue_gives():
    page = document.PAGE.read_text(encoding="utf-8")
    assert page.endswith(document.catalogue(document.known_killers(page))), RENEW
