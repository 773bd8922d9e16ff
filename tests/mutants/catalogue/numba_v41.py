"""Mistakes in Numba's kernels of V4.1: FP8 in blocks of 32, FP4 entries, pools, Engram's gate, and its experts."""

from functools import partial

from mutants.catalogue.kernels import kernel, large

LIMITS = "ops/test_products_at_the_limits.py"
V41 = "ops/test_v41.py"

FEW, MANY = 1, 70

PRODUCTS = (
    kernel(
        name="numba-x-not-in-the-order-of-blocks",
        trap="x stays in the order of its columns where four blocks of FP8 are read side by side",
        file="numba/prepared.py",
        old="lane // 4 * MX_BLOCK + 4 * part + lane % 4",
        new="part * LANES + lane",
        tests=large("linear mx large", FEW),
    ),
    kernel(
        name="numba-blocks-of-32-take-scales-of-128",
        trap="all four blocks of a chunk get the scale of the first",
        file="numba/packed.py",
        old='"FP8 in blocks of 32": lambda storage, some: spread(some)',
        new='"FP8 in blocks of 32": lambda storage, some: repeat(some)',
        tests=(f"{LIMITS}::test_each_block_has_its_own_scale[numba-mx]",),
    ),
    kernel(
        name="numba-scales-of-128-rows-for-blocks-of-32",
        trap="rows of an FP8 weight in blocks of 32 take the scales of 128 rows",
        file="numba/weights.py",
        old="blocks.shape[1], CHUNK // MX_BLOCK, high)",
        new="blocks.shape[1], CHUNK // MX_BLOCK, CHUNK)",
        tests=large("linear mx large", MANY),
    ),
    kernel(
        name="numba-mx-experts-rounded-in-blocks-of-128",
        trap="inputs of V4.1's experts are rounded in V4's blocks of 128",
        file="numba/moe41.py",
        old="limit, MX_BLOCK if round_inputs else 0, one)",
        new="limit, 128 if round_inputs else 0, one)",
        tests=(f"{V41}::test_inputs_of_experts_are_rounded_in_blocks_of_32[numba-True]",),
    ),
    kernel(
        name="numba-mx-expert-rounded-in-blocks-of-128",
        trap="inputs of V4.1's shared expert are rounded in V4's blocks of 128",
        file="numba/moe41.py",
        old="rounded_product(x, weight, MX_BLOCK if",
        new="rounded_product(x, weight, 128 if",
        also=(("rounded_products(x, weights, MX_BLOCK if", "rounded_products(x, weights, 128 if"),),
        tests=(f"{V41}::test_inputs_of_experts_are_rounded_in_blocks_of_32[numba-True]",),
    ),
    kernel(
        name="numba-single-expert-divided",
        trap="the weight of a token's only expert is divided by itself",
        file="numba/moe41.py",
        old="divides=k > 1",
        new="divides=True",
        tests=(f"{V41}::test_the_weight_of_a_single_expert_is_its_score[numba]",),
    ),
)

entries = partial(kernel, file="numba/quantise.py")

ENTRIES = (
    entries(
        name="numba-entry-not-clamped",
        trap="where the scale was rounded down, the largest number of a group becomes more than 6",
        old="minimum(splat(FP4_MAX), floats(words(scaled) & MAGNITUDE))",
        new="floats(words(scaled) & MAGNITUDE)",
        tests=(f"{V41}::test_entries_are_rounded_as_by_the_official_code[numba]",),
    ),
    entries(
        name="numba-scale-of-an-entry-beyond-e4m3",
        trap="the scale of a group goes beyond 448",
        old="minimum(splat(FP8_MAX), wanted)",
        new="wanted",
        tests=(f"{V41}::test_entries_of_any_size_are_rounded_alike[numba]",),
    ),
    entries(
        name="numba-scale-of-an-entry-in-float32",
        trap="the scale of a group stays in float32",
        old="scale = _round(minimum(splat(FP8_MAX), wanted), FP8)",
        new="scale = minimum(splat(FP8_MAX), wanted)",
        tests=(f"{V41}::test_entries_are_rounded_as_by_the_official_code[numba]",),
    ),
    entries(
        name="numba-entry-loses-its-sign",
        trap="the signs of an entry's numbers are lost",
        old="_round(floats(words(magnitude) | (words(numbers) & SIGN)), FP4)",
        new="_round(floats(words(magnitude)), FP4)",
        tests=(f"{V41}::test_entries_are_rounded_as_by_the_official_code[numba]",),
    ),
)

pools = partial(kernel, file="numba/candidates.py")
CHOSEN = (f"{V41}::test_pools_and_choices_are_those_of_the_scores[numba]",)

POOLS = (
    pools(
        name="numba-newest-block-not-pinned",
        trap="the block of the newest visible entry is in the pool by its scores alone",
        old="    if visible > 0:\n",
        new="    if visible < 0:\n",
        tests=CHOSEN,
    ),
    pools(
        name="numba-block-without-its-last-entry",
        trap="the last entry of a block does not count for its score",
        old="for entry in range(block * size, min((block + 1) * size, visible)):\n            score",
        new="for entry in range(block * size, min((block + 1) * size - 1, visible)):\n            score",
        tests=CHOSEN,
    ),
    pools(
        name="numba-pool-beyond-what-is-visible",
        trap="all entries of a pool's blocks may be chosen, seen or not",
        old="min((block + 1) * size, visible)):\n                numbers",
        new="min((block + 1) * size, blocks * size)):\n                numbers",
        tests=CHOSEN,
    ),
    pools(
        name="numba-places-for-entries",
        trap="the numbers of what is chosen are places in the pool",
        old="chosen[target] = numbers[places[i]]",
        new="chosen[target] = places[i]",
        tests=CHOSEN,
    ),
    pools(
        name="numba-second-piece-scored-with-the-first-keys",
        trap="all pieces of a pool are scored with the keys of the first one",
        old="_copy_key(keys[numbers[first + i]], some[i])",
        new="_copy_key(keys[numbers[i]], some[i])",
        tests=(f"{V41}::test_a_pool_of_thousands_of_entries[numba]",),
    ),
)

engram = partial(kernel, file="numba/engram.py")
GATE = (f"{V41}::test_the_gate_is_its_formula[numba]",)

ENGRAM = (
    engram(
        name="numba-gate-without-its-root",
        trap="the gate is σ of the dot product and not of its root",
        old="root = np.sqrt(LEAST if magnitude < LEAST else magnitude)",
        new="root = LEAST if magnitude < LEAST else magnitude",
        tests=GATE,
    ),
    engram(
        name="numba-gate-without-its-sign",
        trap="a key that is the opposite of a stream opens the gate",
        old="math.copysign(root, dot)",
        new="root",
        tests=GATE,
    ),
    engram(
        name="numba-gate-by-the-first-key",
        trap="all streams are compared with the key of the first one",
        old="keys_and_value[token, i]",
        new="keys_and_value[token, 0]",
        tests=GATE,
    ),
    engram(
        name="numba-gate-adds-a-key",
        trap="a key is added to the streams in place of the value",
        old="value = keys_and_value[token, n]",
        new="value = keys_and_value[token, 0]",
        tests=GATE,
    ),
)

NUMBA_V41 = PRODUCTS + ENTRIES + POOLS + ENGRAM
