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
# # 17 · GRPO: learning from rewards
#
# **Minutes:** 25 · **Read before:** [13](13_gradients.ipynb) · **You should know:** gradients, expectations.
#
# A model is asked a question and draws a **group** of $G$ answers. Each gets a reward $R$. There is no good answer to
# copy: an answer becomes more probable if it was better than its group, and less probable if it was worse. The
# **advantage** $A_i$ says by how much.
#
# $$J(\theta) = \mathbb{E} \; \frac{1}{G} \sum_{i=1}^{G} \frac{1}{|o_i|} \sum_t
# \left[ \min\!\left( r A_i, \; \text{clip}(r, 1 - \varepsilon, 1 + \varepsilon) A_i \right) M_i
# - \beta \, \text{KL} \right],
# \qquad A_i = R_i - \frac{1}{G} \sum_j R_j$$
#
# Here $r = \pi_\theta / \pi_\text{old}$ compares a token's probability now with the one it was drawn with. The mask
# $M_i$ leaves out answers that were bad and that the model would not give any more. The divergence KL holds it near a
# reference.
#
# Training sees a few answers of very many. In this notebook the world is so small that **every** answer can be gone
# through, so that the exact gradient stands beside the sampled one.

# %%
import itertools

import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4 import learn
from dsv4.learn import tape
from dsv4.learn.losses.grpo import advantages, kept_answers, policy, unbiased_kl
from dsv4.learn.losses.policy import log_policy

# %% [markdown]
# ## The project's code

# %%
show.source(advantages, policy, kept_answers)

# %% [markdown]
# ## A world of 27 answers
# The question is three letters, such as *abc*, and asks for them backwards. An answer has three letters as well, so
# there are 27. Its reward is the share of letters in their right places. The model is a small V4 with random weights:
# two layers, the second one with compressed attention and an indexer, four experts each.

# %%
LETTERS, STEPS = "abc", 3
config = dsv4.Config(
    vocab_size=len(LETTERS),
    hidden_size=32,
    num_hidden_layers=2,
    num_hash_layers=0,
    num_nextn_predict_layers=0,
    num_attention_heads=2,
    head_dim=32,
    qk_rope_head_dim=8,
    q_lora_rank=16,
    o_lora_rank=16,
    o_groups=1,
    sliding_window=8,
    compress_ratios=(0, 4),
    index_n_heads=2,
    index_head_dim=32,
    index_topk=4,
    rope_theta=10000.0,
    compress_rope_theta=10000.0,
    rope_scaling=None,
    max_position_embeddings=64,
    n_routed_experts=4,
    n_shared_experts=1,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    scoring_func="sqrtsoftplus",
    norm_topk_prob=True,
    topk_method="noaux_tc",
    routed_scaling_factor=1.5,
    swiglu_limit=10.0,
    hc_mult=2,
    hc_sinkhorn_iters=20,
    hc_eps=1e-6,
    rms_norm_eps=1e-6,
    bos_token_id=0,
    eos_token_id=0,
    tie_word_embeddings=False,
    torch_dtype="float32",
    quantised=False,
)
answers = np.array(list(itertools.product(range(len(LETTERS)), repeat=STEPS)))
questions = np.array(list(itertools.permutations(range(len(LETTERS)))))
rewards = (answers[None] == questions[:, None, ::-1]).mean(axis=2)
ids = np.concatenate([np.repeat(questions, len(answers), axis=0), np.tile(answers, (len(questions), 1))], axis=1)
everywhere = np.ones((len(ids), STEPS), bool)


def word(letters):
    """Tokens as letters."""
    return "".join(LETTERS[one] for one in letters)


def log_tokens(model):
    """log π of each token of every answer to every question, one question after another: [6·27, 3]."""
    return log_policy(model(ids[:, :-1])[:, STEPS - 1 :], ids[:, STEPS:])


def chances(model):
    """How probable each answer is: [6, 27]; each row sums to 1."""
    each = np.exp(log_tokens(model).data.astype(np.float64).sum(axis=1)).reshape(rewards.shape)
    return each / each.sum(axis=1, keepdims=True)


def expected_reward(model):
    """The mean over questions of Σ π(answer) · reward, exactly."""
    return float((chances(model) * rewards).sum(axis=1).mean())


def gradient(model, loss):
    """By the official name of each parameter."""
    return dict(zip(model.leaves, tape.gradients(loss, list(model.leaves.values())), strict=True))


def new():
    """The model at the start: the same one each time."""
    return learn.TrainableModel(learn.new_model(config, seed=0).weights)


model = new()
size = sum(weight.size for weight in model.weights.parameters.values())
print(f"{size:,} weights, {len(questions)} questions; {word(questions[1])} asks for {word(questions[1][::-1])}")
print(f"expected reward at the start: {expected_reward(model):.2f}; of letters drawn by lot: {1 / 3:.2f}")

# %% [markdown]
# ## The exact gradient, and the sampled one
# The expected reward is a sum over all answers, $\sum_o \pi_\theta(o) R(o)$. The tape differentiates it as it stands.
# GRPO never sees this sum. It draws groups, and its gradient is right on average: for answers of one length $|o|$,
#
# $$\mathbb{E} \, \nabla J = \frac{G - 1}{G} \cdot \frac{1}{|o|} \, \nabla \, \mathbb{E}[R]$$
#
# The factor $(G-1)/G$ is there because an answer's own reward is a part of the mean that it is compared with. One
# draw is far off: one group for each question says little about 27 answers. The mean of many draws comes near.

# %%
GROUP = 8


def exact_gradient(model, chance=None):
    """∇ of the expected reward, over the length, with the factor of a group; it goes through all answers."""
    each = np.exp(log_tokens(model).sum(axis=1)) * rewards.ravel().astype(np.float32)
    return gradient(model, each.sum() * np.float32((GROUP - 1) / GROUP / STEPS / len(questions)))


def draw(generator, chance):
    """A group of answers to each question, by number: [6, G]."""
    return np.array([generator.choice(len(answers), GROUP, p=row) for row in chance])


def sampled_gradient(model, groups, advantages_of=advantages, rewards=rewards):
    """∇J, the mean over draws [draws, 6, G] of groups. J is linear in the advantages, so one pass does for all."""
    weight = np.zeros(rewards.shape)
    for question, group in ((question, group) for each in groups for question, group in enumerate(each)):
        np.add.at(weight[question], group, advantages_of(rewards[question, group]) / GROUP / len(groups))
    log = log_tokens(model)
    per_answer = (weight * len(answers)).ravel().astype(np.float32)  # `policy` takes the mean over all rows
    return gradient(model, -policy(log, log.data, per_answer, everywhere, 10.0, np.inf))


def flat(gradients):
    """All numbers of a gradient in one row."""
    return np.concatenate([one.ravel() for one in gradients.values()])


def over_deviation(rewards):
    """As the first GRPO had it, and V3.2 has not."""
    return advantages(rewards) / (rewards.std() + 1e-6)


exact = flat(exact_gradient(model))
generator = np.random.default_rng(0)
many = np.array([draw(generator, chances(model)) for _ in range(4096)])


def distance(gradients):
    """How far a gradient is from the exact one, over its length, once it has the best length for that."""
    found = flat(gradients)
    return float(np.linalg.norm(found * (found @ exact) / (found @ found) - exact) / np.linalg.norm(exact))


counts = 4 ** np.arange(7)
far = {
    "A = R − mean": [distance(sampled_gradient(model, many[:count])) for count in counts],
    "divided by the deviation": [distance(sampled_gradient(model, many[:count], over_deviation)) for count in counts],
    "rewards of another question": [
        distance(sampled_gradient(model, many[:count], rewards=np.roll(rewards, 1, axis=0))) for count in counts
    ],
}

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3.2))
for name, values in far.items():
    axes.loglog(counts, values, "o-", markersize=4, label=name)
axes.loglog(counts, far["A = R − mean"][0] / np.sqrt(counts), ":", color=show.GREY, label="one over the root of draws")
axes.set(xlabel="draws that the mean is taken of", ylabel="distance from the exact\ngradient, over its length")
axes.set_xticks(counts, [f"{count:,}" for count in counts])
axes.set_yticks([0.01, 0.03, 0.1, 0.3, 1], ["0.01", "0.03", "0.1", "0.3", "1"])
axes.minorticks_off()
axes.legend(loc="lower left")
show.picture(
    figure,
    "Distance of the sampled from the exact gradient against the number of draws, both axes logarithmic. "
    "Advantages without a "
    "deviation fall as one over the root; divided by the deviation they stop falling; with wrong rewards "
    "they stay near 1.",
)

# %% [markdown]
# ## Experiment: right on average
# The distance falls with the root of the number of draws, as the error of a mean must: there is nothing else in it than
# chance. Divided by the standard deviation, the gradient points elsewhere. A question whose answers are nearly all
# equally good then counts as much as one where they differ.

# %%
show.experiment(
    "the mean of 4,096 draws lies within 5 % of the exact gradient",
    lambda found: found < 0.05,
    far["A = R − mean"][-1],
    nulls={name: values[-1] for name, values in far.items() if name != "A = R − mean"},
    say=lambda found: f"it lies {found:.1%} away",
)

# %% [markdown]
# ## Watching it learn
# Three runs of 60 steps from the same start, with Muon and AdamW as in every training here,
# at a rate that falls to nothing. One has the exact gradient.
# One has GRPO: in each step, eight answers to each of the six questions. One has GRPO as well, but rewards that are
# shuffled among the answers of a group.

# %%
RUN_STEPS, RATE = 60, 0.01


def shuffled(generator):
    """Advantages of rewards that went to the wrong answers of the group."""
    return lambda rewards: advantages(generator.permutation(rewards))


def run(gradient_of):
    """The chances of all answers before each step and after the last one: [steps + 1, 6, 27]."""
    model = new()
    optimiser = learn.Optimiser(config, model.weights.parameters)
    seen = [chances(model)]
    for step in range(RUN_STEPS):
        rate = RATE * (1 - step / RUN_STEPS)
        optimiser.step({name: -one for name, one in gradient_of(model, seen[-1]).items()}, rate)
        seen.append(chances(model))
    return np.array(seen)


lots = np.random.default_rng(1)
runs = {
    "exact gradient": run(exact_gradient),
    "GRPO": run(lambda model, chance: sampled_gradient(model, draw(lots, chance)[None])),
    "GRPO, shuffled rewards": run(
        lambda model, chance: sampled_gradient(model, draw(lots, chance)[None], shuffled(lots))
    ),
}
curves = {name: (seen * rewards).sum(axis=2).mean(axis=1) for name, seen in runs.items()}

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3))
for (name, curve), style in zip(curves.items(), ("--", "-", "-"), strict=True):
    axes.plot(curve, style, label=name)
axes.axhline(1 / 3, color=show.GREY, linestyle=":", linewidth=1)
axes.set(xlabel="step", ylabel="expected reward", ylim=(0, 1.02))
axes.legend(loc="center right")
show.picture(
    figure,
    "The expected reward over 60 steps: with the exact gradient and with GRPO it rises from a third "
    "towards one; with shuffled "
    "rewards it stays about where it was.",
)

# %% [markdown]
# In the picture below, each row is a question and each column one of the 27 answers. At first all of them are about
# as probable. Then whole groups of answers fade that have a wrong letter, and at last one answer is left in nearly
# each row. It need not be the right one: where all eight answers of a group say the same, there is nothing to
# compare, and a question that has come to rest on a wrong letter stays there. A larger group, or a slower rate, looks
# around for longer.

# %% tags=["hide-input"]
figure, panels = plt.subplots(4, 1, figsize=(9, 6), sharex=True)
for axes, step in zip(panels, (0, 15, 30, RUN_STEPS), strict=True):
    axes.imshow(runs["GRPO"][step], aspect="auto", vmin=0, vmax=1)
    axes.plot(
        rewards.argmax(axis=1), np.arange(len(questions)), "s", color=show.ORANGE, fillstyle="none", markersize=11
    )
    axes.set_title(f"after {step} steps")
    axes.set_yticks(range(len(questions)), [word(one) for one in questions])
    axes.spines[:].set_visible(False)
panels[-1].set_xticks(range(len(answers)), [word(one) for one in answers], rotation=90)
panels[-1].set_xlabel("answer (framed: the right one)")
figure.supylabel("question")
show.picture(
    figure,
    "Probabilities of 27 answers to six questions after 0, 15, 30 and 60 steps of GRPO: at first all "
    "alike, in the end one cell "
    "is dark in each row, mostly a framed one, which is the right answer.",
)

# %% [markdown]
# ## Experiment: rewards alone teach it
# Nobody told the model a right answer. All that it learnt came from comparing what it had said by itself.

# %%
show.experiment(
    "after 60 steps the expected reward is above 0.8",
    lambda found: found > 0.8,
    float(curves["GRPO"][-1]),
    nulls={
        "shuffled rewards": float(curves["GRPO, shuffled rewards"][-1]),
        "before training": float(curves["GRPO"][0]),
    },
    say=lambda found: f"it is {found:.2f}",
)

# %% [markdown]
# ## Experiment: a divergence that is right for answers of an older model
# Rollouts are often used for several steps, so that $\pi_\theta$ is no longer the policy that drew them. The divergence
# from the reference is estimated on these tokens. With the ratio in front its mean is exactly
# $\text{KL}(\pi_\theta \| \pi_\text{ref})$; the usual estimate without the ratio is that only while
# $\pi_\theta = \pi_\text{old}$.
#
# $$\frac{\pi_\theta}{\pi_\text{old}}
# \left( \frac{\pi_\text{ref}}{\pi_\theta} - \log \frac{\pi_\text{ref}}{\pi_\theta} - 1 \right)$$
#
# Three policies are compared on the first letter of each answer: the reference is the start, the old one that after 15
# steps, and the policy that after 30.

# %%
show.source(unbiased_kl)


def first_letter(step):
    """log π of each first letter, for each question: [6, 3]."""
    chance = runs["GRPO"][step].reshape(len(questions), len(LETTERS), -1).sum(axis=2)
    return np.log(chance)


now, old, reference = (first_letter(step) for step in (30, 15, 0))
true_kl = (np.exp(now) * (now - reference)).sum(axis=1).mean()
estimates = {
    "with the ratio": (np.exp(old) * unbiased_kl(now, old, reference)).sum(axis=1).mean(),
    "without it": (np.exp(old) * unbiased_kl(now, now, reference)).sum(axis=1).mean(),
}
show.experiment(
    f"the mean over letters of the old policy is KL(π_θ ‖ π_ref) = {true_kl:.4f} nats, to within 0.1 %",
    lambda found: abs(found / true_kl - 1) < 1e-3,
    estimates["with the ratio"],
    nulls={"the estimate without the ratio": estimates["without it"]},
    say=lambda found: f"it is {found:.4f} nats",
)

# %% [markdown]
# ## Experiment: a killed rollout must not begin anew
# A machine that draws answers is interrupted now and then. It is tempting to throw away what was unfinished and to draw
# it again. But long answers are interrupted more often. What is learnt from would then be shorter than what the model
# says, and the model would learn to be short. So every token is on disk as soon as it is drawn, and an interrupted
# answer goes on behind its last one.
#
# Below, 20,000 answers have 60 tokens on average, and a machine stops after every 40 tokens.

# %%
lengths_of = np.random.default_rng(2)


def finished(goes_on, count=20_000, mean=60, stop_every=40):
    """The lengths of answers that were drawn on a machine that stops again and again."""
    left = lengths_of.geometric(1 / mean, count)
    whole, done = left.copy(), []
    while len(left):
        is_done = left <= stop_every
        done.append(whole[is_done])
        left, whole = left[~is_done], whole[~is_done]
        if goes_on:
            left = left - stop_every
        else:
            whole = lengths_of.geometric(1 / mean, len(left))
            left = whole.copy()
    return np.concatenate(done)


kept, anew = finished(goes_on=True), finished(goes_on=False)
show.experiment(
    "the mean length is within 2 tokens of 60",
    lambda lengths: abs(lengths.mean() - 60) < 2,
    kept,
    nulls={"unfinished answers begin anew": anew},
    say=lambda lengths: f"{lengths.mean():.1f} tokens, the longest {lengths.max()}",
)

# %% [markdown]
# ## Exercises
# **1.** Four answers have the rewards 1, 0, 0 and 0. What are their advantages?

# %% tags=["hide-input"]
exercise_1 = show.exercise(
    lambda found: np.allclose(advantages(np.array([1.0, 0, 0, 0])), found),
    mistake=(1, -1, -1, -1),
    hint="Take the mean of all four away from each; they sum to zero.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** All eight answers of a group are right. How long is the gradient of $J$ that they give, without the divergence?

# %% tags=["hide-input"]
exercise_2 = show.exercise(
    lambda found: isinstance(found, int | float) and found == np.abs(advantages(np.ones(GROUP))).sum(),
    mistake=1,
    hint="What is the advantage of an answer that is as good as the mean?",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** An answer of four tokens was worse than its group. Its tokens are by now 0.9, 0.8, 1.0 and 0.5 times as
# probable as when they were drawn, and $\delta = 0.1$. Is it left out? Answer `True` or `False`.

# %% tags=["hide-input"]
ratios = np.array([[0.9, 0.8, 1.0, 0.5]])
is_kept = kept_answers(np.log(ratios), np.zeros((1, 4)), np.array([-1.0]), np.ones((1, 4), bool), 0.1)
exercise_3 = show.exercise(
    lambda found: found is (not is_kept[0]),
    mistake=False,
    hint="Take the mean of log(π_old/π_θ) over the four tokens, and compare it with δ.",
)

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write GRPO's surrogate for one token: $\min(r A, \text{clip}(r, 1 - \varepsilon, 1 + \varepsilon) A)$.


# %% tags=["hide-input"]
def verdict(function):
    """Whether a function is the surrogate: against the loss of one answer of one token, at many ratios."""
    worst = 0.0
    for ratio, better in itertools.product((0.2, 0.7, 0.9, 1.0, 1.1, 1.5, 4.0), (-2.0, -0.5, 0.0, 0.5, 2.0)):
        log = np.log([[ratio]])
        expected = -policy(log, np.zeros((1, 1)), np.array([better]), np.ones((1, 1), bool), 0.2, np.inf)
        worst = max(worst, abs(float(function(ratio, better, 0.2)) - float(expected)))
    return worst < 1e-12, f"at most {worst:.2g} from the project's own at 35 pairs of ratio and advantage"


exercise_4 = show.write(
    verdict,
    wrong={
        "clipped on both sides": lambda ratio, advantage, epsilon: np.clip(ratio, 1 - epsilon, 1 + epsilon) * advantage,
        "not clipped": lambda ratio, advantage, epsilon: ratio * advantage,
    },
    hint="The smaller one of two products. With a negative advantage that is often the one which is not clipped.",
)


# %%
def surrogate(ratio, advantage, epsilon):
    """min(r A, clip(r, 1 − ε, 1 + ε) A) for numbers r = ratio, A = advantage and ε = epsilon."""


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: three quarters, and minus one quarter each. 2: zero, since all advantages are zero: a question that is always
# answered teaches nothing. 3: yes. The mean of the logs is $(0.105 + 0.223 + 0 + 0.693)/4 = 0.255$, more than 0.1. 4:
# as in the formula; the minimum makes it a lower bound, so that only improvements are cut off.
#
# </details>

# %% tags=["hide-input"]
exercise_1((0.75, -0.25, -0.25, -0.25))
exercise_2(0)
exercise_3(True)
exercise_4(
    lambda ratio, advantage, epsilon: min(ratio * advantage, np.clip(ratio, 1 - epsilon, 1 + epsilon) * advantage)
)
