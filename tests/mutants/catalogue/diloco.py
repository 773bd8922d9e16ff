"""Mistakes in Decoupled DiLoCo."""

from mutants.mutant import Mutant

MERGE = "learn/diloco/merge.py"
OUTER = "learn/diloco/outer.py"
FRAGMENTS = "learn/diloco/fragments.py"
FEW_BITS = "learn/diloco/few_bits.py"
SETTINGS = "learn/diloco/settings.py"
LEARNER = "learn/diloco/learner.py"
SYNCER = "learn/diloco/syncer.py"
WORLD = "learn/diloco/world.py"
CLUSTER = "learn/diloco/goodput/cluster.py"
UTILISATION = "learn/diloco/bandwidth/utilisation.py"

SIGN = ("learn/diloco/test_merge.py::TestWeightsAndSigns::test_the_pseudo_gradient_points_back",)
WEIGHTS = ("learn/diloco/test_merge.py::TestWeightsAndSigns::test_weights_by_hand",)
RADIAL_BY_HAND = ("learn/diloco/test_merge.py::TestRadialMean::test_by_hand",)
CANCELS = (
    "learn/diloco/test_merge.py::TestRadialMean::test_what_nearly_cancels_in_float32_does_not_become_a_direction",
)
EMBEDDING = ("learn/diloco/test_merge.py::TestMerged::test_the_embedding_takes_the_mean_and_a_matrix_does_not",)
BIAS = ("learn/diloco/test_merge.py::TestMerged::test_a_routers_bias_takes_the_mean",)
ABSENT = ("learn/diloco/test_merge.py::TestMerged::test_a_learner_of_weight_0_changes_no_bit_whatever_it_says",)
OUTER_BY_HAND = ("learn/diloco/test_outer.py::test_two_steps_by_hand",)
PACKED_BY_HAND = ("learn/diloco/test_fragments.py::test_by_hand",)
CODES = ("learn/diloco/test_few_bits.py::test_codes_by_hand",)
OWN_BLOCK = ("learn/diloco/test_few_bits.py::test_a_large_number_costs_its_own_block_alone",)

DILOCO = (
    Mutant(
        name="diloco-pseudo-gradient-sign",
        trap="the pseudo-gradient is θ − Θ_prev, and the outer step undoes what was learnt",
        file=MERGE,
        old="return before - after",
        new="return after - before",
        tests=SIGN,
    ),
    Mutant(
        name="diloco-weight-of-tokens-alone",
        trap="a learner weighs its tokens, however small its batches were",
        file=MERGE,
        old="return tokens**2 / steps if steps",
        new="return float(tokens) if steps",
        tests=WEIGHTS,
    ),
    Mutant(
        name="diloco-plain-mean",
        trap="every tensor takes the plain mean, which is short where learners point different ways",
        file=MERGE,
        old="return radial_mean(these, their_weights)",
        new="return weighted_mean(these, their_weights)",
        tests=EMBEDDING,
    ),
    Mutant(
        name="diloco-embedding-radial",
        trap="the embedding is merged radially like every other tensor",
        file=MERGE,
        old='not radially or name == "embed.weight" or name.endswith',
        new="not radially or name.endswith",
        tests=EMBEDDING,
    ),
    Mutant(
        name="diloco-bias-radial",
        trap="the routers' biases are merged as directions",
        file=MERGE,
        old='or name.endswith("gate.bias"):',
        new="or False:",
        tests=BIAS,
    ),
    Mutant(
        name="diloco-direction-of-the-mean",
        trap="the direction is that of the mean difference, in which long differences count more",
        file=MERGE,
        old="sum(one * (share / length) for",
        new="sum(one * share for",
        tests=RADIAL_BY_HAND,
    ),
    Mutant(
        name="diloco-length-unweighted",
        trap="the mean length takes every learner alike",
        file=MERGE,
        old="sum(length * share for length, share in zip(lengths, shares, strict=True))",
        new="sum(lengths) / len(lengths)",
        tests=RADIAL_BY_HAND,
    ),
    Mutant(
        name="diloco-direction-of-rounding",
        trap="where directions cancel, what rounding leaves of them is brought to full length",
        file=MERGE,
        old="CANCELLED = 1e-6",
        new="CANCELLED = 0.0",
        tests=CANCELS,
    ),
    Mutant(
        name="diloco-absent-learner-counts",
        trap="a learner of weight 0 takes part with its numbers, which may be none",
        file=MERGE,
        old="zip(differences, weights, strict=True) if weight > 0]",
        new="zip(differences, weights, strict=True)]",
        tests=ABSENT,
    ),
    Mutant(
        name="diloco-heavy-ball",
        trap="the outer step goes along the momentum without Nesterov's look ahead",
        file=OUTER,
        old="(difference + momentum_kept * momentum)",
        new="momentum",
        tests=OUTER_BY_HAND,
    ),
    Mutant(
        name="diloco-fragments-in-order",
        trap="tensors are packed in the order of their names, and fragments become unequal",
        file=FRAGMENTS,
        old="key=lambda name: (-sizes[name], name)",
        new="key=lambda name: name",
        tests=PACKED_BY_HAND,
    ),
    Mutant(
        name="diloco-inner-steps-no-multiple",
        trap="H need be no multiple of P, and some fragments are never merged in time",
        file=SETTINGS,
        old="if self.inner_steps % self.fragments:",
        new="if self.inner_steps < self.fragments:",
        tests=("learn/diloco/test_settings.py::test_what_does_not_fit",),
    ),
    Mutant(
        name="diloco-few-bits-cut-off",
        trap="a difference is cut off to four bits and not rounded",
        file=FEW_BITS,
        old="rounded = np.rint(",
        new="rounded = np.trunc(",
        tests=CODES,
    ),
    Mutant(
        name="diloco-few-bits-one-scale",
        trap="a whole tensor shares one scale, and its small numbers become zeros",
        file=FEW_BITS,
        old="scales = np.max(np.abs(blocks), axis=1, initial=0) / np.float32(half - 1)",
        new="scales = np.full(len(blocks), np.max(np.abs(blocks), initial=0) / np.float32(half - 1), np.float32)",
        tests=OWN_BLOCK,
    ),
    Mutant(
        name="diloco-learner-keeps-its-own",
        trap="a fragment that comes does not take the place of the learner's own",
        file=LEARNER,
        old="(weights.parameters if name in weights.parameters else weights.others)[name] = tensor",
        new="assert weights",
        tests=(
            "learn/diloco/test_learner.py::TestFragments::test_one_that_comes_takes_the_place_of_its_own_and_its_count_begins_anew",
        ),
    ),
    Mutant(
        name="diloco-counters-go-on",
        trap="the counters go on when a fragment comes, and old steps are counted again",
        file=LEARNER,
        old="        self.tokens[place] = self.steps[place] = 0\n",
        new="",
        tests=(
            "learn/diloco/test_learner.py::TestFragments::test_one_that_comes_takes_the_place_of_its_own_and_its_count_begins_anew",
        ),
    ),
    Mutant(
        name="diloco-stale-fragment-taken",
        trap="a fragment that was overtaken on its way takes the place of a newer one",
        file=LEARNER,
        old="if version <= own or (isinstance",
        new="if (isinstance",
        tests=("learn/diloco/test_learner.py::TestFragments::test_a_stale_one_changes_nothing",),
    ),
    Mutant(
        name="diloco-rejoins-with-the-peers-count",
        trap="a learner that returns counts what its peer has learnt a second time",
        file=LEARNER,
        old="        self.tokens, self.steps = ([0] * len(self.fragments) for _ in range(2))\n\n    def state",
        new="\n    def state",
        tests=(
            "learn/diloco/test_learner.py::TestRejoining::test_it_stands_where_its_peer_stands_and_has_learnt_nothing_of_its_own",
        ),
    ),
    Mutant(
        name="diloco-rejoined-never-counts",
        trap="a learner that returns has weight 0 for good",
        file=LEARNER,
        old="self.tokens = [count + report.tokens for count in self.tokens]",
        new="self.tokens = [count + report.tokens if count else 0 for count in self.tokens]",
        tests=("learn/diloco/test_learner.py::TestRejoining::test_it_counts_again_from_its_next_step_on",),
    ),
    Mutant(
        name="diloco-stale-update-merged",
        trap="a difference from an older fragment is merged into the newest",
        file=SYNCER,
        old="if update.version != update.round // len(self.fragments):",
        new="if update.version < 0:",
        tests=(
            "learn/diloco/test_syncer.py::TestWhoIsHeard::test_an_update_from_an_older_fragment_is_stale_and_changes_nothing",
        ),
    ),
    Mutant(
        name="diloco-grace-below-0",
        trap="the grace may be negative, and a round ends before its quorum",
        file=SYNCER,
        old="return max(0.0, self.settings.grace * left)",
        new="return self.settings.grace * left",
        tests=("learn/diloco/test_syncer.py::TestQuorumAndGrace::test_it_is_never_below_0",),
    ),
    Mutant(
        name="diloco-grace-without-quorum-time",
        trap="the grace forgets how long the quorum took, and learners get results later than τ allows",
        file=SYNCER,
        old='step - self.averages["quorum"] - self',
        new="step - self",
        tests=(
            "learn/diloco/test_syncer.py::TestQuorumAndGrace::test_the_grace_is_what_the_steps_hide_less_what_quorum_and_return_take",
        ),
    ),
    Mutant(
        name="diloco-rounds-without-pace",
        trap="the next round opens as soon as the network allows, and the outer optimiser is over-driven",
        file=SYNCER,
        old='max(now, self.averages["opened"] + self.settings.steps_per_round * seconds)',
        new="now",
        tests=(
            "learn/diloco/test_syncer.py::TestRounds::test_the_next_one_is_due_after_h_over_p_steps_of_the_quickest",
        ),
    ),
    Mutant(
        name="diloco-bias-with-momentum",
        trap="the routers' biases take Nesterov steps, though they descend no loss",
        file=SYNCER,
        old="rate, kept = 1.0, 0.0",
        new="assert rate",
        tests=(
            "learn/diloco/test_syncer.py::TestMerging::test_a_routers_bias_becomes_the_learners_mean_without_momentum",
        ),
    ),
    Mutant(
        name="diloco-missed-fragment-not-sent-again",
        trap="a learner that has missed a fragment is not sent it, and never counts again",
        file=WORLD,
        old='if found == "stale":',
        new="if not found:",
        tests=(
            "learn/diloco/test_world.py::TestWhatFollows::test_a_learner_that_missed_a_fragment_is_sent_it_and_counts_again",
        ),
    ),
    Mutant(
        name="diloco-returned-learner-idles",
        trap="a learner that returns does no further step",
        file=WORLD,
        old="        else:\n            self._begin_step(m)\n\n    def _report",
        new="\n    def _report",
        tests=("learn/diloco/test_world.py::TestWhatFollows::test_a_learner_that_returns_counts_again",),
    ),
    Mutant(
        name="diloco-waits-for-nobody",
        trap="a round waits for the end of its grace though all learners are there, and they train on what is lost",
        file=SYNCER,
        old="        if len(this.updates) == self.settings.learners:\n            this.closes = now",
        new="        if False:\n            this.closes = now",
        tests=("learn/diloco/test_syncer.py::TestQuorumAndGrace::test_when_all_are_there_nobody_is_waited_for",),
    ),
    Mutant(
        name="diloco-always-radial",
        trap="the mean that was asked for, to compare with, is a radial mean",
        file=SYNCER,
        old=', self.settings.merge == "radial" and not is_last)',
        new=", not is_last)",
        tests=(
            "learn/diloco/test_syncer.py::TestMerging::test_learners_that_point_different_ways_are_merged_as_asked_for",
        ),
    ),
    Mutant(
        name="diloco-return-without-feedback",
        trap="what rounding keeps back from learners is forgotten, and small steps are never made",
        file=SYNCER,
        old="        self.sent |= changed(self.sent, change)\n",
        new="        self.sent |= changed(self.sent, change)\n        self.weights |= self.sent\n",
        tests=("learn/diloco/test_syncer.py::TestReturns::test_what_rounding_keeps_back_is_sent_later",),
    ),
    Mutant(
        name="diloco-whole-fragment-of-the-master",
        trap="a learner that missed a fragment is sent the syncer's own, to which no change was computed",
        file=SYNCER,
        old="{name: self.sent[name] for name in self.fragments[place]})",
        new="{name: self.weights[name] for name in self.fragments[place]})",
        tests=("learn/diloco/test_syncer.py::TestReturns::test_a_whole_fragment_is_the_one_that_learners_have",),
    ),
    Mutant(
        name="diloco-restart-forgets-what-was-sent",
        trap="a syncer that is started again takes its own fragments for those that learners have",
        file=SYNCER,
        old="self.sent[name] = state[SENT + name]",
        new="self.sent[name] = state[WEIGHT + name]",
        tests=(
            "learn/diloco/test_syncer.py::TestRestart::test_from_what_was_written_of_each_fragment_it_goes_on_as_if_nothing_had_been",
        ),
    ),
    Mutant(
        name="diloco-returns-to-the-master",
        trap="a learner without a peer begins with the syncer's own fragments, and changes lead it elsewhere",
        file="learn/diloco/recovery.py",
        old="**syncer.sent",
        new="**syncer.weights",
        tests=(
            "learn/diloco/test_syncer.py::TestReturns::test_a_learner_that_begins_without_a_peer_follows_the_changes_after_it",
        ),
    ),
    Mutant(
        name="diloco-change-of-what-was-learnt-since",
        trap="a change is added to the learner's own weights, and its steps since are counted twice",
        file=LEARNER,
        old="changed(self._before, message)",
        new="changed(self._after, message)",
        tests=("learn/diloco/test_learner.py::TestFragments::test_a_change_is_added_to_the_fragment_as_it_came",),
    ),
    Mutant(
        name="diloco-change-of-another-version",
        trap="a change is added to a fragment that is not the one before it",
        file=LEARNER,
        old="version != own + 1",
        new="version < own",
        tests=(
            "learn/diloco/test_learner.py::TestFragments::test_one_that_does_not_follow_from_its_own_changes_nothing",
        ),
    ),
    Mutant(
        name="diloco-last-steps-lost",
        trap="the run ends with the rounds, and what learners do after a fragment's last turn is lost",
        file=SYNCER,
        old="return max(now, end) if self._idle else None",
        new="return None",
        tests=("learn/diloco/test_syncer.py::TestLastRounds::test_they_begin_when_all_are_done",),
    ),
    Mutant(
        name="diloco-last-round-with-momentum",
        trap="the last merge overshoots by its momentum, which no later one corrects",
        file=SYNCER,
        old="if is_last or name.endswith",
        new="if name.endswith",
        tests=("learn/diloco/test_syncer.py::TestLastRounds::test_they_merge_to_the_mean_without_momentum",),
    ),
    Mutant(
        name="diloco-warm-start-without-optimiser",
        trap="learners begin with the warm start's weights and an optimiser that has seen nothing",
        file="learn/diloco/training.py",
        old="trainer.load_state(self.state)",
        new='trainer.step = int(self.state["step"])',
        tests=("learn/diloco/test_training.py::TestWarmStart::test_they_have_its_optimiser",),
    ),
    Mutant(
        name="diloco-warm-start-with-one-batch",
        trap="the warm start has the batch of a single learner, and sees fewer tokens than one with the batches of all",
        file="learn/diloco/warm_start.py",
        old="batch=stage.batch * learners",
        new="batch=stage.batch",
        tests=("learn/diloco/test_reach.py::test_learners_together_see_as_many_tokens_as_one_alone",),
    ),
    Mutant(
        name="diloco-whole-batch-each",
        trap="each learner has the whole batch, and many learners are compared with one on fewer tokens",
        file="learn/diloco/reach.py",
        old="replace(stage, batch=stage.batch // learners)",
        new="replace(stage, batch=stage.batch)",
        tests=("learn/diloco/test_reach.py::test_each_stage_is_shared",),
    ),
    Mutant(
        name="diloco-lines-twice",
        trap="lines of the tape that are sent again after a failure stand there twice",
        file="learn/diloco/real/lines.py",
        old="for number, line in tell.lines if number >= known]",
        new="for number, line in tell.lines]",
        tests=("learn/diloco/test_lines.py::test_each_line_arrives_once_and_before_what_follows_from_it",),
    ),
    Mutant(
        name="diloco-merge-that-was-not-written",
        trap="a merge whose fragment was not written when the syncer was killed stays on the tape",
        file="learn/diloco/real/files.py",
        old="""about["version"] <= versions[about["fragment"]]""",
        new="""about["version"] > 0""",
        tests=("learn/diloco/test_lines.py::test_half_a_line_and_a_merge_that_was_not_written_have_not_happened",),
    ),
    Mutant(
        name="goodput-downtimes-add-up",
        trap="failures during a downtime each add a downtime of their own",
        file=CLUSTER,
        old="ready = time + times.reconfiguration if time >= ready else ready",
        new="ready = max(ready, time) + times.reconfiguration",
        tests=("learn/diloco/test_goodput.py::test_downtimes_that_overlap_are_not_counted_twice",),
    ),
    Mutant(
        name="goodput-slice-never-returns",
        trap="a slice that comes back does not train again",
        file=CLUSTER,
        old="            there += 1\n",
        new="",
        tests=("learn/diloco/test_goodput.py::test_the_simulation_agrees_with_renewal_theory",),
    ),
    Mutant(
        name="bandwidth-results-are-not-waited-for",
        trap="the next forward pass does not wait for the reduction",
        file=UTILISATION,
        old="() if wanted is None else (wanted,)",
        new="()",
        tests=(
            "learn/diloco/test_bandwidth.py::TestDataParallelByHand::test_a_fast_network_adds_the_reduction_of_the_first_layer",
        ),
    ),
    Mutant(
        name="bandwidth-backward-from-the-front",
        trap="the backward pass begins with the first layer, whose reduction then hides behind all others",
        file=UTILISATION,
        old="for layer in reversed(range(layers)):",
        new="for layer in range(layers):",
        tests=("learn/diloco/test_bandwidth.py::TestOthersByHand::test_streaming_reduces_a_layer_at_a_time",),
    ),
)
