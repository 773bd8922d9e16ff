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
# # 16 · Training for four bits, for an even load, and through a spike
#
# **Minutes:** 45 · **Read before:** [7](07_experts.ipynb), [8](08_number_formats.ipynb), [15](15_training.ipynb) ·
# **You should know:** stochastic gradient descent.
#
# Three parts of training do not serve the loss directly, but make the model usable.
#
# **Stored values.** The experts of the released model have four bits per weight. A model that learns in float32 and is
# rounded afterwards loses quality. So in the last stage, the model computes with the rounded weights $Q(W)$. Their
# gradient is applied to the unrounded **master** weights $W$, as if rounding had the derivative 1. This is called
# **straight through**.
#
# **Balance.** The bias of a router follows the load: it falls for an expert with more visits than the mean.
#
# **Anticipatory routing.** When the loss jumps, training goes back a few steps. For a while, the experts are then
# chosen by weights that are $\Delta t$ steps older than the weights that compute.
#
# $$W \leftarrow W - \eta \, O\!\left(\left.\frac{\partial L}{\partial W'}\right|_{W' = Q(W)}\right), \qquad
# b_i \leftarrow b_i + \gamma \, \text{sign}(\overline{\text{load}} - \text{load}_i), \qquad
# \text{chosen}_t = \text{top-}k\left(s(x; \theta_{t - \Delta t}) + b_{t - \Delta t}\right)$$

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4 import learn
from dsv4.checkpoint.convert import convert
from dsv4.learn.anticipatory import GivenGate, SpikeRule, SpikeWatch
from dsv4.learn.losses.balance import balance_loss, balanced_bias, expert_loads
from dsv4.learn.qat import stored_value
from dsv4.learn.texts.batches import Batch
from dsv4.learn.trainer import Trainer
from dsv4.ops import Ops
from dsv4.ops.quantise import fake_quant_fp4

# %% [markdown]
# ## The project's code

# %%
show.source(stored_value, balanced_bias, GivenGate, SpikeWatch.verdict)

# %% [markdown]
# ## A text to be memorised
# The text has 128 verses of 32 random words, drawn from 32 words of which the $n$-th is $1/n$ as frequent as the first.
# There is no rule in it, so a verse can be continued only from memory. The small model, two layers with eight experts
# each, needs all its weights and many of their digits for this, so that rounding matters.

# %%
VOCAB, VERSES, LENGTH = 32, 128, 32
often = 1 / np.arange(1, VOCAB + 1)
verses = np.random.default_rng(7).choice(VOCAB, (VERSES, LENGTH), p=often / often.sum())

# %% tags=["hide-input"]
config = dsv4.Config(
    vocab_size=VOCAB,
    hidden_size=32,
    num_hidden_layers=2,
    num_hash_layers=0,
    num_nextn_predict_layers=0,
    num_attention_heads=4,
    head_dim=32,
    qk_rope_head_dim=8,
    q_lora_rank=32,
    o_lora_rank=16,
    o_groups=2,
    sliding_window=8,
    compress_ratios=(0, 4),
    index_n_heads=4,
    index_head_dim=32,
    index_topk=4,
    rope_theta=10000.0,
    compress_rope_theta=10000.0,
    rope_scaling=None,
    max_position_embeddings=128,
    n_routed_experts=8,
    n_shared_experts=1,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    scoring_func="sqrtsoftplus",
    norm_topk_prob=True,
    topk_method="noaux_tc",
    routed_scaling_factor=1.5,
    swiglu_limit=10.0,
    hc_mult=4,
    hc_sinkhorn_iters=20,
    hc_eps=1e-6,
    rms_norm_eps=1e-6,
    bos_token_id=0,
    eos_token_id=0,
    tie_word_embeddings=False,
    torch_dtype="float32",
    quantised=False,
)

# %%
recipe = learn.Recipe(
    model=config,
    stages=(learn.Stage("dense", 200, LENGTH, 16), learn.Stage("decay", 100, LENGTH, 16)),
    learning_rate=0.02,
    final_learning_rate=0.001,
    warmup_steps=20,
    bias_speed=0.01,
    checkpoint_interval=100,
)


class Verses:
    """The batch of each step: sixteen verses, drawn from its number alone."""

    def batch(self, step):
        ids = verses[np.random.default_rng(step).permutation(VERSES)[:16]]
        return Batch(ids, np.ones(ids.shape, bool))


def begun(**changes):
    """A trainer at the first step of the recipe, with some of its values changed."""
    return Trainer(replace(recipe, **changes), learn.new_model(config).weights, Verses())


def as_model(weights):
    """The weights as they are now, copied, in the reference."""
    return dsv4.Model(learn.Trainable(config, dict(weights.parameters), dict(weights.others)), Ops(), False)


def loads_of(weights):
    """The visits of each expert over its fair share, for the whole text: [layers, experts]."""
    loads = expert_loads(config, show.observe(as_model(weights), verses), np.ones(verses.shape, bool))
    return np.array([load / load.mean() for load in loads.values()])


# %% [markdown]
# ## Two runs, with balance and without
# The same steps are done twice: with the bias and the balance loss, and with neither ($\gamma = \alpha = 0$).

# %%
DENSE = recipe.stages[0].steps
balanced, free = begun(), begun(bias_speed=0.0, balance_weight=0.0)
history = {"with balance": [loads_of(balanced.weights)], "without": [loads_of(free.weights)]}
curves = {"with balance": [], "without": []}
for name, trainer in (("with balance", balanced), ("without", free)):
    while trainer.step < DENSE:
        curves[name].append(trainer.advance().losses["next_token"])
        if trainer.step % 20 == 0:
            history[name].append(loads_of(trainer.weights))
        if name == "with balance" and trainer.step == 140:
            midway = trainer.state()
learnt = balanced.state()

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 4, figsize=(9, 2.6), sharey=True)
places = [(name, layer) for name in history for layer in range(2)]
for axes, (name, layer) in zip(panels, places, strict=True):
    of_experts = np.array(history[name])[:, layer].T
    for load in of_experts:
        axes.plot(20 * np.arange(len(load)), load, color=show.BLUE if name != "without" else show.ORANGE, linewidth=1)
    axes.axhline(1, color=show.DARK, linestyle=":", linewidth=1)
    axes.set(title=f"{name}, layer {layer}", xlabel="step")
panels[0].set_ylabel("load of each expert\n(1 is the fair share)")
show.picture(
    figure,
    "The load of eight experts over 200 steps in four panels, for two layers with and without balance. "
    "With balance the lines come together around 1; without, they spread, and some experts get several "
    "times their share and others almost nothing.",
)

# %%
last = {name: np.array(found[-1]) for name, found in history.items()}
show.table(
    ["after 200 steps", "loss", "largest load", "smallest load"],
    [
        [name, f"{np.mean(curves[name][-20:]):.2f} nats", f"{load.max():.2f}", f"{load.min():.2f}"]
        for name, load in last.items()
    ],
)

# %% [markdown]
# ## Experiment: an even load
# When experts are computed in parallel, one with three times its share makes all others wait, and one without visits
# learns nothing. This is what the balance is for. Its effect on the loss is in the table above, and is small.

# %%
show.experiment(
    "no expert has more than 1.5 times its share, nor less than half of it",
    lambda load: load.max() <= 1.5 and load.min() >= 0.5,
    last["with balance"],
    nulls={"neither bias nor balance loss": last["without"], "before training": history["with balance"][0]},
    say=lambda load: f"loads from {load.min():.2f} to {load.max():.2f} of the share",
)

# %% [markdown]
# ## The decay, with stored values and without
# From the state after 200 steps, the learning rate falls to a twentieth. One run computes as the released model will,
# with experts in FP4, other matrices in FP8, and rounded inputs and keys. The other computes in float32 to the end.
# Every twenty steps, both are tested on the whole text, in float32 and as stored: written as a checkpoint, converted to
# the released format, and read again.


# %%
def surprise(model):
    """The mean loss on the whole text, in nats per token."""
    return float(show.surprise(model(verses), verses).mean())


def as_stored(weights):
    """The model of these weights in the released format."""
    with tempfile.TemporaryDirectory() as directory:
        floats, released = Path(directory) / "floats", Path(directory) / "released"
        weights.save(floats)
        convert(floats, released)
        return dsv4.load(released, backend="numpy")


def decayed(quantise):
    """The trainer at the end of the decay; and at every twentieth step: step, loss in float32, loss as stored."""
    trainer = begun(quantise=quantise)
    trainer.load_state(learnt)
    seen = []
    while True:
        if trainer.step % 20 == 0:
            weights = trainer.weights
            seen.append((trainer.step, surprise(as_model(weights)), surprise(as_stored(weights))))
        if trainer.step == recipe.steps:
            return trainer, np.array(seen)
        trainer.advance()


# %%
aware, with_stored = decayed(quantise=True)
unaware, without_stored = decayed(quantise=False)

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2)
for name, seen, colour in (
    ("with stored values", with_stored, show.BLUE),
    ("float32", without_stored, show.ORANGE),
):
    left.plot(seen[:, 0], seen[:, 2], "o-", color=colour, markersize=4, label=f"{name}: stored")
    left.plot(seen[:, 0], seen[:, 1], ":", color=colour, label=f"{name}: in float32")
    right.plot(seen[:, 0], seen[:, 2] - seen[:, 1], "o-", color=colour, markersize=4, label=name)
left.set(title="loss", xlabel="step", ylabel="nats per token", yscale="log", ylim=(0.1, 2.2))
left.set_yticks([0.125, 0.25, 0.5, 1], ["⅛", "¼", "½", "1"])
left.minorticks_off()
right.set(title="the cost of storing", xlabel="step", ylabel="nats per token", ylim=(0, None))
left.legend(fontsize=10, loc="upper right")
right.legend(fontsize=10)
show.picture(
    figure,
    "Left: the loss over the decay, in float32 and as stored, of both runs. Right: the cost of storing. "
    "It stays high in the run with float32 and falls to a small part of it in the run with stored values.",
)

# %%
rows = [["before the decay", *with_stored[0, 1:]]]
rows += [["float32 in the decay", *without_stored[-1, 1:]], ["stored values in the decay", *with_stored[-1, 1:]]]
show.table(
    ["", "in float32", "as stored", "cost of storing", "in perplexity"],
    [
        [name, f"{exact:.4f}", f"{stored:.4f}", f"{stored - exact:+.4f}", f"{np.expm1(stored - exact):+.1%}"]
        for name, exact, stored in rows
    ],
)

# %% [markdown]
# ## Experiment: a model that is trained for its format
# In float32, the model trained with stored values may be the worse one, because it has learnt with coarser weights. But
# it will never run in float32, so what counts is the column "as stored".


# %%
def cost(seen):
    """The cost of storing at the end of the decay."""
    return seen[-1, 2] - seen[-1, 1]


show.experiment(
    "storing costs this model less than half of what it costs the other one",
    lambda found: found < 0.5 * cost(without_stored),
    cost(with_stored),
    nulls={"float32 in the decay": cost(without_stored)},
    say=lambda found: f"it costs {found:.4f} nats per token",
)

# %% [markdown]
# ## An artificial spike
# With Muon and clipped gradients, this small model has no spikes: at fifteen times the learning rate it learns nothing,
# but its loss does not jump. So a spike is made. In steps 160 to 163 the routers are **disturbed**: large noise is
# added to their weights, the same noise each time that training comes to these steps, and removed afterwards. Tokens
# then visit experts that are not made for them, and the experts learn the wrong things.
#
# Three runs meet the spike. The first simply continues. The second follows the report: it goes back four steps and
# continues with experts chosen by weights up to eight steps older, from before the disturbance. The third goes back,
# too, but continues as before. A step depends only on the state and the batch, so the third run meets exactly the same
# spike.

# %%
DISTURBED, END = range(160, 164), 200
RULE = SpikeRule(window=15, deviations=6.0, rollback=4, period=12, delay=8)


def disturbed_step(trainer):
    """A step, with noise in the routers where it is one of the disturbed ones."""
    weights = trainer.weights.parameters
    routers = {name: weights[name] for name in weights if name.endswith("gate.weight")}
    generator = np.random.default_rng(trainer.step)
    if trainer.step in DISTURBED:
        for name, router in routers.items():
            weights[name] = router + np.float32(10 * router.std()) * generator.standard_normal(router.shape, np.float32)
        report = trainer.advance()
        weights.update(routers)
        return report
    return trainer.advance()


def through_it(rule, advance=disturbed_step, most=200, older_weights=True):
    """The reports of all steps to END, with those that were gone back from; or of the first so many."""
    trainer = begun(spikes=rule)
    trainer.load_state(midway | (trainer.watch.state() if rule else {}))
    states, reports = {}, []
    while trainer.step < END and len(reports) < most:
        if trainer.step % 2 == 0:
            states[trainer.step] = trainer.state()
        reports.append(advance(trainer))
        if reports[-1].verdict == "roll back":
            trainer.load_state(states[max(step for step in states if step <= trainer.step - rule.rollback)])
            if older_weights:
                trainer.begin_anticipatory(reports[-1].step)
        elif reports[-1].verdict == "stop":
            break
    return reports


runs = {
    "undisturbed": through_it(None, Trainer.advance),
    "no way back": through_it(None),
    "back, older weights choose": through_it(RULE),
    "back, and on as before": through_it(RULE, most=45, older_weights=False),
}


# %%
def last_pass(reports):
    """The loss of each step as it was when the step was done for the last time."""
    return {report.step: report.losses["next_token"] for report in reports}


passes = {name: last_pass(reports) for name, reports in runs.items()}
colours = dict(zip(runs, (show.GREY, show.ORANGE, show.BLUE, show.PURPLE), strict=True))

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for name in ("no way back", "back, older weights choose", "undisturbed"):
    left.plot(list(passes[name]), list(passes[name].values()), color=colours[name], linewidth=1.4, label=name)
left.axvspan(DISTURBED[0] - 0.5, DISTURBED[-1] + 0.5, color=show.LIGHT, zorder=0)
left.set(title="the last run of each step", xlabel="step", ylabel="nats per token", xlim=(145, END))
for name, style in (("back, and on as before", "--"), ("back, older weights choose", "-")):
    some = [report.losses["next_token"] for report in runs[name]][:45]
    right.plot(some, style, color=colours[name], linewidth=1.4, label=name)
right.set(title="all steps, in the order they were done", xlabel="steps done since step 140", xlim=(5, 45))
for axes in (left, right):
    axes.legend(fontsize=10, loc="upper right")
left.set_ylim(0.4, 3.9)
show.picture(
    figure,
    "Left: the loss of each step as it was done last, for the undisturbed run, the run that continues and "
    "the run with older weights. The spike at step 160 is lower with older weights, and both come back to "
    "the undisturbed line. Right: the steps in the order they were done; going back alone meets the same "
    "spike twice.",
)

# %%
calm = passes["undisturbed"]


def lost(name, steps):
    """By how much the loss of these steps lies above that of the undisturbed run, on average."""
    return float(np.mean([passes[name][step] - calm[step] for step in steps]))


phases = {"disturbed": DISTURBED, "the 12 steps after": range(164, 176), "the last 12": range(END - 12, END)}
show.table(
    ["nats above the undisturbed run", *phases],
    [
        [name, *(f"{lost(name, steps):+.2f}" for steps in phases.values())]
        for name in ("no way back", "back, older weights choose")
    ],
)

# %% [markdown]
# ## Experiment: do older choices soften the spike?
# They remove a part of the spike, not all of it: the experts are chosen by the older weights, but weighted by the
# current, disturbed scores. The table also shows a limit of this experiment. After the disturbance, both runs recover
# equally fast, and at the end they cannot be told apart: a model of this size needs no help. What the experiment shows
# is the mechanism. If the cause of a spike lies in the routers, older choices reduce its harm, and going back alone
# does not.


# %%
def leap(name):
    """The jump of the loss at the first disturbed step, over the jump of the run that simply continues."""
    first = DISTURBED[:1]
    return lost(name, first) / lost("no way back", first)


show.experiment(
    "with experts chosen by older weights, the jump of the loss is at most 80 % as large",
    lambda share: share <= 0.8,
    leap("back, older weights choose"),
    nulls={name: leap(name) for name in ("no way back", "back, and on as before")},
    say=lambda share: f"the jump is {share:.0%} as large",
)
anticipatory = [report.step for report in runs["back, older weights choose"] if report.anticipatory]
print(
    f"It went back from step 160 to {anticipatory[0]}; older weights chose the experts up to step {anticipatory[-1]}."
)

# %% [markdown]
# ## Exercises
# **1.** The largest weight of a block in FP4 is 6, so values near zero are 0.5 apart. The master of another weight is
# 0.2, and each step of training adds 0.02 to it. After how many steps does its stored value change?


# %% tags=["hide-input"]
def stored_after(steps):
    """The stored value of that weight."""
    block = np.zeros(32, np.float32)
    block[:2] = 6, 0.2 + 0.02 * steps
    return fake_quant_fp4(block)[1]


exercise_1 = show.exercise(
    lambda steps: stored_after(steps) != stored_after(0) and stored_after(steps - 1) == stored_after(0),
    mistake=15,
    hint="A master is rounded to the next value before it reaches it.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** Four experts have 10, 30, 20 and 20 visits, and $\gamma$ is 0.01. How do their biases change?

# %% tags=["hide-input"]
exercise_2 = show.exercise(
    lambda change: np.allclose(balanced_bias(np.zeros(4), np.array([10, 30, 20, 20]), 0.01), change),
    mistake=(0.1, -0.1, 0, 0),
    hint="The rule uses only the sign.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** For an even load, the balance loss is 1, whatever the number of experts is. What is it (within one percent) if
# all tokens go to one expert of four, whose score is a thousand times that of each other expert?

# %% tags=["hide-input"]
all_to_one = np.tile([1000.0, 1.0, 1.0, 1.0], (1, 16, 1))
exercise_3 = show.exercise(
    lambda answer: np.isclose(balance_loss(all_to_one, 1, np.ones((1, 16), bool)), answer, rtol=0.01),
    mistake=1,
    hint="f of the busy expert is the number of experts over k, and its P is nearly 1.",
)

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write the balance loss yourself: $\sum_i f_i P_i$, the mean over sequences, where $f_i$ is $E / k T$ times the
# number of tokens for which expert $i$ is among the $k$ best, and $P_i$ is the mean share of its score among all $E$
# scores. It is compared with the project's own `balance_loss` on random scores.

# %% tags=["hide-input"]
random_scores = np.random.default_rng(0).random((3, 16, 4)) ** 2


def against_the_project(loss_of):
    """How far a balance loss is from the project's own, for one and for two experts per token."""
    every = np.ones((3, 16), bool)
    error = max(abs(float(loss_of(random_scores, k)) - float(balance_loss(random_scores, k, every))) for k in (1, 2))
    return error < 1e-12, f"the largest difference is {error:.1e}"


def over_the_whole_batch(scores, k):
    return balance_loss(scores.reshape(1, -1, scores.shape[-1]), k, np.ones((1, scores[..., 0].size), bool))


exercise_4 = show.write(
    against_the_project,
    wrong={"one load for the whole batch": over_the_whole_batch},
    hint="Take each sequence by itself. np.argsort(-scores)[..., :k] gives the k best experts of each token.",
)


# %%
def my_balance_loss(scores, k):
    """scores [B, S, E] of all experts for each token, k experts per token -> one number."""


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: three, when the master has passed 0.25; exactly halfway, the even code is taken, which is zero. 2: by 0.01 up, 0.01
# down, and not at all. 3: four times 1. 4: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_4(scores, k):
    losses = []
    for sequence in scores:
        tokens, experts = sequence.shape
        chosen = np.argsort(-sequence, axis=-1)[:, :k]
        f = np.bincount(chosen.ravel(), minlength=experts) * experts / (k * tokens)
        losses.append((f * (sequence / sequence.sum(axis=-1, keepdims=True)).mean(axis=0)).sum())
    return np.mean(losses)


exercise_1(3)
exercise_2((0.01, -0.01, 0, 0))
exercise_3(4)
exercise_4(solution_4)
