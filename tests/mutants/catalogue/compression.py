"""Mistakes in the compressed entries and in the indexer that chooses among them."""

from mutants.mutant import Mutant

FILE = "model/compressor.py"
ONE_LAYER = ("model/test_forward.py::test_one_layer",)
VISIBILITY = ("model/test_causality.py::test_an_entry_is_visible_from_its_last_token_on",)

INDEXER = (
    Mutant(
        name="relu-after-the-weight",
        trap="the indexer's ReLU comes after the weighting of its heads",
        file="ops/indexer.py",
        old="(weights[..., None, :] @ np.maximum(products, 0))[..., 0, :]",
        new="np.maximum(weights[..., None] * products, 0).sum(axis=-2)",
        tests=("ops/test_indexer.py::test_relu_comes_before_the_weight",),
    ),
    Mutant(
        name="ties-to-the-highest-entry",
        trap="among equal scores top-k takes the highest entry number",
        file="ops/indexer.py",
        old='np.argsort(np.where(allowed, -scores, np.inf), axis=-1, kind="stable")[..., :k]',
        new='np.argsort(np.where(allowed, scores, -np.inf), axis=-1, kind="stable")[..., ::-1][..., :k]',
        tests=("ops/test_indexer.py::test_among_equals_the_lowest_number_comes_first",),
    ),
    Mutant(
        name="indexer-queries-without-rope",
        trap="the indexer's keys are rotated by position, but its queries are not",
        file="model/indexer.py",
        old="self.rounding.index_queries(queries, span.positions, self.frequencies)",
        new="self.rounding.index_keys(queries)",
        tests=ONE_LAYER,
    ),
    Mutant(
        name="indexer-keys-lost",
        trap="the indexer scores only the keys of its own chunk: those of earlier chunks are lost",
        file="model/indexer.py",
        old="        chosen = ops.index_top_k(",
        new="        here = ops.asarray(span.starts // 4)[:, None] <= range(keys.shape[1])\n"
        "        keys = keys * here[..., None]\n"
        "        chosen = ops.index_top_k(",
        tests=("model/test_stateful.py::test_chunks_of_one_size_equal_one_pass",),
    ),
)

COMPRESSION = (
    Mutant(
        name="position-at-block-end",
        trap="a compressed entry is rotated by the position of its block's last token instead of its first",
        file=FILE,
        old="positions: Ints = numbers * ratio",
        new="positions: Ints = numbers * ratio + ratio - 1",
        tests=ONE_LAYER,
    ),
    Mutant(
        name="visible-too-late",
        trap="an entry becomes visible only to the token after its last one",
        file="model/span.py",
        old="(self.positions + 1) // ratio",
        new="self.positions // ratio",
        tests=VISIBILITY,
    ),
    Mutant(
        name="visible-too-early",
        trap="an entry is visible to the token before its last one",
        file="model/span.py",
        old="(self.positions + 1) // ratio",
        new="(self.positions + 2) // ratio",
        tests=VISIBILITY,
    ),
    Mutant(
        name="scalar-softmax",
        trap="a compressor weighs each token by one number instead of channel by channel",
        file="ops/compressor.py",
        old="    exponentials: Array = np.exp(score - score.max(axis=-2, keepdims=True))",
        new="    score = np.broadcast_to(score.mean(axis=-1, keepdims=True), score.shape)\n"
        "    exponentials: Array = np.exp(score - score.max(axis=-2, keepdims=True))",
        tests=("ops/test_compressor.py::test_channels_have_weights_of_their_own",),
    ),
    Mutant(
        name="no-overlap",
        trap="a CSA entry covers its own block only",
        file="ops/compressor.py",
        old="return np.concatenate([previous, own], axis=2)",
        new="return own",
        tests=("model/test_causality.py::test_a_csa_entry_reads_the_block_before_its_own",),
    ),
    Mutant(
        name="overlap-halves-swapped",
        trap="a CSA entry takes its own block from the first half of the channels, as the report's letters suggest",
        file="ops/compressor.py",
        old="blocks[:, :-1, :, :c], blocks[:, 1:, :, c:]",
        new="blocks[:, :-1, :, c:], blocks[:, 1:, :, :c]",
        tests=("ops/test_compressor.py::test_overlap_takes_the_previous_block_from_the_first_channels",),
    ),
    Mutant(
        name="first-entry-shares-with-nothing",
        trap="the missing block before the first one takes a share of the softmax, with score 0 instead of −∞",
        file="ops/interface.py",
        old="np.where(blocks.before_start, -np.inf, score)",
        new="np.where(blocks.before_start, 0, score)",
        tests=ONE_LAYER,
    ),
    Mutant(
        name="no-ape",
        trap="the compressor's position bias ape is forgotten",
        file=FILE,
        old="cache.extend(kv, score, self.ape, span)",
        new="cache.extend(kv, score, 0 * self.ape, span)",
        tests=ONE_LAYER,
    ),
    Mutant(
        name="ape-by-place-in-chunk",
        trap="ape is taken by a token's place in the chunk instead of its place in the block",
        file="ops/interface.py",
        old="ape[ring.positions.placed % len(ape)]",
        new="ape[(ring.positions.placed - ring.positions.placed_starts[:, None]) % len(ape)]",
        tests=("model/test_stateful.py::test_chunks_of_one_size_equal_one_pass",),
    ),
    Mutant(
        name="entries-never-read",
        trap="compressed entries are made and never read, which only prompts beyond a block can show",
        file="model/attention.py",
        old="keys = window, window_index, entries, entry_index, self.attn_sink",
        new="keys = window, window_index, entries, 0 * entry_index - 1, self.attn_sink",
        tests=VISIBILITY,
    ),
    Mutant(
        name="hca-entries-never-read",
        trap="HCA layers never read their entries, which only prompts beyond 128 tokens can show",
        file="model/attention.py",
        old="np.where(all_entries < visible, all_entries, -1)",
        new="np.where(all_entries < 0 * visible, all_entries, -1)",
        tests=VISIBILITY,
    ),
    *INDEXER,
)
