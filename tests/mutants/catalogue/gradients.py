"""Mistakes in what a gradient is, in what it is of, and in the losses that it is taken from."""

from mutants.mutant import Mutant

SHAPES = "learn/tape/rules_shapes.py"
RULES = "learn/tape/test_rules.py::"
TENSOR = "learn/tape/test_tensor.py::"
LANGUAGE = "learn/losses/test_language.py::"
WHOLE = "learn/test_gradients.py::"
STEPS = "learn/test_steps.py::"

GRADIENTS = (
    Mutant(
        name="gradient-not-summed-over-broadcast-axes",
        trap="an operand with an axis of length 1 gets the gradient of its first copy, not the sum over all of them",
        file="learn/tape/graph.py",
        old="gradient = gradient.sum(axis=added + repeated, keepdims=True).reshape(self.shape)",
        new="gradient = gradient[tuple(slice(0, 1) if axis in added + repeated else slice(None)"
        " for axis in range(gradient.ndim))].reshape(self.shape)",
        tests=(f"{RULES}test_of_two_operands_that_are_broadcast",),
    ),
    Mutant(
        name="rows-named-twice-get-one-gradient",
        trap="a row that an index names several times gets the last of its gradients, as NumPy's += does",
        file=SHAPES,
        old="    if len(first) < len(place):\n"
        "        place, values = place[first], np.add.reduceat(values, first, axis=0)\n",
        new="    place, values = place[first], values[first]\n",
        tests=(f"{RULES}test_rows_by_number_that_are_named_several_times",),
    ),
    Mutant(
        name="gradient-through-what-was-overwritten",
        trap="rows that a write has replaced still get the gradient of what stands there now",
        file=SHAPES,
        old="        left[index] = 0\n",
        new="",
        tests=(f"{RULES}test_write",),
    ),
    Mutant(
        name="write-in-place",
        trap="a write on the tape changes the array that earlier views show",
        file=SHAPES,
        old="    result = rows.copy()\n",
        new="    result = rows\n",
        tests=(f"{TENSOR}test_an_earlier_view_does_not_see_a_later_write",),
    ),
    Mutant(
        name="largest-number-without-gradient",
        trap="the largest number that a softmax subtracts is a constant where it is not: at the sink",
        file="learn/tape/rules_elementwise.py",
        old="return result, (lambda g: to_x(g * share(x, y)), lambda g: to_y(g * share(y, x)))",
        new="return result, (lambda g: to_x(g * share(x, y)), lambda g: to_y(0 * g))",
        tests=(f"{RULES}test_of_two_operands_that_are_broadcast",),
    ),
    Mutant(
        name="numbers-unasked",
        trap="NumPy may take a Tensor's numbers, and what it makes of them has no gradient",
        file="learn/tape/tensor.py",
        old='raise TypeError("tape: a plain array was asked for, and the gradient would be lost: take .data for it")',
        new="return np.array(self.data, *arguments)  # type: ignore[misc]",
        tests=(f"{TENSOR}test_the_numbers_are_not_to_be_had_unasked",),
    ),
    Mutant(
        name="no-rule-no-gradient",
        trap="a function without a rule computes its result, which is a constant from there on",
        file="learn/tape/tensor.py",
        old='            raise TypeError(f"tape: {name} has no rule")\n        return Tensor(result)',
        new="            return Tensor(result)\n        return Tensor(result)",
        tests=(f"{TENSOR}test_a_function_without_a_rule_is_an_error_that_names_it",),
    ),
    Mutant(
        name="gradient-summed-in-place",
        trap="the second gradient of a node is added to the first in place, and changes the gradient of another node",
        file="learn/tape/graph.py",
        old="            case _ if self._is_own:\n",
        new="            case _ if self._is_own or self.value.flags.writeable:\n",
        tests=(f"{TENSOR}test_a_gradient_that_two_operands_share_is_not_written_to",),
    ),
    Mutant(
        name="gradient-through-the-quantiser",
        trap="rounding has the derivative that it has, zero nearly everywhere, and nothing learns through it",
        file="learn/tape/tape_ops.py",
        old="return function(numbers, *arguments, **named), (lambda g: g,)",
        new="return function(numbers, *arguments, **named), (lambda g: 0 * g,)",
        tests=("learn/tape/test_tape_ops.py::test_the_gradient_goes_straight_through_a_quantiser",),
    ),
    Mutant(
        name="comb-not-transposed-on-the-tape",
        trap="comb is used transposed, but its gradient is not turned back",
        file=SHAPES,
        old="return np.swapaxes(x, axis1, axis2), (lambda g: g.swapaxes(axis1, axis2),)",
        new="return np.swapaxes(x, axis1, axis2), ("
        "lambda g: g if g.shape[axis1] == g.shape[axis2] else g.swapaxes(axis1, axis2),)",
        tests=(f"{WHOLE}test_central_differences[window]",),
    ),
    Mutant(
        name="mtp-labels-off-by-one",
        trap="the MTP module is taught the next token, which it has read, and not the one after",
        file="learn/losses/mtp.py",
        old="wanted = labels(ids, mask, 2)",
        new="wanted = labels(ids, mask, 1)",
        tests=(f"{LANGUAGE}test_mtp_is_shifted_by_one_more_and_divided_by_what_the_main_model_predicts",),
    ),
    Mutant(
        name="mtp-loss-over-its-own-terms",
        trap="the loss of MTP is divided by the number of its terms and not by T",
        file="learn/losses/mtp.py",
        old="    wanted = labels(ids, mask, 2)\n",
        new="    wanted = labels(ids, mask, 2)\n    count = int(wanted.exist.sum())\n",
        tests=(f"{LANGUAGE}test_mtp_is_shifted_by_one_more_and_divided_by_what_the_main_model_predicts",),
    ),
    Mutant(
        name="mtp-detached",
        trap="the main model does not learn from the loss of MTP",
        file="learn/gradients.py",
        old="model.mtp_logits(self.states, ",
        new="model.mtp_logits(Tensor(self.states.data), ",
        tests=(f"{STEPS}test_nothing_is_detached_in_the_loss_of_mtp",),
    ),
    Mutant(
        name="padding-is-predicted",
        trap="the last token of a document is to predict what stands behind it",
        file="learn/losses/labels.py",
        old="exist = np.arange(ids.shape[1]) + ahead < real.sum(axis=1, keepdims=True)",
        new="exist = np.broadcast_to(np.arange(ids.shape[1]) + ahead < ids.shape[1], ids.shape)",
        tests=("learn/losses/test_labels.py::test_gaps_and_padding_on_either_side",),
    ),
    Mutant(
        name="loss-per-sequence",
        trap="the mean is over all positions, also those that predict nothing",
        file="learn/losses/next_token.py",
        old="    count = int(wanted.exist.sum())\n",
        new="    count = wanted.exist.size\n",
        tests=(f"{LANGUAGE}test_next_token_by_hand",),
    ),
    Mutant(
        name="weights-of-the-first-step",
        trap="a model on the tape goes on with the arrays that it was made with",
        file="learn/trainable.py",
        old="        self.weights, self.name, self.node = weights, name, node\n",
        new="        self.name, self.node = name, node\n"
        "        self.weights = replace(weights, parameters=dict(weights.parameters))\n",
        tests=(f"{STEPS}test_weights_change_between_steps",),
    ),
    Mutant(
        name="gating-factors-start-at-one",
        trap="the gating factors of the hyper-connections start at 1 instead of .01",
        file="learn/trainable.py",
        old="hc_scale: float = 0.01",
        new="hc_scale: float = 1.0",
        tests=("learn/test_trainable.py::TestNewModel::test_what_starts_at_a_number",),
    ),
)
