# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4 · CSA: compression with overlap
#
# Beyond its window a query cannot read every token of a long text. Compressed sparse attention makes one **entry** of
# every $m = 4$ tokens and lets the query read a few chosen entries. An entry is a weighted sum of what its tokens say,
# and each channel has weights of its own. So that no boundary cuts a thought in two, an entry looks at the four tokens
# **before** its own as well, through a second set of projections.
#
# $$\text{entry}_i = \sum_{j=0}^{2m-1} \frac{e^{S_{ij}}}{\sum_{j'} e^{S_{ij'}}} \odot C_{ij}, \qquad
# C_{ij}, S_{ij} \text{ from tokens } (i-1)m, \dots, (i+1)m - 1$$
#
# Below, $C$ is `kv`, $S$ is `score`; $\odot$ and the fraction work channel by channel.

# %%
import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.model.compressor import Compressor
from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.ops.compressor import compress, overlap

model = dsv4.load(backend="numpy", fake_quant="off")
length = 128
ids = show.passage(length)
results = show.observe(model, ids)
block = model.layers[1]  # a CSA layer

# %% [markdown]
# ## The project's code
# `Compressor` projects the tokens and remembers what is not complete; `overlap` lays out the eight slots of each entry;
# `compress` makes the entry.

# %%
show.source(Compressor.__call__, overlap, compress)

# %% [markdown]
# ## Experiment: which tokens does an entry remember?
# Replace one token's input at a time by another token's, run the layer's own compressor, and see which entries change.
# By the equation, a token must leave a trace in its own entry and the next one, and in no other. The null model is the
# same compressor without the overlap: the half that looks back is closed.


# %%
class NoOverlap(Ops):
    """NumPy's backend, whose entries do not look at the block before their own."""

    @staticmethod
    def compress(kv, score):
        before = np.arange(score.shape[-2])[:, None] < 4
        return compress(kv, np.where(before, -np.inf, score))


def entries_of(x, block=block):
    """The entries [N, c] that the layer's compressor makes of the inputs x [S, d]."""
    seen = {}
    span = Span(np.zeros(1, np.int64), np.array([len(x)]), len(x))
    cache = block.new_cache(1, 0, model.dtype).compressor
    block.attn.compressor(x[None], span, cache, seen.__setitem__)
    return seen["layers.1.attn.compressor.out"][0]


pre = results["layers.1.hc_attn.pre"]
x = Ops.rms_norm(Ops.mhc_collapse(results["layers.0.out"], pre), block.hc_attn.norm, model.config.rms_norm_eps)[0]


# %%
def traces(block):
    """How much each of 8 entries changes with each of 32 tokens: [8, 32], relative."""
    before, found = entries_of(x[:32], block), []
    for token in range(32):
        changed = x[:32].copy()
        changed[token] = x[64 + token]
        found.append(np.linalg.norm(entries_of(changed, block) - before, axis=-1) / np.linalg.norm(before, axis=-1))
    return np.array(found).T


trace = traces(block)
figure, axes = plt.subplots(figsize=(9, 3))
show.heatmap(axes, trace, label="relative change")
axes.set_xticks(np.arange(0, 33, 4) - 0.5, range(0, 33, 4))
axes.grid(axis="x", color=show.GREY, linewidth=0.6)
axes.set(title="how much each entry changes with each token", xlabel="token replaced", ylabel="entry")
plt.show()

# %%
token, entry = np.arange(32), np.arange(8)[:, None]
predicted = (token >= 4 * entry - 4) & (token < 4 * entry + 4)
show.experiment(
    "an entry changes with its own four tokens and the four before, and with no other",
    lambda trace: np.array_equal(trace > 0, predicted),
    trace,
    nulls={"no overlap": traces(dsv4.Model(model.checkpoint, NoOverlap(), fake_quant=False).layers[1])},
    say=lambda trace: (
        f"{(trace > 0).sum()} traces, {((trace > 0) & predicted).sum()} of them where predicted, "
        f"{(predicted & (trace == 0)).sum()} missing"
    ),
)

# %% [markdown]
# ## Every channel chooses for itself
# The softmax runs over the eight slots, in each channel by itself. To see its weights, compress not the values but, for
# one slot after the other, a one in that slot and zeros elsewhere. The scores are those of the model.


# %%
class Listening(Ops):
    """NumPy's backend, keeping what its compressor gets."""

    def __init__(self):
        self.scores = []

    def compress(self, kv, score):
        self.scores.append(score)
        return compress(kv, score)


listening = Listening()
dsv4.Model(model.checkpoint, listening, fake_quant=False)(ids)
scores = listening.scores[0][0]  # of layer 1: [entries, 8 slots, c]
ones = np.eye(8, dtype=np.float32)[:, None, :, None]  # [8 slots, 1, 8 slots, 1]
weights = compress(np.broadcast_to(ones, (8, *scores.shape)), np.broadcast_to(scores, (8, *scores.shape)))

# %%
figure, (above, below) = plt.subplots(2, 1, figsize=(9, 4.6), height_ratios=(1.2, 1))
show.heatmap(above, weights[:, 20], label="weight", vmin=0, vmax=1)
above.set_yticks(range(8), ["before"] * 4 + ["own"] * 4, fontsize=8)
above.set(title="entry 20: the weight of each slot in each channel", xlabel="channel")
below.bar(range(8), weights[:, 1:].mean(axis=(1, 2)), color=[show.ORANGE] * 4 + [show.BLUE] * 4)
below.set_xticks(range(8), [f"token {4 * 20 - 4 + j}" for j in range(8)])
below.axhline(1 / 8, color=show.DARK, linestyle=":")
below.set(title="mean weight of each slot, all entries but the first (named for entry 20)")
plt.show()

# %% [markdown]
# ## Experiment: does a channel have a habit?
# With weights of its own, a channel can take up a habit: to listen to the newest token, say, or to the one before the
# boundary. Then the slot that is heaviest for a channel in one entry should be so in others more often than once in
# eight. That different channels prefer different slots is no evidence of it: noise does that, too. So there are two
# null models: scores of pure noise, and the true ones with the channels of each entry in disorder, which leaves every
# preference in place and forgets whose it was.


# %%
def habit(scores):
    """How often two entries have the same heaviest slot in a channel: scores [entries, 8 slots, c]."""
    heaviest = scores[1:].argmax(axis=1)  # [entries, c]; the first entry has no slots before it
    one, other = np.triu_indices(len(heaviest), 1)
    return float((heaviest[one] == heaviest[other]).mean())


random = np.random.default_rng(0)
show.experiment(
    "two entries agree on a channel's heaviest slot at least a tenth more often than once in eight",
    lambda share: share > 1.1 / 8,
    habit(scores),
    nulls={
        "random scores": habit(random.standard_normal(scores.shape)),
        "channels in disorder": habit(np.stack([entry[:, random.permutation(entry.shape[1])] for entry in scores])),
    },
    say=lambda share: f"they agree in {share:.1%} of all pairs; once in eight is 12.5%",
)

# %% [markdown]
# A single softmax for all channels could have no habits but one. The bundled model's are weak; it is small, and has not
# been trained for long.
#
# ## When an entry can be read
# An entry is there as soon as its last token is, and not before: a query must not read the future.

# %%
show.source(Span.visible)

# %%
span = Span(np.zeros(1, np.int64), np.array([24]), 24)
figure, axes = plt.subplots(figsize=(9, 2.4))
axes.step(range(24), span.visible(4)[0], where="mid", color=show.BLUE)
axes.set_xticks(range(24))
axes.set(title="entries that a query can see", xlabel="position of the query", ylabel="entries")
axes.grid(axis="x", color=show.LIGHT)
plt.show()

# %% [markdown]
# ## Exercises
# **1.** In which entry does token 37 leave its last trace?


# %%
def last_trace(token):
    """The last entry that changes with a token."""
    changed = x.copy()
    changed[token] += 1
    return int(np.nonzero(np.abs(entries_of(changed) - entries_of(x)).max(axis=-1))[0][-1])


exercise_1 = show.exercise(
    lambda answer: answer == last_trace(37),
    mistake=37 // 4,
    hint="It is one of the own tokens of one entry, and one of those before for another.",
)
exercise_1(...)

# %% [markdown]
# **2.** Two slots hold `[1, 2]` and `[3, 4]`. Give their scores, two for each slot, so that the entry is `[1, 4]`,
# within 0.01.

# %%
exercise_2 = show.exercise(
    lambda score: np.allclose(compress(np.array([[1.0, 2], [3, 4]]), np.array(score, float)), [1, 4], atol=0.01),
    mistake=[[10, 10], [0, 0]],
    hint="Channel 0 must choose the first slot, and channel 1 the second one.",
)
exercise_2(...)

# %% [markdown]
# **3.** How many entries can the query at position 1003 see?

# %%
exercise_3 = show.exercise(
    lambda answer: answer == int(Span(np.array([1003]), np.array([1]), 1).visible(4)[0, 0]),
    mistake=250,
    hint="Positions count from 0, and the query's own token counts.",
)
exercise_3(...)

# %% [markdown]
# ## Solutions
# 1: entry 9 has it as its own, entry 10 from before. 2: a large score at the right place of each channel. 3: 1004
# tokens make 251 entries.

# %%
exercise_1(10)
exercise_2([[10, 0], [0, 10]])
exercise_3(251)
