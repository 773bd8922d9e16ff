"""Mistakes in routing and in the experts."""

from mutants.mutant import Mutant

FILE = "ops/moe.py"
ONE_LAYER = ("model/test_forward.py::test_one_layer",)
CLAMPS = ("ops/test_moe.py::test_each_clamp_by_hand",)
SCALE = ("ops/test_moe.py::test_weights_sum_to_the_routing_scale_except_under_softmax",)

EXPERTS = (
    Mutant(
        name="bias-in-the-weights",
        trap="the routing bias leaks into the routing weights",
        file=FILE,
        old="return _weigh(scores, order[:, :k], score_function, scale)",
        new="return _weigh(scores + bias.astype(scores.dtype), order[:, :k], score_function, scale)",
        tests=("ops/test_moe.py::test_the_bias_chooses_and_does_not_weigh",),
    ),
    Mutant(
        name="bias-ignored",
        trap="the routing bias does not take part in the choice",
        file=FILE,
        old="np.argsort(-(scores + bias.astype(scores.dtype)), axis=-1",
        new="np.argsort(-scores, axis=-1",
        tests=("ops/test_moe.py::test_the_bias_chooses_and_does_not_weigh",),
    ),
    Mutant(
        name="weights-not-normalised",
        trap="the weights of the chosen experts are not divided by their sum",
        file=FILE,
        old='    if score_function != "softmax":\n        weights =',
        new='    if score_function == "none":\n        weights =',
        tests=SCALE,
    ),
    Mutant(
        name="no-routing-scale",
        trap="routed_scaling_factor is forgotten",
        file=FILE,
        old="Routing(weights * scores.dtype.type(scale), indices)",
        new="Routing(weights, indices)",
        tests=SCALE,
    ),
    Mutant(
        name="no-root-of-softplus",
        trap="an expert's score is softplus(·) without the square root",
        file=FILE,
        old="return np.sqrt(softplus(logits))",
        new="return softplus(logits)",
        tests=("ops/test_moe.py::test_route_takes_the_best_by_biased_score",),
    ),
    Mutant(
        name="hash-layers-weigh-alike",
        trap="in a hash layer every expert of the table counts the same, whatever its score",
        file=FILE,
        old="return _weigh(expert_scores(logits, score_function), indices",
        new="return _weigh(np.ones_like(logits), indices",
        tests=("ops/test_moe.py::test_route_by_id_takes_the_experts_of_the_table",),
    ),
    Mutant(
        name="no-shared-clamp",
        trap="the shared expert is not clamped",
        file="model/moe.py",
        old="ops.add_expert(routed, tokens, self.shared, limit,",
        new="ops.add_expert(routed, tokens, self.shared, float('inf'),",
        tests=ONE_LAYER,
    ),
    Mutant(
        name="no-routed-clamp",
        trap="the routed experts are not clamped",
        file="model/moe.py",
        old="self.ops.experts(tokens, routing, experts, self.config.swiglu_limit,",
        new="self.ops.experts(tokens, routing, experts, float('inf'),",
        tests=ONE_LAYER,
    ),
    Mutant(
        name="lower-clamp-on-the-gate",
        trap="the gate is clipped below as well as above",
        file=FILE,
        old="gate = np.minimum(gate, limit)",
        new="gate = np.clip(gate, -limit, limit)",
        tests=CLAMPS,
    ),
    Mutant(
        name="up-clipped-above-only",
        trap="up is clipped above only, as the gate is",
        file=FILE,
        old="np.clip(up, -limit, limit)",
        new="np.minimum(up, limit)",
        tests=CLAMPS,
    ),
)
