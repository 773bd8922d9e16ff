"""Mistakes in the hyper-connections and in the norms."""

from mutants.mutant import Mutant

MHC = "ops/mhc.py"
ONE_LAYER = ("model/test_forward.py::test_one_layer",)

CONNECTIONS = (
    Mutant(
        name="comb-not-transposed",
        trap="comb is used as it is instead of transposed",
        file=MHC,
        old="comb.swapaxes(-1, -2) @ streams",
        new="comb @ streams",
        tests=("ops/test_mhc.py::test_comb_is_used_transposed",),
    ),
    Mutant(
        name="eps-on-post",
        trap="eps is added to post as it is to pre",
        file=MHC,
        old="base[n : 2 * n])\n",
        new="base[n : 2 * n]) + dtype(eps)\n",
        tests=("ops/test_mhc.py::test_eps_is_on_pre_and_not_on_post",),
    ),
    Mutant(
        name="no-eps-on-pre",
        trap="eps is missing on pre",
        file=MHC,
        old="scale[0] + base[:n]) + dtype(eps)",
        new="scale[0] + base[:n])",
        tests=("ops/test_mhc.py::test_eps_is_on_pre_and_not_on_post",),
    ),
    Mutant(
        name="no-eps-in-the-head",
        trap="eps is missing on the weights that collapse the streams before the head",
        file=MHC,
        old="base.astype(dtype)) + dtype(eps)",
        new="base.astype(dtype))",
        tests=("ops/test_mhc.py::test_eps_is_on_the_head",),
    ),
    Mutant(
        name="post-without-factor-2",
        trap="post is a plain sigmoid, without the factor 2",
        file=MHC,
        old="post = 2 * sigmoid(",
        new="post = sigmoid(",
        tests=("ops/test_mhc.py::test_eps_is_on_pre_and_not_on_post",),
    ),
    Mutant(
        name="19-sinkhorn-iterations",
        trap="the softmax is counted as a whole Sinkhorn iteration, so that 19 are made instead of 20",
        file=MHC,
        old="for _ in range(iterations - 1):",
        new="for _ in range(iterations - 2):",
        tests=("ops/test_mhc.py::test_iterations_are_counted_as_they_are",),
    ),
    Mutant(
        name="sinkhorn-ends-on-rows",
        trap="Sinkhorn begins with a softmax over columns and ends on rows",
        file=MHC,
        old='np.copy(np.moveaxis(logits, (-2, -1), (0, 1)), order="C")',
        new='np.copy(np.moveaxis(logits, (-1, -2), (0, 1)), order="C")',
        also=(("np.moveaxis(comb, (0, 1), (-2, -1))", "np.moveaxis(comb, (0, 1), (-1, -2))"),),
        tests=("ops/test_mhc.py::test_comb_is_made_row_by_row_and_ends_on_columns",),
    ),
    Mutant(
        name="sublayer-not-normalised",
        trap="a sub-layer takes the collapsed streams as they are, without its norm",
        file="model/block.py",
        old="ops.collapse_norm(streams, mixing.pre, self.norm, config.rms_norm_eps)",
        new="ops.mhc_collapse(streams, mixing.pre)",
        tests=("model/test_forward.py::test_one_layer",),
    ),
    Mutant(
        name="embedding-in-one-stream",
        trap="the embedding goes into the first stream only instead of into each",
        file="model/language_model.py",
        old="return np.repeat(embedded[:, :, None], self.config.hc_mult, axis=2)",
        new="return embedded[:, :, None] * (np.arange(self.config.hc_mult) == 0)[:, None]",
        tests=ONE_LAYER,
    ),
    Mutant(
        name="norm-eps-outside-the-root",
        trap="RMSNorm adds eps to the root instead of to the mean square",
        file="ops/norm.py",
        old="x / np.sqrt(mean_square + x.dtype.type(eps))",
        new="x / (np.sqrt(mean_square) + x.dtype.type(eps))",
        tests=("ops/test_norm.py::test_both_norms_are_their_formula",),
    ),
    Mutant(
        name="no-query-norm",
        trap="the weightless RMSNorm of each query head is missing",
        file="model/attention.py",
        old="ops.norm_rope(q, None, config.rms_norm_eps, positions, self.frequencies)",
        new="ops.rope(q, positions, self.frequencies)",
        tests=ONE_LAYER,
    ),
)
