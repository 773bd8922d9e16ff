"""Mistakes in CUDA's kernels of rows: rounding, norms, rotations, the compressor and hyper-connections."""

from mutants.catalogue.kernels import kernel


def rows(case: str) -> tuple[str, ...]:
    """The test of one call of `cuda.test_rows_large.CASES`."""
    return (f"cuda/test_rows_large.py::test_as_good_as_numpy[{case}]",)


BLOCKS = ("ops/test_compressor.py::test_blocks_are_found_by_their_positions[cuda-on-host-a prompt-float32]",)

ROUNDING = (
    kernel(
        name="cuda-ties-rounded-up",
        trap="a number halfway between two codes is rounded up, not to the even code",
        file="cuda/formats.cuh",
        old="(word + below_half + (word >> dropped & 1))",
        new="(word + below_half + 1)",
        tests=(
            "cuda/test_rows_large.py::test_every_number_of_a_format_and_every_tie[fake_quant_fp8-magnitudes0-powers0]",
        ),
    ),
    kernel(
        name="cuda-scale-of-two-blocks",
        trap="a block of channels shares its scale with the one beside it",
        file="cuda/rounding.cuh",
        old="fmaxf(first, second) : 0, lanes)",
        new="fmaxf(first, second) : 0, 2 * lanes)",
        tests=("ops/test_quantise.py::test_how_many_channels_share_a_scale[cuda-on-host-64]",),
    ),
    kernel(
        name="cuda-short-block-goes-on",
        trap="the last, shorter block of a row goes on into the next row",
        file="cuda/quantise.cu",
        old="const int count = exists ? min(block, width - first) : 0;",
        new="const int count = exists ? block : 0;",
        tests=rows("fp8 with a rest"),
    ),
)

NORM = (
    kernel(
        name="cuda-norm-eps-outside-the-root",
        trap="eps is added to the root mean square and not to the mean square",
        file="cuda/norm.cuh",
        old="const float root = sqrtf(sum(squares) / width + eps);",
        new="const float root = sqrtf(sum(squares) / width) + eps;",
        tests=("ops/test_norm.py::test_a_hand_example[cuda-on-host-float32]",),
    ),
    kernel(
        name="cuda-norm-of-a-warp",
        trap="each warp divides its part of a long row by the root mean square of that part",
        file="cuda/norm.cu",
        old="[](float value) { return block_sum(value); }",
        new="[](float value) { return warp_sum(value); }",
        tests=rows("norm of a block"),
    ),
    kernel(
        name="cuda-norm-weights-change-places",
        trap="of two bfloat16 weights in one word the first is read from the upper half",
        file="cuda/norm.cuh",
        old="make_float4(__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),",
        new="make_float4(__uint_as_float(bits.x & 0xffff0000u), __uint_as_float(bits.x << 16),",
        tests=rows("norm of four"),
    ),
    kernel(
        name="cuda-products-of-a-norm-too-early",
        trap="what products make of a normalised row is read before all threads have written theirs",
        file="cuda/norm.cu",
        old="    __syncthreads();  // others read what this thread has written\n",
        new="",
        tests=("cuda/test_shared_inputs.py::test_a_norm_of_few_rows_lays_them_out[8-4096]",),
    ),
    kernel(
        name="cuda-sums-of-warps-read-too-early",
        trap="the barrier is missing between the sums of warps and who adds them up",
        file="cuda/warp.cuh",
        old="sums[threadIdx.x / WARP] = value;\n    __syncthreads();",
        new="sums[threadIdx.x / WARP] = value;",
        tests=rows("norm of an odd width"),
    ),
)

ROTATIONS = (
    kernel(
        name="cuda-rope-half-split",
        trap="RoPE pairs channel i with channel i + r/2 instead of with its neighbour",
        file="cuda/angles.cuh",
        old="const int i = plain + 2 * pair;",
        new="const int i = plain + pair, j = i + (channels - plain) / 2;",
        also=(
            ("make_float2(x[i], x[i + 1])", "make_float2(x[i], x[j])"),
            ("out[i + 1] = result.y", "out[j] = result.y"),
        ),
        tests=rows("rope of odd heads"),
    ),
    kernel(
        name="cuda-rope-two-pairs-one-angle",
        trap="both pairs of a vector of four channels turn by the first one's angle",
        file="cuda/rope.cu",
        old="cosines[pair + 1], sines[pair + 1]",
        new="cosines[pair], sines[pair]",
        tests=rows("rope of one head"),
    ),
    kernel(
        name="cuda-inverse-rope-turns-forward",
        trap="positions lose their sign, so that the inverse RoPE turns forward",
        file="cuda/angles.cuh",
        old="__fmul_rn(static_cast<float>(position)",
        new="__fmul_rn(fabsf(static_cast<float>(position))",
        tests=rows("rope of three heads"),
    ),
    kernel(
        name="cuda-hadamard-difference-the-wrong-way",
        trap="the differences of two lanes' numbers are taken the wrong way round",
        file="cuda/hadamard.cu",
        old="is_upper ? other - own : own + other",
        new="is_upper ? own - other : own + other",
        tests=("ops/test_hadamard.py::test_hadamard_is_that_of_the_official_code[cuda-on-host]",),
    ),
    kernel(
        name="cuda-hadamard-rounds-overlap",
        trap="the barrier is missing between two rounds of sums and differences",
        file="cuda/hadamard.cuh",
        old="        __syncthreads();\n        for (int pair",
        new="        for (int pair",
        tests=rows("hadamard of 1024"),
    ),
)

COMPRESSOR = (
    kernel(
        name="cuda-compressor-overflows",
        trap="the largest score is not taken away before the exponentials",
        file="cuda/compressor.cu",
        old="expf(score[first + channel] - largest)",
        new="expf(score[first + channel])",
        tests=("ops/test_compressor.py::test_scores_of_any_size_are_safe[cuda-on-host]",),
    ),
    kernel(
        name="cuda-compressor-maximum-of-some-slots",
        trap="warps that share a channel's slots take exponentials relative to different scores, and add them up",
        file="cuda/compressor.cu",
        old="for (int other = 0; other < sharing; ++other) largest =",
        new="for (int other = 0; other < 1; ++other) largest =",
        tests=rows("compress of HCA"),
    ),
    kernel(
        name="cuda-own-block-from-the-first-channels",
        trap="of a CSA entry's block and the one before it both are taken from the first half of the channels",
        file="cuda/compressor.cu",
        old="(slot >= slots - ratio ? width - channels : 0)",
        new="0",
        tests=BLOCKS,
    ),
    kernel(
        name="cuda-rows-before-the-sequence",
        trap="what stands in a ring for positions before the sequence takes a share of the first CSA entry",
        file="cuda/compressor.cu",
        old="if (position < 0) return -1ll;",
        new="if (position < -ratio) return -1ll;",
        tests=BLOCKS,
    ),
)

CONNECTIONS = (
    kernel(
        name="cuda-19-sinkhorn-iterations",
        trap="the softmax and the round of columns behind it are counted as two of Sinkhorn's iterations",
        file="cuda/mhc.cu",
        old="for (int round = 1; round < iterations; ++round)",
        new="for (int round = 2; round < iterations; ++round)",
        tests=("ops/test_mhc.py::test_iterations_are_counted_as_they_are[cuda-on-host-20-float32]",),
    ),
    kernel(
        name="cuda-first-part-of-the-streams",
        trap="of the streams' channels only the first 1024 count for the weights",
        file="cuda/mhc.cu",
        old="for (int part = 0; part < parts; ++part)",
        new="for (int part = 0; part < min(parts, 1); ++part)",
        tests=rows("weights of many in three parts"),
    ),
    kernel(
        name="cuda-last-but-one-goes-on",
        trap="the block that is done last but one adds up what the last one has not yet written",
        file="cuda/last_block.cuh",
        old="atomicAdd(arrived, 1u) + 1 == blocks",
        new="atomicAdd(arrived, 1u) + 2 == blocks",
        tests=rows("weights of a token"),
    ),
    kernel(
        name="cuda-comb-not-transposed",
        trap="comb is used as it is instead of transposed",
        file="cuda/mhc_streams.cu",
        old="comb[(token * n + j) * n + i]",
        new="comb[(token * n + i) * n + j]",
        tests=rows("mix four"),
    ),
    kernel(
        name="cuda-streams-collapsed-by-the-first-token",
        trap="all tokens collapse their streams by the weights of the first one",
        file="cuda/mhc_streams.cu",
        old="pre + token * n, n, channels",
        new="pre, n, channels",
        tests=rows("collapse four"),
    ),
)

TOGETHER = "ops/test_together.py::test_"

AT_ONCE = (
    kernel(
        name="cuda-turned-channels-in-an-entry's-scale",
        trap="the channels that RoPE turns have a part in the scale of a block that is rounded at once",
        file="cuda/rope.cu",
        old="rounded_in_block<Fp8>(own, i < plain, ENTRY_LANES)",
        new="rounded_in_block<Fp8>(own, true, ENTRY_LANES)",
        tests=(f"{TOGETHER}heads_are_normalised_and_turned[cuda-on-host-(512,)-weight-one token]",),
    ),
    kernel(
        name="cuda-kept-channels-in-the-scale",
        trap="the channels that are not rounded have a part in the scale of the block before them",
        file="cuda/quantise.cu",
        old="rounded_in_block<Format>(own, counts, lanes)",
        new="rounded_in_block<Format>(own, exists, lanes)",
        tests=(f"{TOGETHER}the_last_channels_are_not_rounded[cuda-on-host-96-4-few]",),
    ),
    kernel(
        name="cuda-rounded-before-the-hadamard-factor",
        trap="what is rounded together with the Hadamard rotation lacks its factor",
        file="cuda/hadamard.cuh",
        old="rounded_in_block<Fp4>(scaled, ",
        new="rounded_in_block<Fp4>(exists ? own : scaled, ",
        tests=(f"{TOGETHER}a_rotated_vector_is_rounded_as_any_other[cuda-on-host-5-64]",),
    ),
    kernel(
        name="cuda-streams-of-one-token-normalised",
        trap="few tokens' streams are collapsed by the weights of the first one before the norm",
        file="cuda/norm.cu",
        old="shares = pre + 4 * blockIdx.x;",
        new="shares = pre;",
        tests=(f"{TOGETHER}streams_are_collapsed_and_normalised[cuda-on-host-512-few]",),
    ),
    kernel(
        name="cuda-ape-of-the-first-place",
        trap="each token's score gets what belongs to the first place in a block",
        file="cuda/ring.cu",
        old="terms[modulo(position, ratio) * width + i]",
        new="terms[0 * modulo(position, ratio) * width + i]",
        tests=(f"{TOGETHER}projections_go_into_both_rings[cuda-on-host-starts0-counts0-1-4]",),
    ),
)

CUDA_ROWS = ROUNDING + NORM + ROTATIONS + COMPRESSOR + CONNECTIONS + AT_ONCE
