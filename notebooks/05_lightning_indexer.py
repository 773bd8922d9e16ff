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
# **Minutes:** 50 · **Read before:** [3](03_rope_windows_sinks.ipynb), [4](04_compressed_attention.ipynb) · **You should
# know:** softmax attention, ReLU.
#
# In a CSA layer, a query could read thousands of entries, and reads only the best $k$ of them. To find these, it would
# have to compare itself with every entry, which is the cost that it wants to avoid. The **indexer** makes this
# comparison cheap: it has small queries and keys of its own, with few channels of four bits each, and a score without a
# softmax. The question is whether it picks the entries to which attention would have given most.
#
# $$\text{score}_{ti} = \sum_h w_{th} \cdot \text{ReLU}(q^I_{th} \cdot k^I_i), \qquad
# \text{chosen}_t = \text{top-}k_i \, \text{score}_{ti}, \quad i < \lfloor (t+1)/4 \rfloor$$

# %%
import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.learn.evaluation import intervened, random_choice, recall_accuracy
from dsv4.model.attention import Attention
from dsv4.model.indexer import Indexer
from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.ops.attention import attention_shares
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
# The indexer's queries $q^I$ are made from the same **query latent** as the queries of attention, the `qr` in
# `Attention.__call__` ([notebook 3](03_rope_windows_sinks.ipynb)). Its keys $k^I$ come from a small compressor of its
# own. What it chooses becomes the set $E_t$ of the joint softmax:
#
# $$a_{tj} = \frac{e^{q_t \cdot k_j / \sqrt{c}}}
# {e^{\text{sink}} + \sum_{s \in W_t} e^{q_t \cdot k_s / \sqrt{c}} + \sum_{i \in E_t} e^{q_t \cdot e_i / \sqrt{c}}},
# \qquad E_t = \text{chosen}_t$$
#
# ## The project's code
# In `Attention.__call__` the latent `qr` gives the queries of both; `_entries` calls the indexer with its own.

# %%
show.source(Attention.__call__, Indexer.__call__, index_scores, top_k)

# %% [markdown]
# ## What it picks
# The picture shows, for every tenth query of the text, the entries that it can see (pale) and those that it chose
# (dark). As long as there are no more than $k$ = 16, all are chosen. White entries lie in the future.

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
for axes, layer in zip(panels, (1, 3), strict=True):
    chosen = results[f"layers.{layer}.attn.indexer.topk"][0, ::10]
    picture = np.where(np.arange(length // 4) < visible[0, ::10, None], 0.25, 0)
    query, slot = np.nonzero(chosen >= 0)
    picture[query, chosen[query, slot]] = 1
    axes.imshow(picture, aspect="auto", vmin=0, vmax=1.2, extent=(0, length // 4, length, 0))
    axes.set(title=f"layer {layer}", xlabel="entry")
panels[0].set_ylabel("query at position")
show.picture(
    figure,
    "Two panels, for layers 1 and 3: queries from top to bottom against entries. Each query sees the "
    "entries left of a diagonal, and dark marks show the 16 that it chose: some near the diagonal, some "
    "the same for many queries, which make vertical lines.",
)

# %% [markdown]
# ## What attention would have read
# The true weights are those of the layer's own attention when it may read every visible entry. `attention_shares` takes
# the arguments of `sparse_attention` and returns its softmax.


# %%
def attention_to_entries(layer):
    """The share of attention that each entry gets from each query, over all heads: [S, entries]."""
    name = f"layers.{layer}.attn."
    q, kv, entries = results[f"{name}q"], results[f"{name}kv"], results[f"{name}compressor.out"]
    rows = np.pad(kv, [(0, 0), (config.sliding_window - 1, 0), (0, 0)])
    columns = span.window_columns(config.sliding_window)
    every = np.arange(entries.shape[1])
    all_visible = np.where(every < visible[..., None], every, -1)
    shares = attention_shares(q, rows, columns, entries, all_visible, model.layers[layer].attn.attn_sink)
    return shares[0, :, :, config.sliding_window : -1].mean(axis=1)  # without the window and the sink


attention = {layer: attention_to_entries(layer) for layer in (1, 3)}

# %% [markdown]
# ## Chance, the indexer, the best possible
# Of the attention that goes to entries, how much goes to the chosen $k$? The best possible choice knows the true
# weights and takes the $k$ largest; a random choice of $k$ out of $n$ gets $k/n$ on average. The language loss cannot
# train the indexer, because no gradient passes through a choice. It was trained to give the scores that attention gives
# as weights: first alone, with every entry visible, then on the entries that it had chosen
# ([training](../docs/training.md)). The queries are those of the last quarter of the text, which see at least 192
# entries.

# %%
late = slice(3 * length // 4, length)
budgets = np.array([2, 4, 8, 16, 32, 64, 128])


def captured(attention, ranking, k):
    """The share of the attention to entries that the k entries ranked first get, for the late queries."""
    chosen = top_k(ranking, visible, k)[0, late]
    return float(np.take_along_axis(attention[late], chosen, axis=-1).sum() / attention[late].sum())


def by_chance(attention, k):
    """What k entries, drawn at random from the visible ones, get on average."""
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

# %% tags=["hide-input"]
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
show.picture(
    figure,
    "Attention captured in percent against the number of chosen entries, from 2 to 128, for layers 1 and "
    "3. The curve of the indexer lies on that of the best possible choice or just below it. Chance lies "
    "below both, in layer 3 far below.",
)

# %% [markdown]
# The **standing** of the indexer for the model's own $k$ = 16 says where it lies between the two: 0 is chance, 1 the
# best possible choice.

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
# A stricter measure is the recall: how many of the truly best $k$ entries are among the chosen $k$?

# %%
rows = []
for layer in (1, 3):
    wanted = top_k(attention[layer][None], visible, config.index_topk)[0, late]
    picked = top_k(results[f"layers.{layer}.attn.indexer.scores"], visible, config.index_topk)[0, late]
    recall = np.mean([len(np.intersect1d(*pair)) / config.index_topk for pair in zip(wanted, picked, strict=True)])
    at_random = np.mean(config.index_topk / visible[0, late])
    rows.append([f"layer {layer}", f"{recall:.1%}", f"{at_random:.1%}"])
show.table(["", "recall of the best 16", "by chance"], rows)

# %% [markdown]
# ## Experiment: near the best possible choice
# If the indexer has learnt where attention goes, its standing is close to 1 in both layers. One null model is a random
# ranking. The other takes the indexer's own scores for another query of the last quarter: they know which entries are
# useful to any query, and nothing about this one.


# %%
def standing(rankings):
    """Where each layer's ranking lies between chance, 0, and the best possible choice, 1, at the model's own k."""
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
    "in each layer the indexer's standing is 0.8 or more",
    lambda found: min(found) >= 0.8,
    standing(scores),
    nulls={
        "a random ranking": standing({n: random.random(one.shape) for n, one in scores.items()}),
        "scores for another query": standing({n: one[elsewhere] for n, one in scores.items()}),
    },
    say=lambda found: " and ".join(f"{each:.2f}" for each in found),
)

# %% [markdown]
# ## Where it looks when a question is asked
# In this text somebody states facts at the beginning, which are asked for at the end. Between the two stands part of a
# play, far more than the window holds. Below are the last words before one answer, and the entries that the indexers
# pick for the token that has to name it. Each entry stands for eight tokens of the text.

# %%
tokenizer = dsv4.Tokenizer.from_file(dsv4.bundled_model())
document = show.questions(2048, 1)[0]
asked = document.answers[-1]
at = asked.start - 1  # the token after which the answer comes
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
# If the answers come through the entries that the indexers choose, a model that reads equally many random entries must
# lose most of them. In these documents, each question asks for a fact from three quarters of the text earlier, which
# the model has never read before. A random guess among the twelve facts of a document is right one time in twelve.

# %%
documents = show.questions(2048, 6)
answered = recall_accuracy(model, documents)
at_random = recall_accuracy(intervened(model, random_choice), documents)
show.experiment(
    "the model answers nine of ten questions or more",
    lambda share: share >= 0.9,
    answered,
    nulls={"as many entries, chosen at random": at_random},
    say=lambda share: f"{share:.0%}",
)

# %% [markdown]
# ## FP4, with and without Hadamard
# Queries and keys of the indexer are rounded to FP4. A block of 32 channels shares one scale, so a single large channel
# makes the steps of all others coarse. The **Hadamard** rotation of both changes no product of a query and a key, and
# spreads every channel over all channels.

# %%
show.source(hadamard)


# %%
class Listening(Ops):
    """NumPy's backend, which also keeps the indexer's vectors before the rotation, and the weights of its heads."""

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
# One channel in each block of the keys is multiplied by a growing factor, and that of the queries divided by it, so
# that the exact scores do not change. How much of the exact choice is still made after rounding? The rotation should
# help, up to a point: an outlier that is larger than all other channels together hides them wherever it is spread. The
# null model moves the channels of each block in a circle. This does not change the exact scores either, and spreads
# nothing.


# %%
def ring(x):
    """The channels of each block of 32, each moved by one place."""
    return np.roll(x.reshape(*x.shape[:-1], -1, 32), 1, axis=-1).reshape(x.shape)


def agreement(factor, change):
    """The share of the exact choice that FP4 keeps after a change, with keys that have outliers of this factor."""
    stretch = np.ones(keys.shape[-1], np.float32)
    stretch[5::32] = factor
    rounded = [fake_quant_fp4(change(x)) for x in (queries / stretch, keys * stretch)]
    chosen = index_top_k(*rounded, weights, visible, config.index_topk)[0, late]
    exact = index_top_k(queries, keys, weights, visible, config.index_topk)[0, late]
    return float(np.mean([len(np.intersect1d(*pair)) / config.index_topk for pair in zip(chosen, exact, strict=True)]))


factors = [1, 2, 4, 8, 16, 32, 64]
changes = {"Hadamard, then FP4": hadamard, "FP4 alone": lambda x: x}
kept = {name: np.array([agreement(factor, change) for factor in factors]) for name, change in changes.items()}

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 2.8))
for (name, shares), colour in zip(kept.items(), (show.BLUE, show.ORANGE), strict=True):
    axes.plot(range(len(factors)), 100 * shares, "o-", color=colour, label=name)
axes.set_xticks(range(len(factors)), [f"{factor}×" for factor in factors])
axes.set(title="what FP4 keeps of the exact choice", xlabel="size of the outlier", ylabel="kept, %", ylim=(None, 100))
axes.legend()
show.picture(
    figure,
    "The share of the exact choice that FP4 keeps, against the size of the outlier from 1× to 64×. Up to "
    "8× it is near 90 percent with and without the rotation; at 32× it is 69 percent with Hadamard and 59 "
    "without; at 64× both are at 50.",
)

# %%
rows = [[name, *(f"{share:.0%}" for share in shares)] for name, shares in kept.items()]
show.table(["outliers", *(f"{factor}×" for factor in factors)], rows)
alone = kept["FP4 alone"][factors.index(32)]
show.experiment(
    "with outliers of 32×, the rotation keeps at least five percentage points more of the exact choice",
    lambda share: share > alone + 0.05,
    kept["Hadamard, then FP4"][factors.index(32)],
    nulls={"channels moved in a circle": agreement(32, ring)},
    say=lambda share: f"{share:.1%} with it, {alone:.1%} without",
)

# %% [markdown]
# ## Exercises
# **1.** A query has two heads, both with the weight 1. Their products with a key are 2 and −3. What is the score?

# %% tags=["hide-input"]
exercise_1 = show.exercise(
    lambda answer: np.isclose(
        index_scores(np.array([[[[2.0], [-3.0]]]]), np.array([[[1.0]]]), np.ones((1, 1, 2)))[0, 0, 0], answer
    ),
    mistake=-1,
    hint="The ReLU comes before the sum.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** Scores can be negative. Give two weights with which every entry, whatever its key, has a score of at most zero,
# and not always zero.

# %% tags=["hide-input"]
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

# %%
exercise_2(...)

# %% [markdown]
# **3.** V4-Flash reads its millionth token. How many multiply-adds does the indexer of one layer need for the products
# of its queries and keys? (Within one percent; `flash` holds the configuration.)

# %% tags=["hide-input"]
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

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write `index_top_k` yourself: from queries, keys and weights to the numbers of the chosen entries. `dsv4.check`
# runs the project's own tests on it.


# %% tags=["hide-input"]
def relu_after_the_sum(queries, keys, weights, visible, k):
    products = np.einsum("bshd,btd->bsht", queries, keys)
    return top_k(np.maximum(np.einsum("bsh,bsht->bst", weights, products), 0), visible, k)


exercise_4 = show.write(
    show.properties("index_top_k"),
    wrong={"ReLU after the sum": relu_after_the_sum},
    hint="Give every entry that is not visible the score −∞, and sort with kind='stable', so that among equal scores "
    "the lowest entry number comes first. Where fewer than k entries are visible, the rest are −1.",
)


# %%
def my_index_top_k(queries, keys, weights, visible, k):
    """The k best visible entries of each query, by falling score: [B, S, min(k, T)] integers, −1 where there are fewer.

    queries [B, S, h, D]; keys [B, T, D]; weights [B, S, h]; visible [B, S]: a query sees entries 0 … visible − 1.
    """


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: 2, because the ReLU makes the second product zero. 2: negative weights for both. 3: 250,000 entries, 64 heads of
# 128 channels: about two thousand million. 4: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_4(queries, keys, weights, visible, k):
    products = np.einsum("bshd,btd->bsht", queries, keys)
    scores = np.einsum("bsh,bsht->bst", weights, np.maximum(products, 0))
    entry = np.arange(keys.shape[1])
    order = np.argsort(np.where(entry < visible[..., None], -scores, np.inf), axis=-1, kind="stable")[..., :k]
    return np.where(order < visible[..., None], order, -1)


exercise_1(2)
exercise_2((-1, -1))
exercise_3(250_000 * 64 * 128)
exercise_4(solution_4)
