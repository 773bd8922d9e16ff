"""Mistakes in how a training run goes on, is resumed, and computes with what will be stored."""

from mutants.mutant import Mutant

STEPS, RUNS = "learn/test_trainer.py", "learn/test_pretrain.py"

TRAINING = (
    Mutant(
        name="indexer-decays-in-the-dense-stage",
        trap="the indexer takes part in the dense stage, where it has no gradient, and only decays",
        file="learn/trainer.py",
        old='{"dense": not is_indexer(name), "indexer": is_indexer(name)}',
        new='{"dense": True, "indexer": is_indexer(name)}',
        tests=(f"{STEPS}::TestStages::test_what_learns_in_each",),
    ),
    Mutant(
        name="all-learn-in-the-warm-up",
        trap="everything learns in the indexer's warm-up, and not the indexer alone",
        file="learn/trainer.py",
        old='{"dense": not is_indexer(name), "indexer": is_indexer(name)}',
        new='{"dense": not is_indexer(name), "indexer": True}',
        tests=(f"{STEPS}::TestStages::test_what_learns_in_each",),
    ),
    Mutant(
        name="dense-stage-chooses",
        trap="in the dense stage the untrained indexer chooses what attention reads",
        file="learn/schedule.py",
        old='if stage.kind in ("sparse", "decay") or entries <= config.index_topk:',
        new="if entries >= 0:",
        tests=(f"{STEPS}::TestStages::test_before_the_sparse_stages_all_entries_are_read",),
    ),
    Mutant(
        name="parts-count-alike",
        trap="parts of a batch count alike, however many tokens they predict",
        file="learn/trainer.py",
        old="shares = [part.tokens / tokens for part in parts]",
        new="shares = [1 / len(parts) for part in parts]",
        tests=(f"{STEPS}::test_parts_of_a_batch_add_up_to_the_whole",),
    ),
    Mutant(
        name="inputs-not-rounded-in-training",
        trap="training for FP4 and FP8 leaves the inputs of the products as they are, which the released model rounds",
        file="learn/qat.py",
        old="return linear(rounded(x) if round_inputs else x, weight)",
        new="return linear(x, weight)",
        tests=(f"{STEPS}::test_training_computes_with_what_will_be_stored",),
    ),
    Mutant(
        name="hidden-numbers-not-rounded-in-training",
        trap="training for FP4 leaves the input of an expert's second product as it is",
        file="learn/vjp/moe.py",
        old="return prepare(of_dtype * hidden) @ down.T, pull",
        new="return (of_dtype * hidden) @ down.T, pull",
        tests=(f"{STEPS}::test_training_computes_with_what_will_be_stored",),
    ),
    Mutant(
        name="choices-not-saved",
        trap="experts that older weights have chosen for later steps are lost when a run is resumed",
        file="learn/trainer.py",
        old='choices = {f"choices.{name}": array for name, array in self._choices.items()}',
        new="choices: dict[str, Ints] = {}",
        tests=(f"{STEPS}::TestSpikes::test_a_run_that_is_resumed_in_the_period_has_the_same_bits",),
    ),
    Mutant(
        name="optimiser-starts-anew",
        trap="a run that is resumed has lost the optimisers' momentum",
        file="learn/trainer.py",
        old='        self.optimiser.load_state(_under("optimiser.", state))\n',
        new="",
        tests=(f"{RUNS}::test_a_run_that_was_killed_ends_with_the_same_bits[5]",),
    ),
    Mutant(
        name="log-not-cut",
        trap="the log keeps the lines of steps that a resumed run does again",
        file="learn/run_directory.py",
        old="kept = self._lines()[:lines]",
        new="kept = self._lines()",
        tests=(f"{RUNS}::test_a_run_that_was_killed_ends_with_the_same_bits[4]",),
    ),
    Mutant(
        name="state-written-in-place",
        trap="a state is written over the last good one, which a full disk then destroys",
        file="learn/run_directory.py",
        old="""        with replacing(self._state(step)) as temporary:
            save_file({**arrays, LOG_LINES: lines}, temporary)
""",
        new="""        for known in self.steps():
            self._state(known).unlink()
        with replacing(self._state(step)) as temporary:
            save_file({**arrays, LOG_LINES: lines}, temporary)
""",
        tests=(f"{RUNS}::test_a_full_disk_loses_nothing_that_was_saved",),
    ),
)
