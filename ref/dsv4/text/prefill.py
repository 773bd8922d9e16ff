"""A prompt on its way through the model: in chunks, and from where a kept prefix ends."""

from collections.abc import Hashable

import numpy as np

from dsv4.model.cache import Cache
from dsv4.model.cut import cut
from dsv4.model.language_model import LanguageModel
from dsv4.ops.types import Array, Ints
from dsv4.text.drafts import Drafter
from dsv4.text.prefixes import Prefix, Prefixes, edges


class Prefill:
    """One prompt of which more and more is read. What comes of it does not depend on what is reused.

    On a backend that is not batch-invariant, chunks are cut at the same places each time, and only what was read in
    such chunks is reused; with a drafter, which reads across their edges, nothing is.
    """

    def __init__(
        self,
        model: LanguageModel,
        ids: Ints,
        chunk: int,
        prefixes: Prefixes,
        drafter: Drafter | None = None,
        spare: int = 0,
    ) -> None:
        """Begin with the longest prefix that is kept, if there is one.

        ids [N]: a prompt that fits the model; chunk: tokens of a pass at most; drafter: what is to draft for the
        answer, one of the checkpoint's own; spare: how many tokens of the answer may have to be rolled back at once.
        """
        self.model, self.ids, self.chunk, self.drafter = model, ids, chunk, drafter
        self._prefixes, self._spare = prefixes, spare
        self._invariant = is_batch_invariant(model)
        self._kind: Hashable = (drafter is not None, 0 if self._invariant else chunk)
        self._edges = self._places()
        self.cached = 0
        """How many tokens were taken from a prefix."""
        found = prefixes.find(ids, self._kind) if self._edges else None
        back = max(min(chunk, len(ids)), spare)  # so far that every edge in a pass can be gone back to
        if found is None:
            self.cache = model.new_cache(1, back, drafts=drafter is not None)
        else:
            self.cached = int(found.cache.lengths[0])
            self.cache = cut(found.cache, 0, self.cached, back)
            self._tell_drafter(found.state, self.cached - 1)

    @property
    def read(self) -> int:
        """How many tokens of the prompt the cache holds."""
        return int(self.cache.lengths[0])

    @property
    def done(self) -> bool:
        """Whether the whole prompt is read."""
        return self.read == len(self.ids)

    def size(self, most: int) -> int:
        """How many tokens the next pass has if it shall have at most so many; 0 where it would have more."""
        left = min(len(self.ids) - self.read, self.chunk)
        return min(left, most) if self._invariant or left <= most else 0

    def advance(self, size: int) -> Array:
        """Read so many tokens more, as `size` says. Returns their streams, [1, size, n, d]."""
        start = self.read
        tokens = self.ids[None, start : start + size]
        states = self.model.states(tokens, self.cache, np.ones_like(tokens, bool))
        self._tell_drafter(states, start)
        for place in self._edges:
            if start < place <= start + size:
                self._keep(self.ids[:place], self.cache, 0, states[:, place - start - 1 : place - start])
        return states

    def finish(self) -> Cache:
        """The cache of the whole prompt, which can go back as many tokens as was asked for; nothing is read after this.

        The larger one with which the prompt was read is given up.
        """
        cache = cut(self.cache, 0, len(self.ids), self._spare)
        del self.cache
        return cache

    def keep_answer(self, cache: Cache, sequence: int, ids: Ints, state: Array | None = None) -> None:
        """Keep prompt and answer, the ids [M], up to where the cache of a batch has read them in this sequence.

        state [1, 1, n, d]: the streams of the last token that it has read, where there is a drafter.
        """
        length = int(cache.lengths[sequence])
        if self._invariant and self._prefixes.memory:
            self._keep(ids[:length], cache, sequence, state)

    def _places(self) -> list[int]:
        """At how many tokens of the prompt what was read is kept."""
        if not self._prefixes.memory:
            return []
        if self._invariant:
            return sorted({*edges(len(self.ids)), len(self.ids) - 1} - {0})
        return [] if self.drafter else list(edges(len(self.ids), self.chunk))

    def _keep(self, ids: Ints, cache: Cache, sequence: int, state: Array | None) -> None:
        """Keep what the cache knows of these ids, with which its sequence begins."""
        kept = state.copy() if self.drafter is not None and state is not None else None

        def make() -> Prefix:
            known = cut(cache, sequence, len(ids))
            if self.model.store is not None:
                self.model.store.count(known)
            return Prefix(known, kept)

        self._prefixes.keep(ids, self._kind, make)

    def _tell_drafter(self, states: Array | None, start: int) -> None:
        """Let the drafter read the states [1, S, n, d] from a position on, each with the token behind it."""
        if self.drafter is None or states is None:
            return
        size = states.shape[1]
        following = self.ids[None, start + 1 : start + 1 + size]
        known = np.arange(size) < following.shape[1]
        padded = np.pad(following, ((0, 0), (0, size - following.shape[1])))
        self.drafter.read(states, padded, self.cache, known[None])


def is_batch_invariant(model: LanguageModel) -> bool:
    """Whether a token's results are the same bits in any batch, and however a prompt is cut."""
    return model.dtype.name in model.ops.batch_invariant
