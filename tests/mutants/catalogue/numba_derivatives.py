"""Mistakes in Numba's kernels of vector-Jacobian products."""

from mutants.catalogue.kernels import kernel

MHC, NORM, MOE = "numba/vjp/mhc.py", "numba/vjp/norm.py", "numba/vjp/moe.py"


def case(name):
    return (f"accel/test_numba_vjp.py::test_as_good_as_numpy[0-{name}]",)


NUMBA_DERIVATIVES = (
    kernel(
        name="numba-vjp-comb-transposed",
        trap="the streams' gradient uses comb transposed, as the streams themselves do",
        file=MHC,
        old="_four(comb, stream * STREAMS, 1)",
        new="_four(comb, first * STREAMS + stream % STREAMS, STREAMS)",
        tests=case("mhc_mix"),
    ),
    kernel(
        name="numba-vjp-pre-of-the-first-stream",
        trap="all streams get their gradient with the share of the token's first one",
        file=MHC,
        old="splat(pre[row]) * gradient",
        new="splat(pre[row // STREAMS * STREAMS]) * gradient",
        tests=case("mhc_collapse"),
    ),
    kernel(
        name="numba-vjp-norm-is-constant",
        trap="RMSNorm's root mean square is taken for a constant",
        file=NORM,
        old="load(weight, start) - scaled * inward",
        new="load(weight, start)",
        tests=case("rms_norm"),
    ),
    kernel(
        name="numba-vjp-last-row-decides-the-weight",
        trap="the learned weight keeps the gradient of the last row",
        file=NORM,
        old="load(d_weight, start) + share",
        new="share",
        tests=case("rms_norm"),
    ),
    kernel(
        name="numba-vjp-gate-moves-beyond-its-clamp",
        trap="the gradient goes through the clamp of the gate",
        file=MOE,
        old="choose(is_above, zero, d_hidden * clipped_up * slope)",
        new="d_hidden * clipped_up * slope",
        tests=case("expert"),
    ),
    kernel(
        name="numba-vjp-experts-unweighted",
        trap="what an expert passes back to its input lacks the routing weight",
        file=MOE,
        old="gradient * splat(weight[token])",
        new="gradient",
        tests=case("expert"),
    ),
    kernel(
        name="numba-vjp-rope-turns-on",
        trap="RoPE's gradient is rotated forwards instead of back",
        file="numba/vjp/rope.py",
        old="-positions",
        new="positions",
        tests=case("rope"),
    ),
)
