"""Mistakes in the losses that balance the experts and teach the indexer."""

from mutants.mutant import Mutant

BALANCE = "learn/losses/balance.py"
INDEXER = "learn/losses/indexer.py"

BALANCE_GRADIENT = ("learn/losses/test_balance.py::test_the_gradient_goes_through_the_probabilities_alone",)
BALANCED_LAYERS = (
    "learn/losses/test_balance.py::test_layers_that_choose_by_score_are_balanced_and_hash_layers_are_not",
)
SHARES = ("learn/losses/test_indexer.py::test_attention_to_entries_is_what_attention_gives_them",)
MODEL_LOSSES = ("learn/losses/test_indexer.py::test_losses_of_a_model_are_those_of_its_queries",)

LOSSES = (
    Mutant(
        name="balance-of-hash-layers",
        trap="hash layers have a balance loss, too",
        file=BALANCE,
        old="if not config.is_hash_layer(layer):",
        new="if layer >= 0:",
        tests=BALANCED_LAYERS,
    ),
    Mutant(
        name="balance-without-mtp",
        trap="the experts of the MTP layer are not balanced",
        file=BALANCE,
        old='if "mtp.0.ffn.gate.logits" in seen:',
        new='if "mtp.0.ffn.gate.nothing" in seen:',
        tests=BALANCED_LAYERS,
    ),
    Mutant(
        name="balance-of-the-batch",
        trap="the batch is balanced as a whole, and not each sequence",
        file=BALANCE,
        old="(frequency * probability).sum() / len(mask)",
        new="(frequency.mean(axis=0) * probability.mean(axis=0)).sum()",
        tests=("learn/losses/test_balance.py::test_each_sequence_is_balanced_by_itself",),
    ),
    Mutant(
        name="balance-of-raw-scores",
        trap="the scores of a token do not sum to 1",
        file=BALANCE,
        old="share = scores / np.sum(scores, axis=-1, keepdims=True)",
        new="share = scores",
        tests=BALANCE_GRADIENT,
    ),
    Mutant(
        name="balance-without-k",
        trap="the frequency of an expert is not divided by the number of choices",
        file=BALANCE,
        old="(experts / k)",
        new="experts",
        tests=("learn/losses/test_balance.py::test_a_perfect_balance_gives_exactly_one",),
    ),
    Mutant(
        name="balance-of-padding",
        trap="padding counts as tokens",
        file=BALANCE,
        old="np.where(mask[..., None], share, 0)",
        new="share",
        tests=("learn/losses/test_balance.py::test_padding_does_not_count",),
    ),
    Mutant(
        name="balance-of-a-token-too-many",
        trap="the MTP module's padding behind the last token counts as a token",
        file="learn/losses/real_tokens.py",
        old=' - part.startswith("mtp.")',
        new="",
        tests=BALANCED_LAYERS,
    ),
    Mutant(
        name="bias-the-wrong-way",
        trap="the bias of an expert with too much load rises",
        file=BALANCE,
        old="np.sign(load.mean() - load)",
        new="np.sign(load - load.mean())",
        tests=("learn/losses/test_balance.py::test_the_bias_rises_where_load_is_missing",),
    ),
    Mutant(
        name="bias-by-size",
        trap="the bias moves by how much load is missing, and not by a fixed step",
        file=BALANCE,
        old="np.sign(load.mean() - load)",
        new="(load.mean() - load)",
        tests=("learn/losses/test_balance.py::test_the_bias_rises_where_load_is_missing",),
    ),
    Mutant(
        name="target-without-the-sink",
        trap="the indexer's target is normalised over the entries of each head alone",
        file=INDEXER,
        old="(weight / (weight.sum(axis=-1, keepdims=True) + rest))",
        new="(weight / np.maximum(weight.sum(axis=-1, keepdims=True), 1e-300))",
        tests=("learn/losses/test_indexer.py::test_a_sink_moves_the_target",),
    ),
    Mutant(
        name="target-without-the-window",
        trap="the window's keys take no share of the indexer's target",
        file=INDEXER,
        old="rest = np.exp(to_window - largest).sum(axis=-1, keepdims=True) + np.exp(sink - largest)",
        new="rest = np.exp(sink - largest)",
        tests=("learn/losses/test_indexer.py::test_the_window_moves_the_target",),
    ),
    Mutant(
        name="target-of-a-wider-window",
        trap="the target's window reaches one key too far",
        file=INDEXER,
        old="(back < width)",
        new="(back <= width)",
        tests=SHARES,
    ),
    Mutant(
        name="target-without-the-run-before",
        trap="a run of queries reads no window keys from before itself",
        file=INDEXER,
        old="slice(max(0, start - width + 1), start + QUERIES)",
        new="slice(start, start + QUERIES)",
        tests=("learn/losses/test_indexer.py::test_a_longer_text_is_taken_in_runs",),
    ),
    Mutant(
        name="target-not-normalised",
        trap="the indexer's target does not sum to 1",
        file=INDEXER,
        old="np.where(total > 0, attention / np.where(total > 0, total, 1), 0)",
        new="attention",
        tests=MODEL_LOSSES,
    ),
    Mutant(
        name="divergence-the-wrong-way",
        trap="KL(softmax(I) ‖ p) instead of KL(p ‖ softmax(I))",
        file=INDEXER,
        old="(target * (log_target - log_share))",
        new="(np.where(considered, np.exp(log_share) * (log_share - log_target), 0))",
        tests=("learn/losses/test_indexer.py::test_divergence_by_hand",),
    ),
    Mutant(
        name="softmax-before-top-k",
        trap="the indexer's softmax is over all visible entries, and the chosen ones are taken from it",
        file=INDEXER,
        old="total = np.sum(np.where(considered, np.exp(centred), 0), axis=-1, keepdims=True)",
        new="total = np.sum(np.exp(scores - np.where(any_entry, largest, 0)), axis=-1, keepdims=True)",
        tests=("learn/losses/test_indexer.py::test_divergence_by_hand",),
    ),
    Mutant(
        name="indexer-sparse-in-the-warm-up",
        trap="the warm-up, too, learns about the chosen entries alone",
        file=INDEXER,
        old='pieces.visible & pieces.chosen if scope == "chosen" else pieces.visible',
        new="pieces.visible & pieces.chosen",
        tests=MODEL_LOSSES,
    ),
    Mutant(
        name="indexer-sees-an-entry-late",
        trap="a query learns of an entry one token late",
        file=INDEXER,
        old="(np.arange(mask.shape[1]) + 1) // CSA_RATIO",
        new="np.arange(mask.shape[1]) // CSA_RATIO",
        tests=("learn/losses/test_indexer.py::test_an_entry_is_visible_as_soon_as_its_last_token_is_there",),
    ),
    Mutant(
        name="indexer-learns-from-padding",
        trap="the queries of padding count",
        file=INDEXER,
        old="(np.arange(entries) < visible[:, None]) & mask[..., None]",
        new="(np.arange(entries) < visible[:, None]) & (mask | True)[..., None]",
        tests=("learn/losses/test_indexer.py::test_padding_does_not_count",),
    ),
    Mutant(
        name="indexer-alone-in-the-mtp-layer",
        trap="an indexer in the MTP module has no loss, so that it stays as it began",
        file=INDEXER,
        old="*([model.mtp.block] if model.mtp else [])",
        new="*[]",
        tests=("learn/losses/test_indexer.py::test_an_mtp_module_with_an_indexer_learns_too",),
    ),
)
