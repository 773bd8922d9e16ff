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
# # 7 · Mixture of experts: routing, hash layers, balance
#
# A wide feed-forward layer is split into many narrow ones, the **experts**, and each token visits only a few of them:
# the model knows much and computes little. V4-Flash has 256 experts in a layer and uses 6 for a token, besides one
# shared expert that sees every token. A router scores the experts; the best are taken, and their outputs are weighed
# by their scores. A **bias**, moved during training towards equal load, has a say in who is taken but none in how much
# it counts. In the first layers nothing is scored to choose: a table says where each token id goes.
#
# $$s = \sqrt{\log(1 + e^{x W_g^\top})}, \qquad \text{chosen} = \text{top-}k(s + \text{bias}), \qquad
# y = \text{shared}(x) + \lambda \sum_{j \in \text{chosen}} \frac{s_j}{\sum_{i \in \text{chosen}} s_i} \, E_j(x)$$

# %%
import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.ops import Ops, moe

model = dsv4.load(backend="numpy")
config = model.config
tokenizer = dsv4.Tokenizer.from_file(dsv4.bundled_model())
ids = show.passage(1024)
results = show.observe(model, ids)
experts, k = config.n_routed_experts, config.num_experts_per_tok

# %% [markdown]
# ## The project's code

# %%
show.source(moe.route, moe.expert_scores, moe._weigh)

# %% [markdown]
# V4's score function grows without an end, as the root of the logit. The sigmoid of V3 saturates: beyond a logit of 3
# it hardly tells experts apart. (A third one, softmax, makes every score depend on all logits.)

# %%
logit = np.linspace(-6, 6, 241)
figure, axes = plt.subplots(figsize=(9, 2.6))
for name in ("sqrtsoftplus", "sigmoid"):
    axes.plot(logit, moe.expert_scores(logit, name), label=name)
axes.set(title="the score of an expert", xlabel="its logit", ylabel="score")
axes.legend()
plt.show()

# %% [markdown]
# ## Who goes where
# Below, a piece of the text, token by token. The colour is the expert that counts most. In layer 0, a hash layer, equal
# tokens have equal colours; in the others, the context has a say.

# %%
palette = np.array([show.BLUE, show.ORANGE, show.GREEN, show.RED, show.PURPLE, show.GREY])
start, count = 122, 22
figure, axes = plt.subplots(figsize=(9.5, 2.6))
for layer in range(config.num_hidden_layers):
    gate = f"layers.{layer}.ffn.gate"
    heaviest = np.take_along_axis(
        results[f"{gate}.indices"], results[f"{gate}.weights"].argmax(axis=1, keepdims=True), axis=1
    )[:, 0]
    for place in range(count):
        axes.barh(layer, 0.94, left=place, height=0.86, color=palette[heaviest[start + place]])
        word = tokenizer.decode([ids[0, start + place]]).replace("\n", "⏎")
        axes.text(place + 0.47, layer, word, ha="center", va="center", color="white", fontsize=8.5)
axes.set_yticks(range(4), [f"layer {layer}" for layer in range(4)])
axes.set_xticks([])
axes.invert_yaxis()
axes.spines[:].set_visible(False)
axes.set_title("the expert that counts most")
plt.show()

# %% [markdown]
# ## Experiment: is routing more than a table of words, and less than chance?
# A router that only looked at the word would send equal tokens to equal experts, everywhere, and a table would do as
# well. One that has learnt nothing of words would send them anywhere. Count, over all pairs of places where the same
# token stands, how often the same set of experts is chosen; and over all pairs of different tokens. Both null models
# are at hand: the hash layer is a table of words, and a choice of experts dealt out to other places knows no words.


# %%
def same_experts(chosen):
    """The share of pairs of places that visit the same set of experts, of equal tokens and of different ones."""
    chosen = np.sort(chosen, axis=1)
    equal_experts = (chosen[:, None] == chosen[None, :]).all(axis=-1)
    equal_tokens, pairs = ids[0][:, None] == ids[0][None, :], np.tri(len(chosen), k=-1, dtype=bool)
    return [float(equal_experts[pairs & (equal_tokens == equal)].mean()) for equal in (True, False)]


routes = [results[f"layers.{layer}.ffn.gate.indices"] for layer in range(config.num_hidden_layers)]
shares = np.array([same_experts(chosen) for chosen in routes])  # [layers, 2]
show.table(
    ["layer", *range(4)],
    [
        ["routes by", "id", "score", "score", "score"],
        ["same experts: equal tokens", *shares[:, 0]],
        ["different tokens", *shares[:, 1]],
    ],
)

# %%
dealt_out = np.random.default_rng(0).permutation(routes[1])
show.experiment(
    "behind the hash layer, equal tokens visit the same experts at least twice as often as different ones, "
    "and other experts in at least one pair of twenty",
    lambda shares: (shares[:, 0] > 2 * shares[:, 1]).all() and (shares[:, 0] < 0.95).all(),
    shares[1:],
    nulls={"a table of words": shares[:1], "choices dealt out": np.array([same_experts(dealt_out)])},
    say=lambda shares: " and ".join(
        f"{', '.join(f'{share:.0%}' for share in column)} of the pairs of {name} tokens"
        for name, column in zip(("equal", "different"), shares.T, strict=True)
    ),
)

# %% [markdown]
# ## Load
# An expert that everybody visits is a queue, one that nobody visits learns nothing. How many of the visits of this text
# does each expert get?

# %%
loads = [np.bincount(results[f"layers.{n}.ffn.gate.indices"].ravel(), minlength=experts) for n in range(4)]
figure, panels = plt.subplots(1, 4, figsize=(9, 2.4), sharey=True)
for layer, (axes, load) in enumerate(zip(panels, loads, strict=True)):
    axes.bar(range(experts), load / load.sum(), color=palette)
    axes.axhline(1 / experts, color=show.DARK, linestyle=":")
    axes.set(title=f"layer {layer}" + " (hash)" * config.is_hash_layer(layer), xlabel="expert")
    axes.set_xticks(range(experts))
panels[0].set_ylabel("share of the visits")
plt.show()

# %% [markdown]
# ## Experiment: a bias that balances
# The rule of training: after each batch, an expert with too much to do gets a little less bias, one with too little a
# little more (report §4.2.3; in V4 by 0.001 a step). Here it runs on the real logits of layer 1, from a bias of zero
# and with the text repeated. The rule sees only the sign, so it could as well swing back and forth without an end. The
# null model takes steps of the same size in directions drawn by lot.


# %%
class Listening(Ops):
    """NumPy's backend, keeping the logits that the routers get."""

    def __init__(self):
        self.heard = []

    def route(self, logits, *others):
        self.heard.append(logits)
        return Ops.route(logits, *others)


listening = Listening()
dsv4.Model(model.checkpoint, listening, fake_quant=True)(ids)
logits = listening.heard[0]  # of layer 1, the first that routes by score: [tokens, experts]


# %%
def balance(logits, direction, steps=200, speed=0.001):
    """The load of each expert, over its fair share, at each step; direction: where each bias goes with such a load."""
    bias, history = np.zeros(experts, np.float32), []
    for _ in range(steps):
        routing = moe.route(logits, bias, k, config.scoring_func, config.routed_scaling_factor)
        load = np.bincount(routing.indices.ravel(), minlength=experts) / (len(logits) * k / experts)
        history.append(load)
        bias += speed * direction(load).astype(np.float32)
    return np.array(history)


history = balance(logits, lambda load: np.sign(1 - load))
figure, axes = plt.subplots()
for expert in range(experts):
    axes.plot(history[:, expert], color=palette[expert], label=f"expert {expert}")
axes.axhline(1, color=show.DARK, linestyle=":")
axes.set(title="load of each expert, 1 is its fair share", xlabel="step", ylim=(0.6, 1.3))
axes.legend(ncols=3, fontsize=9)
plt.show()

# %%
lots = np.random.default_rng(0)
show.experiment(
    "the busiest expert ends within 5 % of its fair share",
    lambda history: history[-1].max() < 1.05,
    history,
    nulls={"steps by lot": balance(logits, lambda load: lots.choice([-1, 1], experts))},
    say=lambda history: f"{history[0].max():.2f} of its share at the start, {history[-1].max():.3f} at the end",
)

# %% [markdown]
# ## Exercises
# **1.** What do the routing weights of one token of the bundled model sum to?

# %%
exercise_1 = show.exercise(
    lambda answer: np.allclose(results["layers.1.ffn.gate.weights"].sum(axis=1), answer, atol=1e-5),
    mistake=1,
    hint="There is a factor λ, `routed_scaling_factor` in config.json.",
)
exercise_1(...)

# %% [markdown]
# **2.** A mistake of many ports: the biased scores weigh the experts. Give a bias that changes none of the choices
# made with a bias of zero, but would change the weights if it leaked into them.


# %%
def leaks_unseen(bias):
    """Whether the bias changes no choice, and is not zero."""
    without = moe.route(logits, np.zeros(experts, np.float32), k, "sqrtsoftplus", 1.5)
    biased = moe.route(logits, np.array(bias, np.float32), k, "sqrtsoftplus", 1.5)
    return np.any(bias) and np.array_equal(without.indices, biased.indices)


exercise_2 = show.exercise(leaks_unseen, mistake=[1, 0, 0, 0, 0, 0], hint="What changes every score, but no order?")
exercise_2(...)

# %% [markdown]
# **3.** An expert clips `up` on both sides, and `gate` above only. Give a `gate` and an `up` for which a clip of the
# gate from below would change the result.

# %%
show.source(moe.swiglu)

# %%
exercise_3 = show.exercise(
    lambda pair: (
        moe.swiglu(np.array(pair[0], float), np.array(pair[1], float), 10.0)
        != moe.swiglu(np.clip(np.array(pair[0], float), -10, 10), np.array(pair[1], float), 10.0)
    ),
    mistake=(20, 1),
    hint="Which gates would a clip from below change at all?",
)
exercise_3(...)

# %% [markdown]
# ## Solutions
# 1: 1.5, whatever the scores. 2: the same number for every expert. 3: a gate below −10; its silu is tiny, but not zero.

# %%
exercise_1(1.5)
exercise_2([1, 1, 1, 1, 1, 1])
exercise_3((-20, 1))
