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
# # 13 · Gradients: the reference differentiates as it stands
#
# **Minutes:** 55 · **Read before:** [1](01_tour.ipynb), [2](02_hyper_connections.ipynb) · **You should know:**
# derivatives, the chain rule, Jacobians, singular values.
#
# To train a model means to ask of each of its numbers: if it were a little larger, how would the loss change? One sweep
# **backwards** answers this for millions of numbers at once. Each step of the computation, $y = f(x)$, receives the
# gradient of the loss with respect to its result, $d_y$, and returns the gradient with respect to its input, $d_x$. The
# rule for this is its **vector-Jacobian product**. There is no second model for training: the reference's own code runs
# on arrays that record what was done to them, and each NumPy function that it calls has a rule.
#
# $$d_x = J^\top d_y, \qquad J_{ij} = \frac{\partial y_i}{\partial x_j}, \qquad d_y = \frac{\partial\, \text{loss}}
# {\partial y}$$

# %%
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap

import dsv4
import show
from dsv4 import learn
from dsv4.learn import tape, vjp
from dsv4.learn.tape import DerivedOps, TapeOps, Tensor, rules_elementwise, sweep
from dsv4.ops import Ops, mhc
from dsv4.ops.mhc import sinkhorn

random = np.random.default_rng(0)
source = dsv4.load(backend="numpy", fake_quant="off", dtype=np.float64)  # float64, so that differences are exact enough
config, ids = source.config, show.passage(160)

# %% [markdown]
# ## A tape
# RMSNorm without its weight, step by step: $y = x / \sqrt{\text{mean}\, x^2 + \epsilon}$. The loss is $y \cdot w$ with
# a fixed $w$. Below each box stands its result (→) and, from the sweep, the gradient of the loss with respect to it
# (←). Two arrows leave $x$, so two parts of the gradient come back and are added: a direct one, and one through the
# norm.

# %%
x, w = tape.leaf([2.0, -1.0]), np.array([1.0, 1.0])
squares = np.square(x)
mean = np.mean(squares)
root = np.sqrt(mean + config.rms_norm_eps)
y = x / root
loss = np.sum(y * w)
steps = {"x": x, "x²": squares, "mean": mean, "root": root, "x / root": y, "loss": loss}
backwards = tape.gradients(loss, list(steps.values()))


def numbers(array):
    return ", ".join(f"{number:.3g}" for number in np.atleast_1d(array)).replace("-", "−")


# %% tags=["hide-input"]
places = {"x": (0, 1), "x²": (1, 0), "mean": (2, 0), "root": (3, 0), "x / root": (4, 1), "loss": (5, 1)}
colours = {"x": show.BLUE, "loss": show.RED}
figure, axes = plt.subplots(figsize=(9.5, 2.9))
boxes = {
    name: show.Box(name, f"→ {numbers(value.data)}\n← {numbers(d)}", colours.get(name, show.GREY), *places[name])
    for (name, value), d in zip(steps.items(), backwards, strict=True)
}
show.flow(axes, "forwards and backwards", boxes, ["x → x² → mean → root → x / root → loss", "x → x / root"])
show.picture(
    figure,
    "The steps of RMSNorm as a flow: x leads to x², the mean, the root, the quotient x / root and the "
    "loss, and x also leads directly to the quotient. Below each box stand its result and its gradient.",
)

# %% [markdown]
# The record is kept by an array class, through a protocol of NumPy itself. The reference calls `np.divide` as usual,
# and NumPy passes the call on to the class. The rule of the function computes the result and says how a gradient goes
# back. Here are the protocol, one rule, and the whole sweep.

# %%
show.source(Tensor.__array_ufunc__, rules_elementwise._divide, sweep.pulled_back)

# %% [markdown]
# So `Ops.rms_scale`, the reference's own code, gives the same gradient. A function without a rule is an error that
# names the function, never a gradient of zero.

# %%
[d_x] = tape.gradients(np.sum(TapeOps.rms_scale(x, config.rms_norm_eps) * w), [x])
assert np.allclose(d_x, backwards[0])
print(f"{len(tape.RULES)} functions have a rule.")
try:
    np.cumsum(x)
except TypeError as error:
    print(f"TypeError: {error}")

# %% [markdown]
# ## A whole model
# `TapeOps` is a backend like any other: with it, `model(ids)` runs the reference, line by line. For speed, there are
# also vector-Jacobian products of whole operations, derived by hand. Both ways give the same.

# %%
model = learn.TrainableModel.of(source)
weights = model.weights
loss, gradients = learn.gradients(model, ids)
loss_by_rules, by_rules = learn.gradients(learn.TrainableModel(weights, TapeOps()), ids)
apart = [np.abs(by_rules[name] - d).max() / (np.abs(d).max() or 1) for name, d in gradients.items()]
print(f"{loss:.4f} nats a token; gradients of {sum(d.size for d in gradients.values()):,} numbers in", end=" ")
print(f"{len(gradients)} tensors; by rules alone they differ by {max(apart):.0e} at most.")

# %% [markdown]
# Whether the gradients are right can be tested without any tape: move a tensor a little along a direction $v$, to both
# sides, and see how the loss changes. The slope must agree with the gradient.
#
# $$\frac{\text{loss}(W + hv) - \text{loss}(W - hv)}{2h} \approx \sum d_W \cdot v$$
#
# The step $h$ must be small, because a curve is close to its tangent only nearby. It must not be too small, because
# then the two losses agree in nearly all digits, and their difference is mostly rounding error. In float32 hardly any
# step is good, in float64 many are.

# %%
plain = {
    dtype: dsv4.Model(learn.Trainable.of(weights, dtype), Ops(), fake_quant=False, dtype=dtype)
    for dtype in (np.float64, np.float32)
}


def difference(name, direction, step, dtype=np.float64):
    """The slope of the loss along a direction in the space of a tensor, from two passes without a tape."""
    array = plain[dtype].checkpoint.parameters[name]
    before, losses = array.copy(), []
    for sign in (1, -1):
        array[...] = before + sign * step * direction
        losses.append(show.surprise(plain[dtype](ids), ids).mean())
    array[...] = before
    return (losses[0] - losses[1]) / (2 * step)


def direction_for(name):
    """Half random, half along the gradient, so that the loss does change."""
    gradient, half = gradients[name], random.standard_normal(gradients[name].shape)
    half *= np.sign((half * gradient).sum())  # the halves must not cancel, in a tensor of a single number
    return half / np.linalg.norm(half) + gradient / np.linalg.norm(gradient)


# %%
name = "layers.1.attn.wkv.weight"
direction = direction_for(name)
slope = (gradients[name] * direction).sum()
sizes = 10.0 ** np.arange(0, -11.5, -1)

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3))
for dtype, colour in ((np.float32, show.ORANGE), (np.float64, show.BLUE)):
    errors = [abs(difference(name, direction, size, dtype) / slope - 1) for size in sizes]
    axes.loglog(sizes, errors, "o-", color=colour, label=np.dtype(dtype).name)
axes.set(title=f"how far the difference is from the gradient: {name}", xlabel="step h", ylabel="relative error")
axes.invert_xaxis()
axes.legend()
show.picture(
    figure,
    "The relative error of the finite difference against its step, from 1 down to 10⁻¹¹. In float64 the "
    "error falls to 10⁻¹¹ at a step of a millionth and rises again for smaller steps; in float32 it is "
    "small at a single step, about a thousandth, and rises to more than 1.",
)

# %% [markdown]
# ## Experiment: finite differences
# The test takes every tensor of layers 1 (CSA) and 2 (HCA), with one expert of each layer, and those outside of layers.
# The null models compute the same loss, bit by bit, but each has one careless rule on the way back. In one, the root of
# RMSNorm counts as a constant. In the other, the gradient of Sinkhorn's iteration is replaced by that of its fixed
# point, which is explained below.


# %%
def careless_norm(x, weight, eps):
    """RMSNorm, whose root counts as a constant on the way back."""
    result, pull = vjp.rms_norm(x, weight, eps)
    root = np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps)
    return result, lambda d_result: pull(d_result)._replace(d_x=d_result * weight / root)


def fixed_point(logits, iterations, eps):
    """Sinkhorn, with the pullback that would be right had it converged."""
    comb = sinkhorn(logits, iterations, eps)
    rows, columns = (comb.sum(axis=axis)[..., None] * np.eye(comb.shape[-1]) for axis in (-1, -2))
    system = np.block([[rows, comb], [comb.swapaxes(-1, -2), columns]])  # [..., 2n, 2n]

    def pull(d_comb):
        shares = d_comb * comb
        sums = np.concatenate([shares.sum(axis=-1), shares.sum(axis=-2)], axis=-1)[..., None]  # [..., 2n, 1]
        a, b = np.split(np.linalg.pinv(system, rcond=1e-9, hermitian=True) @ sums, 2, axis=-2)
        return comb * (d_comb - a - b.swapaxes(-1, -2))

    return comb, pull


careless = DerivedOps(vjp.VJPS | {"rms_norm": careless_norm})
_, without_root = learn.gradients(learn.TrainableModel(weights, careless), ids)
with mock.patch.object(vjp.mhc, "sinkhorn", fixed_point):
    _, at_fixed_point = learn.gradients(learn.TrainableModel(weights), ids)

# %%
left_out = ("layers.0.", "layers.3."), tuple(f".experts.{number}." for number in range(1, config.n_routed_experts))
looked_at = [
    name
    for name, d in gradients.items()
    if d.any() and not name.startswith(left_out[0]) and not any(part in name for part in left_out[1])
]
directions = {name: direction_for(name) for name in looked_at}
found = {name: difference(name, directions[name], 1e-5) for name in looked_at}
candidates = {"sweep": gradients, "RMSNorm's root a constant": without_root, "Sinkhorn's fixed point": at_fixed_point}
errors = {
    name: np.array([abs((d[one] * directions[one]).sum() / found[one] - 1) for one in looked_at])
    for name, d in candidates.items()
}

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3))
for (name, error), colour, marker in zip(errors.items(), (show.BLUE, show.RED, show.ORANGE), "osv", strict=True):
    axes.semilogy(error + 1e-12, marker, color=colour, markersize=4, label=name)
axes.set(title="gradient against finite difference", xlabel="tensor, in the model's order", ylabel="relative error")
axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.22))
show.picture(
    figure,
    "The relative error of each tensor's gradient against finite differences, on a logarithmic scale. The "
    "sweep's errors all lie below one part in a hundred thousand. With the careless norm or with "
    "Sinkhorn's fixed point, many tensors lie far above.",
)

# %%
show.experiment(
    f"for each of {len(looked_at)} tensors gradient and finite difference agree to one part in 100,000",
    lambda error: error.max() < 1e-5,
    errors["sweep"],
    nulls={name: error for name, error in errors.items() if name != "sweep"},
    say=lambda error: f"{(error < 1e-5).sum()} agree, the largest error is {error.max():.1e}",
)

# %% [markdown]
# ## Experiment: which part learns from which loss
# The indexer only chooses entries. A choice has no derivative, so the loss of the next token gives the indexer no
# gradient, and without a loss of its own it would never learn. Its own loss (V3.2 §2.1.1) compares its scores with the
# weights of attention. The input of this loss is detached, so that nothing else learns from it. The null model uses the
# indexer's loss in place of the loss of the next token.

# %%
_, by_indexer = learn.gradients(model, ids, losses={"indexer": 1.0})
kinds = {
    "hyper-connections": ".hc_",
    "attention": ".attn.w",
    "compressor": ".attn.compressor.",
    "indexer": ".attn.indexer.",
    "router": ".ffn.gate.",
    "experts": ".ffn.experts.",
}


def size(found, layer, part):
    """The norm over all gradients of a part of a layer; a dash where the layer has no such part."""
    own = [d for name, d in found.items() if name.startswith(f"layers.{layer}.") and part in name]
    return np.sqrt(sum((d**2).sum() for d in own)) if own else "–"


layers = range(config.num_hidden_layers)
show.table(
    ["norm of the gradient", *kinds],
    [
        [f"loss of the {loss}, layer {layer}", *(size(found, layer, part) for part in kinds.values())]
        for loss, found in (("next token", gradients), ("indexer", by_indexer))
        for layer in layers
    ],
)

# %%
in_layers = [name for name in gradients if name.startswith("layers.")]
indexers = {name for name in in_layers if ".indexer." in name}
show.experiment(
    "in the layers, exactly the tensors of the indexers get no gradient",
    lambda silent: silent == indexers,
    {name for name in in_layers if not gradients[name].any()},
    nulls={"the indexer's own loss": {name for name in in_layers if not by_indexer[name].any()}},
    say=lambda silent: (
        f"{len(silent & indexers)} of the {len(indexers)} tensors of the indexers get exactly zero, "
        f"and {len(silent - indexers)} of the other {len(in_layers) - len(indexers)}"
    ),
)

# %% [markdown]
# ## Sinkhorn backwards
# The mixing matrices of the hyper-connections ([notebook 2](02_hyper_connections.ipynb)) are normalised twenty times,
# rows and columns in turn. One normalisation, $y = x / s$ with $s = \sum x + \epsilon$, has $d_x = (d_y - \sum d_y\, y)
# / s$. It subtracts from each number a weighted mean of its row, or column. The backward sweep does this for each of
# the twenty rounds.

# %%
show.source(vjp.mhc.sinkhorn)

# %% [markdown]
# Below, the same rounds are written out on the tape, which gives the gradient with respect to each matrix on the way.
# The upper row goes forwards: one logit, in the frame, changes a little, and the picture shows the change of each
# number of the matrix, per unit of the logit. The softmax changes one row only. The first round of columns spreads the
# change to all numbers, and from then on the changes in each row and in each column must add up to zero. The lower row
# goes backwards and is read from right to left: the gradient of one number of the result, in the frame, with respect to
# each number after that round, and finally with respect to the logits. Numbers that round to zero are left out.


# %%
def rounds(logits, iterations):
    """The matrix after the softmax and after each round: columns, then rows and columns; the last is Sinkhorn's."""
    comb = np.exp(logits)
    comb = comb / comb.sum(axis=-1, keepdims=True) + config.hc_eps
    after = [comb, comb / (comb.sum(axis=-2, keepdims=True) + config.hc_eps)]
    for _ in range(iterations - 1):
        comb = after[-1] / (after[-1].sum(axis=-1, keepdims=True) + config.hc_eps)
        after.append(comb / (comb.sum(axis=-2, keepdims=True) + config.hc_eps))
    return after


logits = tape.leaf(2 * np.random.default_rng(4).standard_normal((4, 4)))
after = rounds(logits, config.hc_sinkhorn_iters)
assert np.allclose(after[-1].data, sinkhorn(logits.data, config.hc_sinkhorn_iters, config.hc_eps))
entries = list(np.ndindex(4, 4))
jacobians = [np.array([tape.gradients(comb[at], [logits])[0].ravel() for at in entries]) for comb in after]  # [16, 16]

# %%
nudged, asked = (1, 2), (1, 2)
stops = [0, 1, 5, 20]
both_ways = LinearSegmentedColormap.from_list("both ways", [show.BLUE, "white", show.ORANGE])
forwards = [jacobians[stop][:, entries.index(nudged)].reshape(4, 4) for stop in stops]
backwards = tape.gradients(after[-1][asked], [logits, *(after[stop] for stop in stops[:-1])])

# %% tags=["hide-input"]
figure, panels = plt.subplots(2, 4, figsize=(9, 4.6))
titles = ["logits", "softmax", "1 round", "5 rounds", "20 rounds"]
for line, pictures in enumerate((forwards, backwards)):
    for axes, picture, title in zip(panels[line], pictures, titles[1:] if line == 0 else titles[:-1], strict=True):
        limit = np.abs(picture).max()
        axes.imshow(picture, cmap=both_ways, vmin=-limit, vmax=limit)
        for (row, column), value in np.ndenumerate(picture):
            words = f"{value:.2f}".replace("-", "−") if abs(value) >= 0.005 else ""
            axes.text(column, row, words, ha="center", va="center", fontsize=10)
        axes.set(title=title, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if (line, title) in ((0, "softmax"), (0, "20 rounds"), (1, "logits")):
            axes.add_patch(plt.Rectangle((1.5, 0.5), 1, 1, fill=False, edgecolor=show.DARK, linewidth=1.5))
panels[0, 0].set_ylabel("forwards: the change\nof each number after")
panels[1, 0].set_ylabel("backwards: the gradient\nof each number of")
show.picture(
    figure,
    "Two rows of four 4 × 4 matrices in blue and orange. Upper row: the changes after the softmax, 1, 5 "
    "and 20 rounds when one logit changes; first one row, then all numbers. Lower row: the gradients of "
    "one number of the result by logits, softmax, 1 and 5 rounds. Both end in the same pattern.",
)

# %% [markdown]
# Both rows end in the same picture: near the fixed point, the Jacobian is symmetric. It also has **dead directions**.
# Adding a constant to a row of logits changes nothing, because the softmax removes it at once: four singular values of
# the Jacobian are zero from the start. Adding a constant to a column changes nothing in the end, but only after many
# rounds: three more singular values shrink as fast as Sinkhorn converges. They are three and not four, because a
# constant in all rows is also a constant in all columns.
#
# There is a well-known shortcut. At the fixed point, the matrix is $P = \text{diag}(u)\, e^L\, \text{diag}(v)$. Its
# rows sum to $r$ and its columns to $c$, which are all 1, and one linear system gives the gradient, without the rounds:
#
# $$d_L = P \circ (d_P - a 1^\top - 1 b^\top), \qquad
# \begin{pmatrix} \text{diag}(r) & P \\ P^\top & \text{diag}(c) \end{pmatrix} \begin{pmatrix} a \\ b \end{pmatrix} =
# \begin{pmatrix} (d_P \circ P)\, 1 \\ (d_P \circ P)^\top 1 \end{pmatrix}$$
#
# This is `fixed_point` above, with the actual sums for $r$ and $c$ (ones would make its error larger). It treats all
# seven directions as dead, but after twenty rounds some of them are not, and it ignores `eps`. Its error depends on the
# logits: the more extreme they are, the more slowly Sinkhorn converges.

# %%
with mock.patch.object(mhc, "sinkhorn", wraps=sinkhorn) as listening:
    plain[np.float64](ids)
real = np.concatenate([call.args[0][0] for call in listening.call_args_list])  # [8 mixings · S, 4, 4]
kinds_of_logits = {f"spread {spread:g}": spread * random.standard_normal((len(real), 4, 4)) for spread in (0.5, 2, 5)}
kinds_of_logits |= {"of the bundled model": real}
d_comb = random.standard_normal(real.shape)


def apart(found, expected):
    """How far gradients are from the expected ones, relative to these, for each matrix."""
    return np.linalg.norm(found - expected, axis=(-2, -1)) / np.linalg.norm(expected, axis=(-2, -1))


counts = [1, 2, 3, 5, 7, 10, 14, 20, 28, 40]

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
values = np.array([np.linalg.svd(jacobian, compute_uv=False) for jacobian in jacobians[1:]])  # [20 rounds, 16]
left.fill_between(np.arange(1, 21), values[:, 0], values[:, 8], color=show.BLUE, linewidth=0)
left.semilogy(np.arange(1, 21), np.maximum(values[:, 9:12], 1e-17), color=show.ORANGE)
left.axhline(1e-17, color=show.GREY)
left.text(6, 1.5, "nine that stay", color=show.BLUE)
left.text(2, 1e-14, "columns:\nshrinking", color=show.ORANGE)
left.text(2, 1e-16, "rows: dead", color=show.GREY)
left.set(
    title="singular values of the Jacobian",
    xlabel="rounds",
    ylabel="singular value",
    xticks=[1, 5, 10, 15, 20],
    ylim=(1e-18, 100),
)
for (name, many), colour in zip(kinds_of_logits.items(), (show.GREEN, show.BLUE, show.ORANGE, show.DARK), strict=True):
    pulls = [
        [way(many, count, config.hc_eps)[1](d_comb) for way in (fixed_point, vjp.mhc.sinkhorn)] for count in counts
    ]
    right.loglog(counts, [np.median(apart(*pair)) for pair in pulls], "o-", color=colour, markersize=4, label=name)
right.axvline(config.hc_sinkhorn_iters, color=show.GREY, linestyle=":")
right.set(title="error of the fixed point's gradient", xlabel="rounds", ylabel="relative error, median")
right.set_xticks(counts, counts)
right.minorticks_off()
right.legend(title="logits", loc="center left", bbox_to_anchor=(1, 0.5), fontsize=10)
show.picture(
    figure,
    "Left: singular values of the Jacobian over 20 rounds. Nine stay, three shrink steadily, and four are "
    "zero. Right: the error of the fixed point's gradient against rounds, for logits of three spreads and "
    "of the bundled model. It shrinks with rounds, and slowly where the logits are extreme.",
)

# %% [markdown]
# ## Experiment: the sweep needs all rounds
# The test takes the mixing matrices that the bundled model computes for a real text, all eight of each token, and a
# random gradient for each. The result of the backward rule is compared with finite differences of the reference's
# iteration, one logit at a time. The null models are two shortcuts: the fixed point, and a sweep through the last five
# rounds only, in which the sums of earlier rounds count as constants.


# %%
def slopes(logits, step=1e-5):
    """The gradient of each logit from differences of the reference's own iteration, without a tape."""
    found = np.empty_like(logits)
    for row, column in np.ndindex(4, 4):
        nudge = np.zeros((4, 4))
        nudge[row, column] = step
        up, down = (sinkhorn(logits + sign * nudge, config.hc_sinkhorn_iters, config.hc_eps) for sign in (1, -1))
        found[:, row, column] = ((up - down) * d_comb).sum(axis=(1, 2)) / (2 * step)
    return found


expected = slopes(real)
taped = rounds(tape.leaf(real), config.hc_sinkhorn_iters)
[d_late] = tape.gradients(np.sum(taped[-1] * d_comb), [taped[-6]])
show.experiment(
    "for every matrix the gradient is that of finite differences, to one part in 10,000",
    lambda error: error.max() < 1e-4,
    apart(vjp.mhc.sinkhorn(real, config.hc_sinkhorn_iters, config.hc_eps)[1](d_comb), expected),
    nulls={
        "the fixed point": apart(fixed_point(real, config.hc_sinkhorn_iters, config.hc_eps)[1](d_comb), expected),
        "the last five rounds only": apart(taped[-6].data * d_late, expected),
    },
    say=lambda error: f"the median error is {np.median(error):.1e}, the largest {error.max():.1e}",
)

# %% [markdown]
# ## Exercises
# **1.** `np.tanh` has no rule. Give one, as a function of `g` and `y`: from the gradient `g` of the result `y` to that
# of the operand.

# %% tags=["hide-input"]
points = np.linspace(-3, 3, 13)


def is_tanh_rule(pull):
    measured = (np.tanh(points + 1e-6) - np.tanh(points - 1e-6)) / 2e-6
    return np.allclose(pull(2.0, np.tanh(points)), 2 * measured, atol=1e-8)


exercise_1 = show.exercise(is_tanh_rule, mistake=lambda g, y: g * (1 - y), hint="tanh′ = 1 − tanh².")

# %%
exercise_1(...)

# %% [markdown]
# **2.** Give a change of the 4 × 4 logits, not the same everywhere, that leaves the mixing matrix after twenty rounds
# as it is, to ten digits, however extreme the logits are.

# %% tags=["hide-input"]
extreme = 5 * random.standard_normal((1000, 4, 4))


def changes_nothing(nudge):
    """Whether the nudge is no constant, and no matrix changes."""
    before, after = (sinkhorn(extreme + shift, 20, config.hc_eps) for shift in (0, np.array(nudge, float)))
    return np.ptp(nudge) > 0 and np.abs(after - before).max() < 1e-10


exercise_2 = show.exercise(
    changes_nothing,
    mistake=np.eye(4)[[0, 0, 0, 0]],
    hint="A constant in a column disappears only in the end. What does the very first step remove?",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** If Sinkhorn had converged, in how many independent ways could the 16 logits change the matrix?

# %% tags=["hide-input"]
exercise_3 = show.exercise(
    lambda answer: answer == np.linalg.matrix_rank(jacobians[-1], tol=1e-4),
    mistake=12,
    hint="Constants in four rows and in four columns change nothing; one of these eight is counted twice.",
)

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write the backward rule of `rms_scale` yourself, whose record the first picture shows. It is compared with
# finite differences in float64.

# %% tags=["hide-input"]
inputs, eps = random.standard_normal((8, 6)), 0.1
d_results = random.standard_normal((8, 6))


def against_differences(pull):
    """How far a backward rule of rms_scale is from finite differences, relative to their size."""
    slopes, step = np.empty_like(inputs), 1e-5
    for row, column in np.ndindex(inputs.shape):
        moved = np.zeros_like(inputs)
        moved[row, column] = step
        up, down = (Ops.rms_scale(inputs + sign * moved, eps) for sign in (1, -1))
        slopes[row, column] = ((up - down) * d_results).sum() / (2 * step)
    error = np.abs(pull(inputs, eps, d_results) - slopes).max() / np.abs(slopes).max()
    return error < 1e-7, f"the largest error is {error:.1e} of the largest slope"


def constant_root(x, eps, d_y):
    return d_y / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps)


exercise_4 = show.write(
    against_differences,
    wrong={"the root as a constant": constant_root},
    hint="With r the root, y = x / r. The change of r is the mean of x · dx, divided by r.",
)


# %%
def my_pull(x, eps, d_y):
    """From the gradient d_y [N, d] of y = x / sqrt(mean x² + eps) to the gradient of x [N, d]."""


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: $g (1 - y^2)$. 2: a constant in one row. 3: nine, which is $(n - 1)^2$. 4: $d_x = (d_y - y \, \text{mean}(d_y\, y))
# / r$.
#
# </details>


# %% tags=["hide-input"]
def solution_4(x, eps, d_y):
    root = np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps)
    y = x / root
    return (d_y - y * np.mean(d_y * y, axis=-1, keepdims=True)) / root


exercise_1(lambda g, y: g * (1 - y**2))
exercise_2(np.eye(4)[[0, 0, 0, 0]].T)
exercise_3(9)
exercise_4(solution_4)
