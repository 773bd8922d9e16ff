"""A test fails for each mutant, passes without it, and the machinery that says so can say otherwise.

Each part of the catalogue is a class of its own, so that xdist's `loadscope` spreads them over its workers.
"""

from dataclasses import replace

import pytest

from backends import CUDA_ON_HOST
from conftest import created
from mutants import guard, runner
from mutants.catalogue import PARTS
from mutants.mutant import Mutant, StaleError
from mutants.summary import KILLED_BY

pytestmark = pytest.mark.mutants

BACKENDS = {"numba": "numba", "cuda": CUDA_ON_HOST}
"""What computes with a mistake in one of dsv4_accel's folders."""


def part_of(mutants: tuple[Mutant, ...]) -> type:
    """The tests of one part of the catalogue."""

    folders = {mutant.file.partition("/")[0] for mutant in mutants if mutant.package == "dsv4_accel"}

    class Part:
        @pytest.fixture(autouse=True)
        def backend_that_runs_here(self):
            """Without it the part is skipped, or fails where the backend is required."""
            for folder in folders:
                created(BACKENDS[folder])

        def test_the_code_without_a_mistake_passes(self):
            """Otherwise a failure would say nothing about a mutant."""
            tests = sorted({test for mutant in mutants for test in mutant.tests})
            outcome = runner.run(tests)
            assert outcome.status == 0, outcome.output
            assert " passed" in outcome.output

        @pytest.mark.parametrize("mutant", mutants, ids=lambda mutant: mutant.name)
        def test_is_killed(self, mutant, record_property):
            killer = runner.kill(mutant)
            record_property(KILLED_BY, killer)

    return Part


globals().update({f"Test{part.capitalize()}": part_of(mutants) for part, mutants in PARTS.items()})


class TestMachinery:
    """A mutant that is not killed is reported."""

    harmless = Mutant(
        name="harmless",
        trap="a comment has been added",
        file="ops/norm.py",
        old='"""RMSNorm',
        new='# Nothing has changed.\n"""RMSNorm',
        tests=("ops/test_norm.py::test_a_hand_example",),
    )
    elsewhere = replace(harmless, tests=("ops/test_rope.py::test_plain_frequencies",))

    def test_a_harmless_change_survives(self):
        with pytest.raises(runner.SurvivorError, match="harmless survives"):
            runner.kill(self.harmless)

    def test_a_mistake_that_the_tests_do_not_see_survives(self):
        wrong = replace(self.elsewhere, old="x / np.sqrt(mean_square", new="x * np.sqrt(mean_square")
        with pytest.raises(runner.SurvivorError):
            runner.kill(wrong)

    @pytest.mark.parametrize("new", ["import nothing_of_this_name", "raise SystemExit(1)", "def :"])
    def test_code_that_cannot_be_imported_is_not_killed_but_broken(self, new):
        broken = replace(self.harmless, old='"""RMSNorm', new=f'{new}\n"""RMSNorm')
        with pytest.raises(runner.BrokenError, match="exit status"):
            runner.kill(broken)

    def test_an_exception_is_not_a_failed_assertion(self):
        raising = replace(self.harmless, old="    mean_square = np.mean(", new="    mean_square = np.median(1, 2, 3, ")
        with pytest.raises(runner.BrokenError, match="expected a failed assertion"):
            runner.kill(raising)

    def test_a_test_that_does_not_exist_kills_nothing(self):
        with pytest.raises(runner.BrokenError, match="exit status 4"):
            runner.kill(replace(self.harmless, tests=("ops/test_norm.py::test_of_no_such_name",)))

    def test_a_mistake_of_the_same_length_is_not_taken_for_the_one_before(self):
        """Bytecode is kept from run to run, and goes by time and length."""
        old = "x / np.sqrt(mean_square"
        mistakes = [replace(self.harmless, old=old, new=old.replace("/", wrong)) for wrong in "*-"]
        [by_product], [by_difference] = (runner.run(mistake.tests, mistake).failures for mistake in mistakes)
        assert by_product["error"] != by_difference["error"]

    def test_a_mistake_is_gone_in_the_next_run(self):
        """All runs of a process share one copy."""
        mistake = replace(self.harmless, old="x / np.sqrt(mean_square", new="x * np.sqrt(mean_square")
        assert [runner.run(mistake.tests, one).status for one in (mistake, None)] == [1, 0]

    def test_a_test_that_never_ends_kills_nothing(self, monkeypatch):
        monkeypatch.setattr(runner, "TIME_LIMIT", 5)
        endless = replace(
            self.harmless, old="    mean_square =", new="    while True:\n        pass\n    mean_square ="
        )
        with pytest.raises(runner.BrokenError, match="expected tests to end within 5 s"):
            runner.kill(endless)

    def test_another_installation_of_dsv4_is_not_tested(self, monkeypatch, tmp_path):
        """As if the copy were not the one that is imported."""
        original = runner.variables
        elsewhere = {guard.COPY: str(tmp_path)}
        monkeypatch.setattr(runner, "variables", lambda *arguments: original(*arguments) | elsewhere)
        with pytest.raises(runner.BrokenError, match=f"exit status {guard.WRONG_COPY}"):
            runner.kill(self.harmless)

    @pytest.mark.parametrize(("old", "times"), [("no such text", 0), ("np.", 3)])
    def test_a_patch_that_does_not_fit_is_stale(self, old, times):
        stale = replace(self.harmless, old=old)
        with pytest.raises(StaleError, match=f"expected once in ops/norm.py, found {times} times"):
            runner.kill(stale)
        with pytest.raises(StaleError):
            runner.kill(replace(self.harmless, also=((old, ""),)))
