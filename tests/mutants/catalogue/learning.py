"""Mistakes in what training computes."""

from mutants.mutant import Mutant

MUON = "learn/muon.py"
ITERATION = ("learn/test_muon.py::test_singular_values_go_through_the_polynomials_and_vectors_stay",)
ANTICIPATORY = "learn/anticipatory.py"

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
    Mutant(
        name="anticipated-weights",
        trap="the experts that older weights chose all count the same",
        file=ANTICIPATORY,
        old="self.ops.route_by_id(logits, self.indices",
        new="self.ops.route_by_id(np.ones_like(logits), self.indices",
        tests=("learn/test_anticipatory.py::test_older_weights_choose_and_the_own_ones_weigh",),
    ),
    Mutant(
        name="anticipation-never-ends",
        trap="the model goes on with the older choice",
        file=ANTICIPATORY,
        old="layers[gate].gate = own",
        new="pass",
        tests=("learn/test_anticipatory.py::test_afterwards_a_model_chooses_for_itself_again",),
    ),
    Mutant(
        name="anticipation-too-young",
        trap="the weights that choose are a step younger than Δt",
        file=ANTICIPATORY,
        old="else step + self.rule.delay",
        new="else step + self.rule.delay - 1",
        tests=("learn/test_anticipatory.py::test_every_step_of_a_period_is_routed_once_by_weights_of_the_right_age",),
        also=(("min(step + self.rule.delay + 1, end)", "min(step + self.rule.delay, end)"),),
    ),
    Mutant(
        name="spike-joins-the-mean",
        trap="a spike joins the losses that the next one is measured by",
        file=ANTICIPATORY,
        old="        if not self._is_spike(loss):\n            self._losses",
        new="        is_spike = self._is_spike(loss)\n        if True:\n            self._losses",
        also=(('            return "go on"', '            if not is_spike:\n                return "go on"'),),
        tests=("learn/test_anticipatory.py::test_a_spike_does_not_hide_the_next_one",),
    ),
    Mutant(
        name="qat-for-experts-alone",
        trap="FP8 weights train as if they were stored in float32",
        file="learn/qat.py",
        old="return _in_squares(master, FP8_WEIGHT_BLOCK, FP8_WEIGHT_BLOCK, FP8)",
        new="return master",
        tests=("learn/test_qat.py::test_values_are_those_of_a_converted_checkpoint",),
    ),
)
