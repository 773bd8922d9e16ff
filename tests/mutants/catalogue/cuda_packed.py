"""Mistakes in CUDA's kernels of what caches hold: packed rows, and the indexer that chooses among them."""

from mutants.catalogue.kernels import kernel

PACKED = (
    kernel(
        name="cuda-codes-of-a-pair-change-places",
        trap="of two FP4 codes in a byte the even channel's is in the upper half",
        file="cuda/packed_rows.cu",
        old="block.code(numbers[2 * pair]) | block.code(numbers[2 * pair + 1]) << 4",
        new="block.code(numbers[2 * pair + 1]) | block.code(numbers[2 * pair]) << 4",
        tests=("cuda/test_packed_rows.py::test_bytes_of_the_released_sizes[keys]",),
    ),
    kernel(
        name="cuda-rotated-channels-cut",
        trap="the rotated channels of an entry are cut to bfloat16 instead of rounded",
        file="cuda/formats.cuh",
        old="(word + 0x7fffu + (word >> 16 & 1)) >> 16",
        new="word >> 16",
        tests=("cuda/test_packed_rows.py::test_bytes_of_the_released_sizes[entries]",),
    ),
    kernel(
        name="cuda-word-from-the-place-before",
        trap="four codes at a place that is no multiple of 4 are read from the multiple before it",
        file="cuda/packed.cuh",
        old="return words[0] >> 8 * skipped | words[1] << (32 - 8 * skipped);",
        new="return words[0];",
        tests=("cuda/test_packed_rows.py::test_attention_reads_entries_where_they_lie[1]",),
    ),
    kernel(
        name="cuda-entries-read-as-the-window",
        trap="attention reads entries in the format of the window's rows",
        file="cuda/attention_keys.cuh",
        old="{first + found * rows.format.width(channels / 4), rows.format}",
        new="{first + found * rows.format.width(channels / 4), window.format}",
        tests=("cuda/test_packed_rows.py::test_attention_of_rows_in_two_formats",),
    ),
)

QUERIES = "ops/test_together.py::test_queries_of_the_indexer_are_turned_and_rotated"

INDEXER = (
    kernel(
        name="cuda-heads-at-positions-of-their-own",
        trap="the heads of the indexer's query are turned by the positions of the first tokens, one each",
        file="cuda/indexer.cu",
        old="positions[blockIdx.x / heads]",
        new="positions[blockIdx.x % heads]",
        tests=(f"{QUERIES}[cuda-on-host-(3, 32)-True-few]",),
    ),
    kernel(
        name="cuda-queries-prepared-too-early",
        trap="what products take of a query is read before all threads have written theirs",
        file="cuda/indexer.cu",
        old="    __syncthreads();  // others read what this thread has written\n",
        new="",
        tests=(f"{QUERIES}[cuda-on-host-(64, 128)-True-one token]",),
    ),
    kernel(
        name="cuda-queries-rounded-unasked",
        trap="queries are rounded to FP4 by the launch that turns them, whether that is wanted or not",
        file="cuda/indexer.cu",
        old="if (rounds) write_rounded_rows(",
        new="if (rounds || true) write_rounded_rows(",
        tests=(f"{QUERIES}[cuda-on-host-(8, 64)-False-few]",),
    ),
    kernel(
        name="cuda-pieces-of-dead-queries",
        trap="queries are taken for those that are gone and stood at the same place",
        file="cuda/indexer.py",
        old="if known is not None and known[0]() is not None:",
        new="if known is not None:",
        tests=("cuda/test_shared_inputs.py::test_other_queries_in_the_place_of_dead_ones_are_prepared",),
    ),
    kernel(
        name="cuda-pieces-of-more-queries",
        trap="queries that begin where others do are taken for them, however many they are",
        file="cuda/indexer.py",
        old="_prepared_last.get((device.address(whole), rows, width))",
        new="next((one for key, one in _prepared_last.items() if key[0] == device.address(whole)), None)",
        tests=("cuda/test_shared_inputs.py::test_queries_are_prepared_by_the_launch_that_makes_them",),
    ),
    kernel(
        name="cuda-relu-after-the-weight",
        trap="the indexer's ReLU comes after the weighting of its heads",
        file="cuda/indexer.cu",
        old="sum = fmaf(queries.weights[own], larger(product, 0), sum)",
        new="sum += larger(queries.weights[own] * product, 0)",
        tests=("ops/test_indexer.py::test_relu_comes_before_the_weight[cuda-on-host]",),
    ),
    kernel(
        name="cuda-weights-of-the-first-16-heads",
        trap="the indexer's heads from the 17th on take the weights of the first 16",
        file="cuda/indexer.cu",
        old="fmaf(queries.weights[own], ",
        new="fmaf(queries.weights[own % HEADS], ",
        tests=("cuda/test_selection_large.py::test_scores_of_several_tiles[70-5]",),
    ),
    kernel(
        name="cuda-queries-rounded-to-bfloat16",
        trap="of the indexer's queries only the first of three bfloat16 pieces is multiplied",
        file="cuda/indexer.cu",
        old="__any_sync(ALL_LANES, splits) ? 3 : 1",
        new="__any_sync(ALL_LANES, splits) ? 1 : 1",
        tests=("cuda/test_selection_large.py::test_scores_of_several_tiles[3-32]",),
    ),
    kernel(
        name="cuda-keys-rounded-to-bfloat16",
        trap="the indexer's float keys are multiplied as if all were rounded to FP4, in one piece",
        file="cuda/indexer.cu",
        old="is_split |= keys.load(source, first_key, count, chunk);\n    }\n",
        new="keys.load(source, first_key, count, chunk);\n    }\n",
        tests=("cuda/test_selection_large.py::test_scores_of_several_tiles[3-32]",),
    ),
    kernel(
        name="cuda-infinity-times-no-piece",
        trap="an infinite key meets a piece of a query that is 0, and its score becomes NaN",
        file="cuda/indexer.cu",
        old="return fabsf(leading) <= LARGEST_FLOAT ? leading + small : leading;",
        new="return leading + small;",
        tests=("cuda/test_selection_large.py::test_an_infinite_key_beside_queries_of_one_piece",),
    ),
    kernel(
        name="cuda-scale-of-the-first-32-channels",
        trap="all channels of an FP4 key have the scale of its first 32",
        file="cuda/indexer.cu",
        old="row[bytes + first / 32]",
        new="row[bytes]",
        tests=("cuda/test_packed_rows.py::test_keys_of_several_blocks",),
    ),
    kernel(
        name="cuda-ties-broken-the-wrong-way",
        trap="among equal scores top-k takes the highest entry number",
        file="cuda/selection.cu",
        old="<< 32 | ~static_cast<unsigned>(entry);",
        new="<< 32 | static_cast<unsigned>(entry);",
        also=(("= ~static_cast<unsigned>(sorted[i]);", "= static_cast<unsigned>(sorted[i]);"),),
        tests=("ops/test_indexer.py::test_among_equals_the_lowest_number_comes_first[cuda-on-host]",),
    ),
    kernel(
        name="cuda-hidden-entries-chosen",
        trap="entries that a query does not see yet take the places of those that it sees",
        file="cuda/selection.cu",
        old="ordered(entry < visible ? scores[entry] : -infinity())",
        new="ordered(scores[entry])",
        tests=("ops/test_indexer.py::test_what_is_not_visible_is_never_chosen[cuda-on-host-1-expected1]",),
    ),
)

CUDA_PACKED = PACKED + INDEXER
