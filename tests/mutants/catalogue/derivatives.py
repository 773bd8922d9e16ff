"""Mistakes in the vector-Jacobian products that are derived by hand."""

from mutants.mutant import Mutant

ATTENTION, MHC, MOE = "learn/vjp/attention.py", "learn/vjp/mhc.py", "learn/vjp/moe.py"
ATTENTION_DIFFERENCES = ("learn/vjp/test_attention.py::test_gradients_of_a_span",)
FAR_FROM_THE_FIXED_POINT = ("learn/vjp/test_mhc.py::test_sinkhorn_far_from_its_fixed_point",)
CLAMPED = ("learn/vjp/test_moe.py::test_a_clamped_number_gets_no_gradient",)
EXPERT = ("learn/vjp/test_moe.py::test_expert",)

ROUNDS = """\
        comb, d_comb = last, _tokens_last(d_result)
        for axis, total in zip(reversed(axes), reversed(sums), strict=True):
            d_comb = (d_comb - (d_comb * comb).sum(axis=axis, keepdims=True)) / total
            comb = comb * total
        d_logits = softmax * (d_comb - (d_comb * softmax).sum(axis=rows, keepdims=True))
        return np.moveaxis(d_logits, (0, 1), (-2, -1))
"""

FIXED_POINT = """\
        comb = np.moveaxis(last, (0, 1), (-2, -1))
        n = comb.shape[-1]
        eye = np.broadcast_to(np.eye(n), comb.shape)
        system = np.block([[eye, comb], [comb.swapaxes(-1, -2), eye]])
        weighted = comb * d_result
        sums_of_both = np.concatenate([weighted.sum(axis=-1), weighted.sum(axis=-2)], axis=-1)
        shares = (np.linalg.pinv(system) @ sums_of_both[..., None])[..., 0]
        return comb * (d_result - shares[..., :n, None] - shares[..., None, n:])
"""

DERIVATIVES = (
    Mutant(
        name="vjp-sinkhorn-by-the-fixed-point",
        trap="Sinkhorn's gradient is that of its fixed point, by one linear system, although 20 rounds stop before it",
        file=MHC,
        old=ROUNDS,
        new=FIXED_POINT,
        tests=FAR_FROM_THE_FIXED_POINT,
    ),
    Mutant(
        name="vjp-sinkhorn-last-round-alone",
        trap="only the last of Sinkhorn's rounds is differentiated",
        file=MHC,
        old="in zip(reversed(axes), reversed(sums), strict=True):",
        new="in list(zip(reversed(axes), reversed(sums), strict=True))[:2]:",
        tests=FAR_FROM_THE_FIXED_POINT,
    ),
    Mutant(
        name="vjp-sinkhorn-without-eps",
        trap="going back through Sinkhorn's rounds forgets that eps is part of every divisor",
        file=MHC,
        old="comb = comb * total\n",
        new="comb = comb * (total - tiny)\n",
        tests=("learn/vjp/test_mhc.py::test_every_round_of_sinkhorn",),
    ),
    Mutant(
        name="vjp-comb-transposed",
        trap="the streams' gradient uses comb transposed, as the streams themselves do",
        file=MHC,
        old="            comb @ d_streams,\n",
        new="            comb.swapaxes(-1, -2) @ d_streams,\n",
        tests=("learn/vjp/test_mhc.py::test_comb_is_used_transposed",),
    ),
    Mutant(
        name="vjp-gradient-of-comb-transposed",
        trap="comb's gradient is transposed",
        file=MHC,
        old="            streams @ d_streams.swapaxes(-1, -2),\n",
        new="            d_streams @ streams.swapaxes(-1, -2),\n",
        tests=("learn/vjp/test_mhc.py::test_comb_is_used_transposed",),
    ),
    Mutant(
        name="vjp-post-without-factor-2",
        trap="post's slope is that of a plain sigmoid",
        file=MHC,
        old="d_weights.post * 2 * slope",
        new="d_weights.post * slope",
        tests=("learn/vjp/test_mhc.py::test_post_and_pre_by_hand",),
    ),
    Mutant(
        name="vjp-norm-of-the-streams-is-constant",
        trap="the root mean square that divides the projected streams is taken for a constant",
        file=MHC,
        old="        d_flat -= flat * inward\n",
        new="",
        tests=("learn/vjp/test_mhc.py::test_weights",),
    ),
    Mutant(
        name="vjp-softmax-without-its-sink",
        trap="the logits' gradient is that of a softmax over the keys alone, without the sink in its normaliser",
        file=ATTENTION,
        old="    d_logits -= along\n",
        new="    d_logits -= along / (1 - block.sink / block.total)\n",
        tests=ATTENTION_DIFFERENCES,
    ),
    Mutant(
        name="vjp-sink-grows",
        trap="the sink's gradient has the wrong sign",
        file=ATTENTION,
        old="-np.sum(block.sink * along",
        new="np.sum(block.sink * along",
        tests=("learn/vjp/test_attention.py::test_the_sink_by_hand",),
    ),
    Mutant(
        name="vjp-keys-are-no-values",
        trap="the shared head gets its gradient as keys and not as values",
        file=ATTENTION,
        old="    d_keys += _product_over_queries(block.weights, share)  # as values\n",
        new="",
        tests=ATTENTION_DIFFERENCES,
    ),
    Mutant(
        name="vjp-keys-without-scale",
        trap="the keys' gradient lacks the logits' factor",
        file=ATTENTION,
        old="_pull_block(block, queries[:, some] * scale, keys",
        new="_pull_block(block, queries[:, some], keys",
        tests=ATTENTION_DIFFERENCES,
    ),
    Mutant(
        name="vjp-last-block-wins",
        trap="a row that several blocks of queries name keeps the gradient of the last of them",
        file=ATTENTION,
        old="d_window[:, block.window_rows] += ",
        new="d_window[:, block.window_rows] = ",
        tests=ATTENTION_DIFFERENCES,
    ),
    Mutant(
        name="vjp-twice-is-once",
        trap="a row that a query names twice counts once",
        file=ATTENTION,
        old="    return rows, np.bincount(places, minlength=queries * len(rows))",
        new="    return rows, np.bincount(np.unique(places), minlength=queries * len(rows))",
        tests=("learn/vjp/test_attention.py::test_a_row_named_twice_gets_twice_the_weight",),
    ),
    Mutant(
        name="vjp-gate-moves-beyond-its-clamp",
        trap="the gradient goes through the clamp of the gate",
        file=MOE,
        old="np.where(gate <= limit, d_hidden * np.clip(up, -limit, limit) * slope, 0)",
        new="d_hidden * np.clip(up, -limit, limit) * slope",
        tests=CLAMPED,
    ),
    Mutant(
        name="vjp-gate-clamped-below",
        trap="the gate's gradient ends at −limit, too, where the gate is not clamped",
        file=MOE,
        old="np.where(gate <= limit",
        new="np.where(np.abs(gate) <= limit",
        tests=CLAMPED,
    ),
    Mutant(
        name="vjp-up-moves-beyond-its-clamp",
        trap="the gradient goes through the clamp of up",
        file=MOE,
        old="np.where(np.abs(up) <= limit, d_hidden * silu, 0)",
        new="d_hidden * silu",
        tests=CLAMPED,
    ),
    Mutant(
        name="vjp-experts-unweighted",
        trap="what an expert passes back to its input lacks the routing weight",
        file=MOE,
        old="pull_hidden(of_dtype * d_weighted)",
        new="pull_hidden(d_weighted)",
        tests=EXPERT,
    ),
    Mutant(
        name="vjp-weight-joins-after-w2",
        trap="the routing weight's gradient is taken from hidden values that it has weighted already",
        file=MOE,
        old='np.einsum("tw,tw->t", d_weighted, hidden)',
        new='np.einsum("tw,tw->t", d_weighted, of_dtype * hidden)',
        tests=EXPERT,
    ),
    Mutant(
        name="vjp-rope-turns-on",
        trap="RoPE's gradient is rotated forwards instead of back",
        file="learn/vjp/rope.py",
        old="_rotate(d_result, rotation.conj())",
        new="_rotate(d_result, rotation)",
        tests=("learn/vjp/test_norm.py::test_rope_turns_gradients_back",),
    ),
    Mutant(
        name="vjp-norm-is-constant",
        trap="RMSNorm's root mean square is taken for a constant",
        file="learn/vjp/norm.py",
        old="(d_scaled - scaled * (_dot(d_scaled, scaled) / width)) / root",
        new="d_scaled / root",
        tests=("learn/vjp/test_norm.py::test_rms_norm",),
    ),
    Mutant(
        name="vjp-compress-without-its-entry",
        trap="the scores' gradient forgets that a softmax's shares sum to 1",
        file="learn/vjp/compressor.py",
        old="d_kv * (kv - entry[..., None, :])",
        new="d_kv * kv",
        tests=("learn/vjp/test_compressor.py::test_compress",),
    ),
    Mutant(
        name="vjp-index-scores-without-relu",
        trap="the indexer's gradient goes through products below 0",
        file="learn/vjp/indexer.py",
        old="            d_products *= products > 0\n",
        new="",
        tests=("learn/vjp/test_compressor.py::test_index_scores",),
    ),
    Mutant(
        name="vjp-embedding-last-token-wins",
        trap="a row of the embedding keeps the gradient of the last token that reads it",
        file="learn/vjp/linear.py",
        old="d_table[known] = np.add.reduceat(d_rows.reshape(-1, table.shape[1])[order], first, axis=0)",
        new="d_table[ids] = d_rows",
        tests=("learn/vjp/test_linear.py::test_a_row_that_is_read_twice_gets_both_gradients",),
    ),
)
