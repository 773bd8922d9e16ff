"""Mistakes in Numba's kernels of the hyper-connections."""

from mutants.catalogue.kernels import kernel, large

FORMULAS = ("ops/test_mhc.py::test_weights_are_their_formulas[numba]",)
LARGE_WEIGHTS = large("mhc_weights large")
SUMS = ("ops/test_mhc.py::test_collapse_and_mix_are_weighted_sums[numba]",)

MHC = (
    kernel(
        name="numba-comb-not-transposed",
        trap="comb is used as it is and not transposed",
        file="numba/mhc.py",
        old="comb[token, :, i]",
        new="comb[token, i]",
        tests=SUMS,
    ),
    kernel(
        name="numba-post-ignored",
        trap="the sub-layer's output joins every stream with weight 1",
        file="numba/mhc.py",
        old="fma(splat(post[token, i]), added, total)",
        new="added + total",
        tests=SUMS,
    ),
    kernel(
        name="numba-streams-lose-one",
        trap="the last stream is left out of the weighted sum",
        file="numba/mhc.py",
        old="    for j in range(streams.shape[0]):",
        new="    for j in range(streams.shape[0] - 1):",
        tests=SUMS,
    ),
    kernel(
        name="numba-projection-forgets-the-tail",
        trap="channels that fill no vector do not join the product with fn",
        file="numba/mhc.py",
        old="if present > 0:",
        new="if present < 0:",
        tests=LARGE_WEIGHTS,
    ),
    kernel(
        name="numba-projection-repeats-a-row",
        trap="of four rows of fn the last is the third once more",
        file="numba/mhc.py",
        old="load(fn[min(row + 3, last)], start)",
        new="load(fn[min(row + 2, last)], start)",
        tests=LARGE_WEIGHTS,
    ),
    kernel(
        name="numba-projection-of-another-token",
        trap="where four tokens go together, the second gets the first one's sums",
        file="numba/mhc.py",
        old="_finish(x1, whole, fn, row, b, mixes, token + 1)",
        new="_finish(x1, whole, fn, row, a, mixes, token + 1)",
        tests=LARGE_WEIGHTS,
    ),
    kernel(
        name="numba-projection-normalised-by-the-sum",
        trap="the streams are normalised by the root of their sum of squares, not of the mean",
        file="numba/mhc.py",
        old="sum_of_squares(streams[token]) / np.float32(streams.shape[1])",
        new="sum_of_squares(streams[token])",
        tests=FORMULAS,
    ),
)

SINKHORN = (
    kernel(
        name="numba-sinkhorn-rows-first",
        trap="rows and columns are confused: the iterations begin with the rows",
        file="numba/sinkhorn.py",
        old="if half_round % 2 == 0:",
        new="if half_round % 2 == 1:",
        tests=FORMULAS,
    ),
    kernel(
        name="numba-sinkhorn-one-round-less",
        trap="19 Sinkhorn iterations are made instead of 20",
        file="numba/sinkhorn.py",
        old="range(2 * max(iterations, 1) - 1)",
        new="range(2 * max(iterations - 1, 1) - 1)",
        tests=("ops/test_mhc.py::test_iterations_are_counted_as_they_are[numba-20-float32]",),
    ),
    kernel(
        name="numba-sinkhorn-odd-one-left-out",
        trap="with an odd number of streams the last row and column are never divided",
        file="numba/sinkhorn.py",
        old="            if n % 2:",
        new="            if n % 2 == 2:",
        tests=("ops/test_mhc.py::test_any_number_of_streams[numba-5-3]",),
    ),
    kernel(
        name="numba-sinkhorn-partner-exchanged",
        trap="two factors share one division, and one of them is left with the other's inverse",
        file="numba/sinkhorn.py",
        old="load(room, second) * (inverse * a)",
        new="load(room, second) * (inverse * b)",
        tests=FORMULAS,
    ),
    kernel(
        name="numba-sinkhorn-no-eps",
        trap="eps is missing where rows and columns are divided by their sums",
        file="numba/sinkhorn.py",
        old="fma(load(room, factor), total, splat(eps))",
        new="load(room, factor) * total",
        tests=FORMULAS,
    ),
    kernel(
        name="numba-softmax-without-eps",
        trap="eps is missing behind the softmax of comb's rows",
        file="numba/sinkhorn.py",
        old="fma(load(room, place), inverse, splat(eps))",
        new="load(room, place) * inverse",
        tests=FORMULAS,
    ),
    kernel(
        name="numba-softmax-overflows",
        trap="the largest logit is not taken away before the exponentials",
        file="numba/sinkhorn.py",
        old="exp(load(room, place) - largest)",
        new="exp(load(room, place))",
        tests=("ops/test_mhc.py::test_huge_logits_are_safe[numba-float32]",),
    ),
    kernel(
        name="numba-eps-on-post",
        trap="eps is added to post, too",
        file="numba/sinkhorn.py",
        old="np.float32(2), np.float32(0), post",
        new="np.float32(2), eps, post",
        tests=FORMULAS,
    ),
    kernel(
        name="numba-post-without-factor-2",
        trap="post is a plain sigmoid, without the factor 2",
        file="numba/sinkhorn.py",
        old="np.float32(2), np.float32(0), post",
        new="np.float32(1), np.float32(0), post",
        tests=FORMULAS,
    ),
    kernel(
        name="numba-second-vector-of-tokens-not-balanced",
        trap="of the tokens that go through the rounds together, those in the second vector do not",
        file="numba/sinkhorn.py",
        old="        for lane in range(0, count, LANES):\n            for i in range(0, n - n % 2, 2):",
        new="        for lane in range(0, 1, LANES):\n            for i in range(0, n - n % 2, 2):",
        tests=LARGE_WEIGHTS,
    ),
)

NUMBA_CONNECTIONS = MHC + SINKHORN
