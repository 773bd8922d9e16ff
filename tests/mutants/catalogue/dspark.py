"""Mistakes in the DSpark drafter: what it reads, its rings and blocks, its heads, and how many drafts are checked."""

from mutants.mutant import Mutant

FILE = "model/dspark.py"
SHORT = ("model/test_dspark.py::test_float_results_of_a_short_prompt_agree",)
LONG = ("model/test_dspark.py::test_float_results_agree",)
ROUNDS = ("model/test_dspark.py::test_each_round_of_the_greedy_speculative_runs_is_the_official_one",)
ROUNDED = ("model/test_dspark.py::test_rounded_drafts_agree",)
REJECTION = ("text/test_dspark_drafts.py::test_drafts_are_accepted_as_by_the_official_rule",)

DSPARK = (
    Mutant(
        name="dspark-one-stage",
        trap="there is one stage, because num_nextn_predict_layers says 1",
        file="config.py",
        old="return len(self.compress_ratios) - self.num_hidden_layers",
        new="return self.num_nextn_predict_layers",
        tests=("test_config.py::test_released_configs_with_a_dspark_drafter",),
    ),
    Mutant(
        name="dspark-heads-of-the-model",
        trap="drafts come out of the main model's hc_head and norm instead of the last stage's",
        file=FILE,
        old="self.head = Head(last, head)",
        new="self.head = Head(part, head)",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-taps-the-entry",
        trap="the drafter reads what goes into its target layers, as in V4.1, instead of what comes out",
        file="model/model.py",
        old="            streams = block(streams, span.tokens, span, layer_cache, observe)\n"
        "            if number in targets:\n"
        "                tapped.append(streams)\n",
        new="            if number in targets:\n"
        "                tapped.append(streams)\n"
        "            streams = block(streams, span.tokens, span, layer_cache, observe)\n",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-sum-for-mean",
        trap="the drafter reads the sum of the streams instead of their mean, which its norm hides",
        file=FILE,
        old="streams.mean(axis=2)",
        new="streams.sum(axis=2)",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-reads-the-collapsed-state",
        trap="the drafter reads a collapsed state of its target layers instead of the plain mean of their streams",
        file=FILE,
        old="streams.mean(axis=2)",
        new="self.head.collapse(streams)",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-norm-before-the-ring",
        trap="the main model's state goes through a stage's attn_norm before its key is made",
        file=FILE,
        old="stage.attn.keys(main_x, span.positions)",
        new="stage.attn.keys(self.ops.rms_norm(main_x, stage.hc_attn.norm, 1e-6), span.positions)",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-streams-before-the-ring",
        trap="a stage's hyper-connection weighs the main model's state before its key is made; only rounding shows it",
        file=FILE,
        old="            ring.window.extend(stage.attn.keys(main_x, span.positions), span)\n",
        new="            hc, config = stage.hc_attn, self.config\n"
        "            streams = np.repeat(main_x[:, :, None], config.hc_mult, axis=2)\n"
        "            epsilons = config.hc_eps, config.rms_norm_eps\n"
        "            weights = hc.fn, hc.base, hc.scale\n"
        "            mixing = self.ops.mhc_weights(streams, *weights, config.hc_sinkhorn_iters, *epsilons)\n"
        "            collapsed = self.ops.mhc_collapse(streams, mixing.pre)\n"
        "            ring.window.extend(stage.attn.keys(collapsed, span.positions), span)\n",
        tests=ROUNDED,
    ),
    Mutant(
        name="dspark-state-changes-between-stages",
        trap="each stage reads another state of the main model instead of the one projected for all of them",
        file=FILE,
        old="            ring.window.extend(stage.attn.keys(main_x, span.positions), span)\n",
        new="            ring.window.extend(stage.attn.keys(main_x, span.positions), span)\n"
        "            main_x = self.ops.rms_norm(main_x, self.main_norm, self.config.rms_norm_eps)\n",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-causal-block",
        trap="a place of the block does not see the places behind it",
        file=FILE,
        old="np.repeat(columns[:, None], self.length, axis=1)",
        new="np.where(np.arange(exist.shape[1]) > window + np.arange(self.length)[:, None], -1, columns[:, None])",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-window-slides",
        trap="the window moves with the place of the block, so that later places see fewer tokens of the text",
        file=FILE,
        old="np.repeat(columns[:, None], self.length, axis=1)",
        new="np.where(np.arange(exist.shape[1]) < np.arange(self.length)[:, None], -1, columns[:, None])",
        tests=LONG,
    ),
    Mutant(
        name="dspark-given-token-from-the-ring",
        trap="the given token's key is looked for in the ring, where it is not, instead of in the block",
        file=FILE,
        old="every_place = np.ones((len(ring), self.length), bool)",
        new="every_place = np.arange(self.length) > np.zeros((len(ring), 1))",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-block-a-position-early",
        trap="the block stands at positions from t on instead of from t + 1",
        file=FILE,
        old="streams = stage(streams, ids, span,",
        new="vars(span)['positions'] = span.host_positions - 1\n            streams = stage(streams, ids, span,",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-yarn",
        trap="the stages turn their keys with the frequencies of the compressing layers",
        file="model/attention.py",
        old="layer_frequencies(part.config, ratio))",
        new='layer_frequencies(part.config, 4 if "mtp" in part.name else ratio))',
        tests=SHORT,
    ),
    Mutant(
        name="dspark-output-not-turned-back",
        trap="the attention of a block's places is not turned back by their positions",
        file="model/attention.py",
        old="o = ops.turned_attention(q, *keys, span.back, self.frequencies)",
        new='back = 0 * positions if "mtp" in self.name else span.back\n'
        "        o = ops.turned_attention(q, *keys, back, self.frequencies)",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-empty-slots-are-keys",
        trap="slots of the ring that nothing has been written to count as keys",
        file=FILE,
        old="ring >= 0",
        new="ring >= -window",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-newest-slot-missing",
        trap="the newest token is not in the ring yet when the block attends to it",
        file=FILE,
        old="ring >= 0",
        new="(ring >= 0) & (ring < self.starts[:, None] - 1)",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-block-stays-in-the-ring",
        trap="the block's own keys are left in the ring",
        file=FILE,
        old="        return np.concatenate([self.ring.newest(span), rows], axis=1)\n",
        new="        newest = self.ring.newest(span)\n"
        "        self.ring.extend(rows, span)\n"
        "        return np.concatenate([newest, rows], axis=1)\n",
        tests=("model/test_dspark.py::test_a_draft_leaves_the_cache_as_it_is",),
    ),
    Mutant(
        name="dspark-only-the-last-token-is-read",
        trap="of several accepted tokens only the last one is put into the rings",
        file=FILE,
        old="stage.attn.keys(main_x, span.positions)",
        new="stage.attn.keys(main_x, span.positions) * (np.arange(span.length)[:, None] == span.length - 1)",
        tests=ROUNDS,
    ),
    Mutant(
        name="dspark-bias-of-the-base",
        trap="the Markov head is given what the base logits say of a place instead of the token that was picked there",
        file=FILE,
        old="            previous = pick(logits[-1])\n            ids.append(previous)\n",
        new="            previous = pick(block.base[:, place])\n            ids.append(pick(logits[-1]))\n",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-bias-of-the-same-place",
        trap="the Markov head is given the token of the place itself instead of the one before it",
        file=FILE,
        old="self.markov_head.embed(previous)",
        new="self.markov_head.embed(pick(block.base[:, place]))",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-no-bias-at-first",
        trap="the first place has no Markov bias, although the given token stands before it",
        file=FILE,
        old="block.base[:, place] + self.markov_head.bias(embedded)",
        new="block.base[:, place] + (place > 0) * self.markov_head.bias(embedded)",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-guess-without-bias",
        trap="drafts are judged by the base logits, and not by the ones with the Markov bias that they were drawn from",
        file="text/drafters.py",
        old="            guesses.append(sampler.distribution(logits[0], sequence))\n"
        "            return asarray(np.array([sampler.draw(guesses[-1], sequence)]))\n",
        new="            drawn_from = sampler.distribution(logits[0], sequence)\n"
        "            guesses.append(sampler.distribution(own.base[0, len(guesses)], sequence))\n"
        "            return asarray(np.array([sampler.draw(drawn_from, sequence)]))\n",
        tests=("text/test_dspark_drafts.py::test_drafts_do_not_change_the_distribution",),
    ),
    Mutant(
        name="dspark-confidence-of-the-normed-state",
        trap="the confidence head is given the normalised state",
        file=FILE,
        old="self.confidence_head(block.hidden[:, place], embedded)",
        new="self.confidence_head(self.ops.rms_norm(block.hidden[:, place], self.head.norm, 1e-6), embedded)",
        tests=SHORT,
    ),
    Mutant(
        name="dspark-confidence-of-its-own-draft",
        trap="the confidence head is given the embedding of the draft that it judges instead of the token before it",
        file=FILE,
        old="self.confidence_head(block.hidden[:, place], embedded)",
        new="self.confidence_head(block.hidden[:, place], 1 * self.markov_head.embed(pick(logits[-1])))",
        tests=("model/test_dspark.py::test_the_confidence_of_a_place_does_not_depend_on_its_own_draft",),
    ),
    Mutant(
        name="dspark-confidence-squashed-twice",
        trap="a confidence that is a chance already is made one again",
        file="text/drafts.py",
        old="sigmoid(np.array(confidence[:useful], np.float64))",
        new="sigmoid(sigmoid(np.array(confidence[:useful], np.float64)))",
        tests=ROUNDS,
    ),
    Mutant(
        name="dspark-logits-a-place-early",
        trap="the logits of a place are taken for the token at it instead of the one behind it",
        file="text/drafters.py",
        old="return Drafts(to_numpy(drafted.ids)[0].tolist(),",
        new="return Drafts([int(self._given[sequence]), *to_numpy(drafted.ids)[0, :-1].tolist()],",
        tests=ROUNDS,
    ),
    Mutant(
        name="dspark-main-hidden-not-rounded",
        trap="what the drafter reads of the main model is not rounded to FP8 before its projection",
        file=FILE,
        old="self.rounding.linear(main_hidden, self.main_proj)",
        new="self.ops.linear(main_hidden, self.main_proj)",
        tests=ROUNDED,
    ),
    Mutant(
        name="dspark-ring-not-rounded",
        trap="the keys of the drafter's rings and blocks are not rounded to FP8",
        file="model/attention.py",
        old="return self.rounding.entry(kv)",
        new='return kv if "mtp" in self.name else self.rounding.entry(kv)',
        tests=ROUNDED,
    ),
    Mutant(
        name="dspark-ring-rounded-with-its-turned-channels",
        trap="the keys of the drafter's rings and blocks are rounded to FP8 in the channels that RoPE turns, too",
        file="model/attention.py",
        old="return self.rounding.entry(kv)",
        new='if "mtp" not in self.name or not self.rounding.on:\n'
        "            return self.rounding.entry(kv)\n"
        "        return self.ops.fake_quant_fp8(kv, 64)",
        tests=ROUNDED,
    ),
    Mutant(
        name="dspark-hash-routing",
        trap="the stages route by the table of token ids, so that all noise visits the same experts",
        file=FILE,
        old="        self.head = Head(last, head)\n",
        new="        self.head = Head(last, head)\n"
        "        from dsv4.model.moe import HashGate\n\n"
        "        for stage in self.stages:\n"
        '            stage.ffn.gate = HashGate(part.under("layers.0.ffn.gate."))\n',
        tests=SHORT,
    ),
    Mutant(
        name="dspark-chunks-lose-a-token",
        trap="the first token of each chunk of a prompt but the first is not put into the rings",
        file=FILE,
        old="stage.attn.keys(main_x, span.positions)",
        new="stage.attn.keys(main_x, span.positions)"
        " * (span.host_positions > np.where(span.starts, span.starts, -1)[:, None])[..., None]",
        tests=("model/test_dspark.py::test_any_way_of_feeding_a_prompt_gives_one_draft",),
    ),
    Mutant(
        name="bonus-token-forgotten",
        trap="where all drafts are kept, the token that the model says behind them is not taken",
        file="text/drafts.py",
        old="            return [*kept, sampler.draw(target, sequence)]\n        draft, guess",
        new="            return kept or [sampler.draw(target, sequence)]\n        draft, guess",
        tests=REJECTION,
    ),
    Mutant(
        name="text-goes-on-behind-an-end-token",
        trap="a kept draft that ends the text is followed by more drafts",
        file="text/drafts.py",
        old="        if draft in chooser.stop_ids:\n            return kept\n",
        new="",
        tests=REJECTION,
    ),
    Mutant(
        name="threshold-on-the-product",
        trap="the threshold is held against the chance that all drafts so far are kept instead of each by itself",
        file="text/draft_lengths.py",
        old="enumerate(chances) if chance < threshold]",
        new="enumerate(accumulate(chances, mul)) if chance < threshold]",
        tests=("text/test_draft_lengths.py::test_the_threshold_cuts_as_the_official_one",),
    ),
    Mutant(
        name="schedule-looks-further",
        trap="the schedule takes the best length of all instead of stopping at the first that gains nothing",
        file="text/draft_lengths.py",
        old="        if falling == 0 or throughput <= best:\n            break\n",
        new="        if falling == 0 or throughput <= best:\n            continue\n",
        tests=("text/test_draft_lengths.py::test_the_schedule_is_the_papers",),
    ),
)
