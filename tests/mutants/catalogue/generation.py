"""Mistakes in drawing tokens, and in drafting and checking them."""

from mutants.mutant import Mutant

SAME_TEXT = ("text/test_generate.py::test_drafts_do_not_change_greedy_text",)

GENERATION = (
    Mutant(
        name="top-p-without-the-last",
        trap="top-p leaves out the token whose probability reaches it",
        file="text/sampling.py",
        old="kept = order[likelier < top_p]",
        new="kept = order[(likelier + probabilities[order] <= top_p) | (likelier == 0)]",
        tests=("text/test_sampling.py::test_nucleus_includes_the_token_that_reaches_top_p",),
    ),
    Mutant(
        name="draft-not-checked",
        trap="a drafted token is accepted without a check",
        file="text/drafts.py",
        old="if sampler.chance(sequence) * guess[draft] >= target[draft]:",
        new="if sampler.chance(sequence) > 1:",
        tests=SAME_TEXT,
    ),
    Mutant(
        name="draft-not-rolled-back",
        trap="a refused draft stays in the cache, also where it has completed a block",
        file="text/drafts.py",
        old="batch.cache.rollback(step.refused)",
        new="batch.cache.rollback(0)",
        tests=SAME_TEXT,
    ),
    Mutant(
        name="refused-draft-drawn-again",
        trap="where a draft is refused, the token is drawn from the whole target, and not from what the draft left out",
        file="text/drafts.py",
        old="return [*kept, sampler.draw(residual(target, guess), sequence)]",
        new="return [*kept, sampler.draw(target, sequence)]",
        tests=("text/test_generate.py::test_drafts_do_not_change_the_distribution",),
    ),
    Mutant(
        name="draft-judged-a-place-on",
        trap="a draft behind the first is judged by what the model says about the place behind it",
        file="text/drafts.py",
        old="target = sampler.distribution(narrow(logits[len(kept)], kept), sequence)",
        new="target = sampler.distribution(logits[min(2 * len(kept), len(logits) - 1)], sequence)",
        tests=("text/test_drafts.py",),
    ),
    Mutant(
        name="mtp-given-the-same-token",
        trap="the MTP module is given the state of a kept draft with that draft itself instead of the token behind it",
        file="text/drafts.py",
        old="drafter.read(step.states[:, : tokens.shape[1]], tokens, batch.cache,",
        new="drafter.read(step.states[:, : tokens.shape[1]], tokens[:, [0] * tokens.shape[1]], batch.cache,",
        tests=SAME_TEXT,
    ),
    Mutant(
        name="mtp-prompt-off-by-one",
        trap="the MTP module reads each token of the prompt with its own state instead of the state before",
        file="text/generate.py",
        old="self._drafting.drafter.read(states, ids[:, following],",
        new="self._drafting.drafter.read(states, ids[:, start:stop],",
        tests=("text/test_generate.py::test_drafts_are_those_of_whole_passes",),
    ),
)
