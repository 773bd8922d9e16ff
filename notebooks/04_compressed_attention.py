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
# **Minutes:** 35 · **Read before:** [1](01_tour.ipynb), [3](03_rope_windows_sinks.ipynb) · **You should know:** softmax
# attention.
#
# A query cannot read every token of a long text. Beyond its window, compressed sparse attention (CSA) makes one
# **entry** of every $m = 4$ tokens and lets the query read a few chosen entries. An entry is a weighted sum of
# projections of its tokens, with separate weights for each channel. So that what belongs together is not separated at a
# boundary, an entry also uses the four tokens **before** its own, through a second set of projections.
#
# $$\text{entry}_i = \sum_{j=0}^{2m-1} \frac{e^{S_{ij}}}{\sum_{j'} e^{S_{ij'}}} \odot C_{ij}, \qquad
# C_{ij}, S_{ij} \text{ from tokens } (i-1)m, \dots, (i+1)m - 1$$
#
# In the code below, $C$ is `kv` and $S$ is `score`; $\odot$ and the fraction are computed for each channel.

# %%
import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.model.attention import Attention
from dsv4.model.compressor import Compressor
from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.ops.attention import attention_shares
from dsv4.ops.compressor import compress, overlap

model = dsv4.load(backend="numpy", fake_quant="off")
length = 128
ids = show.passage(length)
results = show.observe(model, ids)
block = model.layers[1]  # a CSA layer

# %% [markdown]
# ## The project's code
# `Compressor` projects the tokens and keeps those whose block is not complete yet. `overlap` arranges the eight slots
# of each entry, and `compress` makes the entry.

# %%
show.source(Compressor.__call__, overlap, compress)

# %% [markdown]
# ## Experiment: which tokens does an entry depend on?
# Replace the input of one token at a time by that of another token, run the layer's own compressor, and see which
# entries change. By the equation, a token must change its own entry and the next one, and no other. The null model is
# the same compressor without the overlap: the slots of the four tokens before are excluded.


# %%
class NoOverlap(Ops):
    """NumPy's backend, whose entries do not use the block before their own."""

    @staticmethod
    def compress(kv, score):
        before = np.arange(score.shape[-2])[:, None] < 4
        return compress(kv, np.where(before, -np.inf, score))


def entries_of(x, block=block):
    """The entries [N, c] that the layer's compressor makes of the inputs x [S, d]."""
    seen = {}
    span = Span(np.zeros(1, np.int64), np.array([len(x)]), len(x))
    cache = block.new_cache(1, 0, model.dtype).compressor
    kv, score = model.ops.linears(x[None], block.attn.compressor.projections)
    block.attn.compressor(kv, score, span, cache, seen.__setitem__)
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

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3))
show.heatmap(axes, trace, label="relative change")
axes.set_xticks(np.arange(0, 33, 4) - 0.5, range(0, 33, 4))
axes.grid(axis="x", color=show.GREY, linewidth=0.6)
axes.set(title="how much each entry changes with each token", xlabel="token replaced", ylabel="entry")
show.picture(
    figure,
    "A heat map of 8 entries against 32 tokens: how much each entry changes when a token is replaced. "
    "Entry i changes with the eight tokens from 4i − 4 to 4i + 3 and with no others, so that each token "
    "marks two neighbouring rows.",
)

# %%
token, entry = np.arange(32), np.arange(8)[:, None]
predicted = (token >= 4 * entry - 4) & (token < 4 * entry + 4)
show.experiment(
    "an entry changes with its own four tokens and the four before, and with no other",
    lambda trace: np.array_equal(trace > 0, predicted),
    trace,
    nulls={"no overlap": traces(dsv4.Model(model.checkpoint, NoOverlap(), fake_quant=False).layers[1])},
    say=lambda trace: (
        f"{(trace > 0).sum()} changes, {((trace > 0) & predicted).sum()} of them where predicted, "
        f"{(predicted & (trace == 0)).sum()} missing"
    ),
)

# %% [markdown]
# ## Every channel chooses for itself
# The softmax runs over the eight slots, separately in each channel. Its weights can be made visible: compress, in place
# of the values, a one in one slot and zeros in all others, for each slot in turn. The scores are those of the model.


# %%
class Listening(Ops):
    """NumPy's backend, which also keeps the scores that its compressor gets."""

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

# %% tags=["hide-input"]
figure, (above, below) = plt.subplots(2, 1, figsize=(9, 4.6), height_ratios=(1.2, 1))
show.heatmap(above, weights[:, 20], label="weight", vmin=0, vmax=1)
above.set_yticks(range(8), ["before"] * 4 + ["own"] * 4, fontsize=10)
above.set(title="entry 20: the weight of each slot in each channel", xlabel="channel", ylabel="slot of a token")
below.bar(range(8), weights[:, 1:].mean(axis=(1, 2)), color=[show.ORANGE] * 4 + [show.BLUE] * 4)
below.set_xticks(range(8), [f"token {4 * 20 - 4 + j}" for j in range(8)])
below.axhline(1 / 8, color=show.DARK, linestyle=":")
below.set(title="mean weight of each slot, all entries but the first", xlabel="slot, as in entry 20", ylabel="weight")
show.picture(
    figure,
    "Above, a heat map of the weights of entry 20: eight slots, four of tokens before and four of its "
    "own, against channels; each channel has its own pattern. Below, the mean weight of each slot as bars "
    "around the dotted line at one eighth.",
)

# %% [markdown]
# ## Experiment: does a channel have a habit?
# Since each channel has its own weights, it can form a habit: for example, to prefer the newest token, or the last one
# before the boundary. Then the slot with the largest weight of a channel should be the same in two entries more often
# than in one case of eight. It is no evidence that different channels prefer different slots, for this happens with
# noise, too. So there are two null models: scores of pure noise, and the true scores with the channels of each entry
# shuffled. The shuffle keeps every preference, but no longer says which channel has it.


# %%
def habit(scores):
    """How often two entries have the same heaviest slot in a channel: scores [entries, 8 slots, c]."""
    heaviest = scores[1:].argmax(axis=1)  # [entries, c]; the first entry has no slots before it
    one, other = np.triu_indices(len(heaviest), 1)
    return float((heaviest[one] == heaviest[other]).mean())


random = np.random.default_rng(0)
show.experiment(
    "two entries agree on a channel's heaviest slot at least a tenth more often than in one case of eight",
    lambda share: share > 1.1 / 8,
    habit(scores),
    nulls={
        "random scores": habit(random.standard_normal(scores.shape)),
        "channels shuffled": habit(np.stack([entry[:, random.permutation(entry.shape[1])] for entry in scores])),
    },
    say=lambda share: f"they agree in {share:.1%} of all pairs; one in eight is 12.5%",
)

# %% [markdown]
# With a single softmax for all channels, all would share one habit. In the bundled model the habits are weak: it is
# small and was trained for a short time.
#
# ## When an entry can be read
# An entry is visible from its last token on, and not before: a query must not read later tokens.

# %%
show.source(Span.visible)

# %%
span = Span(np.zeros(1, np.int64), np.array([24]), 24)

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 2.4))
axes.step(range(24), span.visible(4)[0], where="mid", color=show.BLUE)
axes.set_xticks(range(24))
axes.set(title="entries that a query can see", xlabel="position of the query", ylabel="entries")
axes.grid(axis="x", color=show.LIGHT)
show.picture(
    figure,
    "The number of entries that a query can see against its position, from 0 to 23: a staircase that "
    "rises by one at positions 3, 7, 11 and so on, when the last token of a block is there.",
)

# %% [markdown]
# ## One softmax for window and entries
# Entries have the same width as window keys and are read like them, as keys and as values. A query has **one softmax**
# over its window $W_t$, the entries $E_t$ that it reads, and the sink of the head:
#
# $$a_{tj} = \frac{e^{q_t \cdot k_j / \sqrt{c}}}
# {e^{\text{sink}} + \sum_{s \in W_t} e^{q_t \cdot k_s / \sqrt{c}} + \sum_{i \in E_t} e^{q_t \cdot e_i / \sqrt{c}}},
# \qquad E_t = \text{the entries that the indexer chose (notebook 5)}$$
#
# So an entry competes with the window for attention. `Attention.__call__` is shown in [notebook
# 3](03_rope_windows_sinks.ipynb); this method of it gives the entries, and says which of them each query reads.

# %%
show.source(Attention._entries)

# %% [markdown]
# `attention_shares` returns the softmax itself. Here is what it gives to window, entries and sink in this layer, for
# the last 64 queries of the text.

# %%
span = Span(np.zeros(1, np.int64), np.array([length]), length)
columns, window = span.window_columns(model.config.sliding_window), model.config.sliding_window
attn = "layers.1.attn."
rows = np.pad(results[f"{attn}kv"], [(0, 0), (window - 1, 0), (0, 0)])
chosen = results[f"{attn}indexer.topk"]
shares = attention_shares(
    results[f"{attn}q"], rows, columns, results[f"{attn}compressor.out"], chosen, block.attn.attn_sink
)[0, -64:].mean(axis=0)  # [heads, keys]
parts = {"window": shares[:, :window], "entries": shares[:, window:-1], "sink": shares[:, -1:]}

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 2.6))
left = np.zeros(len(shares))
for (name, part), colour in zip(parts.items(), (show.GREEN, show.BLUE, show.GREY), strict=True):
    total = part.sum(axis=1)
    axes.barh(np.arange(len(total)), total, left=left, color=colour, label=name)
    left += total
axes.set(title="what the joint softmax gives to each part", xlabel="share of the softmax", ylabel="head", xlim=(0, 1))
axes.set_yticks(range(len(left)))
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
show.picture(
    figure,
    "For each head of layer 1, a bar from 0 to 1 with the shares of the joint softmax. The window gets about "
    "four fifths or more, the entries most of the rest, and the sink a few percent.",
)

# %% [markdown]
# ## Exercises
# **1.** Which is the last entry that depends on token 37?


# %% tags=["hide-input"]
def last_trace(token):
    """The last entry that changes with a token."""
    changed = x.copy()
    changed[token] += 1
    return int(np.nonzero(np.abs(entries_of(changed) - entries_of(x)).max(axis=-1))[0][-1])


exercise_1 = show.exercise(
    lambda answer: answer == last_trace(37),
    mistake=37 // 4,
    hint="A token belongs to one entry, and to the tokens before another.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** Two slots hold `[1, 2]` and `[3, 4]`. Give scores, two for each slot, with which the entry is `[1, 4]`, within
# 0.01.

# %% tags=["hide-input"]
exercise_2 = show.exercise(
    lambda score: np.allclose(compress(np.array([[1.0, 2], [3, 4]]), np.array(score, float)), [1, 4], atol=0.01),
    mistake=[[10, 10], [0, 0]],
    hint="Channel 0 must choose the first slot, and channel 1 the second one.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** How many entries can the query at position 1003 see?

# %% tags=["hide-input"]
exercise_3 = show.exercise(
    lambda answer: answer == int(Span(np.array([1003]), np.array([1]), 1).visible(4)[0, 0]),
    mistake=250,
    hint="Positions count from 0, and the query's own token counts.",
)

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write `overlap` yourself: from the projections of the blocks to the eight slots of each entry. `dsv4.check`
# runs the project's own tests on it.


# %% tags=["hide-input"]
def halves_swapped(blocks):
    c = blocks.shape[-1] // 2
    return np.concatenate([blocks[:, :-1, :, c:], blocks[:, 1:, :, :c]], axis=2)


exercise_4 = show.write(
    show.properties("overlap"),
    wrong={"the two halves swapped": halves_swapped},
    hint="The block before gives the first half of its channels, the own block the second half of its channels. "
    "Entry i needs blocks i and i + 1, because the first block serves only as the one before.",
)


# %%
def my_overlap(blocks):
    """blocks [B, N + 1, m, 2c], the first one only as the block before -> the slots [B, N, 2m, c] of N entries."""


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: token 37 belongs to entry 9 and to the tokens before entry 10. 2: a large score at the right place of each channel.
# 3: 1004 tokens make 251 entries. 4: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_4(blocks):
    c = blocks.shape[-1] // 2
    before, own = blocks[:, :-1, :, :c], blocks[:, 1:, :, c:]
    return np.concatenate([before, own], axis=2)


exercise_1(10)
exercise_2([[10, 0], [0, 10]])
exercise_3(251)
exercise_4(solution_4)
