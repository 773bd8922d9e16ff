"""Mistakes in Numba's kernels of matrix products and experts."""

from mutants.catalogue.kernels import kernel, large

LIMITS = "ops/test_products_at_the_limits.py"
FEW, MANY = 1, 70
"""Rows of three tokens each, which read a weight by themselves, or share the unpacking of it."""

FORMATS = (
    kernel(
        name="numba-fp4-nibbles-swapped",
        trap="the even column is read from the high nibble of a packed FP4 byte",
        file="numba/packed.py",
        old="np.uint32(4 * (part // 2) + 16 * (part % 2))",
        new="np.uint32(4 * (part // 2 ^ 1) + 16 * (part % 2))",
        tests=("ops/test_linear.py::test_a_packed_byte_is_two_columns_and_its_scale_a_power_of_two[numba]",),
    ),
    kernel(
        name="numba-fp8-sign-lost",
        trap="FP8 codes are read without their sign",
        file="numba/packed.py",
        old="constant(halves, 0xBFFF)",
        new="constant(halves, 0x3FFF)",
        also=(
            (
                "signs = builder.and_(builder.shl(words, constant(WORDS, 24)), constant(WORDS, 1 << 31))",
                "signs = constant(WORDS, 0)",
            ),
        ),
        tests=large("linear fp8 large", FEW),
    ),
    kernel(
        name="numba-scale-byte-0-is-zero",
        trap="E8M0 byte 0 is read as zero instead of as 2^−127",
        file="numba/packed.py",
        old="least = builder.shl(exponents, constant(WORDS, 23)), constant(WORDS, 1 << 22)",
        new="least = builder.shl(exponents, constant(WORDS, 23)), constant(WORDS, 0)",
        tests=(f"{LIMITS}::test_extreme_scale_bytes[numba-fp4-0]",),
    ),
    kernel(
        name="numba-scale-byte-255-is-infinite",
        trap="E8M0 byte 255 is read as infinity instead of as NaN",
        file="numba/packed.py",
        old="builder.select(is_nan, constant(WORDS, NAN_BITS), bits)",
        new="builder.select(is_nan, bits, bits)",
        tests=(f"{LIMITS}::test_a_scale_that_is_nan_is_not_infinite[numba-1-fp4]",),
    ),
    kernel(
        name="numba-fp4-scale-of-another-block",
        trap="the four scales of a chunk are given to its columns in turn and not block by block",
        file="numba/packed.py",
        old="spread = _arranged([lane // 4 for lane in range(LANES)])",
        new="spread = _arranged([lane % 4 for lane in range(LANES)])",
        tests=(f"{LIMITS}::test_each_block_has_its_own_scale[numba-fp4]",),
    ),
    kernel(
        name="numba-fp4-scales-of-the-next-chunk",
        trap="from the second chunk on, the scales are those of the chunk behind it",
        file="numba/packed.py",
        old="rotate_4 = _arranged([(lane + 4) % LANES",
        new="rotate_4 = _arranged([(lane + 8) % LANES",
        tests=large("linear fp4 large", FEW),
    ),
    kernel(
        name="numba-fp8-nan-in-half-a-chunk",
        trap="codes of NaN are looked for in the first half of each chunk only",
        file="numba/packed.py",
        old="return (low + np.uint32(0x01010101)) | (high + np.uint32(0x01010101))",
        new="return (low + np.uint32(0x01010101)) | (low + np.uint32(0x01010101))",
        tests=(f"{LIMITS}::test_codes_that_are_nan[numba-fp8-place1-127]",),
    ),
)

ROWS = (
    kernel(
        name="numba-rows-change-places",
        trap="of four rows that are multiplied side by side, two change places",
        file="numba/products.py",
        old="out[slot, row2], out[slot, row3] = _result(sum2, nan2), _result(sum3, nan3)",
        new="out[slot, row2], out[slot, row3] = _result(sum3, nan3), _result(sum2, nan2)",
        tests=large("linear float32 large", FEW),
    ),
    kernel(
        name="numba-chunk-one-vector-short",
        trap="the last 16 columns of each chunk are left out",
        file="numba/products.py",
        old="for part in range(first, first + parts(storage) // 2):",
        new="for part in range(first, first + parts(storage) // 2 - first // 4):",
        tests=large("linear bf16 large", FEW),
    ),
    kernel(
        name="numba-second-token-is-the-first",
        trap="of two tokens that share a tile, the second gets the first one's products",
        file="numba/products.py",
        old="b0, b1, b2, b3 = fma(q0, s0, b0)",
        new="b0, b1, b2, b3 = fma(p0, s0, b0)",
        tests=large("linear fp8 large", MANY),
    ),
    kernel(
        name="numba-scales-of-eight-chunks-from-four",
        trap="of the eight chunks that are unpacked at once, the last four get the scales of the first four",
        file="numba/products.py",
        old="if chunk % CHUNKS_TOGETHER == 0:",
        new="if chunk == first:",
        tests=(f"{LIMITS}::test_any_number_of_tokens_rows_and_columns[numba-257-1152-64-fp4]",),
    ),
    kernel(
        name="numba-scales-of-the-first-squares",
        trap="all rows of an FP8 weight take the scales of the first 128",
        file="numba/products.py",
        old="place = row // layout.rows_per_scale * layout.row_scales",
        new="place = row // layout.rows * layout.row_scales",
        tests=("ops/test_linear.py::test_edge_squares_have_scales_of_their_own[numba]",),
    ),
    kernel(
        name="numba-sums-not-cleared",
        trap="the sums of four rows go on from those of the four before",
        file="numba/products.py",
        old="        sums[:] = 0\n",
        new="        sums[:] = 0 * sums if row == first else sums\n",
        tests=large("linear float32 large", MANY),
    ),
    kernel(
        name="numba-x-not-in-the-order-of-fp4",
        trap="x stays in the order of its columns where FP4's bits need another",
        file="numba/linear.py",
        old="of_fp4 = lane * (CHUNK // LANES) + FP4_ORDER[part]",
        new="of_fp4 = part * LANES + lane",
        tests=large("linear fp4 large", FEW),
    ),
    kernel(
        name="numba-pair-of-one",
        trap="both numbers of a pair of bfloat16 are the first one",
        file="numba/pairs.py",
        old="(words(second) & UPPER)",
        new="(words(first) & UPPER)",
        tests=("accel/test_numba_pairs.py::test_a_sum_of_two_products",),
    ),
    kernel(
        name="numba-input-blocks-of-64",
        trap="the input of a quantised linear is rounded in blocks of 64 instead of 128",
        file="numba/linear.py",
        old="round_to_fp8(row[:width], block)",
        new="round_to_fp8(row[:width], block // 2)",
        tests=("ops/test_linear.py::test_the_input_is_rounded_in_blocks_of_128[numba]",),
    ),
    kernel(
        name="numba-groups-read-the-first-channels",
        trap="every group of the output projection reads the channels of the first one",
        file="numba/linear.py",
        old="tokens = np.arange(slot * groups + group, stop * groups + group, groups)",
        new="tokens = np.arange(slot * groups, stop * groups, groups)",
        tests=large("grouped_linear float32 large", FEW),
    ),
    kernel(
        name="numba-weights-remembered-unplaced",
        trap="what was found of a weight is remembered although it was not placed, and may change in place",
        file="numba/weights.py",
        old="else _look_at(weight)",
        new="else _placed.setdefault(id(weight), (weakref.ref(weight), _look_at(weight)))[1]",
        tests=("ops/test_placed.py::test_a_weight_that_was_set_to_zero_gives_zero[numba-96-float32]",),
    ),
)

UNROUNDED = "experts fp4 without rounding"

EXPERTS = (
    kernel(
        name="numba-gate-clamped-below",
        trap="the gate is clipped below, too",
        file="numba/moe.py",
        old="g = minimum(high, g)",
        new="g = maximum(low, minimum(high, g))",
        tests=large("expert float32 large"),
    ),
    kernel(
        name="numba-up-not-clamped-below",
        trap="up is clipped above only",
        file="numba/moe.py",
        old="u = maximum(low, minimum(high, u))",
        new="u = minimum(high, u)",
        tests=large("expert float32 large"),
    ),
    kernel(
        name="numba-tail-not-clamped-below",
        trap="in the channels that fill no vector, up is clipped above only",
        file="numba/moe.py",
        old="u = limit if u > limit else (-limit if u < -limit else u)",
        new="u = limit if u > limit else u",
        tests=large("expert float32 large", MANY),
    ),
    kernel(
        name="numba-routing-weight-missing",
        trap="the routing weight does not join",
        file="numba/moe.py",
        old="store(hidden, start, share * (g * sigmoid(g) * u))",
        new="store(hidden, start, g * sigmoid(g) * u)",
        tests=large(UNROUNDED),
    ),
    kernel(
        name="numba-routing-weight-of-the-first-expert",
        trap="all of a token's experts get the weight of its first one",
        file="numba/moe.py",
        old="weights[order[slot] // per_token, order[slot] % per_token]",
        new="weights[order[slot] // per_token, 0]",
        tests=large(UNROUNDED),
    ),
    kernel(
        name="numba-gate-and-up-exchanged",
        trap="w3 makes the gate and w1 what it gates",
        file="numba/moe.py",
        old="(raised if which else gate)",
        new="(gate if which else raised)",
        tests=large(UNROUNDED),
    ),
    kernel(
        name="numba-second-expert-left-out",
        trap="the result of a token's second expert is not added",
        file="numba/moe.py",
        old="for i in range(1, rows.size):",
        new="for i in range(2, rows.size):",
        tests=large(UNROUNDED),
    ),
    kernel(
        name="numba-expert-inputs-not-rounded",
        trap="the input of w2 is not rounded, only that of w1 and w3",
        file="numba/moe.py",
        old="prepare_row(gate[slot], gate.shape[1], OF_FP4, block, raised[slot])",
        new="prepare_row(gate[slot], gate.shape[1], OF_FP4, 0, raised[slot])",
        tests=("accel/test_numba_large.py::test_experts_that_round_agree_but_for_a_few_numbers[experts fp4 large-7]",),
    ),
)

NUMBA_PRODUCTS = FORMATS + ROWS + EXPERTS
