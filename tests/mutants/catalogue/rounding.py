"""Mistakes about what is rounded, and in which blocks."""

from mutants.mutant import Mutant

ROUNDING = (
    Mutant(
        name="input-blocks-of-64",
        trap="the input of a quantised linear is rounded in blocks of 64 instead of 128",
        file="ops/linear.py",
        old="fake_quant_fp8(x, FP8_WEIGHT_BLOCK)",
        new="fake_quant_fp8(x, 64)",
        tests=("ops/test_linear.py::test_the_input_is_rounded_in_blocks_of_128",),
    ),
    Mutant(
        name="entry-blocks-of-128",
        trap="key-value entries are rounded in blocks of 128 instead of 64",
        file="model/rounding.py",
        old="KV_BLOCK = 64",
        new="KV_BLOCK = 128",
        tests=("model/test_fake_quant.py::test_blocks_of_64_channels_have_scales_of_their_own",),
    ),
    Mutant(
        name="rope-channels-rounded",
        trap="the RoPE channels of a key-value entry are rounded with the others",
        file="ops/interface.py",
        old="np.concatenate([self.fake_quant_fp8(content, block), rest], axis=-1)",
        new="self.fake_quant_fp8(np.concatenate([content, rest], axis=-1), block)",
        tests=("model/test_fake_quant.py::test_compressed_entries_are_fp8_but_for_the_rotated_channels",),
    ),
    Mutant(
        name="window-entries-not-rounded",
        trap="compressed entries are rounded, but window entries are not",
        file="model/attention.py",
        old="return self.rounding.entry(kv)",
        new="return kv",
        tests=("model/test_fake_quant.py::test_window_entries_are_fp8_but_for_the_rotated_channels",),
    ),
    Mutant(
        name="input-rounded-for-all-its-products",
        trap="where one input goes into several products, it is rounded for all of them if any weight is quantised",
        file="ops/linear.py",
        old="    return tuple(linear(x, weight, round_inputs) for weight in weights)\n",
        new="    if round_inputs and any(map(is_quantised, weights)):\n"
        "        x = fake_quant_fp8(x, FP8_WEIGHT_BLOCK)\n"
        "    return tuple(linear(x, weight) for weight in weights)\n",
        tests=("ops/test_linear.py::test_one_input_is_rounded_weight_by_weight",),
    ),
    Mutant(
        name="wo-a-input-rounded",
        trap="the input of wo_a is rounded to FP8 because its weight is stored in FP8",
        file="model/attention.py",
        old="        o = ops.grouped_linear(",
        new="        o = ops.fake_quant_fp8(o, 128) if self.rounding.on else o\n        o = ops.grouped_linear(",
        tests=("model/test_forward.py::test_quantised_weights_and_rounded_activations",),
    ),
    Mutant(
        name="indexer-always-rounded",
        trap="indexer keys are rounded to FP4 even where fake quantisation is off",
        file="model/rounding.py",
        old="return self.ops.fake_quant_fp4(rotated) if self.on else rotated",
        new="return self.ops.fake_quant_fp4(rotated)",
        tests=("model/test_forward.py::test_one_layer",),
    ),
    Mutant(
        name="index-queries-always-rounded",
        trap="indexer queries are rounded to FP4 even where fake quantisation is off",
        file="ops/interface.py",
        old="return self.fake_quant_fp4(rotated) if rounds else rotated",
        new="return self.fake_quant_fp4(rotated)",
        tests=("ops/test_together.py::test_queries_of_the_indexer_are_turned_and_rotated[numpy-(8, 64)-False-few]",),
    ),
    Mutant(
        name="hadamard-on-queries-only",
        trap="the Hadamard rotation is applied to the indexer's queries but not to its keys",
        file="model/indexer.py",
        old="frequencies, part.rounding.index_keys)",
        new="frequencies, lambda x: self.ops.fake_quant_fp4(x) if self.rounding.on else x)",
        tests=("model/test_fake_quant.py::test_hadamard_turns_queries_and_keys_alike",),
    ),
    Mutant(
        name="hadamard-not-normalised",
        trap="the Hadamard matrix is used without its factor dim^−½",
        file="ops/hadamard.py",
        old=" * x.dtype.type(width**-0.5)",
        new="",
        tests=("ops/test_hadamard.py::test_hadamard_is_its_own_inverse_and_keeps_products",),
    ),
    Mutant(
        name="routing-weight-after-w2",
        trap="the routing weight is multiplied in after w2, not before w2's input is rounded",
        file="ops/moe.py",
        old="""    hidden = share.astype(x.dtype)[:, None] * swiglu(gate, up, limit)
    return linear(hidden, matrices.w2, round_inputs)""",
        new="    return share[:, None] * linear(swiglu(gate, up, limit), matrices.w2, round_inputs)",
        tests=("ops/test_moe.py::test_the_routing_weight_joins_before_the_rounding_of_w2s_input",),
    ),
    Mutant(
        name="expert-inputs-not-rounded",
        trap="the inputs of quantised experts are not rounded",
        file="ops/moe.py",
        old="gate, up = linears(x, (matrices.w1, matrices.w3), round_inputs)",
        new="gate, up = linears(x, (matrices.w1, matrices.w3))",
        tests=("ops/test_moe.py::test_stored_experts",),
    ),
)
