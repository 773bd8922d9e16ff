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
# # 2 · Manifold-constrained hyper-connections
#
# A residual connection adds what a layer says to what it read. A **hyper-connection** keeps $n = 4$ such residual
# streams and lets the model choose, token by token, from which streams a layer reads, into which it writes, and how the
# streams are mixed on the way. Left free, the mixing matrices of many layers multiply up and the signal explodes or
# dies. The **manifold constraint** is the cure: each mixing matrix is brought close to the doubly stochastic ones,
# whose rows and columns all sum to 1. A product of such matrices is one of them again, at any depth.
#
# $$x = \sum_j \text{pre}_j X_j, \qquad
# X'_i = \text{post}_i \, F(x) + \sum_j \text{comb}_{ji} X_j, \qquad
# \text{comb} = \text{Sinkhorn}(\cdot), \quad \sum_i \text{comb}_{ji} = \sum_j \text{comb}_{ji} = 1$$

# %%
import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.ops import Ops
from dsv4.ops.mhc import mhc_mix, mhc_split, sinkhorn

model = dsv4.load(backend="numpy")
config = model.config
results = show.observe(model, show.passage(256))

# %% [markdown]
# ## The project's code
# The streams of a token, all together, give 24 numbers: 4 for `pre`, 4 for `post`, 16 for `comb`.

# %%
show.source(mhc_split, mhc_mix)

# %% [markdown]
# ## Four streams of a real text
# All four start as the same embedding. The first picture shows how long each one is after each block of
# the bundled model, the second how alike they are (the mean cosine between two different streams).

# %%
states = [model.first_streams(show.passage(256))] + [results[f"layers.{n}.out"] for n in range(4)]
lengths = np.array([np.linalg.norm(state, axis=-1).mean(axis=(0, 1)) for state in states])  # [5, n]
directions = [state / np.linalg.norm(state, axis=-1, keepdims=True) for state in states]
cosines = np.array([(d @ d.swapaxes(-1, -2)).mean(axis=(0, 1)) for d in directions])  # [5, n, n]
likeness = (cosines.sum(axis=(1, 2)) - 4) / 12  # without the four streams' likeness to themselves

figure, (left, right) = plt.subplots(1, 2)
left.plot(lengths, marker="o", label=[f"stream {i}" for i in range(4)])
left.set(title="length of each stream", xlabel="after block", ylabel="mean norm")
left.legend()
right.plot(likeness, marker="o", color=show.DARK)
right.set(title="likeness of the streams", xlabel="after block", ylabel="mean cosine", ylim=(0, 1.05))
for axes in (left, right):
    axes.set_xticks(range(5), ["start", "0", "1", "2", "3"])
plt.show()

# %% [markdown]
# ## Sinkhorn converging
# To divide each row by its sum spoils the columns, to divide the columns spoils the rows, but less each time.

# %%
show.source(sinkhorn)

# %%
random = np.random.default_rng(0)
logits = 2 * random.standard_normal((4, 4))
figure, panels = plt.subplots(1, 4, figsize=(9, 2.5))
for axes, iterations in zip(panels, (1, 2, 5, 20), strict=True):
    comb = sinkhorn(logits, iterations, config.hc_eps)
    axes.imshow(comb, vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(comb):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color="w" if value > 0.5 else "k")
    axes.set_xticks([])
    axes.set_yticks(range(4), [f"Σ {total:.2f}" for total in comb.sum(axis=1)], fontsize=9)
    axes.set_title(f"{iterations} iteration{'s' * (iterations > 1)}")
    axes.spines[:].set_visible(False)
plt.show()

# %% [markdown]
# The columns are exact after every iteration, since they come last. How far off the rows are depends on how extreme the
# logits are: here the worst row of 1000 random matrices, for three spreads of the logits.

# %%
counts = np.arange(1, 31)
figure, axes = plt.subplots()
for spread in (0.5, 2, 5):
    many = spread * random.standard_normal((1000, 4, 4))
    errors = [np.abs(sinkhorn(many, count, config.hc_eps).sum(axis=-1) - 1).max() for count in counts]
    axes.semilogy(counts, errors, label=f"logits with spread {spread:g}")
axes.axvline(config.hc_sinkhorn_iters, color=show.GREY, linestyle=":")
axes.text(config.hc_sinkhorn_iters + 0.3, 0.3, "what V4 does", color=show.GREY)
axes.axhline(config.hc_eps, color=show.GREY, linestyle=":")
axes.text(1, 1.4 * config.hc_eps, "eps", color=show.GREY)
axes.set(title="the worst row", xlabel="iterations", ylabel="|row sum − 1|")
axes.legend(loc="upper right", bbox_to_anchor=(1, 0.6))
plt.show()

# %% [markdown]
# ## Experiment: the gain over 61 layers
# V4-Pro has 61 layers, so 122 mixings. The gain of a stack is how much it can enlarge a signal on its way forwards, or
# a gradient on its way back: the largest sum of magnitudes in a row, or in a column, of the product of all mixing
# matrices. The matrices are those that the bundled model makes of 20 tokens of a text, its eight mixings in turn.
#
# Forwards, the gain is 1 by construction, since the columns come last. Backwards nothing is granted: after 20
# iterations the rows are a little off, and what is off multiplies 122 times. Two null models keep less of the
# constraint: a softmax alone makes rows that sum to 1, and columns that need not; plain hyper-connections have no
# constraint at all, here the identity plus noise of spread 0.15.


# %%
class Listening(Ops):
    """NumPy's backend, keeping the logits of all mixing matrices."""

    def __init__(self):
        self.logits = []

    def mhc_weights(self, streams, fn, base, scale, iterations, eps, norm_eps):
        mixes = streams.reshape(*streams.shape[:2], -1) @ fn.T
        mixes /= np.sqrt((streams**2).mean(axis=(-2, -1)) + norm_eps)[..., None]
        self.logits.append((mixes[..., 8:] * scale[2] + base[8:]).reshape(-1, 4, 4))
        return mhc_split(mixes, base, scale, 4, iterations, eps)


listening = Listening()
dsv4.Model(model.checkpoint, listening, fake_quant=True)(show.passage(256))
tokens = random.integers(0, 256, 20)
logits = np.stack([listening.logits[mixing % 8][tokens] for mixing in range(122)], axis=1)  # [20 stacks, 122, 4, 4]
stacks = {
    "mHC": sinkhorn(logits, config.hc_sinkhorn_iters, config.hc_eps),
    "a softmax alone": np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True),
    "plain": np.eye(4) + 0.15 * random.standard_normal((20, 122, 4, 4)),
}
gains = {}
for name, matrices in stacks.items():
    product, gain = np.eye(4), []
    for mixing in range(122):
        product = matrices[:, mixing].swapaxes(-1, -2) @ product  # comb is used transposed
        gain.append(np.maximum(*(np.abs(product).sum(axis=axis).max(axis=-1) for axis in (-1, -2))))
    gains[name] = np.array(gain)  # [122, 20]

# %%
figure, axes = plt.subplots()
depth = np.arange(1, 123) / 2
for (name, gain), colour in zip(gains.items(), (show.BLUE, show.GREEN, show.ORANGE), strict=True):
    axes.fill_between(depth, gain.min(axis=1), gain.max(axis=1), color=colour, alpha=0.25, linewidth=0)
    axes.semilogy(depth, np.median(gain, axis=1), color=colour, label=name, linewidth=2.5)
axes.set(title="gain of 20 stacks: median and range", xlabel="layers", ylabel="the larger of both ways")
axes.legend()
plt.show()

# %%
show.experiment(
    "after 61 layers no stack enlarges anything more than twofold, forwards or backwards",
    lambda gain: gain[-1].max() < 2,
    gains["mHC"],
    nulls={name: gains[name] for name in ("a softmax alone", "plain")},
    say=lambda gain: f"a gain from {gain[-1].min():.3g} to {gain[-1].max():.3g}",
)

# %% [markdown]
# The price: a doubly stochastic matrix averages. Over many layers such a product forgets which stream is which, unless
# the matrices stay near the identity. The second singular value says how much of the differences between streams is
# left. In the bundled model, with real matrices of a real text, eight mixings leave this much:

# %%
names = [f"layers.{n}.hc_{part}.comb" for n in range(4) for part in ("attn", "ffn")]
product = np.eye(4)
left_over = []
for name in names:
    product = results[name][0].swapaxes(-1, -2) @ product  # [S, 4, 4]
    left_over.append(float(np.linalg.svd(product, compute_uv=False)[:, 1].mean()))
show.table(["mixings so far", *range(1, 9)], [["second singular value", *left_over]])

# %% [markdown]
# ## Exercises
# **1.** Nothing is written (`output` is zero), the streams are only mixed. Give four weights, not all zero, with which
# the weighted sum of the streams is the same before and after, whatever the doubly stochastic matrix.

# %%
streams = random.standard_normal((1, 50, 4, 8))
comb = sinkhorn(random.standard_normal((1, 50, 4, 4)), 100, 0)
mixed = mhc_mix(streams, np.zeros((1, 50, 8)), np.ones((1, 50, 4)), comb)

exercise_1 = show.exercise(
    lambda weights: np.any(weights) and np.allclose(np.array(weights) @ streams, np.array(weights) @ mixed),
    mistake=[1, 0, 0, 0],
    hint="Sum the equation for X′ over i, and use that every row of comb sums to 1.",
)
exercise_1(...)

# %% [markdown]
# **2.** Twenty iterations are not always enough. Give 4 × 4 logits for which some row of the result is still more than
# 2 % off.

# %%
exercise_2 = show.exercise(
    lambda logits: np.abs(sinkhorn(np.array(logits, float), 20, config.hc_eps).sum(axis=-1) - 1).max() > 0.02,
    mistake=np.zeros((4, 4)),
    hint="Sinkhorn is slow where the doubly stochastic matrix nearest to it has entries that must go to zero.",
)
exercise_2(...)

# %% [markdown]
# **3.** A mistake of many ports is to use `comb` without transposing it. Give a mixing matrix, rows and columns summing
# to 1, with which nobody would notice, although it is neither the identity nor all quarters.

# %%
exercise_3 = show.exercise(
    lambda comb: (
        np.allclose(np.sum(comb, axis=0), 1)
        and np.allclose(np.sum(comb, axis=1), 1)
        and np.min(comb) >= 0
        and not np.allclose(comb, np.eye(4))
        and not np.allclose(comb, 0.25)
        and np.allclose(
            mhc_mix(streams[:, :1], np.zeros((1, 1, 8)), np.ones((1, 1, 4)), np.array(comb, float)[None, None]),
            np.array(comb, float) @ streams[:, :1],
        )
    ),
    mistake=np.roll(np.eye(4), 1, axis=0),
    hint="When is a matrix its own transpose?",
)
exercise_3(...)

# %% [markdown]
# ## Solutions
# 1: equal weights. The sum of the streams is what a doubly stochastic matrix keeps. 2: a triangle, of which only the
# diagonal can stay; the rest dies away like one over the number of iterations. 3: any symmetric one, such as a swap of
# two streams.

# %%
exercise_1([1, 1, 1, 1])
exercise_2(np.where(np.tri(4) > 0, 0.0, -30.0))
exercise_3(np.eye(4)[[1, 0, 2, 3]])
