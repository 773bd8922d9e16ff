"""Mistakes in V4.1's layers: hyper-connections, shared entries, choices and pools, what is rounded."""

from mutants.mutant import Mutant

PASSES = ("model41/test_golden41.py::test_float_passes_agree",)
LAYERS = ("model41/test_golden41.py::test_every_result_of_float_layers_agrees",)
CACHE = "model41/test_cache41.py"
CHUNKS = (f"{CACHE}::test_chunks_of_one_size_equal_one_pass",)
ROLLBACK = (f"{CACHE}::test_a_rollback_opens_a_pair_again",)
ROUNDED = ("model41/test_golden41.py::test_rounded_layers_agree_one_by_one",)
POOLS = ("ops/test_v41.py::test_pools_are_those_of_the_official_code",)
CHOICE = ("ops/test_v41.py::test_choosing_in_a_pool_is_choosing_among_what_it_holds",)
ROUNDED_DRAFTS = ("model41/test_golden41.py::test_rounded_drafts_agree",)

V41_LAYERS = (
    Mutant(
        name="v41-own-share",
        trap="a sub-layer reads the streams with the share that it makes itself",
        file="model41/block.py",
        old="mhc_collapse(streams, pre), self.attn_norm",
        new="mhc_collapse(streams, attn.pre), self.attn_norm",
        tests=PASSES,
    ),
    Mutant(
        name="v41-own-share-of-the-experts",
        trap="the experts read the streams with the share that they make themselves",
        file="model41/block.py",
        old="mhc_collapse(streams, attn.pre), self.ffn_norm",
        new="mhc_collapse(streams, ffn.pre), self.ffn_norm",
        tests=PASSES,
    ),
    Mutant(
        name="v41-share-dropped-between-layers",
        trap="the share that attention made is handed to the next layer, not that of the experts",
        file="model41/block.py",
        old="return streams, ffn.pre",
        new="return streams, attn.pre",
        tests=PASSES,
    ),
    Mutant(
        name="v41-share-lost-between-layers",
        trap="each layer reads the first stream alone, whatever share the layer before has handed on",
        file="model41/model.py",
        old="            streams, pre = block(streams, pre, span, layer_cache, published, observe)\n        if tapped",
        new="            streams, _ = block(streams, pre, span, layer_cache, published, observe)\n        if tapped",
        tests=PASSES,
    ),
    Mutant(
        name="v41-first-share-uniform",
        trap="the first layer reads all streams alike",
        file="model41/block.py",
        old="    one_hot[..., 0] = 1\n",
        new="    one_hot[...] = 1 / streams.shape[2]\n",
        tests=("model41/test_forward41.py::test_the_first_layer_reads_the_first_stream",),
    ),
    Mutant(
        name="v41-mean-at-the-end",
        trap="the streams are averaged behind the last layer",
        file="model41/model.py",
        old="padding.restore(self.ops.mhc_collapse(streams, pre))",
        new="padding.restore(streams.mean(axis=2))",
        tests=PASSES,
    ),
    Mutant(
        name="v41-epsilon-of-v4",
        trap="norms have V4's epsilon",
        file="model41/block.py",
        old="ops, eps = self.ops, self.config.rms_norm_eps",
        new="ops, eps = self.ops, 1e-6",
        tests=PASSES,
    ),
    Mutant(
        name="v41-query-norm",
        trap="queries are normalised by head, as in V4",
        file="model41/attention.py",
        old="        q = ops.rope(q, positions, self.frequencies)",
        new="        q = ops.rope(ops.rms_scale(q, config.rms_norm_eps), positions, self.frequencies)",
        tests=LAYERS,
    ),
    Mutant(
        name="v41-entries-of-the-first-source",
        trap="layers go on with the entries of the first source when there is a second",
        file="model41/attention.py",
        old="            published.source = cache.source\n",
        new="            published.source = published.source or cache.source\n",
        tests=LAYERS,
    ),
    Mutant(
        name="v41-stale-keys",
        trap="a source hands its keys on only in a step that completes an entry",
        file="model41/attention.py",
        old="            published.source = cache.source\n",
        new="            if published.source is None or (span.ends // self.ratio > span.starts // "
        "self.ratio).any():\n"
        "                published.source = cache.source\n",
        tests=PASSES,
    ),
    Mutant(
        name="v41-key-of-the-turned-entry",
        trap="the index key is made from the entry, turned and rounded",
        file="model41/source.py",
        old="ops.linear(latent, self.wk)",
        new="ops.linear(entries, self.wk)",
        tests=LAYERS,
    ),
    Mutant(
        name="v41-key-of-the-rounded-latent",
        trap="the index key is made from the latent as it is rounded, though not turned",
        file="model41/source.py",
        old="ops.linear(latent, self.wk)",
        new="ops.linear(self.rounding.entry(latent), self.wk)",
        tests=ROUNDED,
    ),
    Mutant(
        name="v41-entry-at-block-end",
        trap="an entry stands at its block's last position",
        file="model41/source.py",
        old="return Blocks(positions, tokens=",
        new="return Blocks(positions + ratio - 1, tokens=",
        tests=LAYERS,
    ),
    Mutant(
        name="v41-pair-lost-between-chunks",
        trap="the first half of a pair is forgotten where a chunk ends",
        file="model41/source.py",
        old="kv = cache.kv.extend(ops.linear(x, self.wkv), span)",
        new="kv = cache.kv.extend(ops.linear(x, self.wkv), span) * (np.arange(self.ratio - 1 + "
        "x.shape[1]) >= self.ratio - 1)[:, None]",
        tests=CHUNKS,
    ),
    Mutant(
        name="v41-pair-not-kept-for-a-rollback",
        trap="a completed pair cannot be opened again",
        file="model41/cache.py",
        old="(RecentRows(ops, batch, ratio - 1, spare, pending) for _ in range(2))",
        new="(RecentRows(ops, batch, ratio - 1, 0, pending) for _ in range(2))",
        tests=ROLLBACK,
    ),
    Mutant(
        name="v41-prompt-shorter-than-a-block",
        trap="a prompt that completes no block leaves nothing behind for the block's other tokens",
        file="model41/source.py",
        old="        ops = self.ops\n        kv = cache.kv.extend(",
        new="        ops = self.ops\n"
        "        if (span.ends < self.ratio).all():\n"
        "            return\n"
        "        kv = cache.kv.extend(",
        tests=(f"{CACHE}::test_a_prompt_shorter_than_a_block_waits_for_the_rest_of_it",),
    ),
    Mutant(
        name="v41-first-entry-before-it-is-complete",
        trap="tokens before the end of the first block read its entry as well",
        file="model41/indexer.py",
        old="visible, size, k = span.visible(self.ratio),",
        new="visible, size, k = span.visible(self.ratio).clip(1),",
        tests=LAYERS,
    ),
    Mutant(
        name="v41-keys-of-its-own",
        trap="a layer that makes no keys scores keys of its own, which nothing has written",
        file="model41/indexer.py",
        old="        keys = published.source.keys.first(span.entry_count(self.ratio))\n",
        new="        keys = published.source.keys.first(span.entry_count(self.ratio)) * self.owns_keys\n",
        also=(
            (
                "        self.ratio = config.compress_ratios[layer]\n",
                "        self.ratio = config.compress_ratios[layer]\n"
                "        self.owns_keys = np.float32(config.is_kv_source(layer))\n",
            ),
            ("from dsv4.model.observe", "import numpy as np\n\nfrom dsv4.model.observe"),
        ),
        tests=LAYERS,
    ),
    Mutant(
        name="v41-entry-visible-late",
        trap="a query sees its own block's entry one token late",
        file="model41/indexer.py",
        old="visible, size, k = span.visible(self.ratio),",
        new="visible, size, k = span.positions // self.ratio,",
        tests=LAYERS,
    ),
    Mutant(
        name="v41-hadamard",
        trap="index vectors go through V4's Hadamard rotation",
        file="model41/rounding.py",
        old="return self.ops.fake_quant_fp4(x) if self.on else x",
        new="return self.ops.fake_quant_fp4(self.ops.hadamard(x)) if self.on else x",
        tests=ROUNDED,
    ),
    Mutant(
        name="v41-pool-of-the-last-query",
        trap="all queries of a pass choose in the pool of the last one",
        file="model41/indexer.py",
        old="            published.pool = ops.index_candidates(queries, keys, weights, visible, size, count)\n",
        new="            published.pool = ops.index_candidates(queries, keys, weights, visible, size, "
        "count)\n"
        "            published.pool = np.repeat(published.pool[:, -1:], x.shape[1], axis=1)\n",
        tests=LAYERS,
        also=(("from dsv4.model.observe", "import numpy as np\n\nfrom dsv4.model.observe"),),
    ),
    Mutant(
        name="v41-pool-kept-between-steps",
        trap="while a text is decoded, later layers choose in the pool of the prompt's last token",
        file="model41/indexer.py",
        old="            published.pool = ops.index_candidates(queries, keys, weights, visible, size, count)\n",
        new="            if x.shape[1] > 1 or not hasattr(self, 'kept'):\n"
        "                self.kept = ops.index_candidates(queries, keys, weights, visible, size, count)\n"
        "            published.pool = self.kept[:, -x.shape[1] :]\n",
        tests=("model41/test_golden41.py::test_every_choice_of_entries_while_decoding_agrees",),
    ),
    Mutant(
        name="v41-pool-for-its-own-layer",
        trap="the layer that makes the pool chooses in it, too",
        file="model41/indexer.py",
        old="        if self.has_pool:\n",
        new="        if self.makes_pool:\n"
        "            count = config.candidate_topk_blocks\n"
        "            published.pool = ops.index_candidates(queries, keys, weights, visible, size, count)\n"
        "        if self.has_pool or self.makes_pool:\n",
        tests=("model41/test_forward41.py::test_later_choices_stay_in_the_pool",),
    ),
    Mutant(
        name="v41-no-pool",
        trap="later layers choose among all entries",
        file="config41.py",
        old="return source is not None and layer > source",
        new="return source is None and layer > 0",
        tests=LAYERS,
    ),
    Mutant(
        name="v41-pool-without-the-newest-block",
        trap="the block of the newest entry is in the pool only if it is good enough",
        file="ops/candidates.py",
        old="top_k(np.where(newest, np.inf, best)",
        new="top_k(best",
        tests=POOLS,
    ),
    Mutant(
        name="v41-mean-of-a-block",
        trap="a block counts as much as the mean of its entries",
        file="ops/candidates.py",
        old="blocks, size).max(axis=-1)",
        new="blocks, size).mean(axis=-1)",
        tests=POOLS,
    ),
    Mutant(
        name="v41-others-than-the-pool",
        trap="where a pool holds too few entries, others are taken",
        file="ops/candidates.py",
        old="return np.where(np.take_along_axis(allowed, order, axis=-1), order, -1)",
        new="return np.where(order < visible[..., None], order, -1)",
        tests=CHOICE,
    ),
    Mutant(
        name="v41-output-rounded",
        trap="the input of wo_a is rounded, though its weight is used dequantised",
        file="model41/attention.py",
        old="ops.grouped_linear(o.reshape(batch, length, -1), self.wo_a",
        new="ops.grouped_linear(ops.fake_quant_fp8(o.reshape(batch, length, -1), 32), self.wo_a",
        tests=ROUNDED,
    ),
    Mutant(
        name="v41-query-rounded",
        trap="attention's queries are rounded as keys are",
        file="model41/attention.py",
        old="        q = ops.rope(q, positions, self.frequencies)",
        new="        q = self.rounding.window_key(ops.rope(q, positions, self.frequencies))",
        tests=ROUNDED,
    ),
    Mutant(
        name="v41-compressor-input-rounded",
        trap="the input of the compressor, whose weight is not quantised, is rounded",
        file="model41/source.py",
        old="kv = cache.kv.extend(ops.linear(x, self.wkv), span)",
        new="kv = cache.kv.extend(ops.linear(self.rounding.window_key(x), self.wkv), span)",
        tests=ROUNDED,
    ),
    Mutant(
        name="v41-window-key-without-rotated-channels",
        trap="a window key keeps its rotated channels as they are, as in V4",
        file="model41/rounding.py",
        old="return self.ops.fake_quant_fp8(kv, MX_BLOCK) if self.on else kv",
        new="return np.concatenate([self.ops.fake_quant_fp8(kv[..., :-16], MX_BLOCK), kv[..., -16:]], "
        "-1) if self.on else kv",
        tests=ROUNDED_DRAFTS,
        also=(("from dsv4.ops import Ops, Weight", "import numpy as np\n\nfrom dsv4.ops import Ops, Weight"),),
    ),
)
