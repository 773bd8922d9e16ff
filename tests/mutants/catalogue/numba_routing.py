"""Mistakes in Numba's routing of tokens to experts."""

from functools import partial

from mutants.catalogue.kernels import kernel, large

route = partial(kernel, file="numba/route.py")

NUMBA_ROUTING = (
    route(
        name="numba-softmax-over-the-room-of-the-token-before",
        trap="behind a token's logits stand scores of the token before, which count in its softmax",
        old="for expert in range(logits.size, scores.size):",
        new="for expert in range(scores.size, scores.size):",
        tests=large("route by softmax"),
    ),
    route(
        name="numba-softmax-not-shifted",
        trap="the softmax over the experts takes e^logit, which overflows, and not e^(logit − largest)",
        old="exp(load(logits, start) - largest)",
        new="exp(load(logits, start))",
        tests=("ops/test_moe.py::test_large_logits_do_not_overflow[numba-softmax-expected2]",),
    ),
    route(
        name="numba-bias-weighs",
        trap="the bias that chooses experts is part of their weights, too",
        old="_write_best(biased, indices[token])\n            _weigh(scores,",
        new="_write_best(biased, indices[token])\n            _weigh(biased,",
        tests=large("route large"),
    ),
    route(
        name="numba-highest-number-among-equal-experts",
        trap="among experts with equal scores the one with the highest number comes first",
        old="return score > other or",
        new="return score >= other or",
        tests=("ops/test_moe.py::test_among_equal_scores_the_lowest_number_comes_first[numba]",),
    ),
    route(
        name="numba-expert-without-a-score-first",
        trap="an expert whose score is NaN stays before the better ones that come later",
        old="return score > other or (np.isnan(other) and not np.isnan(score))",
        new="return score > other",
        tests=("ops/test_not_finite.py::test_values_that_are_hardly_numbers[numba-route-0-NaN]",),
    ),
    route(
        name="numba-best-experts-in-the-order-of-their-numbers",
        trap="a better expert takes the place of the worst one chosen, and does not move up",
        old="while place > 0 and _is_better(",
        new="while place > count and _is_better(",
        tests=large("route large"),
    ),
    route(
        name="numba-softmax-weights-normalised",
        trap="the weights of chosen experts are made to sum to 1 under softmax, too",
        old="share = weights[place] / total if divides else weights[place]",
        new="share = weights[place] / total",
        tests=large("route_by_id large"),
    ),
    route(
        name="numba-routing-without-its-scale",
        trap="the weights of the experts are not multiplied with the routing scale",
        old="weights[place] = share * scale",
        new="weights[place] = share",
        tests=large("route_by_id large"),
    ),
    route(
        name="numba-first-token-of-each-group-routed",
        trap="a thread routes the first of its tokens and leaves the others",
        old="np.empty(count, np.float32)\n        for token in range(group * TOKENS_TOGETHER, "
        "min((group + 1) * TOKENS_TOGETHER, tokens)):",
        new="np.empty(count, np.float32)\n        for token in range(group * TOKENS_TOGETHER, "
        "min(group * TOKENS_TOGETHER + 1, tokens)):",
        tests=large("route large"),
    ),
    route(
        name="numba-one-expert-too-many",
        trap="a number just behind the last expert's is taken for an expert",
        old="not 0 <= indices[place] < count",
        new="not 0 <= indices[place] <= count",
        tests=("accel/test_numba_route.py::test_a_number_beyond_the_experts_is_an_error[5]",),
    ),
)
