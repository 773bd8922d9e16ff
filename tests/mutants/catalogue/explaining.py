"""Mistakes in what a page shows of a pass."""

from mutants.mutant import Mutant

RECORD = "explain/test_record.py::"
PAGE = "explain/test_page.py::"
RECORD41 = "explain/test_record41.py::"

EXPLAINING = (
    Mutant(
        name="shares-without-the-sink",
        trap="what is shown of attention sums to 1 without the sink",
        file="ops/attention.py",
        old="both / both.sum(axis=-1, keepdims=True)",
        new="both / weight.sum(axis=-1, keepdims=True)",
        tests=("ops/test_attention.py::test_shares_are_what_the_output_is_weighted_with",),
    ),
    Mutant(
        name="window-shown-backwards",
        trap="the share of the oldest key in the window is shown as that of the token itself",
        file="explain/layers.py",
        old="shares[:, :, :window][:, :, ::-1][:, :, :length]",
        new="shares[:, :, :window][:, :, :length]",
        tests=(f"{RECORD}test_values_weighted_by_the_shares_are_the_observed_output",),
    ),
    Mutant(
        name="slots-before-the-text-counted",
        trap="the first CSA entry is shown as made of tokens before the text, too",
        file="explain/layers.py",
        old="np.full_like(blocks[:, :1], -np.inf)",
        new="np.zeros_like(blocks[:, :1])",
        tests=(f"{RECORD}test_an_entry_is_the_sum_of_its_tokens_weighted_by_the_slots",),
    ),
    Mutant(
        name="draft-judged-one-place-early",
        trap="a draft is held against what the head says of the place before its own",
        file="explain/opinions.py",
        old="_compared(model, some, states, ids, 1 + start)",
        new="_compared(model, some, states, ids, start)",
        tests=(f"{RECORD}test_drafts_are_those_of_the_mtp_module",),
    ),
    Mutant(
        name="comb-shown-transposed",
        trap="the rows of comb are shown as new streams and its columns as old ones",
        file="explain/data.py",
        old="    return comb.reshape(len(comb), -1)",
        new="    return comb.swapaxes(1, 2).reshape(len(comb), -1)",
        tests=(f"{PAGE}test_mixing_and_experts",),
    ),
    Mutant(
        name="refused-entries-before-chosen",
        trap="refused entries are put where the page looks for the chosen ones",
        file="explain/data.py",
        old="np.where(is_chosen[:, :count], np.inf,",
        new="np.where(is_chosen[:, :count], -np.inf,",
        tests=(f"{PAGE}test_the_indexers_choice",),
    ),
    Mutant(
        name="text-that-ends-the-data",
        trap="a text that closes a script element ends the page's data, and what follows is run",
        file="explain/page.py",
        old='described.replace("<", "\\\\u003c")',
        new="described",
        tests=(f"{PAGE}test_a_page_fetches_nothing_and_no_text_ends_its_data",),
    ),
    Mutant(
        name="own-share-shown",
        trap="what V4.1's attention reads with is shown as what it makes for the experts",
        file="explain/layers41.py",
        old='self._read_with(seen[f"{name}out"]), seen',
        new='seen[f"{name}attn_pre_mix"][0], seen',
        tests=(f"{RECORD41}test_a_sub_layer_reads_with_the_share_that_is_recorded",),
    ),
    Mutant(
        name="gates-of-the-streams-behind-an-engram",
        trap="an Engram's gates are computed anew from the streams that its value was already added to",
        file="explain/layers41.py",
        old='seen[f"{engram.name}in"], seen',
        new='seen[f"{engram.name}out"], seen',
        tests=(f"{RECORD41}test_the_gates_are_those_of_the_engram",),
    ),
    Mutant(
        name="block-behind-the-token-before",
        trap="the block behind a token is drafted from the token before it",
        file="explain/opinions.py",
        old="given = ids[place : place + 1]",
        new="given = ids[place - 1 : place]",
        tests=(f"{RECORD41}test_drafts_are_those_of_the_drafter_behind_each_token",),
    ),
)
