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
# # 5 · The lightning indexer: what it picks
#
# In a CSA layer a query could read thousands of entries, and reads only the best $k$. To find them it would have to
# compare itself with all of them, which is what it wants to avoid. So the **indexer** does it with small queries and
# keys of its own: few channels, four bits each, and a score that needs no softmax. What it costs is little; the
# question is whether it picks what attention would have looked at.
#
# $$\text{score}_{ti} = \sum_h w_{th} \cdot \text{ReLU}(q^I_{th} \cdot k^I_i), \qquad
# \text{chosen}_t = \text{top-}k_i \, \text{score}_{ti}, \quad i < \lfloor (t+1)/4 \rfloor$$

# %%
import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.learn.evaluation import intervened, random_choice, recall_accuracy
from dsv4.model.indexer import Indexer
from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.ops.hadamard import hadamard
from dsv4.ops.indexer import index_scores, index_top_k, top_k
from dsv4.ops.quantise import fake_quant_fp4

model = dsv4.load(backend="numpy", fake_quant="off")
config = model.config
length = 1024
ids = show.passage(length)
results = show.observe(model, ids)
span = Span(np.zeros(1, np.int64), np.array([length]), length)
visible = span.visible(4)

# %% [markdown]
# ## The project's code

# %%
show.source(Indexer.__call__, index_scores, top_k)

# %% [markdown]
# ## What it picks
# For every tenth query of the text: the entries that it sees, and those that it chose. As long as there are no more
# than $k$ = 16, all are chosen. White is the future.

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
for axes, layer in zip(panels, (1, 3), strict=True):
    chosen = results[f"layers.{layer}.attn.indexer.topk"][0, ::10]
    picture = np.where(np.arange(length // 4) < visible[0, ::10, None], 0.25, 0)
    query, slot = np.nonzero(chosen >= 0)
    picture[query, chosen[query, slot]] = 1
    axes.imshow(picture, aspect="auto", vmin=0, vmax=1.2, extent=(0, length // 4, length, 0))
    axes.set(title=f"layer {layer}", xlabel="entry")
panels[0].set_ylabel("query at position")
plt.show()

# %% [markdown]
# ## What attention would have looked at
# The true weights are those of the layer's own attention when it may read every visible entry. `sparse_attention` gives
# the weighted sum of its rows and not the weights. They come out all the same if each entry gets 256 further channels,
# zero but for a one in its own, and the queries get zeros there: then the sum of those channels is the weights.


# %%
def attention_to_entries(layer):
    """The share of attention that each entry gets from each query, over all heads: [S, entries]."""
    name = f"layers.{layer}.attn."
    q, kv, entries = results[f"{name}q"], results[f"{name}kv"], results[f"{name}compressor.out"]
    count, width = entries.shape[1], q.shape[-1]
    q = q * np.float32(np.sqrt((width + count) / width))  # the logits are divided by the root of the wider width
    q = np.pad(q, [(0, 0)] * 3 + [(0, count)])
    rows = np.pad(kv, [(0, 0), (config.sliding_window - 1, 0), (0, count)])
    marked = np.concatenate([entries, np.eye(count, dtype=np.float32)[None]], axis=-1)
    all_visible = np.where(np.arange(count) < visible[..., None], np.arange(count), -1)
    columns = span.window_columns(config.sliding_window)
    output = Ops.sparse_attention(q, rows, columns, marked, all_visible, model.layers[layer].attn.attn_sink)
    return output[0, ..., width:].mean(axis=1)


attention = {layer: attention_to_entries(layer) for layer in (1, 3)}

# %% [markdown]
# ## Chance, the indexer, the best possible
# Of the attention that goes to entries, how much lands on the chosen $k$? An oracle that knows the true weights takes
# the best $k$; a blind choice of $k$ out of $n$ gets $k/n$ on average. The indexer has learnt nothing from the text:
# no gradient passes through a choice. It was trained to score as attention weighs, first alone with everything visible,
# then on what it had chosen ([training](../docs/training.md)). The queries are those of the last quarter, which see at
# least 192 entries.

# %%
late = slice(3 * length // 4, length)
budgets = np.array([2, 4, 8, 16, 32, 64, 128])


def captured(attention, ranking, k):
    """The share of the attention to entries that the k entries ranked first get, for the late queries."""
    chosen = top_k(ranking, visible, k)[0, late]
    return float(np.take_along_axis(attention[late], chosen, axis=-1).sum() / attention[late].sum())


def by_chance(attention, k):
    """What k entries drawn blindly from the visible ones get on average."""
    share = k / visible[0, late]
    return float((share * attention[late].sum(axis=1)).sum() / attention[late].sum())


curves = {}
for layer in (1, 3):
    scores = results[f"layers.{layer}.attn.indexer.scores"]
    true = attention[layer]
    curves[layer] = {
        "best possible": np.array([captured(true, true[None], k) for k in budgets]),
        "indexer": np.array([captured(true, scores, k) for k in budgets]),
        "chance": np.array([by_chance(true, k) for k in budgets]),
    }

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
styles = {"best possible": (show.GREEN, "-"), "indexer": (show.BLUE, "-"), "chance": (show.GREY, "--")}
for axes, (layer, found) in zip(panels, curves.items(), strict=True):
    for name, curve in found.items():
        axes.plot(budgets, 100 * curve, styles[name][1], color=styles[name][0], marker="o", markersize=4, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(budgets, budgets)
    axes.set(title=f"layer {layer}", xlabel="entries chosen, k")
panels[0].set_ylabel("attention captured, %")
panels[0].legend()
plt.show()

# %% [markdown]
# Where the indexer stands between the two, for the model's own $k$ = 16: 0 is chance, 1 the best possible.

# %%
at_k = list(budgets).index(config.index_topk)
rows = []
for layer, found in curves.items():
    best, picked, chance = (found[name][at_k] for name in ("best possible", "indexer", "chance"))
    rows.append(
        [
            f"layer {layer}",
            f"{best:.1%}",
            f"{picked:.1%}",
            f"{chance:.1%}",
            f"{(picked - chance) / (best - chance):.2f}",
        ]
    )
show.table(["", "best possible", "indexer", "chance", "standing"], rows)

# %% [markdown]
# A recall in the stricter sense: how many of the truly best $k$ entries are among the chosen $k$?

# %%
rows = []
for layer in (1, 3):
    wanted = top_k(attention[layer][None], visible, config.index_topk)[0, late]
    picked = top_k(results[f"layers.{layer}.attn.indexer.scores"], visible, config.index_topk)[0, late]
    recall = np.mean([len(np.intersect1d(*pair)) / config.index_topk for pair in zip(wanted, picked, strict=True)])
    blind = np.mean(config.index_topk / visible[0, late])
    rows.append([f"layer {layer}", f"{recall:.1%}", f"{blind:.1%}"])
show.table(["", "recall of the best 16", "by chance"], rows)

# %% [markdown]
# ## Experiment: near the best possible choice
# If the indexer has learnt what attention looks at, it stands close to 1 in both layers. The null models are the same
# measure of a ranking by lot, and of the indexer's own scores for a query from anywhere in the last quarter: that one
# knows which entries are worth reading by anybody, and nothing about this query.


# %%
def standing(rankings):
    """Of each layer's ranking, between chance and the best possible choice, at the model's own k."""
    found = []
    for layer, ranking in rankings.items():
        true = attention[layer]
        picked, best = (captured(true, some[None], config.index_topk) for some in (ranking, true))
        chance = by_chance(true, config.index_topk)
        found.append((picked - chance) / (best - chance))
    return found


random = np.random.default_rng(0)
elsewhere = np.arange(length)
elsewhere[late] = random.permutation(elsewhere[late])
scores = {n: results[f"layers.{n}.attn.indexer.scores"][0] for n in attention}
show.experiment(
    "in each layer the indexer stands at 0.8 or more between chance, 0, and the best possible choice, 1",
    lambda found: min(found) >= 0.8,
    standing(scores),
    nulls={
        "a ranking by lot": standing({n: random.random(one.shape) for n, one in scores.items()}),
        "scores for a query from elsewhere": standing({n: one[elsewhere] for n, one in scores.items()}),
    },
    say=lambda found: " and ".join(f"{each:.2f}" for each in found),
)

# %% [markdown]
# ## Where it looks when it is asked
# In this text somebody says early what is asked for late, with a play going on between the two, far more of it than the
# window holds. Below are the last words before one answer, and the entries that the indexers pick for the token which
# has to name it: each is eight tokens of the text.

# %%
tokenizer = dsv4.Tokenizer.from_file(dsv4.bundled_model())
document = show.questions(2048, 1)[0]
asked = document.answers[-1]
at = asked.start - 1  # the token behind which the answer comes
seen = show.observe(model, document.ids[None])
said = range(asked.start - asked.distance, asked.start - asked.distance + asked.length)
print("Asked:", repr(tokenizer.decode(document.ids[at - 24 : at + 1])))
print("Answer:", repr(tokenizer.decode(document.ids[asked.start : asked.start + asked.length])))


def words(entry):
    """The eight tokens that an entry is made of."""
    return repr(tokenizer.decode(document.ids[max(4 * entry - 4, 0) : 4 * entry + 4]))


rows = []
for layer in (1, 3):
    entry_scores = seen[f"layers.{layer}.attn.indexer.scores"][0, at]
    entry_scores = entry_scores[: (at + 1) // 4]
    for place, entry in enumerate(np.argsort(-entry_scores)[:4]):
        has_it = any(max(4 * entry - 4, 0) <= token < 4 * entry + 4 for token in said)
        rows.append([layer, place + 1, f"{at - 4 * entry} tokens back", words(entry), "✓" if has_it else ""])
show.table(["layer", "rank", "where", "what it holds", "the answer"], rows)

# %% [markdown]
# ## Experiment: what the choice is worth
# If the answers come through the entries that the indexers choose, a model that chooses blindly, as many, must lose
# most of them. Each question of these documents has its answer three quarters of the text back, and a fact that the
# model has never read. Whoever names one of the twelve facts of a document by lot is right one time in twelve.

# %%
documents = show.questions(2048, 6)
answered = recall_accuracy(model, documents)
blind = recall_accuracy(intervened(model, random_choice), documents)
show.experiment(
    "the model answers nine of ten questions or more",
    lambda share: share >= 0.9,
    answered,
    nulls={"as many entries, chosen blindly": blind},
    say=lambda share: f"{share:.0%}",
)

# %% [markdown]
# ## FP4, with and without Hadamard
# Queries and keys of the indexer are rounded to FP4. A block of 32 channels shares a scale, so one large channel makes
# all others coarse. The **Hadamard** rotation, done to both, changes no product, but spreads every channel over all.

# %%
show.source(hadamard)


# %%
class Listening(Ops):
    """NumPy's backend, keeping the indexer's vectors before they are rotated, and the weights of its heads."""

    def __init__(self):
        self.vectors, self.weights = [], []

    def hadamard(self, x):
        self.vectors.append(x)
        return hadamard(x)

    def index_top_k(self, queries, keys, weights, visible, k):
        self.weights.append(weights)
        return index_top_k(queries, keys, weights, visible, k)


listening = Listening()
dsv4.Model(model.checkpoint, listening, fake_quant=False)(ids)
keys, queries = listening.vectors[:2]  # of layer 1: [1, entries, D] and [1, S, heads, D]
weights = listening.weights[0]

# %% [markdown]
# ## Experiment: outliers
# One channel in each block of the keys is made larger and larger, and that of the queries smaller in the same measure:
# the exact scores stay what they were. How much of the exact choice is still made after rounding? The rotation should
# help, up to a point: an outlier that outweighs all other channels together drowns them wherever it is spread. The null
# model turns the channels of each block in a ring, which changes no exact score either, and spreads nothing.


# %%
def ring(x):
    """The channels of each block of 32, each moved by one place."""
    return np.roll(x.reshape(*x.shape[:-1], -1, 32), 1, axis=-1).reshape(x.shape)


def agreement(factor, change):
    """The share of the exact choice kept by FP4 behind a change, with `factor` times as large outliers in the keys."""
    stretch = np.ones(keys.shape[-1], np.float32)
    stretch[5::32] = factor
    rounded = [fake_quant_fp4(change(x)) for x in (queries / stretch, keys * stretch)]
    chosen = index_top_k(*rounded, weights, visible, config.index_topk)[0, late]
    exact = index_top_k(queries, keys, weights, visible, config.index_topk)[0, late]
    return float(np.mean([len(np.intersect1d(*pair)) / config.index_topk for pair in zip(chosen, exact, strict=True)]))


factors = [1, 2, 4, 8, 16, 32, 64]
changes = {"Hadamard, then FP4": hadamard, "FP4 alone": lambda x: x}
kept = {name: np.array([agreement(factor, change) for factor in factors]) for name, change in changes.items()}
figure, axes = plt.subplots(figsize=(9, 2.8))
for (name, shares), colour in zip(kept.items(), (show.BLUE, show.ORANGE), strict=True):
    axes.plot(range(len(factors)), 100 * shares, "o-", color=colour, label=name)
axes.set_xticks(range(len(factors)), [f"{factor}×" for factor in factors])
axes.set(title="the exact choice that survives FP4", xlabel="size of the outlier", ylabel="%", ylim=(None, 100))
axes.legend()
plt.show()

# %%
rows = [[name, *(f"{share:.0%}" for share in shares)] for name, shares in kept.items()]
show.table(["outliers", *(f"{factor}×" for factor in factors)], rows)
alone = kept["FP4 alone"][factors.index(32)]
show.experiment(
    "with outliers of 32×, at least a twentieth more of the exact choice survives with the rotation than without",
    lambda share: share > alone + 0.05,
    kept["Hadamard, then FP4"][factors.index(32)],
    nulls={"channels in a ring": agreement(32, ring)},
    say=lambda share: f"{share:.1%} with it, {alone:.1%} without",
)

# %% [markdown]
# ## Exercises
# **1.** Two heads of a query have the products 2 and −3 with a key, and both the weight 1. What is the score?

# %%
exercise_1 = show.exercise(
    lambda answer: np.isclose(
        index_scores(np.array([[[[2.0], [-3.0]]]]), np.array([[[1.0]]]), np.ones((1, 1, 2)))[0, 0, 0], answer
    ),
    mistake=-1,
    hint="The ReLU comes before the sum.",
)
exercise_1(...)

# %% [markdown]
# **2.** A score can be negative, and so can all of them. Give two weights with which every entry, whatever its key,
# scores at most zero, and not always zero.

# %%
random_vectors = np.random.default_rng(0).standard_normal((2, 1, 40, 2, 8))


def all_scores(weights):
    """The scores of 40 random queries and 40 random keys."""
    queries, keys = random_vectors[0], random_vectors[1, :, :, 0]
    return index_scores(queries, keys, np.tile(np.array(weights, float), (1, 40, 1)))


exercise_2 = show.exercise(
    lambda weights: all_scores(weights).max() <= 0 and all_scores(weights).min() < 0,
    mistake=(1, -1),
    hint="After the ReLU no product is negative.",
)
exercise_2(...)

# %% [markdown]
# **3.** V4-Flash reads its millionth token. How many multiply-adds of a query and key channel does the indexer of one
# layer make? (Within one percent; the configuration is in `flash`.)

# %%
flash = dsv4.read_config(show.ROOT / "tests/data/configs/deepseek-v4-flash.json")
print(f"{flash.index_n_heads} heads, {flash.index_head_dim} channels, top-k {flash.index_topk}")
last_token = Span(np.array([999_999]), np.array([1]), 1)
exercise_3 = show.exercise(
    lambda answer: np.isclose(
        answer, int(last_token.visible(4)[0, 0]) * flash.index_n_heads * flash.index_head_dim, rtol=0.01
    ),
    mistake=1_000_000 * 64 * 128,
    hint="It scores entries, not tokens.",
)
exercise_3(...)

# %% [markdown]
# ## Solutions
# 1: 2, since the second head is silent. 2: negative weights for both. 3: 250 000 entries, 64 heads of 128 channels: two
# thousand million.

# %%
exercise_1(2)
exercise_2((-1, -1))
exercise_3(250_000 * 64 * 128)
