"""Mistakes in what the pictures show."""

from mutants.mutant import Mutant

SHARES = ("pictures/test_shares.py::test_the_shares_give_the_outputs_of_the_pass",)

PICTURES = (
    Mutant(
        name="picture-sink-left-out",
        trap="the shares of who reads what are a softmax without the sink",
        file="pictures/shares.py",
        old="entries[None], entry_index, attn_sink)[0]",
        new="entries[None], entry_index, attn_sink - np.inf)[0]",
        tests=SHARES,
    ),
    Mutant(
        name="picture-entry-too-early",
        trap="an entry is drawn as read from the token before its last one on",
        file="pictures/shares.py",
        old="last = ratio * np.arange(1, len(entries) + 1) - 1",
        new="last = ratio * np.arange(1, len(entries) + 1) - 2",
        tests=SHARES,
    ),
    Mutant(
        name="picture-of-comb-transposed",
        trap="the lines of the picture lead from new streams to old ones",
        file="pictures/streams.py",
        old="start, end = TOP + ROW * j, TOP + ROW * i",
        new="start, end = TOP + ROW * i, TOP + ROW * j",
        tests=("pictures/test_streams.py::test_lines_lead_from_old_to_new_streams_as_thick_as_their_share",),
    ),
    Mutant(
        name="picture-of-pending-rows",
        trap="the cache's picture forgets that CSA keeps the block before",
        file="pictures/cache.py",
        old="min(context, context % ratio + ratio)",
        new="context % ratio",
        tests=("pictures/test_cache.py::test_rows_and_bytes_are_those_of_a_real_cache",),
    ),
)
