"""Mistakes in Numba's kernels of attention, the indexer and the compressor."""

from mutants.catalogue.kernels import kernel, large

ATTENDED, WITHOUT_ENTRIES = large("sparse_attention large"), large("sparse_attention without entries")
SCORES, CHOSEN = large("index_scores large"), large("top_k large")

ATTENTION = (
    kernel(
        name="numba-sink-missing",
        trap="the sink does not join the softmax's denominator",
        file="numba/attention_blocks.py",
        old="(load_repeated(room.total, head) + weight_of_sink)",
        new="load_repeated(room.total, head)",
        tests=ATTENDED,
    ),
    kernel(
        name="numba-logits-not-scaled",
        trap="the products of queries and keys are not divided by the root of their width",
        file="numba/attention.py",
        old="scale = np.float32(window.shape[1] ** -0.5)",
        new="scale = np.float32(window.shape[1] ** 0)",
        tests=ATTENDED,
    ),
    kernel(
        name="numba-none-is-the-first-row",
        trap="−1, which names no row, reads row 0",
        file="numba/attention.py",
        old="        if row >= 0:\n            named[count] = row",
        new="        if row >= -1:\n            named[count] = max(row, 0)",
        tests=ATTENDED,
    ),
    kernel(
        name="numba-blocks-skip-a-key",
        trap="the last key of each full block is left out",
        file="numba/attention.py",
        old="        behind = min(start + KEYS, named.size)",
        new="        behind = min(start + KEYS - 1, named.size)",
        tests=ATTENDED,
    ),
    kernel(
        name="numba-total-not-shrunken",
        trap="where a block has a larger logit, the sum of the weights before it does not shrink",
        file="numba/attention_blocks.py",
        old="fma(load(room.total, lane), factor, total)",
        new="load(room.total, lane) + total",
        tests=ATTENDED,
    ),
    kernel(
        name="numba-values-not-shrunken",
        trap="where a block has a larger logit, what one of four heads summed before does not shrink",
        file="numba/attention_blocks.py",
        old="_shrunken(sums, s2, load_repeated(factor, head + 2))",
        new="_shrunken(sums, s2, splat(np.float32(1)))",
        tests=ATTENDED,
    ),
    kernel(
        name="numba-weight-of-the-next-head",
        trap="one of four heads sums values by the weights of its neighbour",
        file="numba/attention_blocks.py",
        old="w = load_repeated(weights, weight + 1)",
        new="w = load_repeated(weights, weight + 2)",
        tests=ATTENDED,
    ),
    kernel(
        name="numba-keys-without-their-tail",
        trap="channels of a key that fill no vector are not copied",
        file="numba/attention_blocks.py",
        old="        if whole < c:\n            store(keys",
        new="        if whole > c:\n            store(keys",
        tests=WITHOUT_ENTRIES,
    ),
    kernel(
        name="numba-key-taken-twice",
        trap="of eight keys that are multiplied together, the last is the one before",
        file="numba/attention_blocks.py",
        old="        a7 = fma(load_repeated(keys, k7 + channel), a, a7)",
        new="        a7 = fma(load_repeated(keys, k6 + channel), a, a7)",
        tests=ATTENDED,
    ),
)

INDEXER = (
    kernel(
        name="numba-relu-after-the-weighting",
        trap="the product is weighted before the ReLU, so that negative weights never count",
        file="numba/scoring.py",
        old="return fma(floats(positive), load(rows, place), total)",
        new="return total + maximum(zero, floats(positive) * load(rows, place))",
        tests=SCORES,
    ),
    kernel(
        name="numba-relu-missing",
        trap="negative products of the indexer count",
        file="numba/scoring.py",
        old="positive = words(maximum(zero, products))",
        new="positive = words(products)",
        tests=SCORES,
    ),
    kernel(
        name="numba-heads-of-the-last-vector-missing",
        trap="heads that fill no four vectors do not count",
        file="numba/scoring.py",
        old="for head in range(whole, lanes, LANES):",
        new="for head in range(whole, lanes - LANES, LANES):",
        tests=SCORES,
    ),
    kernel(
        name="numba-score-of-the-key-before",
        trap="of six keys that are scored together, the fifth gets the fourth one's score",
        file="numba/scoring.py",
        old="lane_sum(t3), lane_sum(t4)",
        new="lane_sum(t3), lane_sum(t3)",
        tests=SCORES,
    ),
    kernel(
        name="numba-hidden-entries-chosen",
        trap="entries that a query does not see yet may be chosen",
        file="numba/indexer.py",
        old="np.minimum(np.maximum(visible, 0), entries)",
        new="np.maximum(visible, entries)",
        tests=CHOSEN,
    ),
    kernel(
        name="numba-ties-broken-the-wrong-way",
        trap="among equal scores the highest entry comes first",
        file="numba/selection.py",
        old="        for i in range(ranks.size):\n            digit",
        new="        for i in range(ranks.size - 1, -1, -1):\n            digit",
        tests=CHOSEN,
    ),
    kernel(
        name="numba-last-of-the-ties-kept",
        trap="of the entries with the lowest score that is still chosen, one too many is taken, and a better one lost",
        file="numba/selection.py",
        old="                if equals == 0:\n",
        new="                if equals < 0:\n",
        tests=CHOSEN,
    ),
    kernel(
        name="numba-ranks-of-the-magnitude",
        trap="scores are ranked by their bits, in which negative numbers run backwards",
        file="numba/selection.py",
        old="(greater(zero, numbers) | SIGN)",
        new="((greater(zero, numbers) & np.uint32(0)) | SIGN)",
        tests=CHOSEN,
    ),
    kernel(
        name="numba-block-maxima-of-three-vectors",
        trap="the last 16 entries of each block of 64 do not count for its maximum",
        file="numba/selection.py",
        old="for entry in range(start, start + BLOCK, LANES):",
        new="for entry in range(start, start + BLOCK - LANES, LANES):",
        tests=large("top_k of fewer than blocks"),
    ),
)

COMPRESSOR = (
    kernel(
        name="numba-compressor-loses-the-first-token",
        trap="the first token of a block does not join its entry",
        file="numba/compressor.py",
        old="    for slot in range(score.shape[0]):\n        weight",
        new="    for slot in range(1, score.shape[0]):\n        weight",
        tests=large("compress large"),
    ),
    kernel(
        name="numba-compressor-one-softmax-for-16-channels",
        trap="all channels of a vector take the weights of its first one",
        file="numba/compressor.py",
        old="exp(load_to_end(score[slot], start) - largest)",
        new="exp(splat(score[slot, start]) - largest)",
        tests=large("compress large"),
    ),
)

PACKED, PACKED_ROWS = "numba/packed_rows.py", "ops/test_packed_rows.py"

READING = (
    kernel(
        name="numba-row-nibbles-swapped",
        trap="the even channel of a packed row is read from the high nibble of its byte",
        file=PACKED,
        old="even, odd = fp4_values(pairs), fp4_values(pairs >> 4)",
        new="even, odd = fp4_values(pairs >> 4), fp4_values(pairs)",
        tests=(f"{PACKED_ROWS}::test_one_key_is_read_number_by_number[numba-v41]",),
    ),
    kernel(
        name="numba-row-scale-for-32",
        trap="a scale of a packed row counts for 32 channels where it is one for 16",
        file=PACKED,
        old="scales[stored[row, c // 2 + (channel + LANES) // block]]",
        new="scales[stored[row, c // 2 + channel // block]]",
        tests=(f"{PACKED_ROWS}::test_one_key_is_read_number_by_number[numba-v41]",),
    ),
    kernel(
        name="numba-row-last-scale-missing",
        trap="the channels of a packed row's last group, which is not full, take the scale of its first",
        file=PACKED,
        old="FP4_VALUES[code] * scales[stored[row, c // 2 + channel // block]]",
        new="FP4_VALUES[code] * scales[stored[row, c // 2]]",
        tests=(f"{PACKED_ROWS}::test_one_key_is_read_number_by_number[numba-v41-partial]",),
    ),
    kernel(
        name="numba-row-signs-of-the-tail-lost",
        trap="codes of a packed row that fill no vector are read without their sign",
        file=PACKED,
        old="(4 * (channel % 2)) & 15",
        new="(4 * (channel % 2)) & 7",
        tests=(f"{PACKED_ROWS}::test_one_key_is_read_number_by_number[numba-v41-partial]",),
    ),
    kernel(
        name="numba-row-bytes-of-bfloat-swapped",
        trap="the rotated channels of a packed entry are read with the high byte first",
        file=PACKED,
        old="np.uint32(stored[row, first]) << 16 | np.uint32(stored[row, first + 1]) << 24",
        new="np.uint32(stored[row, first + 1]) << 16 | np.uint32(stored[row, first]) << 24",
        tests=(f"{PACKED_ROWS}::test_one_key_is_read_number_by_number[numba-v4]",),
    ),
    kernel(
        name="numba-row-code-of-nan-is-a-number",
        trap="an FP8 code of NaN in a packed entry is read as ±480",
        file="numba/packed.py",
        old="nan, _fp8(builder, items)",
        new="_fp8(builder, items), _fp8(builder, items)",
        tests=(f"{PACKED_ROWS}::test_a_code_that_is_nan_stays_visible[numba]",),
    ),
    kernel(
        name="numba-row-none-is-named",
        trap="an index of −1 into packed rows names a row once these are read",
        file=PACKED,
        old="np.where(index >= 0, places, -1)",
        new="places + 0 * index",
        tests=(f"{PACKED_ROWS}::test_attention_reads_rows_as_their_numbers[numba-3-few-tame-v4]",),
    ),
    kernel(
        name="numba-packed-keys-of-a-tile-alike",
        trap="of six packed keys that are scored together, all are read as the first one",
        file="numba/scoring_bytes.py",
        old="read_fp4(stored, key + i, block",
        new="read_fp4(stored, key, block",
        tests=(f"{PACKED_ROWS}::test_many_keys[numba-191-1]",),
    ),
)

NUMBA_ATTENTION = ATTENTION + INDEXER + COMPRESSOR + READING
