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
# **Minutes:** 35 · **Read before:** [1](01_tour.ipynb) · **You should know:** feed-forward layers.
#
# A wide feed-forward layer is split into many narrow ones, the **experts**, and each token visits only a few of them.
# So the model has many weights but uses few of them for each token. V4-Flash has 256 experts in a layer and uses 6 of
# them for a token, besides one shared expert that every token visits. A router scores the experts. The best are chosen,
# and their outputs are weighted by their scores. A **bias**, which training moves towards equal load, counts in the
# choice but not in the weights. In the first layers, the **hash layers**, the choice needs no scores: a table gives the
# experts of each token id.
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
# V4's score function grows without limit, like the root of the logit. The sigmoid of V3 saturates: above a logit of 3
# it hardly distinguishes experts. (With a third one, softmax, every score depends on all logits.)

# %%
logit = np.linspace(-6, 6, 241)

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 2.6))
for name in ("sqrtsoftplus", "sigmoid"):
    axes.plot(logit, moe.expert_scores(logit, name), label=name)
axes.set(title="the score of an expert", xlabel="its logit", ylabel="score")
axes.legend()
show.picture(
    figure,
    "The score of an expert against its logit, from −6 to 6. The root of softplus keeps growing at the "
    "right, to about 2.4; the sigmoid levels off at 1.",
)

# %% [markdown]
# ## Which token visits which expert
# The picture shows a piece of the text, token by token. The colour says which expert has the largest weight. In layer
# 0, a hash layer, equal tokens have equal colours. In the other layers, the context matters, too.

# %%
palette = np.array([show.BLUE, show.ORANGE, show.GREEN, show.RED, show.PURPLE, show.GREY])
start, count = 122, 22

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9.5, 2.6))
for layer in range(config.num_hidden_layers):
    gate = f"layers.{layer}.ffn.gate"
    heaviest = np.take_along_axis(
        results[f"{gate}.indices"], results[f"{gate}.weights"].argmax(axis=1, keepdims=True), axis=1
    )[:, 0]
    for place in range(count):
        axes.barh(layer, 0.94, left=place, height=0.86, color=palette[heaviest[start + place]])
        word = tokenizer.decode([ids[0, start + place]]).replace("\n", "⏎")
        axes.text(place + 0.47, layer, word, ha="center", va="center", color="white", fontsize=10)
axes.set_yticks(range(4))
axes.set_ylabel("layer")
axes.set_xticks([])
axes.invert_yaxis()
axes.spines[:].set_visible(False)
axes.set_title("the expert with the largest weight, by colour")
show.picture(
    figure,
    "Four rows, one for each layer, of 22 tokens of the text, each in the colour of the expert with the "
    "largest weight. In layer 0 equal tokens have equal colours; in the other layers the same token can "
    "have different colours.",
)

# %% [markdown]
# ## Experiment: does routing depend on the token, and on more than the token?
# If a router used only the token, it would send equal tokens to equal experts everywhere, and a table would do the
# same. If it ignored the token, equal tokens would be treated like different ones. So count how often the same set of
# experts is chosen, over all pairs of places with the same token, and over all pairs with different tokens. There are
# two null models: the hash layer is such a table, and the choices of a layer, shuffled over the places, ignore the
# token.


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
shuffled = np.random.default_rng(0).permutation(routes[1])
show.experiment(
    "after the hash layer, equal tokens visit the same experts at least twice as often as different ones, "
    "and other experts in at least one pair of twenty",
    lambda shares: (shares[:, 0] > 2 * shares[:, 1]).all() and (shares[:, 0] < 0.95).all(),
    shares[1:],
    nulls={"the table of the hash layer": shares[:1], "shuffled choices": np.array([same_experts(shuffled)])},
    say=lambda shares: " and ".join(
        f"{', '.join(f'{share:.0%}' for share in column)} of the pairs of {name} tokens"
        for name, column in zip(("equal", "different"), shares.T, strict=True)
    ),
)

# %% [markdown]
# ## Load
# An expert that many tokens visit makes the others wait, and one that no token visits learns nothing. What share of the
# visits of this text does each expert get?

# %%
loads = [np.bincount(results[f"layers.{n}.ffn.gate.indices"].ravel(), minlength=experts) for n in range(4)]

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 4, figsize=(9, 2.4), sharey=True)
for layer, (axes, load) in enumerate(zip(panels, loads, strict=True)):
    axes.bar(range(experts), load / load.sum(), color=palette)
    axes.axhline(1 / experts, color=show.DARK, linestyle=":")
    axes.set(title=f"layer {layer}" + " (hash)" * config.is_hash_layer(layer), xlabel="expert")
    axes.set_xticks(range(experts))
panels[0].set_ylabel("share of the visits")
show.picture(
    figure,
    "Four bar charts, one for each layer: the share of visits of each of six experts, with a dotted line "
    "at one sixth. No expert is empty; the largest share is 0.23, in layer 1.",
)

# %% [markdown]
# ## Experiment: a bias that balances
# The rule of training: after each batch, the bias of an expert with too many visits becomes a little smaller, that of
# an expert with too few a little larger (report §4.2.3; in V4 by 0.001 at each step). Here the rule runs on the real
# logits of layer 1, starting from a bias of zero, with the text repeated. Since the rule uses only the sign, it might
# oscillate for ever. The null model takes steps of the same size in random directions.


# %%
class Listening(Ops):
    """NumPy's backend, which also keeps the logits that the routers get."""

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

# %% tags=["hide-input"]
figure, axes = plt.subplots()
for expert in range(experts):
    axes.plot(history[:, expert], color=palette[expert], label=f"expert {expert}")
axes.axhline(1, color=show.DARK, linestyle=":")
axes.set(title="load of each expert", xlabel="step", ylabel="load (1 is the fair share)", ylim=(0.6, 1.3))
axes.legend(ncols=3, fontsize=10)
show.picture(
    figure,
    "The load of each of six experts over 200 steps. One begins above 1.3 of the fair share and two near "
    "0.8; within about 80 steps all come to 1 and then stay close to it, in small steps up and down.",
)

# %%
random = np.random.default_rng(0)
show.experiment(
    "the busiest expert ends within 5 % of its fair share",
    lambda history: history[-1].max() < 1.05,
    history,
    nulls={"random steps": balance(logits, lambda load: random.choice([-1, 1], experts))},
    say=lambda history: f"{history[0].max():.2f} of its share at the start, {history[-1].max():.3f} at the end",
)

# %% [markdown]
# ## Exercises
# **1.** What is the sum of the routing weights of one token in the bundled model?

# %% tags=["hide-input"]
exercise_1 = show.exercise(
    lambda answer: np.allclose(results["layers.1.ffn.gate.weights"].sum(axis=1), answer, atol=1e-5),
    mistake=1,
    hint="There is a factor λ, `routed_scaling_factor` in config.json.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** Many ports use the biased scores as weights, too. Give a bias that leaves all choices as they are with a bias
# of zero, but would change the weights in such a port.


# %% tags=["hide-input"]
def leaks_unseen(bias):
    """Whether the bias changes no choice, and is not zero."""
    without = moe.route(logits, np.zeros(experts, np.float32), k, "sqrtsoftplus", 1.5)
    biased = moe.route(logits, np.array(bias, np.float32), k, "sqrtsoftplus", 1.5)
    return np.any(bias) and np.array_equal(without.indices, biased.indices)


exercise_2 = show.exercise(leaks_unseen, mistake=[1, 0, 0, 0, 0, 0], hint="What changes every score, but no order?")

# %%
exercise_2(...)

# %% [markdown]
# **3.** An expert clips `up` on both sides, but `gate` only from above. Give a `gate` and an `up` for which clipping
# the gate from below would change the result.

# %%
show.source(moe.swiglu)

# %% tags=["hide-input"]
exercise_3 = show.exercise(
    lambda pair: (
        moe.swiglu(np.array(pair[0], float), np.array(pair[1], float), 10.0)
        != moe.swiglu(np.clip(np.array(pair[0], float), -10, 10), np.array(pair[1], float), 10.0)
    ),
    mistake=(20, 1),
    hint="Which gates would a clip from below change at all?",
)

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write `expert` yourself: one expert on some tokens, with the routing weights of these tokens. `dsv4.check` runs
# the project's own tests on it, here with weights in float32.


# %% tags=["hide-input"]
def gate_clipped_twice(x, share, matrices, limit, round_inputs):
    gate, up = (np.clip(x @ weight.T, -limit, limit) for weight in (matrices.w1, matrices.w3))
    return (share[:, None] * gate / (1 + np.exp(-gate)) * up) @ matrices.w2.T


exercise_4 = show.write(
    show.properties("expert"),
    wrong={"the gate clipped from below, too": gate_clipped_twice},
    hint="silu(gate) is gate · sigmoid(gate), and swiglu above has the clips. The weights multiply the hidden numbers.",
)


# %%
def my_expert(x, share, matrices, limit, round_inputs):
    """w2 @ (share · swiglu(w1 @ x, w3 @ x)) of each token: x [T, d], share [T] -> [T, d].

    matrices: `w1` and `w3` [width, d], `w2` [d, width]; limit: of the clips; round_inputs: False here.
    """


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: 1.5, whatever the scores are. 2: the same number for every expert. 3: a gate below −10, whose silu is tiny, but not
# zero. 4: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_4(x, share, matrices, limit, round_inputs):
    gate, up = np.minimum(x @ matrices.w1.T, limit), np.clip(x @ matrices.w3.T, -limit, limit)
    return (share[:, None] * gate / (1 + np.exp(-gate)) * up) @ matrices.w2.T


exercise_1(1.5)
exercise_2([1, 1, 1, 1, 1, 1])
exercise_3((-20, 1))
exercise_4(solution_4)
