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
# # 6 · HCA and the schedule of layers
#
# **Minutes:** 35 · **Read before:** [3](03_rope_windows_sinks.ipynb), [4](04_compressed_attention.ipynb) · **You should
# know:** standard errors.
#
# Heavily compressed attention (HCA) makes one entry of every $m' = 128$ tokens. These are so few that a query can read
# **all** of them, so HCA needs no indexer. It has no overlap either. HCA's entries give a blurred view of the whole
# text, CSA's entries a sharp view of a few places, and the window an exact view of the newest tokens. No layer has all
# three: CSA and HCA layers alternate through the depth of the model, and every layer has the window.
#
# $$\text{entry}_i = \sum_{j=0}^{m'-1} \frac{e^{S_{ij}}}{\sum_{j'} e^{S_{ij'}}} \odot C_{ij}, \qquad
# \text{keys of query } t: \; w \;+\; \begin{cases} 0 & \text{window only} \\
# \min(k, \lfloor (t+1)/4 \rfloor) & \text{CSA} \\ \lfloor (t+1)/128 \rfloor & \text{HCA} \end{cases}$$

# %%
import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.learn.evaluation import intervened, recall_accuracy, without_csa, without_hca
from dsv4.model.attention import Attention, _all_visible_entries
from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.ops.compressor import compress

model = dsv4.load(backend="numpy")
configs = {
    name: dsv4.read_config(show.ROOT / f"tests/data/configs/deepseek-v4-{name}.json") for name in ("flash", "pro")
}
colours = {"SWA": show.GREEN, "CSA": show.BLUE, "HCA": show.PURPLE}

# %% [markdown]
# ## The schedule
# `compress_ratios` in config.json says of which kind each layer is. The last number is for the MTP module.

# %% tags=["hide-input"]
figure, panels = plt.subplots(3, 1, figsize=(9, 3.4))
for axes, (name, config) in zip(panels, [("bundled", model.config), *configs.items()], strict=True):
    kinds = [config.layer_kind(layer) for layer in range(len(config.compress_ratios))]
    for layer, kind in enumerate(kinds):
        is_mtp = layer >= config.num_hidden_layers
        axes.bar(layer + 0.5 * is_mtp, 1, width=0.9, color=colours[kind], alpha=0.5 if is_mtp else 1)
    counts = ", ".join(f"{kinds[: config.num_hidden_layers].count(kind)} {kind}" for kind in colours)
    axes.set_title(f"{name}: {counts}")
    axes.set(xlim=(-1, 62.5), yticks=[], ylim=(0, 1))
    axes.spines["left"].set_visible(False)
figure.supxlabel("layer; the pale one is the MTP module", fontsize=10.5)
names = {"SWA": "window only", "CSA": "CSA", "HCA": "HCA"}
kinds = [plt.Rectangle((0, 0), 1, 1, color=colour, label=names[kind]) for kind, colour in colours.items()]
panels[0].legend(handles=kinds, ncols=3, loc="center right")
show.picture(
    figure,
    "Three rows of bars, one for each layer of the bundled model, of V4-Flash and of V4-Pro, coloured by "
    "kind. The bundled model has four layers. Flash begins with two layers that have a window only, Pro "
    "with two HCA layers; then CSA and HCA alternate.",
)

# %% [markdown]
# ## Which entries a query reads
# In an HCA layer there is no choice: `_entries` returns all that is visible.

# %%
show.source(Attention._entries, _all_visible_entries)

# %% [markdown]
# How many keys does a query of V4-Flash read as the text grows? With full attention, it would read all of them.

# %%
flash = configs["flash"]
positions = np.unique(np.geomspace(1, flash.max_position_embeddings, 200).astype(int)) - 1
spans = Span(positions, np.ones_like(positions), 1)
in_window = np.minimum(positions + 1, flash.sliding_window)
keys = {
    "full attention": positions + 1,
    "CSA": in_window + np.minimum(spans.visible(4)[:, 0], flash.index_topk),
    "HCA": in_window + spans.visible(128)[:, 0],
    "window only": in_window,
}

# %% tags=["hide-input"]
figure, axes = plt.subplots()
for (name, count), colour in zip(keys.items(), (show.GREY, show.BLUE, show.PURPLE, show.GREEN), strict=True):
    axes.loglog(positions + 1, count, color=colour, label=f"{name}, {count[-1]:,} at the end")
axes.set(title="keys that a query reads, V4-Flash", xlabel="position of the query", ylabel="keys")
axes.legend()
show.picture(
    figure,
    "Keys that a query of V4-Flash reads against its position, both logarithmic. Full attention rises to "
    "a million; HCA follows far below, 128 times as slowly; CSA stays at 640 from some thousand tokens "
    "on, and a window alone at 128.",
)

# %% [markdown]
# A CSA layer reads at most 640 keys, however long the text is. In an HCA layer the number grows, but 128 times as
# slowly as the text. (The indexer of CSA still looks at every entry, with small vectors: [notebook
# 5](05_lightning_indexer.ipynb).)
#
# ## What an entry of 128 tokens holds
# The weights of the softmax are found as in [notebook 4](04_compressed_attention.ipynb): compress a one in each slot in
# place of the values.


# %%
class Listening(Ops):
    """NumPy's backend, which also keeps the scores of compressors with 128 slots."""

    def __init__(self):
        self.scores = []

    def compress(self, kv, score):
        if kv.shape[-2] == 128:
            self.scores.append(score)
        return compress(kv, score)


listening = Listening()
dsv4.Model(model.checkpoint, listening, fake_quant=True)(show.passage(512))
scores = listening.scores[0][0]  # [4 entries, 128 slots, c]
ones = np.eye(128, dtype=np.float32)[:, None, :, None]
weights = compress(np.broadcast_to(ones, (128, *scores.shape)), np.broadcast_to(scores, (128, *scores.shape)))

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1.4, 1))
show.heatmap(left, weights[:, 3].T, label="weight", vmax=0.25)
left.set(title="entry 3: the weight of each token", xlabel="token of the block", ylabel="channel")
effective = 1 / (weights**2).sum(axis=0)  # [entries, c]: over how many tokens a channel spreads
right.hist(effective.ravel(), bins=30, color=show.PURPLE)
right.set(title="over how many tokens a channel averages", xlabel="tokens", ylabel="channels")
right.set_yticks([])
show.picture(
    figure,
    "Left, a heat map of the weight of each of 128 tokens in each channel of one HCA entry: most channels "
    "spread over many tokens, with a few strong points. Right, a histogram of the number of tokens over "
    "which a channel averages.",
)

# %% [markdown]
# ## Experiment: does the model use its entries?
# Hide the entries of all CSA layers, or of the HCA layer, but not the windows, and measure how much worse the model
# predicts a text that it has not read. If entries hold something that the window does not, hiding them must cost
# something. Windows have 64 tokens here, and texts 384. But hiding might also cost something because the model never
# saw it in training. So the null model replaces the entries by those of another text, and compares hidden entries with
# these.


# %%
class Changed(Ops):
    """NumPy's backend, changing the compressed entries of some ratio before attention reads them."""

    def __init__(self, ratio=None, change=None):
        self.ratio, self.change = ratio, change

    def sparse_attention(self, queries, window, window_index, entries, entry_index, attn_sink):
        if entries.shape[1] and queries.shape[1] // entries.shape[1] == self.ratio:
            entries, entry_index = self.change(entries, entry_index)
        return Ops.sparse_attention(queries, window, window_index, entries, entry_index, attn_sink)


def hidden(entries, index):
    return entries, np.full_like(index, -1)


def foreign(entries, index):
    return np.roll(entries, 1, axis=0), index


texts = np.concatenate([show.passage(384, start) for start in range(0, 1152, 384)])


def surprise(*change):
    """The surprise at each token of each text, in nats, with the entries of a ratio changed."""
    return show.surprise(dsv4.Model(model.checkpoint, Changed(*change), fake_quant=True)(texts), texts)


whole, no_csa, no_hca = surprise(), surprise(4, hidden), surprise(128, hidden)
costs = {"CSA hidden": no_csa - whole, "HCA hidden": no_hca - whole}

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 1.9))
for row, (_, cost) in enumerate(costs.items()):
    axes.barh(row, cost.mean(), color=(show.BLUE, show.PURPLE)[row], height=0.6)
    axes.plot(cost.mean(axis=1), np.full(len(cost), row), "o", color=show.DARK, markersize=4)
axes.set_yticks(range(2), costs)
axes.invert_yaxis()
axes.axvline(0, color=show.DARK, linewidth=0.8)
axes.set(
    title="the cost of hiding entries (points: single texts)", xlabel="more surprise, nats per token", ylabel="entries"
)
show.picture(
    figure,
    "Two horizontal bars: how much the surprise per token rises when CSA's or HCA's entries are hidden, "
    "with points for single texts. The bar of CSA is clearly above zero, that of HCA is not.",
)


# %%
def in_errors(cost):
    """A mean cost per token, in units of its standard error."""
    return float(cost.mean() / (cost.std() / np.sqrt(cost.size)))


def in_words(cost):
    return f"{cost.mean():+.4f} nats a token, {in_errors(cost):+.1f} standard errors"


show.experiment(
    "hiding CSA's entries costs more than four standard errors",
    lambda cost: in_errors(cost) > 4,
    costs["CSA hidden"],
    nulls={"entries of another text": no_csa - surprise(4, foreign)},
    say=in_words,
)
print("Hiding HCA's entries costs", in_words(costs["HCA hidden"]))

# %% [markdown]
# It is also a finding if the cost for HCA cannot be told from noise. This small model has one HCA layer and learnt to
# do without it. HCA is meant for the long texts of the large models, about which a small model says nothing.
#
# ## Experiment: questions about what was said long ago
# Ordinary text rarely needs what stands far back. These documents do: somebody states facts early in a scene, each is
# asked for late, and a play stands between the two. The answers are three quarters of the document back, far outside
# the window, and the model has never seen these pairs of thing and answer. Which questions are still answered if one
# kind of entry is hidden? A guess among the facts of a document is right one time in twelve.

# %%
changes = {"everything": lambda ops: ops, "without HCA": without_hca, "without CSA": without_csa}
answered = {}
for length in (1024, 2048):
    documents = show.questions(length, 6)
    for name, change in changes.items():
        answered[name, length] = recall_accuracy(intervened(model, change), documents)
rows = [[name, *(f"{answered[name, length]:.0%}" for length in (1024, 2048))] for name in changes]
show.table(["questions answered", "1,024 tokens", "2,048 tokens"], rows)

# %%
show.experiment(
    "hiding CSA's entries loses at least half of the answers",
    lambda shares: min(before - after for before, after in shares) >= 0.5,
    [(answered["everything", length], answered["without CSA", length]) for length in (1024, 2048)],
    nulls={
        "nothing hidden": [(answered["everything", length],) * 2 for length in (1024, 2048)],
        "HCA's entries hidden": [
            (answered["everything", length], answered["without HCA", length]) for length in (1024, 2048)
        ],
    },
    say=lambda shares: ", ".join(f"from {before:.0%} to {after:.0%}" for before, after in shares),
)

# %% [markdown]
# ## Exercises
# **1.** At which position does a query of a CSA layer of V4-Flash first leave an entry unread?


# %% tags=["hide-input"]
def visible(position, ratio):
    """How many entries of a ratio a query at a position sees."""
    return int(Span(np.array([position]), np.array([1]), 1).visible(ratio)[0, 0])


exercise_1 = show.exercise(
    lambda answer: visible(answer, 4) > flash.index_topk >= visible(answer - 1, 4),
    mistake=2048,
    hint="It reads up to 512 entries. When is the 513th complete?",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** At which position does a query of V4-Flash first read more entries in an HCA layer than in a CSA layer?

# %% tags=["hide-input"]
exercise_2 = show.exercise(
    lambda answer: visible(answer, 128) > flash.index_topk >= visible(answer - 1, 128),
    mistake=512 * 128,
    hint="CSA has its 512 entries by then; HCA needs 513 complete blocks.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** How many layers of V4-Pro, without the MTP module, have an indexer?

# %% tags=["hide-input"]
pro = configs["pro"]
exercise_3 = show.exercise(
    lambda answer: answer == sum(pro.layer_kind(layer) == "CSA" for layer in range(pro.num_hidden_layers)),
    mistake=31,
    hint="Only CSA layers choose. The first two layers of Pro are HCA, and then the kinds alternate.",
)

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write `compress` yourself, which CSA and HCA share. `dsv4.check` runs the project's own tests on it.


# %% tags=["hide-input"]
def one_softmax(kv, score):
    return compress(kv, np.broadcast_to(score.mean(axis=-1, keepdims=True), score.shape))


exercise_4 = show.write(
    show.properties("compress"),
    wrong={"one softmax for all channels": one_softmax},
    hint="Subtract the largest score of each channel before the exponential, so that it cannot overflow.",
)


# %%
def my_compress(kv, score):
    """A softmax of the scores over the slots, in each channel by itself, weights the values.

    kv, score [..., slots, c] -> [..., c]. A score of −inf excludes its slot.
    """


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: position 2051, whose token completes entry 512, the 513th. 2: the last token of block 512. 3: without the first
# two, 59 of 61 layers remain, which begin and end with CSA. 4: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_4(kv, score):
    weight = np.exp(score - score.max(axis=-2, keepdims=True))
    return (kv * weight).sum(axis=-2) / weight.sum(axis=-2)


exercise_1(2051)
exercise_2(513 * 128 - 1)
exercise_3(30)
exercise_4(solution_4)
