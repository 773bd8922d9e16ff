"""Mistakes in V4.1's number formats, experts, drafter, Engram and configuration."""

from mutants.mutant import Mutant

ROUNDED = ("model41/test_golden41.py::test_rounded_layers_agree_one_by_one",)
ENTRIES = ("ops/test_v41.py::test_entries_are_rounded_as_by_the_official_code",)
EXPERTS = ("ops/test_v41.py::test_inputs_of_experts_are_rounded_in_blocks_of_32",)
TABLE = ("test_config41.py::test_the_released_tables",)
LAYERS = ("model41/test_golden41.py::test_every_result_of_float_layers_agrees",)
SINGLE = ("ops/test_v41.py::test_the_weight_of_a_single_expert_is_its_score",)
PASSES = ("model41/test_golden41.py::test_float_passes_agree",)
DRAFTS = ("model41/test_golden41.py::test_float_drafts_agree",)
SETTINGS = ("test_config41.py::test_settings_are_those_of_the_text_path",)
PAD = ("model41/test_cache41.py::test_what_stands_before_a_text_is_the_pad_token",)
GATE = ("ops/test_v41.py::test_the_gate_is_that_of_the_official_code",)
CHUNKS = ("model41/test_cache41.py::test_chunks_of_one_size_equal_one_pass",)
ROLLBACK = ("model41/test_cache41.py::test_a_rollback_opens_a_pair_again",)

V41_PARTS = (
    Mutant(
        name="v41-entry-rounded-before-rope",
        trap="an entry is rounded before it is turned",
        file="model41/source.py",
        old="entries = self.rounding.entry(ops.rope(latent, blocks.positions, self.frequencies))",
        new="entries = ops.rope(self.rounding.entry(latent), blocks.positions, self.frequencies)",
        tests=ROUNDED,
    ),
    Mutant(
        name="v41-entry-without-rotated-channels",
        trap="an entry keeps its rotated channels as they are",
        file="model41/rounding.py",
        old="return self.ops.fake_quant_nvfp4(entry) if self.on else entry",
        new="return np.concatenate([self.ops.fake_quant_nvfp4(entry[..., :-16]), entry[..., -16:]], -1) "
        "if self.on else entry",
        tests=ROUNDED,
        also=(("from dsv4.ops import Ops, Weight", "import numpy as np\n\nfrom dsv4.ops import Ops, Weight"),),
    ),
    Mutant(
        name="v41-entry-scales-powers-of-two",
        trap="an entry's scales are powers of two",
        file="ops/quantise.py",
        old="    scale_codes = formats.fp8_encode(np.where(np.isfinite(largest), wanted, np.nan).astype(x.dtype))",
        new="    wanted = np.exp2(np.ceil(np.log2(wanted)))\n"
        "    scale_codes = formats.fp8_encode(np.where(np.isfinite(largest), wanted, "
        "np.nan).astype(x.dtype))",
        tests=ENTRIES,
    ),
    Mutant(
        name="v41-entry-scales-not-rounded",
        trap="an entry's scales stay float32",
        file="ops/quantise.py",
        old="    codes, scale_codes = nvfp4_groups(x)\n    scales = formats.fp8_decode(scale_codes).astype(x.dtype)\n",
        new="    scales = np.maximum(_largest(x, NVFP4_GROUP), x.dtype.type(NVFP4_FLOOR)) / "
        "x.dtype.type(6)\n"
        "    codes = formats.fp4_encode(_divide(x, scales, NVFP4_GROUP))\n",
        tests=ENTRIES,
    ),
    Mutant(
        name="v41-entry-groups-of-32",
        trap="32 channels of an entry share a scale",
        file="ops/quantise.py",
        old="NVFP4_GROUP = 16",
        new="NVFP4_GROUP = 32",
        tests=ENTRIES,
    ),
    Mutant(
        name="v41-experts-rounded-in-blocks-of-128",
        trap="the inputs of experts are rounded as in V4",
        file="ops/moe41.py",
        old="MX_BLOCK = 32",
        new="MX_BLOCK = 128",
        tests=EXPERTS,
    ),
    Mutant(
        name="v41-squares-of-128",
        trap="FP8 weights have a scale for each 128 × 128 square, as in V4",
        file="parameters41.py",
        old="SQUARE = 32, 32",
        new="SQUARE = 128, 128",
        tests=TABLE,
    ),
    Mutant(
        name="v41-bias-for-images",
        trap="text is routed with the bias for image tokens",
        file="model41/moe.py",
        old='part["gate.bias"]',
        new='part["gate.bias_vl"]',
        tests=LAYERS,
    ),
    Mutant(
        name="v41-single-weight-divided",
        trap="the weight of a single expert is divided by itself",
        file="ops/moe41.py",
        old=" and k > 1:",
        new=":",
        tests=SINGLE,
    ),
    Mutant(
        name="v41-gate-input-rounded",
        trap="the input of the gate is rounded",
        file="model41/moe.py",
        old="logits = ops.linear(tokens, self.gate_weight)",
        new="logits = ops.linear(self.rounding.window_key(tokens), self.gate_weight)",
        tests=ROUNDED,
    ),
    Mutant(
        name="v41-stages-with-experts-of-the-model",
        trap="a stage's tokens visit as many experts as the main model's",
        file="model41/dspark.py",
        old="config.dspark.n_routed_experts, config.dspark.num_experts_per_tok",
        new="config.dspark.n_routed_experts, config.num_experts_per_tok",
        tests=("model41/test_forward41.py::test_stages_have_experts_of_their_own_number",),
    ),
    Mutant(
        name="v41-taps-behind-the-layer",
        trap="the drafter reads what comes out of its target layers, as in V4",
        file="model41/model.py",
        old="            if number in targets:\n"
        "                tapped.append(streams)\n"
        "            streams, pre = block(streams, pre, span, layer_cache, published, observe)\n",
        new="            streams, pre = block(streams, pre, span, layer_cache, published, observe)\n"
        "            if number in targets:\n"
        "                tapped.append(streams)\n",
        tests=PASSES,
    ),
    Mutant(
        name="v41-taps-before-the-engram",
        trap="the drafter reads a target layer's streams before their Engram",
        file="model41/model.py",
        old="            streams = self._enter(block, streams, classes, span, layer_cache, observe)\n"
        "            if number in targets:\n"
        "                tapped.append(streams)\n",
        new="            if number in targets:\n"
        "                tapped.append(streams)\n"
        "            streams = self._enter(block, streams, classes, span, layer_cache, observe)\n",
        tests=(
            "model41/test_forward41.py::test_the_drafter_reads_the_streams_behind_a_layers_engram_and_before_the_layer",
        ),
    ),
    Mutant(
        name="v41-stage-with-a-mean",
        trap="the state of a place is the mean of the last stage's streams",
        file="model41/dspark.py",
        old="hidden = ops.mhc_collapse(streams, pre)",
        new="hidden = streams.mean(axis=2)",
        tests=DRAFTS,
    ),
    Mutant(
        name="v41-share-dropped-between-stages",
        trap="each stage begins with the first stream alone, whatever share the stage before has handed on",
        file="model41/dspark.py",
        old="            streams, pre = stage(streams, pre, span, state, Published(), observe)",
        new="            streams, _ = stage(streams, pre, span, state, Published(), observe)",
        tests=DRAFTS,
    ),
    Mutant(
        name="v41-markov-head-under-v4s-names",
        trap="the tables of the Markov head have the names that they have in V4",
        file="parameters41.py",
        old='for name in ("embed", "head"):',
        new='for name in ("markov_w1", "markov_w2"):',
        tests=("checkpoint/test_released_headers41.py::test_names_dtypes_and_shapes_are_the_official_ones",),
    ),
    Mutant(
        name="v41-one-stage",
        trap="there is one stage, as in V4's configurations",
        file="config41.py",
        old="        return self.num_nextn_predict_layers\n",
        new="        return min(1, self.num_nextn_predict_layers)\n",
        tests=("test_config41.py::test_the_released_config",),
    ),
    Mutant(
        name="v41-settings-at-top-level",
        trap="settings are read at top level of config.json",
        file="checkpoint/config41_json.py",
        old="typed(required(text, entry.name, source), entry.type, source, entry.name)",
        new="typed(required(text | raw, entry.name, source), entry.type, source, entry.name)",
        tests=SETTINGS,
    ),
    Mutant(
        name="v41-hash-of-raw-ids",
        trap="n-grams are made of token ids instead of their classes",
        file="model41/model.py",
        old="self.ops.asarray(self.token_classes[ids])",
        new="self.ops.asarray(ids)",
        tests=LAYERS,
    ),
    Mutant(
        name="v41-pad-id-before-the-text",
        trap="the pad id, and not its class, stands before the first token",
        file="model41/engram.py",
        old="int(part.token_classes[settings.pad_token_id])",
        new="settings.pad_token_id",
        tests=PAD,
    ),
    Mutant(
        name="v41-multipliers-turned-round",
        trap="the oldest token has the first multiplier",
        file="model41/engram.py",
        old="part.ops.asarray(engram_multipliers(layer, count, longest))",
        new="part.ops.asarray(engram_multipliers(layer, count, longest)[::-1].copy())",
        tests=LAYERS,
    ),
    Mutant(
        name="v41-primes-from-the-start",
        trap="each layer begins with the first prime again",
        file="model41/engram.py",
        old="part.ops.asarray(moduli[place])",
        new="part.ops.asarray(moduli[0])",
        tests=LAYERS,
    ),
    Mutant(
        name="v41-value-before-the-keys",
        trap="an Engram's value is taken for its first key",
        file="ops/engram.py",
        old="keys = keys_and_value[..., : n * d].reshape(streams.shape)",
        new="keys = keys_and_value[..., d:].reshape(streams.shape)",
        tests=GATE,
        also=(("value = keys_and_value[..., n * d :]", "value = keys_and_value[..., :d]"),),
    ),
    Mutant(
        name="v41-gate-without-root",
        trap="the gate is σ of the similarity and not of its root",
        file="ops/engram.py",
        old="sigmoid(root)",
        new="sigmoid(dot)",
        tests=GATE,
    ),
    Mutant(
        name="v41-gate-norm-over-all-streams",
        trap="one norm of all streams together serves the gate",
        file="ops/engram.py",
        old="np.sqrt(np.mean(np.square(x), axis=-1) + x.dtype.type(eps))",
        new="np.sqrt(np.mean(np.square(x), axis=(-2, -1))[..., None] + x.dtype.type(eps))",
        tests=GATE,
    ),
    Mutant(
        name="v41-gate-epsilon-of-v4",
        trap="the norms of an Engram's gate have V4's epsilon",
        file="model41/engram.py",
        old="self.eps, self.before = config.rms_norm_eps,",
        new="self.eps, self.before = 1e-6,",
        tests=("model41/test_forward41.py::test_how_large_the_streams_are_does_not_matter_to_an_engrams_gate",),
    ),
    Mutant(
        name="v41-gate-epsilon-left-out",
        trap="the norms of an Engram's gate have the smallest similarity for their epsilon",
        file="ops/engram.py",
        old="np.sqrt(np.mean(np.square(x), axis=-1) + x.dtype.type(eps))",
        new="np.sqrt(np.mean(np.square(x), axis=-1) + x.dtype.type(SMALLEST_DOT))",
        tests=GATE,
    ),
    Mutant(
        name="v41-engram-behind-the-layer",
        trap="an Engram is added behind its layer",
        file="model41/model.py",
        old="            streams = self._enter(block, streams, classes, span, layer_cache, observe)\n"
        "            if number in targets:\n"
        "                tapped.append(streams)\n"
        "            streams, pre = block(streams, pre, span, layer_cache, published, observe)\n",
        new="            if number in targets:\n"
        "                tapped.append(streams)\n"
        "            streams, pre = block(streams, pre, span, layer_cache, published, observe)\n"
        "            streams = self._enter(block, streams, classes, span, layer_cache, observe)\n",
        tests=PASSES,
    ),
    Mutant(
        name="v41-ngrams-over-the-start",
        trap="what is no token stands before a text",
        file="model41/engram.py",
        old="        known = np.where(_exist(span, self.before), known, self.pad_class)\n",
        new="",
        tests=PAD,
    ),
    Mutant(
        name="v41-ngrams-lost-between-chunks",
        trap="the classes before a chunk count as pad",
        file="model41/engram.py",
        old="    positions = span.starts[:, None] + np.arange(-before, span.length)\n",
        new="    positions = 0 * span.starts[:, None] + np.arange(-before, span.length)\n",
        tests=CHUNKS,
    ),
    Mutant(
        name="v41-classes-not-kept-for-a-rollback",
        trap="classes that forgotten tokens have overwritten are not there again",
        file="model41/cache.py",
        old="config.engram.max_ngram_size - 1, spare, one)",
        new="config.engram.max_ngram_size - 1, 0, one)",
        tests=ROLLBACK,
    ),
)
