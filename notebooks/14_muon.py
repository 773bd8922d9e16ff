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
# # 14 · Muon: an update with singular values of 1
#
# **Minutes:** 50 · **Read before:** [13](13_gradients.ipynb) · **You should know:** singular values, momentum, AdamW.
#
# The gradient of a matrix is uneven: a few directions have nearly all of its size, and a step along it changes little
# else. AdamW evens out the **numbers**: it divides each by its usual size. **Muon** evens out the **directions**: it
# writes the momentum as $U \Sigma V^\top$ and steps along $U V^\top$, in which every singular value is 1. A singular
# value decomposition would be slow. The **Newton–Schulz iteration**, ten steps of a polynomial in the matrix, does the
# same with matrix products alone.
#
# $$M \leftarrow \mu M + G, \qquad O = \text{NS}(\mu M + G) \cdot 0.18 \sqrt{\max(n, m)}, \qquad
# W \leftarrow W (1 - \eta \lambda) - \eta \, O$$
#
# $$X_0 = \frac{M}{\lVert M \rVert_F}, \qquad X \leftarrow a X + b \, (X X^\top) X + c \, (X X^\top)^2 X$$

# %%
from collections import Counter
from dataclasses import replace
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4 import learn
from dsv4.learn import adamw, muon
from dsv4.learn.adamw import adamw_step
from dsv4.learn.clip import clip_gradients
from dsv4.learn.muon import FAST, FAST_STEPS, SETTLING, SETTLING_STEPS, UPDATE_RMS, muon_step, newton_schulz
from dsv4.learn.optimiser import has_gradient, logical_matrices
from dsv4.parameters import parameters

model = learn.TrainableModel.of(dsv4.load(backend="numpy", fake_quant="off"))
config, table = model.config, parameters(model.config)
loss, gradients = learn.gradients(model, np.concatenate([show.passage(256, start) for start in range(0, 2048, 256)]))

# %% [markdown]
# ## The project's code

# %%
show.source(muon_step, newton_schulz)

# %% [markdown]
# ## Singular values through ten steps
# A polynomial in $X X^\top$ times $X$ does not change the singular vectors. It changes each singular value $\sigma$ by
# itself, to $a \sigma + b \sigma^3 + c \sigma^5$. Eight **fast** steps multiply small singular values by about 3.4
# each, and keep large ones between 0.7 and 1.2. Two **settling** steps bring all of them to 1. The right picture shows
# the singular values of a real gradient on this way. Those smaller than one part in 20,000 of the whole do not reach 1
# in eight steps.

# %%
polynomials = [FAST] * FAST_STEPS + [SETTLING] * SETTLING_STEPS
name = "layers.1.attn.wq_b.weight"
values = np.linalg.svd(gradients[name].astype(np.float64), compute_uv=False)
through = [values / np.sqrt(np.sum(values**2))]
for a, b, c in polynomials:
    sigma = through[-1]
    through.append(a * sigma + b * sigma**3 + c * sigma**5)
through = np.array(through)  # [11, singular values]
after = np.linalg.svd(newton_schulz(gradients[name].astype(np.float64)), compute_uv=False)
assert np.allclose(np.sort(after), np.sort(through[-1]), atol=1e-6)

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4), width_ratios=(1, 1.5))
sigma = np.linspace(0, 1.25, 200)
for (a, b, c), words, colour in ((FAST, "fast, 8 times", show.ORANGE), (SETTLING, "settling, 2 times", show.BLUE)):
    left.plot(sigma, a * sigma + b * sigma**3 + c * sigma**5, color=colour, label=words)
left.plot(sigma, sigma, ":", color=show.GREY, label="unchanged")
left.set(title="what a step makes of a singular value", xlabel="before", ylabel="after")
left.legend(loc="lower right")
right.semilogy(through[:, ::9], color=show.ORANGE, linewidth=1)
right.semilogy(through[:, -1], color=show.RED, linewidth=1)
right.axvspan(8, 10, color=show.LIGHT, zorder=0)
right.text(9, 4e-3, "settling", ha="center")
right.axhline(FAST[0] ** -FAST_STEPS, color=show.DARK, linestyle=":", linewidth=1)
right.text(10, 1.4 * FAST[0] ** -FAST_STEPS, "1 / 3.4⁸", ha="right")
right.set(
    title=f"every ninth of {values.size}, and the smallest",
    xlabel="steps",
    ylabel="singular value",
    xticks=range(11),
)
show.picture(
    figure,
    "Left: a singular value after a step against its value before. The fast polynomial rises steeply from "
    "zero and then stays between 0.7 and 1.2; the settling one is flat near 1. Right: singular values of "
    "a real gradient over ten steps; they rise in parallel on the logarithmic scale until they meet at 1, "
    "all but the smallest.",
)

# %% [markdown]
# The next picture compares Muon's update with the gradient and with AdamW's. The first step of AdamW is the sign of the
# gradient: every number has the size 1, but the directions are still uneven.

# %%
gradient = gradients[name]
zeros = np.zeros_like(gradient)
updates = {
    "the gradient": gradient,
    "AdamW's first step": adamw_step(zeros, gradient, zeros, zeros, 1, 1.0).weight,
    "Muon's first step": muon_step(zeros, gradient, zeros, 1.0).weight,
}

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 2.9))
for (words, update), colour in zip(updates.items(), (show.GREY, show.BLUE, show.ORANGE), strict=True):
    values = np.linalg.svd(update.astype(np.float64), compute_uv=False)
    axes.semilogy(np.arange(1, len(values) + 1), values / values[0], color=colour, label=words)
axes.set(title=f"singular values: {name}", xlabel="number of the singular value", ylim=(1e-6, 2))
axes.set_ylabel("size (the largest is 1)")
axes.legend(loc="lower left")
show.picture(
    figure,
    "Singular values, relative to the largest, of the gradient, of AdamW's first step and of Muon's first "
    "step, on a logarithmic scale. The gradient's fall over many orders of magnitude, AdamW's fall, too, "
    "and Muon's are all nearly equal.",
)

# %% [markdown]
# ## Which optimiser has which parameters
# Muon updates matrices. AdamW updates the embedding, the head, the norms and the few numbers of the hyper-connections.
# What counts is what **logically** is one matrix: each expert by itself, each output group of `wo_a`, each of the three
# projections of `hc_*_fn`. The bias of the router and the table of the hash layers have no gradient and no optimiser.

# %%
show.source(logical_matrices)


# %%
def owner(parameter, config):
    """Which optimiser updates a parameter."""
    if not has_gradient(parameter):
        return "none"
    return "Muon" if logical_matrices(parameter, config) else "AdamW"


def kind(name):
    """A parameter's name without the layer, and without an expert's number."""
    return ".".join(part for part in name.removeprefix("layers.").removeprefix("mtp.").split(".") if not part.isdigit())


groups = {"Muon": {}, "AdamW": {}, "none": {}}
for name, parameter in table.items():
    matrices = len(logical_matrices(parameter, config))
    groups[owner(parameter, config)][kind(name)] = f" ({matrices} matrices)" if matrices > 1 else ""
show.table(
    ["optimiser", "parameters"],
    [[whose, ", ".join(f"`{name}`{words}" for name, words in names.items())] for whose, names in groups.items()],
)

# %%
shares = {}
flash, pro = (dsv4.read_config(show.ROOT / f"tests/data/configs/deepseek-v4-{name}.json") for name in ("flash", "pro"))
for model_name, one in {"the bundled model": config, "V4-Flash": flash, "V4-Pro": pro}.items():
    numbers = Counter()
    for parameter in parameters(one).values():
        numbers[owner(parameter, one)] += int(np.prod(parameter.shape))
    shares[model_name] = numbers
show.table(
    ["share of all numbers", *shares],
    [[whose, *(f"{n[whose]:,}: {n[whose] / n.total():.2%}" for n in shares.values())] for whose in groups],
)

# %% [markdown]
# ## Experiment: the size of an update
# An $n \times m$ matrix with all singular values 1 has $\min(n, m)$ of them, so the root mean square of its numbers is
# $\sqrt{\min(n, m) / nm} = 1 / \sqrt{\max(n, m)}$. The factor $0.18 \sqrt{\max(n, m)}$ makes it 0.18 for every shape,
# which is the usual size of an update of AdamW. So both can use the same learning rate $\eta$. The picture shows all
# matrices of the bundled model. Each null model lacks a part: the factor for the shape, or the iteration itself. Each
# is scaled so that its median is right.

# %%
places = [(name, rows) for name in gradients for rows in logical_matrices(table[name], config)]
matrices = [gradients[name][rows] for name, rows in places]
learns = [matrix.any() for matrix in matrices]  # those of the indexers get no gradient from the loss of the next token


def rms(matrix):
    return float(np.sqrt(np.mean(np.square(matrix, dtype=np.float64))))


def size_of(update):
    """The root mean square of an update of each matrix per unit of the learning rate, from a function of gradients."""
    return np.array([rms(update(matrix)) for matrix, one_learns in zip(matrices, learns, strict=True) if one_learns])


def first_step(matrix):
    zeros = np.zeros_like(matrix)
    return muon_step(zeros, matrix, zeros, 1.0).weight


sizes = {
    "Muon": size_of(first_step),
    "without the factor": size_of(newton_schulz),
    "no iteration": size_of(lambda g: g),
}
scaled = {name: size * (1 if name == "Muon" else UPDATE_RMS / np.median(size)) for name, size in sizes.items()}

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3.2))
learning = [place for place, one_learns in zip(places, learns, strict=True) if one_learns]
is_comb = np.array(["_fn" in name and rows.start == 2 * config.hc_mult for name, rows in learning])
for chosen, words, colour, marker in (
    (~is_comb, "Muon", show.ORANGE, "o"),
    (is_comb, "Muon: the projection to comb", show.RED, "D"),
):
    axes.semilogx(sizes["no iteration"][chosen], sizes["Muon"][chosen], marker, color=colour, markersize=4, label=words)
without = scaled["without the factor"]
axes.semilogx(sizes["no iteration"], without, "x", color=show.GREY, markersize=4, label="without the factor")
axes.axhline(UPDATE_RMS, color=show.DARK, linestyle=":", linewidth=1)
axes.set(title="size of the update of each matrix", xlabel="RMS of its gradient", ylabel="RMS of its update / η")
axes.legend(loc="center left", bbox_to_anchor=(0.02, 0.5))
show.picture(
    figure,
    "The size of the update of each matrix against the size of its gradient. Muon's points lie on a line "
    "at 0.18, those of the projections to comb a little below at 0.156. Without the factor for the shape "
    "the points scatter widely.",
)

# %%
show.experiment(
    f"every one of {sum(learns)} matrices has an update between 0.15 and 0.19, whatever its shape and its gradient",
    lambda size: size.min() > 0.15 and size.max() < 0.19,
    scaled["Muon"],
    nulls={name: size for name, size in scaled.items() if name != "Muon"},
    say=lambda size: f"from {size.min():.3g} to {size.max():.3g}",
)

# %% [markdown]
# The picture shows two more things. The projection to `comb` stays below 0.18. It has 16 rows, one for each logit of
# the mixing matrix. A constant added to a row of logits has no effect ([notebook 13](13_gradients.ipynb)), so four
# directions have no gradient, only twelve of sixteen singular values become 1, and $0.18 \sqrt{12 / 16} = 0.156$.
#
# Two matrices of layer 0 lie far to the left. In layer 0 all four streams are still equal. Mixing them changes nothing,
# and weighting them changes only a length, which RMSNorm removes. So their gradients are little more than rounding
# errors, but Muon's steps are as large as elsewhere. They do no harm, and weight decay keeps such weights small. Only a
# gradient of exactly zero gives no step, such as that of an expert that no token visited.
#
# ## Experiment: each expert by itself
# Frameworks often keep all experts of a layer in one array. If Muon took this array for one matrix, an expert with
# larger gradients would make a larger step, and a direction that several experts share would count only once. The null
# models are the array as one matrix, with its own factor, and the gradients themselves.


# %%
def unevenness(update):
    """The largest step of an expert over the smallest, for w1, w2 and w3 of each layer."""
    found = []
    for layer in range(config.num_hidden_layers):
        for part in ("w1", "w2", "w3"):
            names = (f"layers.{layer}.ffn.experts.{one}.{part}.weight" for one in range(config.n_routed_experts))
            steps = [rms(step) for step in update(np.stack([gradients[name] for name in names]))]
            found.append(max(steps) / min(steps))
    return np.array(found)


show.experiment(
    "in no layer is an expert's step 2 % longer than another's",
    lambda ratio: ratio.max() < 1.02,
    unevenness(newton_schulz),
    nulls={
        "the array as one matrix": unevenness(lambda g: newton_schulz(g.reshape(-1, g.shape[-1])).reshape(g.shape)),
        "the gradients": unevenness(lambda g: g),
    },
    say=lambda ratio: f"the longest step is up to {ratio.max():.3f} times the shortest",
)

# %% [markdown]
# ## Experiment: a race
# A small V4 with two layers (a window, then CSA) learns to predict characters. The text is the code of this project's
# own reference; every tenth file is held out. The race is between Muon, with AdamW for the other parameters, and AdamW
# alone. Both have the same first weights, the same batches and 60 steps. Each runs at three learning rates, and its
# best one counts. The first null model is Muon without the iteration: the momentum is only scaled to the right size. If
# that were as good, the iteration would be useless. The second is AdamW with other batches, which shows how much is
# luck.

# %%
files = sorted((show.ROOT / "ref" / "dsv4").rglob("*.py"))
texts = [file.read_text(encoding="utf-8") for file in files]
letters = sorted(set("".join(texts)))
number_of = {letter: number for number, letter in enumerate(letters)}
read, held_out = (
    np.array([number_of[letter] for number, text in enumerate(texts) for letter in text if (number % 10 == 0) == out])
    for out in (False, True)
)
LENGTH, BATCH, STEPS = 128, 4, 60
toy = replace(
    config,
    vocab_size=len(letters),
    hidden_size=64,
    num_hidden_layers=2,
    compress_ratios=(0, 4),
    num_nextn_predict_layers=0,
    head_dim=32,
    qk_rope_head_dim=16,
    q_lora_rank=32,
    o_lora_rank=16,
    sliding_window=16,
    index_n_heads=2,
    index_head_dim=32,
    index_topk=16,
    n_routed_experts=4,
    moe_intermediate_size=64,
)
starts = np.linspace(0, len(held_out) - LENGTH, 32).astype(int)
unseen = np.stack([held_out[start : start + LENGTH] for start in starts])


class AdamW:
    """AdamW for every parameter, to be used as `learn.Optimiser` is."""

    def __init__(self, config, weights):
        self.weights, self.steps = weights, 0
        self.first = {name: np.zeros_like(weight) for name, weight in weights.items()}
        self.second = dict(self.first)

    def step(self, gradients, learning_rate):
        self.steps += 1
        for name, gradient in gradients.items():
            after = adamw_step(
                self.weights[name], gradient, self.first[name], self.second[name], self.steps, learning_rate
            )
            self.weights[name], self.first[name], self.second[name] = after


def race(optimiser_of, learning_rate, seed=0):
    """The loss of unseen text after every tenth step, and how a matrix has changed."""
    racer, lots, losses = learn.new_model(toy, seed=0), np.random.default_rng(seed), []
    optimiser, start = optimiser_of(toy, racer.parameters), racer.parameters[WATCHED]
    for step in range(STEPS):
        batch = np.stack([read[at : at + LENGTH] for at in lots.integers(0, len(read) - LENGTH, BATCH)])
        _, found = learn.gradients(racer, batch)
        optimiser.step(clip_gradients(found, 1.0).gradients, learning_rate * min(1, (step + 1) / 10))
        if step % 10 == 9:
            losses.append(float(show.surprise(racer(unseen).data, unseen).mean()))
    return losses, racer.parameters[WATCHED] - start


def only_scaled(matrix):
    """In place of the iteration: the matrix itself, scaled to the size of an orthogonal one."""
    norm = np.sqrt(np.sum(np.square(matrix), axis=(-2, -1), keepdims=True))
    return matrix / np.where(norm == 0, 1, norm) * np.sqrt(np.float32(min(matrix.shape[-2:])))


# %%
WATCHED = "layers.1.attn.wq_b.weight"
runs = {
    "Muon": {rate: race(learn.Optimiser, rate) for rate in (0.006, 0.012, 0.024)},
    "AdamW alone": {rate: race(AdamW, rate) for rate in (0.006, 0.012, 0.024)},
}
with mock.patch.object(muon, "newton_schulz", only_scaled):
    runs["Muon without the iteration"] = {rate: race(learn.Optimiser, rate) for rate in (0.003, 0.006, 0.012)}
best = {name: min(found, key=lambda rate: found[rate][0][-1]) for name, found in runs.items()}
other_batches = race(AdamW, best["AdamW alone"], seed=1)[0][-1]

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1.5, 1))
colours = dict(zip(runs, (show.ORANGE, show.BLUE, show.GREY), strict=True))
for name, found in runs.items():
    for rate, (losses, change) in found.items():
        is_best = rate == best[name]
        style = {"linewidth": 2.4, "label": f"{name}, η = {rate:g}"} if is_best else {"linewidth": 0.7}
        left.plot(np.arange(10, STEPS + 1, 10), losses, color=colours[name], **style)
        if is_best:
            values = np.linalg.svd(change.astype(np.float64), compute_uv=False)
            right.semilogy(np.arange(1, len(values) + 1), values / values[0], color=colours[name])
left.set(title="unseen text; thin: other learning rates", xlabel="step", ylabel="nats per character")
left.legend()
right.set(
    title=f"change of {WATCHED.removesuffix('.weight')}",
    xlabel="number of the singular value",
    ylabel="size (the largest is 1)",
)
show.picture(
    figure,
    "Left: the loss of unseen text over 60 steps for Muon, AdamW alone and Muon without the iteration; "
    "Muon's best run ends lowest. Right: singular values of the change of one matrix; they fall least "
    "with Muon.",
)

# %%
loss_of = {name: found[best[name]][0][-1] for name, found in runs.items()}
show.experiment(
    "after equally many steps, Muon's loss is at least 0.1 nats per character below that of AdamW alone",
    lambda lead: lead >= 0.1,
    loss_of["AdamW alone"] - loss_of["Muon"],
    nulls={
        "without the iteration": loss_of["AdamW alone"] - loss_of["Muon without the iteration"],
        "AdamW with other batches": loss_of["AdamW alone"] - other_batches,
    },
    say=lambda lead: f"it is {lead:.3f} nats below AdamW's {loss_of['AdamW alone']:.3f}",
)

# %% [markdown]
# This is one model, one choice of first weights and few steps, and the experiment shows no more than that. Equal
# numbers of steps are not equal times, either: the iteration costs extra products, which matter more when the batch is
# small.
#
# ## Exercises
# **1.** A gradient of 256 × 64 numbers comes from 16 tokens, so it has rank 16. What is the root mean square of Muon's
# update, per unit of the learning rate?

# %% tags=["hide-input"]
random = np.random.default_rng(0)
of_rank_16 = random.standard_normal((256, 16)) @ random.standard_normal((16, 64))
exercise_1 = show.exercise(
    lambda answer: np.isclose(answer, rms(first_step(of_rank_16)), rtol=0.01),
    mistake=0.18,
    hint="How many singular values become 1, of how many?",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** All gradients of a run are multiplied by 1000. By which factor does this multiply the change of a matrix after
# five steps of Muon?

# %% tags=["hide-input"]
run = random.standard_normal((5, 8, 8))


def way(factor):
    weight = momentum = np.zeros((8, 8))
    for gradient in run:
        weight, momentum = muon_step(weight, factor * gradient, momentum, 0.01)
    return weight


exercise_2 = show.exercise(
    lambda answer: np.allclose(answer * way(1), way(1000)), mistake=1000, hint="What does NS divide by first?"
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** Give a 2 × 2 gradient, its four numbers of different sizes, for which the first steps of Muon and of AdamW go
# the same way.


# %% tags=["hide-input"]
def same_way(matrix):
    matrix = np.array(matrix, float)
    ours, signs = newton_schulz(matrix), np.sign(matrix)
    differ = len(np.unique(np.abs(matrix))) == 4
    return differ and np.sum(ours * signs) > 0.999 * np.linalg.norm(ours) * np.linalg.norm(signs)


exercise_3 = show.exercise(
    same_way,
    mistake=[[4, 3], [2, 1]],
    hint="AdamW's first step is the sign. Which signs form an orthogonal matrix? Which products of it keep the signs?",
)

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write a step of AdamW yourself, for the comparison with Muon. It is compared with the project's own on five
# steps of random gradients. The constants are in `adamw`: `BETA_1`, `BETA_2`, `EPSILON` and `DECAY`.


# %% tags=["hide-input"]
def against_the_project(step_of):
    """How far the weights after five steps are from those of the project's own AdamW."""
    weight = run[0]
    ours, expected = (weight, *np.zeros((2, 8, 8))), (weight, *np.zeros((2, 8, 8)))
    for step, gradient in enumerate(run, start=1):
        ours = tuple(step_of(ours[0], gradient, *ours[1:], step, 0.01))
        expected = tuple(adamw.adamw_step(expected[0], gradient, *expected[1:], step, 0.01))
    error = np.abs(ours[0] - expected[0]).max()
    return error < 1e-12, f"after five steps the largest difference of a weight is {error:.1e}"


def without_correction(weight, gradient, first, second, step, learning_rate):
    return adamw.adamw_step(weight, gradient, first, second, 10**6, learning_rate)


exercise_4 = show.write(
    against_the_project,
    wrong={"no correction of the first steps": without_correction},
    hint="Divide the running means by 1 − β₁ᵗ and 1 − β₂ᵗ before you use them, and keep the undivided ones for later. "
    "The decay multiplies the weight by 1 − ηλ.",
)


# %%
def my_adamw_step(weight, gradient, first, second, step, learning_rate):
    """The new (weight, first, second), each of the same shape.

    first, second: the running means of the gradients and of their squares; step: 1 for the first one.
    """


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: 16 of 64 singular values become 1, so half of 0.18. 2: by 1. 3: $H S$, where $H$ has orthogonal rows of ±1, and $S$
# is symmetric and positive definite, with numbers off its diagonal so small that $H$'s signs remain. Then $U V^\top$ is
# $H / \sqrt 2$. 4: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_4(weight, gradient, first, second, step, learning_rate):
    first = adamw.BETA_1 * first + (1 - adamw.BETA_1) * gradient
    second = adamw.BETA_2 * second + (1 - adamw.BETA_2) * gradient**2
    mean, mean_square = first / (1 - adamw.BETA_1**step), second / (1 - adamw.BETA_2**step)
    update = mean / (np.sqrt(mean_square) + adamw.EPSILON)
    return weight * (1 - learning_rate * adamw.DECAY) - learning_rate * update, first, second


exercise_1(0.09)
exercise_2(1)
exercise_3(np.array([[1, 1], [1, -1]]) @ [[5, 1], [1, 2]])
exercise_4(solution_4)
