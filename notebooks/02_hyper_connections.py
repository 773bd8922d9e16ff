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
# **Minutes:** 30 · **Read before:** [1](01_tour.ipynb) · **You should know:** residual connections, matrix products.
#
# A residual connection adds a layer's output to its input. A **hyper-connection** keeps $n = 4$ residual streams
# instead of one. For each token, the model chooses from which streams a layer reads, into which it writes, and how the
# streams are mixed in between. Without a constraint, the mixing matrices of many layers multiply, and the signal
# explodes or vanishes. The **manifold constraint** prevents this: each mixing matrix is brought close to a doubly
# stochastic one, whose rows and columns all sum to 1. A product of doubly stochastic matrices is doubly stochastic
# again, however many there are.
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
# From all streams of a token together come 24 numbers: 4 for `pre`, 4 for `post`, 16 for `comb`.

# %%
show.source(mhc_split, mhc_mix)

# %% [markdown]
# ## Four streams of a real text
# All four streams start as the same embedding. The left picture shows the length of each stream after each block of
# the bundled model, the right one how similar they are: the mean cosine between two different streams.

# %%
states = [model.first_streams(show.passage(256))] + [results[f"layers.{n}.out"] for n in range(4)]
lengths = np.array([np.linalg.norm(state, axis=-1).mean(axis=(0, 1)) for state in states])  # [5, n]
directions = [state / np.linalg.norm(state, axis=-1, keepdims=True) for state in states]
cosines = np.array([(d @ d.swapaxes(-1, -2)).mean(axis=(0, 1)) for d in directions])  # [5, n, n]
likeness = (cosines.sum(axis=(1, 2)) - 4) / 12  # without the four streams' likeness to themselves

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2)
left.plot(lengths, marker="o", label=[f"stream {i}" for i in range(4)])
left.set(title="length of each stream", xlabel="after block", ylabel="mean norm")
left.legend()
right.plot(likeness, marker="o", color=show.DARK)
right.set(title="similarity of the streams", xlabel="after block", ylabel="mean cosine", ylim=(0, 1.05))
for axes in (left, right):
    axes.set_xticks(range(5), ["start", "0", "1", "2", "3"])
show.picture(
    figure,
    "Two line plots over the blocks, from the start to block 3. Left: the mean norm of each of the four "
    "streams; all start equal, then they grow and differ. Right: the mean cosine between different "
    "streams, which falls from 1 to about 0.77 in the first block and stays near it.",
)

# %% [markdown]
# ## Sinkhorn converging
# Sinkhorn's iteration divides each row by its sum, then each column, and so on in turn. Each step disturbs what the one
# before has set right, but less each time.

# %%
show.source(sinkhorn)

# %%
random = np.random.default_rng(0)
logits = 2 * random.standard_normal((4, 4))

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 4, figsize=(9, 2.5))
for axes, iterations in zip(panels, (1, 2, 5, 20), strict=True):
    comb = sinkhorn(logits, iterations, config.hc_eps)
    axes.imshow(comb, vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(comb):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=10, color="w" if value > 0.5 else "k")
    axes.set_xticks([])
    axes.set_yticks(range(4), [f"{total:.2f}" for total in comb.sum(axis=1)], fontsize=10)
    axes.set_title(f"{iterations} iteration{'s' * (iterations > 1)}")
    axes.spines[:].set_visible(False)
figure.supylabel("sum of the row")
show.picture(
    figure,
    "Four 4 × 4 matrices with their values, after 1, 2, 5 and 20 Sinkhorn iterations. Beside each row "
    "stands its sum, which comes closer to 1.00 from panel to panel.",
)

# %% [markdown]
# The columns sum to 1 after every iteration, because they are divided last. How far the rows are from 1 depends on how
# extreme the logits are. The picture shows the worst row of 1000 random matrices, for three spreads of the logits.

# %%
counts = np.arange(1, 31)

# %% tags=["hide-input"]
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
show.picture(
    figure,
    "The error of the worst row sum against the number of Sinkhorn iterations, on a logarithmic scale, "
    "for logits of spread 0.5, 2 and 5. With spread 0.5 the error falls to eps within a dozen iterations; "
    "with spread 2 and 5 it falls slowly and is still above 0.02 at V4's 20 iterations.",
)

# %% [markdown]
# ## Experiment: the gain over 61 layers
# V4-Pro has 61 layers, so it mixes its streams 122 times. The gain of a stack is how much it can enlarge a signal on
# the way forwards, or a gradient on the way back. It is the largest sum of magnitudes in a row, or in a column, of the
# product of all mixing matrices. The matrices here are those that the bundled model computes for 20 tokens of a text;
# its eight mixings are repeated in turn.
#
# Forwards, the gain is 1 by construction, because the columns are divided last. Backwards there is no such guarantee:
# after 20 iterations the rows are slightly off, and this error multiplies 122 times. Two null models keep less of the
# constraint. With a softmax alone, rows sum to 1 and columns need not. Plain hyper-connections have no constraint at
# all; here they are the identity plus noise of spread 0.15.


# %%
class Listening(Ops):
    """NumPy's backend, which also keeps the logits of all mixing matrices."""

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

# %% tags=["hide-input"]
figure, axes = plt.subplots()
depth = np.arange(1, 123) / 2
for (name, gain), colour in zip(gains.items(), (show.BLUE, show.GREEN, show.ORANGE), strict=True):
    axes.fill_between(depth, gain.min(axis=1), gain.max(axis=1), color=colour, alpha=0.25, linewidth=0)
    axes.semilogy(depth, np.median(gain, axis=1), color=colour, label=name, linewidth=2.5)
axes.set(title="gain of 20 stacks: median and range", xlabel="layers", ylabel="gain: the larger of both directions")
axes.legend()
show.picture(
    figure,
    "The gain of 20 stacks against depth in layers, on a logarithmic scale: the median as a line and the "
    "range as a band. The gain of mHC stays near 1, that of a softmax alone near 3, and that of plain "
    "hyper-connections grows to about 50 in the median and to thousands at most.",
)

# %%
show.experiment(
    "after 61 layers no stack enlarges anything more than twofold, forwards or backwards",
    lambda gain: gain[-1].max() < 2,
    gains["mHC"],
    nulls={name: gains[name] for name in ("a softmax alone", "plain")},
    say=lambda gain: f"a gain from {gain[-1].min():.3g} to {gain[-1].max():.3g}",
)

# %% [markdown]
# This has a price. A doubly stochastic matrix averages, so over many layers the streams become alike, unless the
# matrices stay near the identity. The second singular value of the product tells how much of the differences between
# the streams is left. In the bundled model, on a real text, it is this after one to eight mixings:

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
# **1.** Suppose that nothing is written (`output` is zero) and the streams are only mixed. Give four weights, not all
# zero, for which the weighted sum of the streams stays the same, whatever the doubly stochastic matrix is.

# %% tags=["hide-input"]
streams = random.standard_normal((1, 50, 4, 8))
comb = sinkhorn(random.standard_normal((1, 50, 4, 4)), 100, 0)
mixed = mhc_mix(streams, np.zeros((1, 50, 8)), np.ones((1, 50, 4)), comb)

exercise_1 = show.exercise(
    lambda weights: np.any(weights) and np.allclose(np.array(weights) @ streams, np.array(weights) @ mixed),
    mistake=[1, 0, 0, 0],
    hint="Sum the equation for X′ over i, and use that every row of comb sums to 1.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** Twenty iterations are not always enough. Give 4 × 4 logits for which the sum of some row of the result is still
# more than 2 % away from 1.

# %% tags=["hide-input"]
exercise_2 = show.exercise(
    lambda logits: np.abs(sinkhorn(np.array(logits, float), 20, config.hc_eps).sum(axis=-1) - 1).max() > 0.02,
    mistake=np.zeros((4, 4)),
    hint="Sinkhorn is slow where the doubly stochastic matrix nearest to it has entries that must go to zero.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** Many ports forget to transpose `comb`. Give a mixing matrix for which this mistake changes nothing. Its rows
# and columns must sum to 1, and it must be neither the identity nor a matrix of quarters.

# %% tags=["hide-input"]
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

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write the whole of `mhc_weights`: from the streams of a token to its `pre`, `post` and `comb`. `dsv4.check`
# runs the project's own tests of the operation on your function.


# %% tags=["hide-input"]
def rows_last(*arguments):
    pre, post, comb = Ops.mhc_weights(*arguments)
    return pre, post, comb / comb.sum(axis=-1, keepdims=True)


exercise_4 = show.write(
    show.properties("mhc_weights"),
    wrong={"rows divided last": rows_last},
    hint="In the order of the code above: make one row of n·d channels of the streams, divide its product with fn by "
    "the root of its mean square plus norm_eps, scale and shift each of the three parts, then sigmoid or Sinkhorn.",
)


# %%
def my_mhc_weights(streams, fn, base, scale, iterations, eps, norm_eps):
    """The mixing weights of each token, as (pre, post, comb).

    streams [B, S, n, d]; fn [(2 + n) n, n d]; base [(2 + n) n]; scale [3], for pre, post and comb.
    Returns pre [B, S, n], post [B, S, n] and comb [B, S, n, n].
    """


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: equal weights, since a doubly stochastic matrix keeps the sum of the streams. 2: a triangle. Only its diagonal can
# stay, and the other entries shrink like one over the number of iterations. 3: any symmetric matrix, such as a swap of
# two streams. 4: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_4(streams, fn, base, scale, iterations, eps, norm_eps):
    n, d = streams.shape[2:]
    flat = streams.reshape(*streams.shape[:2], n * d)
    mixes = flat @ fn.T / np.sqrt(np.mean(flat**2, axis=-1, keepdims=True) + norm_eps)
    pre = 1 / (1 + np.exp(-mixes[..., :n] * scale[0] - base[:n])) + eps
    post = 2 / (1 + np.exp(-mixes[..., n : 2 * n] * scale[1] - base[n : 2 * n]))
    logits = (mixes[..., 2 * n :] * scale[2] + base[2 * n :]).reshape(*mixes.shape[:2], n, n)
    comb = np.exp(logits - logits.max(axis=-1, keepdims=True))
    comb = comb / comb.sum(axis=-1, keepdims=True) + eps
    comb = comb / (comb.sum(axis=-2, keepdims=True) + eps)
    for _ in range(iterations - 1):
        comb = comb / (comb.sum(axis=-1, keepdims=True) + eps)
        comb = comb / (comb.sum(axis=-2, keepdims=True) + eps)
    return pre, post, comb


exercise_1([1, 1, 1, 1])
exercise_2(np.where(np.tri(4) > 0, 0.0, -30.0))
exercise_3(np.eye(4)[[1, 0, 2, 3]])
exercise_4(solution_4)
