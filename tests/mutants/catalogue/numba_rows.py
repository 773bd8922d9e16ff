"""Mistakes in Numba's kernels of single rows: norms, rotations, rounding, exponentials, and what they stand on."""

from mutants.catalogue.kernels import kernel, large

NORM = (
    kernel(
        name="numba-norm-forgets-the-tail",
        trap="channels that fill no vector are left out of the mean square",
        file="numba/norm.py",
        old="    if start < row.size:\n        b =",
        new="    if start > row.size:\n        b =",
        tests=("ops/test_norm.py::test_both_norms_are_their_formula[numba]",),
    ),
    kernel(
        name="numba-norm-adds-a-vector-twice",
        trap="one of four vectors is read twice, and another not at all",
        file="numba/norm.py",
        old="load(row, start + 3 * LANES)",
        new="load(row, start + 2 * LANES)",
        tests=large("rms_norm large"),
    ),
    kernel(
        name="numba-norm-eps-outside-the-root",
        trap="eps is added to the root mean square and not to the mean square",
        file="numba/norm.py",
        old="np.sqrt(sum_of_squares(x[row]) / np.float32(x.shape[1]) + eps)",
        new="(np.sqrt(sum_of_squares(x[row]) / np.float32(x.shape[1])) + eps)",
        tests=("ops/test_norm.py::test_both_norms_are_their_formula[numba]",),
    ),
    kernel(
        name="numba-norm-tail-unweighed",
        trap="the learned weight does not reach the channels that fill no vector",
        file="numba/norm.py",
        old="row[channel] / root * weight[channel]",
        new="row[channel] / root",
        tests=large("rms_norm large"),
    ),
    kernel(
        name="numba-norm-first-row-of-each-group",
        trap="a thread normalises its first row and leaves the others of its group as they were",
        file="numba/norm.py",
        old="min((group + 1) * ROWS_TOGETHER, x.shape[0])",
        new="min(group * ROWS_TOGETHER + 1, x.shape[0])",
        tests=large("rms_norm large"),
    ),
)

HADAMARD = (
    kernel(
        name="numba-hadamard-signs-of-another-round",
        trap="a round of butterflies within a vector takes the signs of the next one",
        file="numba/hadamard.py",
        old="fma(numbers, load(signs[2], 0), exchange_4(numbers))",
        new="fma(numbers, load(signs[3], 0), exchange_4(numbers))",
        tests=("ops/test_hadamard.py::test_hadamard_is_that_of_the_official_code[numba]", *large("hadamard large")),
    ),
    kernel(
        name="numba-hadamard-difference-the-wrong-way",
        trap="the differences between two vectors are taken the wrong way round",
        file="numba/hadamard.py",
        old="store(row, start + distance, a - b)",
        new="store(row, start + distance, b - a)",
        tests=large("hadamard large"),
    ),
    kernel(
        name="numba-hadamard-one-round-too-few",
        trap="the last round between vectors is left out",
        file="numba/hadamard.py",
        old="while distance < row.size:",
        new="while 2 * distance < row.size:",
        tests=large("hadamard large"),
    ),
    kernel(
        name="numba-hadamard-small-ones-not-normalised",
        trap="matrices narrower than a vector lack their factor dim^−½",
        file="numba/hadamard.py",
        old="store_part(rotated[row], 0, numbers * splat(scale), x.shape[1])",
        new="store_part(rotated[row], 0, numbers, x.shape[1])",
        tests=("ops/test_hadamard.py::test_hadamard_is_the_product_with_the_matrix[numba]",),
    ),
)

ANGLES = tuple(
    f"ops/test_rope.py::test_large_angles_are_as_exact_as_small_ones[numba-{position}]" for position in (355, 8388609)
)

ROPE = (
    kernel(
        name="numba-rope-no-inverse",
        trap="a negative position turns forwards, so that attention's output is turned twice instead of back",
        file="numba/rope.py",
        old="_turn_of_channels(np.float32(positions[token])",
        new="_turn_of_channels(np.float32(abs(positions[token]))",
        tests=("ops/test_rope.py::test_rope_turns_pairs_of_neighbours[numba]",),
    ),
    kernel(
        name="numba-rope-half-split",
        trap="a channel's frequency is that of a pair half the width apart, not of neighbours",
        file="numba/rope.py",
        old="for_channels[2 * pair] = for_channels[2 * pair + 1] = frequencies[pair]",
        new="for_channels[pair] = for_channels[pair + frequencies.size] = frequencies[pair]",
        tests=("ops/test_rope.py::test_rope_turns_pairs_of_neighbours[numba]",),
    ),
    kernel(
        name="numba-rope-sign-of-the-other-channel",
        trap="the sine has its minus sign in the odd channels and not in the even ones",
        file="numba/rope.py",
        old="if channel % 2 == 0:",
        new="if channel % 2 == 1:",
        tests=("ops/test_rope.py::test_rope_turns_pairs_of_neighbours[numba]",),
    ),
    kernel(
        name="numba-rope-on-the-first-channels",
        trap="the first r channels are rotated, not the last ones",
        file="numba/rope.py",
        old="first = width - 2 * frequencies.size",
        new="first = 0 * width",
        tests=("ops/test_rope.py::test_rope_turns_pairs_of_neighbours[numba]",),
    ),
    kernel(
        name="numba-rope-quarter-of-the-sine-for-the-cosine",
        trap="the cosine takes its sign from the quarter of the sine",
        file="numba/rope.py",
        old="((quarter + np.uint32(1)) & np.uint32(2)) << 30",
        new="(quarter & np.uint32(2)) << 30",
        tests=("ops/test_rope.py::test_rope_turns_pairs_of_neighbours[numba]",),
    ),
    kernel(
        name="numba-rope-large-angles-by-the-short-way",
        trap="angles beyond the range of the reduction are reduced all the same",
        file="numba/rope.py",
        old="LARGEST_ANGLE = np.float32(2**20)",
        new="LARGEST_ANGLE = np.float32(2**60)",
        tests=ANGLES,
    ),
    kernel(
        name="numba-rope-pi-in-one-number",
        trap="a multiple of π/2, rounded to one float32, is taken from an angle",
        file="numba/rope.py",
        old="fma(n, splat(HALF_PI_LAST), fma(n, splat(HALF_PI_REST), fma(n, splat(HALF_PI), angles)))",
        new="fma(n, splat(HALF_PI), angles)",
        tests=ANGLES,
    ),
)

QUANTISE = (
    kernel(
        name="numba-scale-rounded-down",
        trap="the scale is the largest power of two below amax/448, so that the largest number leaves the format",
        file="numba/quantise.py",
        old="((raised + small_float.carry) & EXPONENT)",
        new="(raised & EXPONENT)",
        tests=large("fake_quant_fp8 large"),
    ),
    kernel(
        name="numba-rounding-loses-negative-zero",
        trap="a negative number that is rounded to zero, and −0.0 itself, lose their sign",
        file="numba/quantise.py",
        old="return floats(words(magnitude) | (words(numbers) & SIGN))",
        new="return (numbers + rounder) - rounder",
        tests=large("fake_quant_fp8 large"),
    ),
    kernel(
        name="numba-scale-of-the-neighbour-too",
        trap="the largest magnitude is looked for in the block before, too",
        file="numba/quantise.py",
        old="splat_word(_largest(row, start, stop))",
        new="splat_word(_largest(row, max(0, start - block), stop))",
        tests=large("fake_quant_fp8 large"),
    ),
    kernel(
        name="numba-rounding-forgets-the-tail",
        trap="channels that fill no vector do not count for the largest magnitude of their block",
        file="numba/quantise.py",
        old="    if start < stop:\n        largest",
        new="    if start > stop:\n        largest",
        tests=large("fake_quant_fp4 large"),
    ),
    kernel(
        name="numba-no-subnormal-codes",
        trap="the format's steps go on getting smaller below its smallest normal number",
        file="numba/quantise.py",
        old="maximum(floats(words(numbers) & EXPONENT), splat(small_float.smallest_normal))",
        new="floats(words(numbers) & EXPONENT)",
        tests=large("fake_quant_fp4 large"),
    ),
    kernel(
        name="numba-bad-blocks-not-nan",
        trap="a block with a NaN or an infinity gets some scale instead of NaN",
        file="numba/quantise.py",
        old="return choose(is_finite, floats(scale), splat(np.float32(np.nan)))",
        new="return choose(is_finite, floats(scale), floats(scale))",
        tests=("ops/test_quantise.py::test_a_bad_number_makes_its_block_nan_and_no_other[numba-inf-float32-fp8]",),
    ),
    kernel(
        name="numba-fp4-rounded-as-fp8",
        trap="FP4 keeps as many fraction bits as FP8",
        file="numba/quantise.py",
        old="FP4 = _small_float(formats.FP4_MAX, reference.FP4_FLOOR, 1.0, 1)",
        new="FP4 = _small_float(formats.FP4_MAX, reference.FP4_FLOOR, 1.0, 3)",
        tests=large("fake_quant_fp4 large"),
    ),
    kernel(
        name="numba-no-scale-floor",
        trap="the largest magnitude of a block is not floored, so that tiny numbers are rounded more finely",
        file="numba/quantise.py",
        old="words(maximum(splat(small_float.floor), floats(largest)))",
        new="words(floats(largest))",
        tests=("ops/test_quantise.py::test_each_block_is_rounded_by_itself[numba-fp8]",),
    ),
)

EXPONENTIAL = (
    kernel(
        name="numba-exp-one-term-short",
        trap="the polynomial of e^x lacks its highest term",
        file="numba/exponential.py",
        old="fma(splat(E6), r, splat(E5))",
        new="splat(E5)",
        tests=("accel/test_numba_exponential.py::test_errors_in_units_in_the_last_place[exp-1]",),
    ),
    kernel(
        name="numba-exp-without-the-rest-of-ln-2",
        trap="ln 2 is one float32 in the reduction of e^x",
        file="numba/exponential.py",
        old="fma(n, splat(-LN2_REST), fma(n, splat(-LN2), x))",
        new="fma(n, splat(-LN2), x)",
        tests=("accel/test_numba_exponential.py::test_errors_in_units_in_the_last_place[exp-1]",),
    ),
    kernel(
        name="numba-exp-in-one-power",
        trap="2^n is multiplied in as one number, which leaves float32 before the result does",
        file="numba/exponential.py",
        old="return power * floats(half << 23) * floats((n_plus_254 - half) << 23)",
        new="return power * floats((n_plus_254 - np.uint32(127)) << 23)",
        tests=("accel/test_numba_exponential.py::test_errors_in_units_in_the_last_place[exp-1]",),
    ),
    kernel(
        name="numba-logarithm-of-half-the-number",
        trap="where 1 + x is halved, ln 2 is not added again",
        file="numba/exponential.py",
        old="return choose(is_large, log + splat(LN2), log)",
        new="return choose(is_large, log, log)",
        tests=("accel/test_numba_exponential.py::test_errors_in_units_in_the_last_place[softplus-2.5]",),
    ),
    kernel(
        name="numba-softplus-overflows",
        trap="softplus takes e^−x of a negative x, which overflows",
        file="numba/exponential.py",
        old="log_1_plus(exp(splat(np.float32(0)) - magnitude))",
        new="log_1_plus(exp(splat(np.float32(0)) - x))",
        tests=("accel/test_numba_exponential.py::test_errors_in_units_in_the_last_place[softplus-2.5]",),
    ),
)

VECTORS = (
    kernel(
        name="numba-lanes-summed-in-part",
        trap="half of a vector's lanes are left out of their sum",
        file="numba/vectors.py",
        old="for width in (8, 4, 2, 1):",
        new="for width in (8, 4, 2):",
        tests=large("rms_scale large"),
    ),
    kernel(
        name="numba-fewer-lanes-stored",
        trap="the last of the lanes that are to be stored is not",
        file="numba/memory.py",
        old="    for lane in range(present):\n        array",
        new="    for lane in range(present - 1):\n        array",
        tests=large("fake_quant_fp8 large"),
    ),
    kernel(
        name="numba-bounds-off-by-one",
        trap="the check of bounds lets a load end one number behind its array",
        file="numba/memory.py",
        old="if index < 0 or index + count > array.size:",
        new="if index < 0 or index + count > array.size + 1:",
        tests=("accel/test_numba_bounds.py::test_a_load_or_store_that_leaves_its_array_is_an_error",),
    ),
)

EXTENDED = "accel/test_numba_ring.py::test_a_ring_is_extended"

RING = (
    kernel(
        name="numba-padding-kept-in-the-ring",
        trap="padding behind a sequence's tokens goes into its ring, over rows that are still needed",
        file="numba/ring.py",
        old="if counts[b] - capacity <= token < counts[b]:",
        new="if length - capacity <= token:",
        tests=(f"{EXTENDED}[False-a prompt with padding-6-7-float32]",),
    ),
    kernel(
        name="numba-rows-before-one-too-early",
        trap="the rows before a step are those from one position earlier",
        file="numba/ring.py",
        old="starts[b] - keep + column)",
        new="starts[b] - keep + column - 1)",
        tests=(f"{EXTENDED}[False-a step-3-9-float32]",),
    ),
)

NUMBA_ROWS = NORM + HADAMARD + ROPE + QUANTISE + EXPONENTIAL + VECTORS + RING
