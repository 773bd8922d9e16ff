"""Mistakes of the check itself: a property that would hold for a function that is wrong."""

from mutants.mutant import Mutant

CHECK = "checking/test_check.py"

CHECKING = (
    Mutant(
        name="check-forgives-half-precision",
        trap="an error of a hundredth of the terms is forgiven where NumPy made none",
        file="checking/verdicts.py",
        old="FLOOR = float(8 * np.finfo",
        new="FLOOR = float(80000 * np.finfo",
        tests=(f"{CHECK}::test_a_mistake_is_found_with_its_shapes",),
    ),
    Mutant(
        name="check-measures-by-rows-that-nobody-names",
        trap="attention's error is measured against keys that no index names, however large they are",
        file="checking/magnitudes.py",
        old="rows[batch][index[batch][index[batch] >= 0]]",
        new="rows[batch]",
        tests=("checking/test_magnitudes.py",),
    ),
    Mutant(
        name="check-lays-nothing-out",
        trap="every memory layout of the check is the same contiguous one",
        file="checking/trials.py",
        old="return laid_out(array, axes, [step] * array.ndim, backwards, self._asarray)",
        new="return self._asarray(np.array(array, order='C'))",
        tests=(f"{CHECK}::test_each_property_is_found_by_its_own_finding",),
    ),
    Mutant(
        name="check-compares-with-what-was-written",
        trap="arguments are compared with what the function left of them",
        file="checking/trials.py",
        old="self._function(*placed)\n",
        new="self._function(*placed)\n        arguments = fetched(placed)\n",
        tests=(f"{CHECK}::test_each_property_is_found_by_its_own_finding",),
    ),
    Mutant(
        name="check-starts-with-large-cases",
        trap="the failure that is shown is that of the largest case",
        file="checking/run.py",
        old="key=_count)",
        new="key=_count, reverse=True)",
        tests=(f"{CHECK}::test_the_smallest_case_that_fails_is_the_one_that_is_shown",),
    ),
)
