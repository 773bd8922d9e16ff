"""Mistakes in what training computes."""

from mutants.mutant import Mutant

MUON = "learn/muon.py"
ITERATION = ("learn/test_muon.py::test_singular_values_go_through_the_polynomials_and_vectors_stay",)

LEARNING = (
    Mutant(
        name="muon-one-set-of-coefficients",
        trap="the last two steps of Newton–Schulz have the coefficients of the first eight",
        file=MUON,
        old="(SETTLING,) * SETTLING_STEPS",
        new="(FAST,) * SETTLING_STEPS",
        tests=ITERATION,
    ),
    Mutant(
        name="muon-one-step-short",
        trap="one step less than the report's ten",
        file=MUON,
        old="FAST_STEPS, SETTLING_STEPS = 8, 2",
        new="FAST_STEPS, SETTLING_STEPS = 8, 1",
        tests=ITERATION,
    ),
)
