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
# Three things that training does for the model's sake and not for the loss.
#
# **Stored values.** The released model has experts of four bits. If it learns in float32 and is rounded afterwards, it
# loses something. So at the end it computes with the rounded weights $Q(W)$, and the gradient that it finds for these
# is applied to the masters $W$, as if rounding had a derivative of 1: **straight through**.
#
# **Balance.** The bias of a router follows the load: less of it for an expert with more visits than the mean.
#
# **Anticipatory routing.** When the loss leaps, training goes back a few steps, and for a while the experts are chosen
# by weights that are $\Delta t$ steps older than those that compute.
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
# ## A text to be learnt by heart
# 128 verses of 32 words, drawn from 32 words of which the $n$-th comes $1/n$ as often as the first. There is no rule
# in it: whoever wants to continue a verse has to remember it. So the small model, two layers with eight experts each,
# needs all its weights and their digits, and rounding has something to spoil.

# %%
VOCAB, VERSES, LENGTH = 32, 128, 32
often = 1 / np.arange(1, VOCAB + 1)
verses = np.random.default_rng(7).choice(VOCAB, (VERSES, LENGTH), p=often / often.sum())
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
# The same steps twice: with the bias and the balance loss, and with neither ($\gamma = \alpha = 0$).

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

# %%
figure, panels = plt.subplots(1, 4, figsize=(9, 2.6), sharey=True)
places = [(name, layer) for name in history for layer in range(2)]
for axes, (name, layer) in zip(panels, places, strict=True):
    of_experts = np.array(history[name])[:, layer].T
    for load in of_experts:
        axes.plot(20 * np.arange(len(load)), load, color=show.BLUE if name != "without" else show.ORANGE, linewidth=1)
    axes.axhline(1, color=show.DARK, linestyle=":", linewidth=1)
    axes.set(title=f"{name}, layer {layer}", xlabel="step")
panels[0].set_ylabel("load of each expert\n(1 is its fair share)")
plt.show()

# %%
last = {name: np.array(found[-1]) for name, found in history.items()}
show.table(
    ["after 200 steps", "loss", "busiest expert", "idlest expert"],
    [
        [name, f"{np.mean(curves[name][-20:]):.2f} nats", f"{load.max():.2f} of its share", f"{load.min():.2f}"]
        for name, load in last.items()
    ],
)

# %% [markdown]
# ## Experiment: an even load
# On one machine, an expert with three times its share makes all others wait; one without visits learns nothing. The
# balance is for their sake: what it does to the loss is in the table, and is little either way.

# %%
show.experiment(
    "no expert has more than 1.5 times its share, nor less than half of it",
    lambda load: load.max() <= 1.5 and load.min() >= 0.5,
    last["with balance"],
    nulls={"neither bias nor balance loss": last["without"], "before training": history["with balance"][0]},
    say=lambda load: f"{load.min():.2f} to {load.max():.2f} of the share",
)

# %% [markdown]
# ## The decay, with stored values and without
# From the state after 200 steps, the learning rate falls to a twentieth. One run computes as the released model will,
# with FP4 experts, other matrices in FP8, rounded inputs and keys; the other computes in float32 to the end. Each is
# examined on the whole text every twenty steps, in float32 and as it would be stored: written as a checkpoint,
# converted to the released format, and read again.


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

# %%
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
right.set(title="what storing costs", xlabel="step", ylabel="nats per token", ylim=(0, None))
left.legend(fontsize=9, loc="upper right")
right.legend(fontsize=9)
plt.show()

# %%
rows = [["before the decay", *with_stored[0, 1:]]]
rows += [["float32 in the decay", *without_stored[-1, 1:]], ["stored values in the decay", *with_stored[-1, 1:]]]
show.table(
    ["", "in float32", "as stored", "storing costs", "perplexity"],
    [
        [name, f"{exact:.4f}", f"{stored:.4f}", f"{stored - exact:+.4f}", f"{np.expm1(stored - exact):+.1%}"]
        for name, exact, stored in rows
    ],
)

# %% [markdown]
# ## Experiment: a model that knows how it will be stored
# In float32 it may be the worse one, since it has learnt with coarser weights. But nobody will run it in float32: what
# counts is the column "as stored".


# %%
def cost(seen):
    """What storing costs at the end of the decay."""
    return seen[-1, 2] - seen[-1, 1]


show.experiment(
    "storing costs less than half of what it costs the other model",
    lambda found: found < 0.5 * cost(without_stored),
    cost(with_stored),
    nulls={"float32 in the decay": cost(without_stored)},
    say=lambda found: f"it costs {found:.4f} nats per token",
)

# %% [markdown]
# ## A spike, provoked
# With Muon and clipped gradients this small model has no spikes of its own: at fifteen times this learning rate it
# learns nothing, but its loss does not leap. So a spike is made. In steps 160 to 163 the routers are **disturbed**:
# their weights are drowned in noise, the same each time that training passes there, and afterwards they are what they
# were. Tokens go to experts that do not know them, and these learn from them what they should not.
#
# Three runs meet it. One goes on. One follows the report: it goes back by four steps, and on with experts that weights
# up to eight steps older have chosen, when they were the current ones: before the disturbance. The third goes back,
# too, and on as before. A step is a function of state and batch, so that it meets the same spike with the same bits.

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
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for name in ("no way back", "back, older weights choose", "undisturbed"):
    left.plot(list(passes[name]), list(passes[name].values()), color=colours[name], linewidth=1.4, label=name)
left.axvspan(DISTURBED[0] - 0.5, DISTURBED[-1] + 0.5, color=show.LIGHT, zorder=0)
left.set(title="each step as it was done last", xlabel="step", ylabel="nats per token", xlim=(145, END))
for name, style in (("back, and on as before", "--"), ("back, older weights choose", "-")):
    some = [report.losses["next_token"] for report in runs[name]][:45]
    right.plot(some, style, color=colours[name], linewidth=1.4, label=name)
right.set(title="steps in the order in which they were done", xlabel="steps done since step 140", xlim=(5, 45))
for axes in (left, right):
    axes.legend(fontsize=9, loc="upper right")
left.set_ylim(0.4, 3.9)
plt.show()

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
# They take a part of it away and not all: the experts are those of before, but the scores that weigh them are of now.
# In the table stands the rest of the truth: behind the disturbance both runs heal equally fast, and in the end one
# cannot tell them apart. A model of this size needs no rescue. What this shows is the mechanism: a cause in the
# routers that lies on the way is met with less harm, and one that merely goes back meets it again.


# %%
def leap(name):
    """How far the loss of the first disturbed step leaps, over the leap without a way back."""
    first = DISTURBED[:1]
    return lost(name, first) / lost("no way back", first)


show.experiment(
    "with experts chosen by older weights, the loss leaps at most 80 % as far",
    lambda share: share <= 0.8,
    leap("back, older weights choose"),
    nulls={name: leap(name) for name in ("no way back", "back, and on as before")},
    say=lambda share: f"it leaps {share:.0%} as far",
)
anticipatory = [report.step for report in runs["back, older weights choose"] if report.anticipatory]
print(f"gone back from step 160 to {anticipatory[0]}; older weights chose up to step {anticipatory[-1]}")

# %% [markdown]
# ## Exercises
# **1.** In a block of FP4 the largest weight is 6, so that the steps near zero are of one half. The master of another
# weight is 0.2, and each step of training adds 0.02 to it. After how many steps does its stored value change?


# %%
def stored_after(steps):
    """The stored value of that weight."""
    block = np.zeros(32, np.float32)
    block[:2] = 6, 0.2 + 0.02 * steps
    return fake_quant_fp4(block)[1]


exercise_1 = show.exercise(
    lambda steps: stored_after(steps) != stored_after(0) and stored_after(steps - 1) == stored_after(0),
    mistake=15,
    hint="A master need not reach the next value to be rounded to it.",
)
exercise_1(...)

# %% [markdown]
# **2.** Four experts have 10, 30, 20 and 20 visits, and $\gamma$ is 0.01. How do their biases change?

# %%
exercise_2 = show.exercise(
    lambda change: np.allclose(balanced_bias(np.zeros(4), np.array([10, 30, 20, 20]), 0.01), change),
    mistake=(0.1, -0.1, 0, 0),
    hint="The rule sees only the sign.",
)
exercise_2(...)

# %% [markdown]
# **3.** The balance loss is 1 for an even load, whatever the number of experts. What is it (within one percent) if all
# tokens go to one expert of four, whose score is a thousand times that of each other?

# %%
all_to_one = np.tile([1000.0, 1.0, 1.0, 1.0], (1, 16, 1))
exercise_3 = show.exercise(
    lambda answer: np.isclose(balance_loss(all_to_one, 1, np.ones((1, 16), bool)), answer, rtol=0.01),
    mistake=1,
    hint="f of the busy expert is the number of experts over k, and its P is nearly 1.",
)
exercise_3(...)

# %% [markdown]
# ## Solutions
# 1: three, when the master has passed 0.25; a tie goes to the even code, which is zero. 2: by 0.01 up, down, and not at
# all. 3: four times 1.

# %%
exercise_1(3)
exercise_2((0.01, -0.01, 0, 0))
exercise_3(4)
