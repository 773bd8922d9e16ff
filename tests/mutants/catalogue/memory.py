"""Mistakes of a bounded memory: what it holds, what it gives back, and what it counts."""

from mutants.mutant import Mutant

STORE = "model/test_expert_store.py"

MEMORY = (
    Mutant(
        name="most-useful-expert-first",
        trap="the expert that is asked for most is the first to be given back",
        file="model/expert_store.py",
        old="del self._held[min(free, key=self._usefulness)]",
        new="del self._held[max(free, key=self._usefulness)]",
        tests=(f"{STORE}::test_what_is_asked_for_again_and_again_stays",),
    ),
    Mutant(
        name="uses-never-forgotten",
        trap="a use of long ago counts as much as one of now",
        file="model/expert_store.py",
        old="score * 0.5 ** ((self._passes - when) / HALF_LIFE)",
        new="score",
        tests=(f"{STORE}::test_uses_of_long_ago_count_little",),
    ),
    Mutant(
        name="awaited-experts-given-back",
        trap="an expert that was read ahead is given back before its layer has used it",
        file="model/expert_store.py",
        old="if not held.awaited and held.future.done()]",
        new="if held.future.done()]",
        tests=(f"{STORE}::test_experts_that_are_awaited_are_not_given_back",),
    ),
    Mutant(
        name="budget-without-caches",
        trap="caches do not count in the budget",
        file="model/expert_store.py",
        old="return self._budget - sum(cache.allocated for cache in self._caches)",
        new="return self._budget",
        tests=(f"{STORE}::test_caches_take_room_from_experts_and_give_it_back",),
    ),
    Mutant(
        name="experts-of-a-failed-pass-stay",
        trap="what a pass that failed has asked for is awaited for ever",
        file="model/expert_store.py",
        old="            held.awaited = False\n        self._make_room(0)\n",
        new="            pass\n        self._make_room(0)\n",
        tests=(f"{STORE}::test_what_a_failed_pass_has_asked_for_can_be_given_back",),
    ),
    Mutant(
        name="hash-layers-not-read-ahead",
        trap="the experts of a hash layer are asked for when the layer is half done",
        file="model/moe.py",
        old="            self.experts.ahead(self.gate.tid2eid[ids])\n",
        new="            pass\n",
        tests=(f"{STORE}::test_a_hash_layer_has_its_experts_read_before_it_begins",),
    ),
)
