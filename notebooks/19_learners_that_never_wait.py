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
# # 19 · Learners that never wait
#
# **Minutes:** 40 · **Read before:** [15](15_training.ipynb) · **You should know:** SGD with momentum.
#
# A chip fails about once a year. A million chips fail about twice **every minute**. Data-parallel training is one
# program on all chips, so each failure stops all of them. With $N$ chips, a mean time between interruptions of
# $T_\text{MTBI}$ for each, and $R$ seconds for a restart, the share of the time in which anything is learnt, the
# **goodput**, is
#
# $$\text{goodput} = \frac{1}{1 + \lambda R}, \qquad \lambda = \frac{N}{T_\text{MTBI}}$$
#
# **Decoupled DiLoCo** (arXiv 2604.21428) cuts the chips into $M$ **learners**, each with a whole model, data and an
# optimiser of its own, which never wait for each other. A **syncer** merges what they have learnt, one fragment of the
# model after the other. The paper's full text was not at hand for this project: [docs/diloco.md](../docs/diloco.md)
# says what is known second-hand, and what is ours.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4 import learn
from dsv4.learn.diloco.chaos import QUIET, Chaos, read_kills
from dsv4.learn.diloco.goodput.cluster import YEAR, Cluster, expected, goodput
from dsv4.learn.diloco.goodput.fit import FITTED, PUBLISHED
from dsv4.learn.diloco.merge import merged, radial_mean, token_weight, weighted_mean
from dsv4.learn.diloco.outer import outer_step
from dsv4.learn.diloco.replay import replayed
from dsv4.learn.diloco.settings import Settings
from dsv4.learn.diloco.syncer import Syncer
from dsv4.learn.diloco.training import Start
from dsv4.learn.texts.batches import Batch
from dsv4.ops import Ops

# %% [markdown]
# ## Ten minutes of 1.2 million chips
# Failures come at random. The rigid program stands for the whole of each restart. Eight learners with an eighth of the
# chips each have an eighth of the failures each, and only one of them stands at a time. They are also **elastic**: a
# learner goes on without the slice of chips that failed, so it stands only while it reconfigures itself. How long
# anything takes is not published. These times are fitted to the published goodputs.

# %%
CHIPS, MINUTES, LEARNERS = 1_200_000, 10, 8
per_minute = CHIPS / (YEAR / 60)
lots = np.random.default_rng(0)
failures = np.sort(lots.uniform(0, 60 * MINUTES, lots.poisson(per_minute * MINUTES)))
hit = lots.integers(0, LEARNERS, len(failures))  # which learner has the chip
standing = FITTED.reconfiguration + FITTED.scale_up
print(
    f"{per_minute:.2f} failures a minute; restart {FITTED.restart} s, a learner that loses a slice stands {standing} s"
)


# %%
def stands(starts, seconds):
    """When somebody stands after failures, as (start, length); a failure meanwhile joins the restart under way."""
    found, ready = [], 0.0
    for start in starts:
        if start >= ready:
            ready = start + seconds
            found.append((start / 60, seconds / 60))
    return found


rigid = stands(failures, FITTED.restart)
elastic = [stands(failures[hit == learner], standing) for learner in range(LEARNERS)]

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3.6))
axes.broken_barh(rigid, (-0.4, 0.8), color=show.RED)
for learner, found in enumerate(elastic, start=1):
    axes.broken_barh(found, (learner + 0.6, 0.8), color=show.ORANGE)
axes.plot(failures / 60, np.full(len(failures), -1), "|", color=show.DARK, markersize=9)
axes.set(xlim=(0, MINUTES), ylim=(LEARNERS + 1.8, -1.6), xlabel="minutes", title="red and orange: no training")
axes.set_yticks([-1, 0, *range(2, LEARNERS + 2)], ["a chip fails", "rigid", *(f"learner {n}" for n in range(LEARNERS))])
axes.set_ylabel("who stands")
show.picture(
    figure,
    "Ten minutes of a cluster of 1.2 million chips. About 23 failures are ticks at the top. The bar of the rigid "
    "program is red for most of the time. The bars of eight learners are orange only here and there, mostly one at a "
    "time.",
)

# %% [markdown]
# ## Goodput by the number of chips
# The simulator runs through all events of some days; the formula comes from renewal theory. `goodput` counts chips that
# are away for repair, too.

# %%
show.source(expected)

# %%
sizes = np.geomspace(1e4, 5e6, 60).astype(int)
kinds = {
    "rigid": (1, False),
    "1 learner, elastic": (1, True),
    "2 learners": (2, True),
    "8": (8, True),
    "16": (16, True),
}
curves = {
    name: [expected(Cluster(int(size), *kind), FITTED) if size >= 2e4 else np.nan for size in sizes]
    for name, kind in kinds.items()
}
simulated = {
    name: [goodput(Cluster(size, *kind), FITTED, days=2.0) for size in (300_000, 1_200_000, 2_400_000)]
    for name, kind in kinds.items()
}

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3.6))
colours = dict(zip(kinds, (show.RED, show.ORANGE, show.PURPLE, show.BLUE, show.GREEN), strict=True))
for name, curve in curves.items():
    axes.semilogx(sizes, 100 * np.array(curve), color=colours[name], label=name)
    axes.plot([3e5, 1.2e6, 2.4e6], 100 * np.array(simulated[name]), "o", color=colours[name], markersize=5)
for cluster, share in PUBLISHED.items():
    axes.plot(cluster.chips, 100 * share, "x", color=show.DARK, markersize=7)
axes.set(
    xlabel="chips", ylabel="goodput (%)", ylim=(0, 102), title="lines: theory; dots: simulated; crosses: published"
)
axes.legend(loc="lower left")
show.picture(
    figure,
    "Goodput against the number of chips on a logarithmic axis. All curves begin near 100 % at 20,000 chips. The rigid "
    "one falls first, to 28 % at 1.2 million; eight and sixteen learners stay above 85 % there. Simulated dots lie on "
    "the lines, and published crosses within two points of them.",
)

# %% [markdown]
# ## Experiment: eight learners against one program
# The null models: the rigid program, and one elastic learner, which is not cut into parts.

# %%
show.experiment(
    "at 1.2 million chips, at least 85 % of all chip-time is training",
    lambda share: share >= 0.85,
    simulated["8"][1],
    nulls={"rigid": simulated["rigid"][1], "one elastic learner": simulated["1 learner, elastic"][1]},
    say=lambda share: f"{share:.1%}",
)

# %% [markdown]
# ## What is merged, and how
# A learner says how far its fragment has moved from the one that it was sent, $\Delta_m = \Theta - \theta_m$. It weighs
# $w_m = c_\text{tokens}^2 / c_\text{steps}$. Learners that have seen different texts point different ways, and the mean
# of their differences is short. The **radial** mean has the mean direction and the mean length, with
# $\varphi(x) = x / \lVert x \rVert$:
#
# $$\Delta = \frac{\sum_m w_m \lVert \Delta_m \rVert}{\sum_m w_m} \; \varphi\!\left(
# \frac{\sum_m w_m \varphi(\Delta_m)}{\sum_m w_m}\right), \qquad
# m \leftarrow \mu m + \Delta, \qquad \Theta \leftarrow \Theta - \eta (\Delta + \mu m)$$

# %%
show.source(merged, radial_mean, token_weight, outer_step)

# %% [markdown]
# The syncer waits for a **quorum** of $K$ learners, and then a little longer: as long as the learners' own steps hide
# the wait.

# %%
show.source(Syncer.hear, Syncer.grace)

# %% [markdown]
# ## Four learners, one of which you kill
# A small V4 of one layer learns a language in which each token decides the next one, but for one in five. Four learners
# do 48 steps each, on sentences of their own. Everything happens in **virtual time**: an event queue, in which a step
# takes about a second. So a run is the same to the last bit each time. Change who is killed, after how many steps, and
# for how many seconds. `1@6+24` is learner 1, after its 6th step, for 24 seconds.

# %%
KILL = "1@6+24"

# %%
config = dsv4.Config(
    vocab_size=40,
    hidden_size=32,
    num_hidden_layers=1,
    num_hash_layers=0,
    num_nextn_predict_layers=0,
    num_attention_heads=4,
    head_dim=16,
    qk_rope_head_dim=8,
    q_lora_rank=16,
    o_lora_rank=16,
    o_groups=2,
    sliding_window=8,
    compress_ratios=(0,),
    index_n_heads=2,
    index_head_dim=16,
    index_topk=4,
    rope_theta=10000.0,
    compress_rope_theta=10000.0,
    rope_scaling=None,
    max_position_embeddings=64,
    n_routed_experts=4,
    n_shared_experts=1,
    num_experts_per_tok=1,
    moe_intermediate_size=32,
    scoring_func="sqrtsoftplus",
    norm_topk_prob=True,
    topk_method="noaux_tc",
    routed_scaling_factor=1.5,
    swiglu_limit=10.0,
    hc_mult=2,
    hc_sinkhorn_iters=5,
    hc_eps=1e-6,
    rms_norm_eps=1e-6,
    bos_token_id=0,
    eos_token_id=0,
    tie_word_embeddings=False,
    torch_dtype="float32",
    quantised=False,
)
STEPS = 48
recipe = learn.Recipe(
    model=config,
    stages=(learn.Stage("dense", steps=STEPS, length=24, batch=4),),
    learning_rate=0.02,
    final_learning_rate=0.002,
    warmup_steps=10,
    checkpoint_interval=STEPS,
    bias_speed=0.01,
)
settings = Settings(learners=4, fragments=12, inner_steps=12, outer_learning_rate=0.7, outer_momentum=0.5)


def sentences(seed, count):
    """Token ids [count, 24]."""
    lots = np.random.default_rng(seed)
    ids = lots.integers(0, config.vocab_size, (count, 24))
    for place in range(1, 24):
        follows = (5 * ids[:, place - 1] + 3) % config.vocab_size
        ids[:, place] = np.where(lots.random(count) < 0.2, ids[:, place], follows)
    return ids


class Sentences:
    """The batches of a learner, drawn from its number and the step's."""

    def __init__(self, learner):
        self.learner = learner

    def batch(self, step):
        ids = sentences((self.learner, step), recipe.stages[0].batch)
        return Batch(ids, np.ones(ids.shape, bool))


first, unread = learn.new_model(config, seed=0).weights, sentences(10**6, 64)


class Run:
    """Four learners in virtual time: the tape, and every three seconds the merged model's loss on unread sentences."""

    def __init__(self, chaos, quorum):
        self.tape, self.losses = [], []
        self.start = Start(recipe, first, Sentences, replace(settings, quorum=quorum))
        self.world = self.start.world(chaos, 0, self.tape.append)
        while not self.world.is_over:
            self.world.advance()
            if self.world.time >= 3 * len(self.losses):
                model = dsv4.Model(self.start.merged_weights(self.world.syncer), Ops(), False)
                self.losses.append(float(show.surprise(model(unread), unread).mean()))

    def lines(self, event, **about):
        """The tape's lines of one event."""
        found = (line for line in self.tape if line["event"] == event)
        return [line for line in found if all(line[key] == value for key, value in about.items())]


chaos = Chaos(read_kills([KILL]))
runs = {"nobody is killed": Run(QUIET, 1), "K = 1": Run(chaos, 1), "K = 4": Run(chaos, 4)}
[gone] = [line["time"] for line in runs["K = 1"].lines("killed")]
[back] = [line["time"] for line in runs["K = 1"].lines("returned")]
print(f"killed after {gone:.0f} s, back after {back:.0f} s")

# %% [markdown]
# ## What a quorum buys
# With $K = 1$ a merge needs any learner; with $K = 4$ it needs all of them, as data parallelism does. When all steps
# are done, every fragment is merged once more, so that no step is lost.

# %% tags=["hide-input"]
figure, (upper, middle, lower) = plt.subplots(3, 1, figsize=(9.5, 6.2), sharex=True, height_ratios=(1, 1, 1.1))
for axes, name in ((upper, "K = 1"), (middle, "K = 4")):
    for learner in range(4):
        own = [(line["time"] - line["seconds"], line["seconds"]) for line in runs[name].lines("step", learner=learner)]
        axes.broken_barh(own, (learner - 0.35, 0.7), color=show.BLUE, edgecolor="white", linewidth=0.4)
    times = [line["time"] for line in runs[name].lines("merged")]
    axes.plot(times, np.full(len(times), 4), "|", color=show.GREEN, markersize=10)
    axes.set(title=f"{name}: {len(times)} merges", ylim=(4.6, -0.6), ylabel="who trains")
    axes.set_yticks(range(5), [*(f"learner {n}" for n in range(4)), "merges"])
styles = {"nobody is killed": (show.GREY, "--"), "K = 1": (show.BLUE, "-"), "K = 4": (show.ORANGE, "-")}
for name, (colour, line) in styles.items():
    lower.plot(3 * np.arange(len(runs[name].losses)), runs[name].losses, line, color=colour, label=name)
lower.axvspan(gone, back, color=show.LIGHT, zorder=0)
lower.set(title="the merged model on unread sentences", xlabel="virtual seconds", ylabel="nats per token")
lower.legend(loc="lower left")
show.picture(
    figure,
    "Steps of four learners and merges over time, for a quorum of 1 and of 4, and below the loss of the merged model. "
    "While one learner is gone, merges go on and the loss falls with a quorum of 1. With 4 there are no merges, and "
    "the loss stays where it was until the learner is back.",
)

# %% [markdown]
# ## Experiment: does the syncer wait for the dead?
# Merges are counted from the kill to the return. The null model is the quorum of all.

# %%
meanwhile = {name: sum(gone < line["time"] < back for line in one.lines("merged")) for name, one in runs.items()}
show.experiment(
    "while a learner is gone, there is a merge for at least three of four steps",
    lambda count: count >= 0.75 * (back - gone),
    meanwhile["K = 1"],
    nulls={"a quorum of all four": meanwhile["K = 4"]},
    say=lambda count: f"{count} merges in {back - gone:.0f} steps",
)

# %% [markdown]
# ## Experiment: what does the failure cost?
# The merged model is judged at the moment when the learner comes back. It should have lost at most a tenth of what was
# learnt undisturbed until then. The null model is again a quorum of all.

# %%
learnt = {name: one.losses[0] - one.losses[int(back // 3)] for name, one in runs.items()}
show.experiment(
    "when the learner is back, the loss has fallen by at least 90 % of what it falls undisturbed",
    lambda share: share >= 0.9,
    learnt["K = 1"] / learnt["nobody is killed"],
    nulls={"a quorum of all four": learnt["K = 4"] / learnt["nobody is killed"]},
    say=lambda share: f"{share:.0%}",
)

# %% [markdown]
# ## Experiment: the tape makes the run again
# Each event is a line of a tape: who did a step, answered, received, was merged. No clock stands in the way: from the
# tape alone, the same learners come to the same model. The null model is the same tape, played by learners that read
# each other's sentences.

# %%
one = runs["K = 1"]


def farthest(start):
    """The largest difference of a weight between the run and its replay."""
    again, _ = replayed(one.tape, start.learner, start.syncer())
    weights = one.world.syncer.weights
    return max(float(np.abs(weights[name] - again.weights[name]).max()) for name in weights)


others = Start(recipe, first, lambda learner: Sentences(3 - learner), one.start.settings)
show.experiment(
    "the replay has the same bits",
    lambda difference: difference == 0,
    farthest(one.start),
    nulls={"learners with each other's sentences": farthest(others)},
    say=lambda difference: f"the largest difference of a weight is {difference:.2g}",
)

# %% [markdown]
# ## Exercises
# **1.** A cluster has 300,000 chips, each of which fails once in two years. A rigid restart takes 66.2 s. What is its
# goodput, from 0 to 1, to two digits?

# %% tags=["hide-input"]
exercise_1 = show.exercise(
    lambda share: abs(share - expected(Cluster(300_000, elastic=False, mtbi=2 * YEAR), FITTED)) < 0.005,
    mistake=1 - 300_000 / (2 * YEAR) * FITTED.restart,
    hint="How many failures come, on average, in the time of a restart? The restart itself comes on top.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** One learner did 10 steps of 100 tokens since it was sent a fragment, a slow one 5 steps of 200 tokens. How many
# times as much does the slow one weigh?

# %% tags=["hide-input"]
exercise_2 = show.exercise(
    lambda times: abs(times - token_weight(1000, 5) / token_weight(1000, 10)) < 1e-9,
    mistake=1,
    hint="Both have read 1,000 tokens. Put them into the weight, with the steps.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** Write the radial mean. Where all differences are the same, it is that difference; where two of equal length are
# orthogonal, it is as long as each of them. Nobody's difference is zero, and they do not cancel.


# %% tags=["hide-input"]
def like_the_projects(function):
    """A verdict: the largest distance from the project's on drawn differences and weights."""
    lots, worst = np.random.default_rng(0), 0.0
    for shape in ((3,), (4, 5), (2, 3, 4)):
        differences = [lots.standard_normal(shape) * size for size in (1.0, 3.0, 0.2)]
        weights = [1.0, 0.5, 2.0]
        found = np.asarray(function(differences, weights))
        right = radial_mean(differences, weights)
        worst = max(worst, float(np.abs(found - right).max()) if found.shape == right.shape else np.inf)
    return worst < 1e-9, f"the largest distance from the project's own is {worst:.2g}"


def by_length(differences, weights):
    """As long as the mean of the lengths, but in the direction of the plain mean."""
    mean = weighted_mean(differences, weights)
    lengths = [np.linalg.norm(one) for one in differences]
    return mean / np.linalg.norm(mean) * np.average(lengths, weights=weights)


exercise_3 = show.write(
    like_the_projects,
    wrong={"the plain mean": weighted_mean, "the direction of the plain mean": by_length},
    hint="Two weighted means: one of the lengths, one of the differences divided by their lengths.",
)


# %%
def radial(differences, weights):
    """The mean length, in the mean direction: an array of one difference's shape.

    differences: arrays of one shape, float64; weights: a number above 0 for each.
    """


exercise_3(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: λR is 300,000 · 66.2 s / 2 years = 0.315, and 1 / 1.315 = 0.76. 2: the weights are 1,000² / 5 and 1,000² / 10:
# twice as much. Whoever reads more tokens in a step has a better direction. 3: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_3(differences, weights):
    lengths = [np.linalg.norm(one) for one in differences]
    direction = np.average(
        [one / size for one, size in zip(differences, lengths, strict=True)], axis=0, weights=weights
    )
    return direction / np.linalg.norm(direction) * np.average(lengths, weights=weights)


exercise_1(0.76)
exercise_2(2)
exercise_3(solution_3)
