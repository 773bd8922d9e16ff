"""Mistakes in RoPE, in the window and in attention itself."""

from mutants.mutant import Mutant

FILE = "model/attention.py"
ONE_LAYER = ("model/test_forward.py::test_one_layer",)
ROTARY_BASE = ("model/test_forward.py::test_rotary_base_of_queries_and_window_keys",)
VISIBILITY = ("model/test_causality.py::test_an_entry_is_visible_from_its_last_token_on",)

ROTATION = (
    Mutant(
        name="rope-half-split",
        trap="RoPE pairs channel i with channel i + r/2 instead of with its neighbour",
        file="ops/rope.py",
        old="x[..., :-rotated], x[..., -rotated::2], x[..., 1 - rotated :: 2]",
        new="x[..., :-rotated], x[..., -rotated : -rotated // 2], x[..., -rotated // 2 :]",
        also=(("even * sin + odd * cos], axis=-1)", "even * sin + odd * cos], axis=-2)"),),
        tests=("ops/test_rope.py::test_a_quarter_turn_by_hand",),
    ),
    Mutant(
        name="rope-on-the-first-channels",
        trap="RoPE turns the first r channels instead of the last",
        file="ops/rope.py",
        old="x[..., :-rotated], x[..., -rotated::2], x[..., 1 - rotated :: 2]",
        new="x[..., rotated:], x[..., :rotated:2], x[..., 1:rotated:2]",
        also=(
            (
                "np.concatenate([unrotated, pairs.reshape(*x.shape[:-1], rotated)], axis=-1)",
                "np.concatenate([pairs.reshape(*x.shape[:-1], rotated), unrotated], axis=-1)",
            ),
        ),
        tests=("ops/test_rope.py::test_other_channels_and_position_zero_stay_as_they_are",),
    ),
    Mutant(
        name="yarn-mscale",
        trap="YaRN's mscale is applied to the logits of compressing layers",
        file=FILE,
        old="o = ops.turned_attention(q, ",
        new="mscale = 1 + 0.1 * np.log(config.rope_scaling.factor) if self.ratio else 1\n"
        "        o = ops.turned_attention(q * mscale**2, ",
        tests=ONE_LAYER,
    ),
    Mutant(
        name="yarn-ramp-turned-round",
        trap="YaRN slows the fast channels and leaves the slow ones",
        file="ops/rope.py",
        old="plain / np.float32(factor) * (1 - fast) + plain * fast",
        new="plain / np.float32(factor) * fast + plain * (1 - fast)",
        tests=("ops/test_rope.py::test_yarn_leaves_fast_channels_and_slows_the_slow_ones",),
    ),
    Mutant(
        name="rope-frequencies-rounded-once",
        trap="frequencies are computed in float64 and rounded once, and turn another way at position 10⁶",
        file="ops/rope.py",
        old="    return np.float32(1) / powers\n",
        new="    return (np.float64(base) ** -exponents.astype(np.float64)).astype(np.float32)\n",
        tests=("ops/test_rope.py::test_turns_at_long_positions_are_the_released_codes",),
    ),
    Mutant(
        name="rope-powers-off-by-one-unit",
        trap="powers of the base are off by one unit in the last place, as NumPy's float32 ones may be",
        file="ops/rope.py",
        old="    powers = (np.float64(base) ** exponents.astype(np.float64)).astype(np.float32)\n",
        new="    powers = np.nextafter(np.float32(base) ** exponents, np.float32(0))\n",
        tests=("ops/test_rope.py::test_frequencies_are_the_released_codes_to_the_bit",),
    ),
    Mutant(
        name="rope-angles-in-float64",
        trap="angles are exact products, not float32 ones as in the code that trained the weights",
        file="ops/rope.py",
        old="    angle = positions.astype(x.dtype)[..., None] * frequencies.astype(x.dtype)  # [B, S, r/2]\n",
        new="    angle = positions[..., None] * frequencies.astype(np.float64)\n",
        also=(
            (
                "    cos, sin = np.cos(angle), np.sin(angle)\n",
                "    cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)\n",
            ),
        ),
        tests=("ops/test_rope.py::test_turns_at_long_positions_are_the_released_codes",),
    ),
    Mutant(
        name="plain-base-for-window-keys",
        trap="queries and window keys of CSA and HCA layers turn with the plain RoPE base",
        file=FILE,
        old="self.config.rms_norm_eps, positions, self.frequencies)\n",
        new="self.config.rms_norm_eps, positions, layer_frequencies(self.config, 0))\n",
        also=(
            (
                "positions, self.frequencies)  # [B, S, H, c]",
                "positions, layer_frequencies(config, 0))  # [B, S, H, c]",
            ),
        ),
        tests=ROTARY_BASE,
    ),
    Mutant(
        name="no-yarn",
        trap="CSA and HCA layers turn with compress_rope_theta but without YaRN",
        file=FILE,
        old="    if yarn is None:",
        new="    if ratio:",
        tests=ROTARY_BASE,
    ),
    Mutant(
        name="no-inverse-rope",
        trap="the inverse RoPE on attention's output is missing",
        file=FILE,
        old="o = ops.turned_attention(q, *keys, span.back, self.frequencies)",
        new="o = ops.turned_attention(q, *keys, 0 * positions, self.frequencies)",
        tests=ONE_LAYER,
    ),
)

ATTENTION = (
    *ROTATION,
    Mutant(
        name="window-one-too-short",
        trap="a query's own token is not counted as one of the window's w",
        file="model/span.py",
        old="+ back >= 0, columns, -1)",
        new="+ back >= 0, np.where((back > 1 - window) | (back == 0), columns, -1), -1)",
        tests=VISIBILITY,
    ),
    Mutant(
        name="window-one-too-long",
        trap="a query sees w tokens before its own, w + 1 in all",
        file=FILE,
        old="span.window_columns(config.sliding_window)",
        new="span.window_columns(config.sliding_window + 1)",
        also=(("RecentRows(ops, batch, config.sliding_window - 1,", "RecentRows(ops, batch, config.sliding_window,"),),
        tests=VISIBILITY,
    ),
    Mutant(
        name="sink-with-a-value",
        trap="the sink is a key that has a value",
        file="ops/attention.py",
        old="output: Array = weight @ kv / total",
        new="output: Array = (weight @ kv + of_sink * kv.mean(axis=-2, keepdims=True)) / total",
        tests=("ops/test_attention.py::test_the_sink_takes_its_share_and_has_no_value",),
    ),
    Mutant(
        name="no-sink",
        trap="the sink takes no share of the softmax",
        file="ops/attention.py",
        old=" + of_sink",
        new="",
        tests=("ops/test_attention.py::test_the_sink_takes_its_share_and_has_no_value",),
    ),
    Mutant(
        name="groups-mixed",
        trap="the grouped output projection takes every group's channels from all heads",
        file="ops/linear.py",
        old="grouped = x.reshape(*x.shape[:-1], groups, 1, width)",
        new="grouped = x.reshape(*x.shape[:-1], width, groups).swapaxes(-1, -2)[..., None, :]",
        tests=("ops/test_linear.py::test_a_group_does_not_see_the_others",),
    ),
)
