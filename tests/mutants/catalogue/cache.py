"""Mistakes in what a sequence leaves behind: padding, rollback, forks, and the MTP module's part."""

from mutants.mutant import Mutant

FILE = "model/cache.py"
ROWS = "model/rows.py"
ROLLBACK = ("model/test_cache.py::test_rollback_across_block_boundaries",)
MTP_ROLLBACK = ("model/test_mtp.py::test_rollback_forgets_what_was_read_of_forgotten_tokens",)
PADDING = (
    "model/test_padding.py::test_padding_never_enters_compressed_entries",
    "model/test_padding.py::test_padding_over_several_calls",
)

CACHE = (
    Mutant(
        name="left-padding-is-compressed",
        trap="padding before the tokens leaks into compressed entries, since it stays in front of them",
        file="model/padding.py",
        old='return np.argsort(~mask, axis=1, kind="stable")',
        new="return np.broadcast_to(np.arange(mask.shape[1]), mask.shape)",
        tests=PADDING,
    ),
    Mutant(
        name="right-padding-is-kept",
        trap="padding behind the tokens goes into the cache, over rows that are still needed",
        file="ops/places.py",
        old="(token < counts) & (token >= counts - self.capacity)",
        new="(counts >= 0) & (token >= self.positions.length - self.capacity)",
        tests=PADDING,
    ),
    Mutant(
        name="rollback-loses-pending-rows",
        trap="a rollback across a block boundary does not bring back the rows that were pending before it",
        file=FILE,
        old="RecentRows(ops, batch, overlap * ratio - 1, spare,",
        new="RecentRows(ops, batch, overlap * ratio - 1, min(spare, 1),",
        tests=ROLLBACK,
    ),
    Mutant(
        name="rollback-keeps-entries",
        trap="a rollback across a block boundary keeps the entry that forgotten tokens completed",
        file=ROWS,
        old="        self.rows = ops.zeros((batch, 16, coding.width), coding.stored)",
        new="        self.rows = ops.zeros((batch, 16, coding.width), coding.stored)\n"
        "        self.written = np.zeros(batch, int)",
        also=(
            (
                "        self.rows = self.ops.write_entries(self.rows, self.coding.pack(rows), completed)\n",
                "        is_new = completed.slots[1] >= self.written[completed.slots[0]]\n"
                "        indices = completed.slots, completed.rows\n"
                "        slots, chosen = ([part[is_new] for part in index] for index in indices)\n"
                "        self.rows[tuple(slots)] = self.coding.pack(rows)[tuple(chosen)]\n"
                "        np.maximum.at(self.written, slots[0], slots[1] + 1)\n",
            ),
        ),
        tests=ROLLBACK,
    ),
    Mutant(
        name="window-ring-too-small",
        trap="the window keeps no rows to spare, so that a rollback finds them overwritten",
        file="model/attention.py",
        old="config.sliding_window - 1, max_rollback,",
        new="config.sliding_window - 1, min(max_rollback, 1),",
        tests=ROLLBACK,
    ),
    Mutant(
        name="rollback-forgets-the-mtp-layer",
        trap="a rollback leaves tokens in the MTP layer that the other layers have forgotten",
        file=FILE,
        old="        self.mtp.follow(left, counts)\n",
        new="",
        tests=MTP_ROLLBACK,
    ),
    Mutant(
        name="rollback-forgets-the-token-read-ahead",
        trap="a rollback keeps the MTP layer's last position, which has read the first forgotten token",
        file=FILE,
        old="remain = np.where(counts > 0, np.maximum(left - self.ahead, 0), left)",
        new="remain = left",
        tests=MTP_ROLLBACK,
    ),
    Mutant(
        name="fork-shares-rows",
        trap="a fork shares its rows with the cache that it comes from",
        file=FILE,
        old="return copy.deepcopy(self)",
        new="return Cache(copy.copy(self.main), copy.copy(self.mtp))",
        tests=("model/test_cache.py::test_forks_go_their_own_ways",),
    ),
    Mutant(
        name="mtp-fed-the-collapsed-state",
        trap="the MTP module is fed one collapsed state instead of each stream",
        file="model/mtp.py",
        old="ops.rms_norm(streams, self.hnorm, eps)",
        new="ops.rms_norm(streams.mean(axis=2, keepdims=True) + 0 * streams, self.hnorm, eps)",
        tests=("model/test_mtp.py::test_it_needs_each_stream_and_not_what_they_collapse_to",),
    ),
    Mutant(
        name="mtp-norm-over-all-streams",
        trap="the MTP module normalises its streams together instead of each by itself",
        file="model/mtp.py",
        old="ops.rms_norm(streams, self.hnorm, eps)",
        new="streams / np.sqrt(np.mean(streams**2, axis=(2, 3), keepdims=True) + eps) * self.hnorm",
        tests=("model/test_mtp.py::test_each_stream_is_normalised_by_itself",),
    ),
)
