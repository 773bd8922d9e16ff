"""Mistakes in post-training: what is learned from rewards and teachers, and from which answers."""

from mutants.mutant import Mutant

GRPO = "learn/losses/grpo.py"
GRPO_TESTS = "learn/losses/test_grpo.py::"
ROLLOUTS = "learn/post/test_rollouts.py::"
REPLAY = "learn/post/test_replay.py::"
VERSE = "learn/post/worlds/test_verse.py::"

POST_TRAINING = (
    Mutant(
        name="advantage-over-deviation",
        trap="the advantage is divided by the standard deviation of the group",
        file=GRPO,
        old="centred: Array = rewards - rewards.mean()",
        new="centred: Array = (rewards - rewards.mean()) / (rewards.std() + 1e-9)",
        tests=(f"{GRPO_TESTS}test_advantages_by_hand",),
    ),
    Mutant(
        name="kl-the-other-way",
        trap="the divergence of GRPO is that of the reference from the policy",
        file=GRPO,
        old="gap = log_reference - log_policy",
        new="gap = log_policy - log_reference",
        tests=(f"{GRPO_TESTS}test_the_kl_estimate_is_right_on_average_and_so_is_its_gradient",),
    ),
    Mutant(
        name="kl-without-its-ratio",
        trap="the estimate of the divergence takes tokens of the old policy for tokens of the new one",
        file=GRPO,
        old="estimate: Array = np.exp(log_policy - log_old) * (",
        new="estimate: Array = (",
        tests=(f"{GRPO_TESTS}test_the_kl_estimate_is_right_on_average_and_so_is_its_gradient",),
    ),
    Mutant(
        name="kl-ratio-detached",
        trap="no gradient goes through the ratio in front of the estimate",
        file=GRPO,
        old="estimate: Array = np.exp(log_policy - log_old) * (",
        new='estimate: Array = np.exp(getattr(log_policy, "data", log_policy) - log_old) * (',
        tests=(f"{GRPO_TESTS}test_the_kl_estimate_is_right_on_average_and_so_is_its_gradient",),
    ),
    Mutant(
        name="clip-without-the-smaller",
        trap="the clipped ratio is taken on either side",
        file=GRPO,
        old="least = np.minimum(ratio * each, np.clip(ratio, 1 - epsilon, 1 + epsilon) * each)",
        new="least = np.clip(ratio, 1 - epsilon, 1 + epsilon) * each",
        tests=(f"{GRPO_TESTS}test_the_clip_holds_a_ratio_on_the_side_that_it_would_go_to",),
    ),
    Mutant(
        name="better-answers-left-out",
        trap="the sequence mask leaves out foreign answers that were better than their group, too",
        file=GRPO,
        old="~((advantage < 0) & (distance > delta))",
        new="~(distance > delta)",
        tests=(f"{GRPO_TESTS}test_which_answers_are_left_out",),
    ),
    Mutant(
        name="mask-over-padding",
        trap="the distance of an answer is the mean over the padded row",
        file=GRPO,
        old="count = drawn.sum(axis=1).astype(log_old.dtype)",
        new="count = np.full(len(drawn), drawn.shape[1], log_old.dtype)",
        tests=(f"{GRPO_TESTS}test_which_answers_are_left_out",),
    ),
    Mutant(
        name="long-answers-count-more",
        trap="the loss is the mean over all tokens and not over answers",
        file=GRPO,
        old="(values.sum(axis=1) / drawn.sum(axis=1).astype(values.dtype)).sum() / values.dtype.type(len(drawn))",
        new="values.sum() / values.dtype.type(drawn.sum())",
        tests=(f"{GRPO_TESTS}test_each_answer_counts_the_same_whatever_its_length",),
    ),
    Mutant(
        name="sampling-mask-lost",
        trap="the policy is that of all tokens, though top-p left some of them to be drawn from",
        file="learn/losses/policy.py",
        old="if kept is not None:",
        new="if False:",
        tests=(f"{GRPO_TESTS}test_the_policy_is_that_of_the_tokens_that_were_kept",),
    ),
    Mutant(
        name="distilled-the-other-way",
        trap="the teacher stands in front: the student is to cover all that the teacher might say",
        file="learn/losses/opd.py",
        old="kl: Array = (np.exp(log_student) * (log_student - log_softmax(teacher_logits))).sum(axis=-1)",
        new="log_teacher = log_softmax(teacher_logits)\n"
        "    kl: Array = (np.exp(log_teacher) * (log_teacher - log_student)).sum(axis=-1)",
        tests=("learn/losses/test_opd.py::test_the_divergence_has_the_student_in_front",),
    ),
    Mutant(
        name="covered-the-other-way",
        trap="the divergence with the teacher in front has the student there as well",
        file="learn/losses/opd.py",
        old="np.where(drawn, full_kl(teacher_logits, logits), 0)",
        new="np.where(drawn, full_kl(logits, teacher_logits), 0)",
        tests=("learn/losses/test_opd.py::test_the_divergence_the_other_way_has_the_teacher_in_front",),
    ),
    Mutant(
        name="every-teacher-is-imitated",
        trap="each teacher answers the questions of all worlds, and not of its own alone",
        file="learn/post/imitation.py",
        old="turn, taught.worlds)",
        new="turn)",
        tests=("learn/post/test_imitation.py::test_each_teacher_answers_the_questions_of_its_worlds",),
    ),
    Mutant(
        name="ties-agree",
        trap="a judge that gives every verse the same points agrees with the rule",
        file="learn/post/scores.py",
        old="(1 + np.sign(labels[one] - labels[other]) * np.sign(opinions[one] - opinions[other])) / 2",
        new="np.sign(labels[one] - labels[other]) * np.sign(opinions[one] - opinions[other]) >= 0",
        tests=("learn/post/test_scores.py::test_agreement_by_hand",),
    ),
    Mutant(
        name="loss-on-the-users-tokens",
        trap="fine-tuning learns to say what the user says",
        file="learn/losses/sft.py",
        old="    wanted, learnt = labels(ids, mask, 1), predicts_said(mask, said)\n",
        new="    wanted = labels(ids, mask, 1)\n    learnt = wanted.exist\n",
        tests=("learn/losses/test_sft.py::test_the_users_tokens_have_no_gradient",),
    ),
    Mutant(
        name="user-speaks-for-the-assistant",
        trap="what follows the assistant's answer counts as the assistant's",
        file="learn/losses/sft.py",
        old="speaks = opens or (speaks and piece != Control(END))",
        new="speaks = opens or speaks",
        tests=("learn/losses/test_sft.py::test_of_a_conversation_with_tools_both_answers_are_learnt",),
    ),
    Mutant(
        name="replay-from-zeroed-scores",
        trap="the experts of a rollout are weighed by scores that are zero for all but the experts of now",
        file="learn/anticipatory.py",
        old="        return self.ops.route_by_id(logits, self",
        new="        rank = np.argsort(np.argsort(-logits, axis=-1), axis=-1)\n"
        "        logits = np.where(rank < config.num_experts_per_tok, logits, -60.0)\n"
        "        return self.ops.route_by_id(logits, self",
        tests=(f"{REPLAY}test_experts_that_the_model_would_not_take_now_are_weighed_by_their_scores",),
    ),
    Mutant(
        name="routing-not-replayed",
        trap="training routes the tokens of a rollout anew",
        file="learn/post/replay.py",
        old="with routed_by(model, replay.experts), reading(model, replay.entries):",
        new="with reading(model, replay.entries):",
        tests=(f"{REPLAY}test_a_pass_chooses_what_was_chosen_then",),
    ),
    Mutant(
        name="entries-not-replayed",
        trap="the indexer of now chooses the entries of a rollout anew",
        file="learn/post/replay.py",
        old="with routed_by(model, replay.experts), reading(model, replay.entries):",
        new="with routed_by(model, replay.experts):",
        tests=(f"{REPLAY}test_a_pass_chooses_what_was_chosen_then",),
    ),
    Mutant(
        name="rollouts-begun-anew",
        trap="rollouts that were interrupted start again: the long ones never come to their ends",
        file="learn/post/rollouts.py",
        old="    log = RolloutLog(file, prompts, asdict(drawing))\n",
        new="    file.unlink(missing_ok=True)\n    log = RolloutLog(file, prompts, asdict(drawing))\n",
        tests=(f"{ROLLOUTS}test_what_was_drawn_before_stays_even_if_it_would_be_drawn_otherwise_now",),
    ),
    Mutant(
        name="resumed-with-old-chances",
        trap="a resumed rollout draws its next token with the random number of its first one",
        file="learn/post/recording.py",
        old="        drawn = self.draw(shares, sequence)\n"
        "        if self._place < len(self._already[sequence]):\n"
        "            drawn = self._already[sequence][self._place]\n",
        new="        if self._place < len(self._already[sequence]):\n"
        "            drawn = self._already[sequence][self._place]\n"
        "        else:\n"
        "            drawn = self.draw(shares, sequence)\n",
        tests=(f"{ROLLOUTS}test_a_run_that_is_killed_goes_on_with_every_rollout[20]",),
    ),
    Mutant(
        name="heads-pile-up",
        trap="the heads of teachers that were asked before stay in memory",
        file="learn/post/distillation.py",
        old="            run.clear()\n            del head, hidden\n",
        new='            self.heads = [*getattr(self, "heads", []), head]\n',
        tests=("learn/post/test_teachers.py::test_one_teacher_at_a_time",),
    ),
    Mutant(
        name="judge-without-a-form",
        trap="a judge that says nothing is rewarded as one that gives no point",
        file="learn/post/worlds/judging.py",
        old="return 0.0 if judgement is None else 1 - abs(judgement - label)",
        new="return 1 - abs((judgement or 0.0) - label)",
        tests=(f"{VERSE}test_a_judges_reward_by_hand",),
    ),
    Mutant(
        name="hidden-score-as-reward",
        trap="verse is rewarded by the score that only evaluation may see",
        file="learn/post/reinforcement.py",
        old="seen = one.score(self.tokenizer) if one.question.world.has_rule else next(opinions)",
        new="seen = one.score(self.tokenizer)",
        tests=("learn/post/test_judge.py::test_the_reward_of_verse_is_the_judgement_and_not_the_hidden_score",),
    ),
    Mutant(
        name="answers-without-an-end",
        trap="an answer that was cut at its window counts as one that came to an end",
        file="learn/post/worlds/world.py",
        old="message = parse(completion, mode)",
        new="message = parse(completion, mode, require_end=False)",
        tests=("learn/post/worlds/test_worlds.py::test_a_malformed_answer_is_worth_nothing[sums]",),
    ),
    Mutant(
        name="splits-overlap",
        trap="held-out tasks are drawn from all tasks",
        file="learn/post/worlds/world.py",
        old='if is_held_out(task) == (split == "held-out"):',
        new='if split == "held-out" or not is_held_out(task):',
        tests=("learn/post/worlds/test_worlds.py::test_no_task_is_in_both_splits_and_each_split_is_large[verse]",),
    ),
    Mutant(
        name="post-rate-falls-at-once",
        trap="the learning rate falls from the first step of a stage on, and is at its end when the decay should begin",
        file="learn/post/trainer.py",
        old="return cosine_decay(step - before, stage.decay_steps, stage.learning_rate",
        new="return cosine_decay(step, stage.steps, stage.learning_rate",
        tests=("learn/post/test_trainer.py::test_the_learning_rate_rises_stays_and_falls_to_the_last_step",),
    ),
    Mutant(
        name="post-rate-of-the-end-unused",
        trap="steps of a stage of post-training have the rate of its beginning to the end",
        file="learn/post/trainer.py",
        old="self.optimiser.step(clipped.gradients, rate)",
        new="self.optimiser.step(clipped.gradients, stage.learning_rate)",
        tests=(
            "learn/post/test_trainer.py::test_the_log_has_the_rate_of_each_step_and_a_step_at_the_rate_0_moves_nothing",
        ),
    ),
    Mutant(
        name="doubts-without-a-mistake",
        trap='what the examples of mode "max" doubt is always right: saying it twice is all that can be learnt',
        file="learn/post/worlds/world.py",
        old="doubted = (self.slip or self.reasoning) + self.doubt",
        new="doubted = self.reasoning + self.doubt",
        tests=("learn/post/worlds/test_worlds.py::test_an_example_of_the_mode_max_has_the_slip_and_its_doubt",),
    ),
    Mutant(
        name="one-word-twice-never-judged",
        trap="no labelled verse ends its lines in one word, and the judge takes that for a rhyme",
        file="learn/post/worlds/verse.py",
        old="is_same = has.length and generator.random() < SAME_WORD",
        new="is_same = has.length and generator.random() < 0",
        tests=(f"{VERSE}test_lines_that_do_not_rhyme_may_end_in_one_word",),
    ),
)
