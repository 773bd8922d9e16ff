"""Any sequence of chunks, steps, rollbacks, forks, joins and splits equals one pass over the final tokens."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import tiny
from dsv4.errors import PromptError
from dsv4.model.cache import Cache
from dsv4.model.cut import cut

LONGEST = 320
MOST_ROWS = 4
"""So many sequences are in a batch at most; it begins with three at most."""
FIRST_LENGTHS = st.sampled_from([1, 2, 5, 100, 126, 127, 128, 130, 250])
CHUNKS = st.one_of(st.integers(0, 5), st.integers(0, 40), st.sampled_from([124, 128, 132]))
ROLLBACKS = st.sampled_from([3, 140, 9, 1, 0])
SHARE = st.sampled_from([1.0, 0.5, 0.1, 0.0])
SHARES = st.lists(SHARE, min_size=MOST_ROWS, max_size=MOST_ROWS)
SEEDS = st.integers(0, 2**32 - 1)


class Row:
    """One sequence: what it was fed, what will come next, and every result so far."""

    def __init__(self, seed):
        self.tape = tiny.tokens(seed, LONGEST + 1)
        self.furthest = 0
        self.states, self.logits, self.mtp_logits = [], [], []

    @property
    def length(self):
        return len(self.logits)

    def cut(self, length, seed):
        """Forget all behind a length; other tokens will come there. The MTP layer reads one token ahead."""
        self.tape[length:] = tiny.tokens(seed, LONGEST + 1 - length)
        del self.states[length:], self.logits[length:], self.mtp_logits[max(0, length - 1) :]

    def check(self, model):
        """Every result equals that of one pass over the tokens."""
        if not self.length:
            return
        states = model.states(self.tape[: self.length])
        tiny.close(self.logits, model.ops.to_numpy(model.head(states))[0])
        if read := len(self.mtp_logits):
            expected = model.mtp_logits(states[:, :read], self.tape[1 : read + 1])
            tiny.close(self.mtp_logits, model.ops.to_numpy(expected)[0])


class Branch:
    """A cache and the rows that it should hold."""

    def __init__(self, cache, rows, max_rollback):
        self.cache, self.rows, self.max_rollback = cache, rows, max_rollback

    def room(self, row):
        """How many tokens a row may forget."""
        return min(row.length, self.max_rollback - (row.furthest - row.length))

    def leading_on(self, cache, numbers, seed):
        """A cache of some of the rows that goes another way: other tokens behind the one that an MTP layer has read."""
        rows = [copy.deepcopy(self.rows[number]) for number in numbers]
        for number, row in enumerate(rows):
            row.tape[row.length + 1 :] = tiny.tokens(seed + number, LONGEST - row.length)
        return Branch(cache, rows, self.max_rollback)


def laid_out(parts, seed):
    """Lists of numbers as rows of one array with its mask; padding stands anywhere and holds garbage."""
    generator = np.random.default_rng(seed)
    width = max(max(map(len, parts)), 1)
    ids, mask = generator.integers(-9, 99, (len(parts), width)), np.zeros((len(parts), width), bool)
    for row, part in enumerate(parts):
        mask[row, np.sort(generator.permutation(width)[: len(part)])] = True
        ids[row, mask[row]] = part
    return ids, mask


def machine(model, first_lengths=FIRST_LENGTHS, chunks=CHUNKS, packed=False):
    """A state machine over the caches of one model, all of them packed or none."""

    class Machine(RuleBasedStateMachine):
        @initialize(seed=SEEDS, lengths=st.lists(first_lengths, min_size=1, max_size=3), max_rollback=ROLLBACKS)
        def start(self, seed, lengths, max_rollback):
            rows = [Row(seed + number) for number in range(len(lengths))]
            self.branches = [Branch(model.new_cache(len(rows), max_rollback, packed), rows, max_rollback)]
            self.advance(self.branches[0], lengths, seed)

        @rule(which=st.integers(0, 2), counts=st.lists(chunks, min_size=MOST_ROWS, max_size=MOST_ROWS), seed=SEEDS)
        def feed(self, which, counts, seed):
            self.advance(self.pick(which), counts, seed)

        @rule(which=st.integers(0, 2), steps=st.integers(1, 6), seed=SEEDS)
        def decode(self, which, steps, seed):
            for step in range(steps):
                self.advance(self.pick(which), [1] * MOST_ROWS, seed + step)

        @precondition(lambda self: model.mtp is not None)
        @rule(which=st.integers(0, 2), shares=SHARES, seed=SEEDS)
        def feed_mtp(self, which, shares, seed):
            """The MTP layer reads some of the states that it has not seen, each with the token that follows."""
            branch = self.pick(which)
            starts = branch.cache.mtp.lengths.tolist()
            stops = [
                s + round(share * (row.length - s)) for s, share, row in zip(starts, shares, branch.rows, strict=False)
            ]
            positions = [range(*bounds) for bounds in zip(starts, stops, strict=True)]
            ids, mask = laid_out([row.tape[1:][list(p)] for row, p in zip(branch.rows, positions, strict=True)], seed)
            states = np.zeros((*mask.shape, model.config.hc_mult, model.config.hidden_size), model.dtype)
            for number, (row, p) in enumerate(zip(branch.rows, positions, strict=True)):
                states[number, mask[number]] = np.reshape([row.states[t] for t in p], (-1, *states.shape[2:]))
            logits = model.ops.to_numpy(model.mtp_logits(model.ops.asarray(states), ids, branch.cache, mask))
            for number, row in enumerate(branch.rows):
                known = len(row.mtp_logits)
                assert starts[number] == known, "the MTP layer kept a token that was forgotten, or lost one"
                row.mtp_logits.extend(logits[number, mask[number]])

        @rule(which=st.integers(0, 2), shares=SHARES, seed=SEEDS)
        def roll_back(self, which, shares, seed):
            branch = self.pick(which)
            self.forget(
                branch, [round(share * branch.room(row)) for row, share in zip(branch.rows, shares, strict=False)], seed
            )

        def forget(self, branch, counts, seed):
            """Roll back so many tokens of each row."""
            branch.cache.rollback(np.array(counts))
            assert (branch.cache.mtp.lengths <= branch.cache.lengths).all()
            for number, (row, count) in enumerate(zip(branch.rows, counts, strict=True)):
                row.check(model)
                if count:
                    row.cut(row.length - count, seed + number)

        @precondition(lambda self: model.mtp is not None)
        @rule(which=st.integers(0, 2), seed=SEEDS)
        def read_ahead_and_forget_all(self, which, seed):
            """The longest way back: the MTP layer has read one token more than the layers, and forgets it, too."""
            for act in (self.feed_mtp, self.roll_back, self.feed_mtp):
                act(which=which, shares=[1.0] * MOST_ROWS, seed=seed)

        @precondition(lambda self: model.dspark is not None)
        @rule(which=st.integers(0, 2), drafts=st.integers(0, 5), shares=SHARES, seed=SEEDS)
        def step_with_drafts(self, which, drafts, shares, seed):
            """Read a token and its drafts, forget the refused ones, and draft again behind what is left."""
            branch = self.pick(which)
            self.advance(branch, [1 + drafts] * MOST_ROWS, seed)
            room = [min(drafts, branch.room(row), row.length - 1) for row in branch.rows]
            self.forget(branch, [round(share * most) for share, most in zip(shares, room, strict=False)], seed)
            self.draft(which=which)

        @precondition(lambda self: model.dspark is not None)
        @rule(which=st.integers(0, 2))
        def draft(self, which):
            """The blocks behind all rows are those behind one pass over each row's tokens."""
            branch = self.pick(which)
            if not all(row.length for row in branch.rows):
                return
            given = np.array([row.tape[row.length] for row in branch.rows])
            block = model.draft_block(given, branch.cache)
            for number, row in enumerate(branch.rows):
                cache = model.new_cache(1, max_rollback=0)
                model.states(row.tape[: row.length], cache)
                expected = model.draft_block(given[number : number + 1], cache)
                for ours, theirs in zip(block, expected, strict=True):
                    tiny.close(model.ops.to_numpy(ours)[number], model.ops.to_numpy(theirs)[0])

        @rule(which=st.integers(0, 2), number=st.integers(0, 2))
        def roll_back_too_far(self, which, number):
            """One row asks for one token too many: nothing happens to any."""
            branch = self.pick(which)
            number %= len(branch.rows)
            counts = np.zeros(len(branch.rows), int)
            counts[number] = branch.room(branch.rows[number]) + 1
            with pytest.raises(PromptError, match="rollback: expected"):
                branch.cache.rollback(counts)

        @precondition(lambda self: len(self.branches) < 3)
        @rule(which=st.integers(0, 2), seed=SEEDS)
        def fork(self, which, seed):
            branch = self.pick(which)
            self.branches.append(branch.leading_on(branch.cache.fork(), range(len(branch.rows)), seed))

        @precondition(lambda self: len(self.branches) < 3)
        @rule(which=st.integers(0, 2), numbers=st.lists(st.integers(0, 3), min_size=1, max_size=MOST_ROWS), seed=SEEDS)
        def split(self, which, numbers, seed):
            """Some of the rows by themselves, in any order, one of them perhaps twice."""
            branch = self.pick(which)
            numbers = [number % len(branch.rows) for number in numbers]
            self.branches.append(branch.leading_on(branch.cache.select(numbers), numbers, seed))

        @rule(which=st.integers(0, 2), other=st.integers(0, 2))
        def join(self, which, other):
            """Two batches as one, in the place of the first; what has another max_rollback cannot be joined."""
            one, two = self.pick(which), self.pick(other)
            if one.max_rollback != two.max_rollback:
                with pytest.raises(PromptError, match="caches: expected caches of the same model"):
                    Cache.join([one.cache, two.cache])
            elif len(one.rows) + len(two.rows) <= MOST_ROWS:
                rows = [copy.deepcopy(row) for row in (*one.rows, *two.rows)]  # one batch may be joined with itself
                joined = Branch(Cache.join([one.cache, two.cache]), rows, one.max_rollback)
                self.branches[which % len(self.branches)] = joined

        @precondition(lambda self: len(self.branches) < 3)
        @rule(which=st.integers(0, 2), number=st.integers(0, 3), share=SHARE, max_rollback=ROLLBACKS, seed=SEEDS)
        def cut_off(self, which, number, share, max_rollback, seed):
            """The beginning of one row, as far back as a rollback could go; behind it, no rollback goes back."""
            branch = self.pick(which)
            number %= len(branch.rows)
            row = branch.rows[number]
            if not row.length:
                return
            length = row.length - round(share * min(branch.room(row), row.length - 1))
            begun = branch.leading_on(cut(branch.cache, number, length, max_rollback), [number], seed)
            begun.rows[0].cut(length, seed)
            begun.max_rollback, begun.rows[0].furthest = max_rollback, length + max_rollback
            self.branches.append(begun)

        def pick(self, which):
            return self.branches[which % len(self.branches)]

        def advance(self, branch, counts, seed):
            """Feed each row its next tokens; a row that has none yet gets at least one."""
            parts = []
            for row, count in zip(branch.rows, counts, strict=False):
                count = min(max(count, row.length == 0), LONGEST - row.length)
                parts.append(row.tape[row.length : row.length + count])
            ids, mask = laid_out(parts, seed)
            states = model.states(ids, branch.cache, mask)
            logits = model.ops.to_numpy(model.head(states))
            for number, row in enumerate(branch.rows):
                row.states.extend(model.ops.to_numpy(states)[number, mask[number]])
                row.logits.extend(logits[number, mask[number]])
                row.furthest = max(row.furthest, row.length)
            np.testing.assert_array_equal(branch.cache.lengths, [row.length for row in branch.rows])

        def teardown(self):
            for branch in getattr(self, "branches", []):
                for row in branch.rows:
                    row.check(model)

    return Machine


DSPARK = tiny.DSPARK | {
    "compress_ratios": (4, 128, 0, 0),
    "num_hidden_layers": 2,
    "dspark": replace(tiny.DSPARK["dspark"], target_layer_ids=(0, 1)),
}


@pytest.mark.parametrize(
    "changes", [*({"compress_ratios": ratios} for ratios in ((4, 128, 0), (0, 4), (4, 128))), DSPARK], ids=repr
)
def test_any_way_through_a_sequence_equals_one_pass(backend, changes):
    model = tiny.model(backend, **changes)
    phases = (Phase.generate,) if settings.default.derandomize else settings.default.phases  # shrinking takes minutes
    run_state_machine_as_test(machine(model), settings=settings(stateful_step_count=12, phases=phases))


@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 127, 128, 129])
def test_chunks_of_one_size_equal_one_pass(backend, chunk):
    model = tiny.model(backend)
    ids = tiny.tokens(10, 2, 270)
    cache = model.new_cache(2, max_rollback=0)
    chunks = [model(ids[:, start : start + chunk], cache) for start in range(0, ids.shape[1], chunk)]
    tiny.close(np.concatenate([backend.to_numpy(part) for part in chunks], axis=1), backend.to_numpy(model(ids)))


def test_chunks_equal_one_pass_with_rounding(backend):
    model = tiny.model(backend, tiny.quantised(tiny.checkpoint(**tiny.WIDE)), fake_quant=True)
    ids = tiny.tokens(11, 1, 140)
    cache = model.new_cache()
    chunks = [model(part, cache) for part in np.split(ids, [50, 51, 52, 126, 127, 128, 129], axis=1)]
    tiny.close(np.concatenate([backend.to_numpy(part) for part in chunks], axis=1), backend.to_numpy(model(ids)))
