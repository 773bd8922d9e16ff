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
# # 9 · The cache at a million tokens
#
# **Minutes:** 30 · **Read before:** [4](04_compressed_attention.ipynb),
# [6](06_heavy_compression_and_the_schedule.ipynb) · **You should know:** bytes per number of FP8, FP4 and bf16.
#
# To continue a text, a model needs what its attention layers keep of it: the **KV cache**. In most models that is a key
# and a value of every token, and at a million tokens the size of the cache decides whether a text can be served at all.
# In each layer, V4 keeps the last $w$ tokens as they are. Of all others it keeps only compressed entries, small keys
# for the indexer, and the **pending** tokens, whose block is not complete yet.
#
# $$\text{bytes}(T) \approx \sum_{\text{layers}} \Big( w \, b + \frac{T}{\rho} \, b +
# [\rho = 4] \, \frac{T}{4} \, b_I \Big), \qquad b = 448 + 7 + 128, \quad b_I = 64 + 4$$
#
# $\rho$ is the layer's compression ratio. An entry has $b$ bytes: 448 channels in FP8, a scale for each 64 of them, and
# 64 rotated channels in bf16. An indexer key has $b_I$ bytes: 128 channels in FP4 and 4 scales.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.cost import cost, cost_of_v32, memory

model = dsv4.load(backend="numpy", fake_quant="off")
flash, pro = (dsv4.read_config(show.ROOT / f"tests/data/configs/deepseek-v4-{name}.json") for name in ("flash", "pro"))
million = 2**20

# %% [markdown]
# ## The project's code

# %%
show.source(memory.RowBytes.of, memory.cache_bytes)

# %% [markdown]
# ## KV cache size against context
# V3.2 keeps a latent entry and an indexer key of every token in every layer. Ordinary attention is here for comparison:
# eight key-value heads of 128 channels in bf16, in as many layers as Pro has.

# %%
contexts = 2 ** np.arange(7, 21)
bytes_of = {
    "8 KV heads, bf16": [2 * 8 * 128 * 2 * pro.num_hidden_layers * int(context) for context in contexts],
    "V3.2": [cost_of_v32(int(context)).cache_bytes for context in contexts],
    "V4-Pro": [sum(memory.cache_bytes(pro, int(context), "packed").values()) for context in contexts],
    "V4-Flash": [sum(memory.cache_bytes(flash, int(context), "packed").values()) for context in contexts],
}

# %% tags=["hide-input"]
figure, axes = plt.subplots()
for (name, sizes), colour in zip(bytes_of.items(), (show.GREY, show.ORANGE, show.PURPLE, show.BLUE), strict=True):
    axes.loglog(
        contexts,
        np.array(sizes) / 2**30,
        "o-",
        markersize=3,
        color=colour,
        label=f"{name}: {sizes[-1] / 2**30:.3g} GiB",
    )
axes.set_xscale("log", base=2)
axes.set(title="the cache of one sequence", xlabel="tokens", ylabel="GiB")
axes.legend(title="at 2²⁰ tokens")
show.picture(
    figure,
    "The cache of one sequence in GiB against its tokens, from 128 to a million, both logarithmic. Eight "
    "key-value heads in bf16 need most, then V3.2; V4-Pro and V4-Flash need far less, and their lines are "
    "flat for short texts, where the window is the cache.",
)

# %% [markdown]
# The picture shows the parts of the cache at $2^{20}$ tokens. The window, which is most of the cache of a short text,
# can hardly be seen.

# %%
parts = {"V4-Flash": memory.cache_bytes(flash, million, "packed"), "V4-Pro": memory.cache_bytes(pro, million, "packed")}

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 2.2))
colours = {"compressed": show.BLUE, "indexer keys": show.ORANGE, "window": show.GREEN, "pending": show.GREY}
for row, sizes in enumerate(parts.values()):
    left = 0.0
    for part, colour in colours.items():
        axes.barh(row, sizes[part] / 2**30, left=left, color=colour, height=0.6, label=part if row == 0 else None)
        left += sizes[part] / 2**30
axes.set_yticks([0, 1], parts)
axes.invert_yaxis()
axes.set(title="the cache by part, at 2²⁰ tokens", xlabel="GiB", ylabel="model", xlim=(0, 6.4))
axes.legend(loc="center right")
show.picture(
    figure,
    "Two horizontal bars, V4-Flash and V4-Pro, of the cache at a million tokens by part. Compressed "
    "entries are most of it, the indexer's keys a small part, and the window and pending tokens cannot be "
    "seen.",
)

# %%
baseline = cost_of_v32(million)
costs = {"V4-Flash": cost(flash, million), "V4-Pro": cost(pro, million)}
show.table(
    ["at 2²⁰ tokens, in percent of V3.2", *costs],
    [
        ["bytes of the cache", *(f"{100 * each.cache_bytes / baseline.cache_bytes:.1f}" for each in costs.values())],
        ["FP8 FLOPs of a token", *(f"{100 * each.fp8_flops / baseline.fp8_flops:.1f}" for each in costs.values())],
    ],
)

# %% [markdown]
# The report says 7 and 10 percent of the bytes, and 10 and 27 percent of the FLOPs.
#
# ## Experiment: predicted and counted
# The numbers above come from a formula. To see whether it is right, fill a cache: the bundled model reads a text token
# by token, and its cache counts the bytes that it holds. The null model is the equation at the top of this page, which
# counts the window and the entries, but not the pending tokens.

# %%
ids = show.passage(300)
cache, counted = model.new_cache(), []
for token in ids[0, :160]:
    model([[token]], cache)
    counted.append(cache.nbytes())
predicted = [memory.cache_bytes(model.config, length, "float32") for length in range(1, 161)]

# %% tags=["hide-input"]
figure, axes = plt.subplots()
sizes = [[step[part] / 1000 for step in counted] for part in colours]
axes.stackplot(range(1, 161), sizes, labels=colours, colors=colours.values(), alpha=0.85)
axes.plot(range(1, 161), [sum(step.values()) / 1000 for step in predicted], color="k", linewidth=1, label="predicted")
axes.set(title="the bundled model's cache, in float32", xlabel="tokens", ylabel="kB")
axes.legend(loc="upper left", ncols=2)
show.picture(
    figure,
    "The bytes of the bundled model's cache over 160 tokens, by part and stacked. The window grows for 64 "
    "tokens and then stays; entries grow steadily; pending tokens make a saw that falls at token 128. The "
    "predicted line lies on the top of the areas.",
)

# %%
without_pending = [{**step, "pending": 0} for step in predicted]
show.experiment(
    "each part has the predicted bytes after each of 160 tokens, exactly",
    lambda formula: formula == counted,
    predicted,
    nulls={"no pending tokens": without_pending},
    say=lambda formula: (
        f"{sum(one == other for one, other in zip(counted, formula, strict=True))} of {len(counted)} agree in all parts"
    ),
)

# %% [markdown]
# The teeth of the saw are the pending tokens. When 4 of them in a CSA layer, or 128 in the HCA layer, have become an
# entry, their projections are no longer needed.
#
# ## Experiment: any pieces, and tokens taken back
# A cache is right if it does not matter how the text is read: in one pass, in pieces that end anywhere, or with tokens
# taken back. The pieces here end within blocks of 4 and of 128 tokens. After half of the text, 30 tokens of another
# text are read and taken back. Only the order of additions may differ, so the logits should agree to about $10^{-5}$.
# The null model takes back only 28 of the 30 tokens.


# %%
def in_pieces(taken_back):
    """The logits of the text, read in pieces, with 30 tokens of another one in the middle, some of them taken back."""
    cache, pieces = model.new_cache(), []
    for first, end in [(0, 1), (1, 7), (7, 130), (130, 131), (131, 150)]:
        pieces.append(model(ids[:, first:end], cache))
    model(show.passage(30, start=1000), cache)
    cache.rollback(taken_back)
    for first, end in [(150, 255), (255, 257), (257, 300)]:
        pieces.append(model(ids[:, first:end], cache))
    return np.concatenate(pieces, axis=1)


# %%
in_one_pass = model(ids)
show.experiment(
    "the logits agree within a ten-thousandth of their spread",
    lambda logits: np.abs(logits - in_one_pass).max() < 1e-4 * in_one_pass.std(),
    in_pieces(taken_back=30),
    nulls={"28 of 30 taken back": in_pieces(taken_back=28)},
    say=lambda logits: (
        f"they differ by at most {np.abs(logits - in_one_pass).max():.1e}, "
        f"at a standard deviation of {in_one_pass.std():.1f}"
    ),
)

# %% [markdown]
# ## Exercises
# **1.** After how many tokens does an HCA layer of V4 hold at least as many entries as its window has rows?

# %% tags=["hide-input"]
one_layer = replace(flash, num_hidden_layers=1, num_hash_layers=0, compress_ratios=(128, 0))


def entries_catch_up(context):
    """Whether the entries of one HCA layer take at least as much as its window."""
    sizes = memory.cache_bytes(one_layer, context, "packed")
    return sizes["compressed"] >= sizes["window"]


exercise_1 = show.exercise(
    lambda answer: entries_catch_up(answer) and not entries_catch_up(answer - 1),
    mistake=128,
    hint="The window has 128 rows, and each entry takes 128 tokens.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** How many bytes does each further token add to the cache of V4-Pro, on average over a long text? (Within one
# percent; 30 layers have CSA and 31 have HCA.)

# %% tags=["hide-input"]
per_token = (cost(pro, million).cache_bytes - cost(pro, million // 2).cache_bytes) / (million // 2)
exercise_2 = show.exercise(
    lambda answer: np.isclose(answer, per_token, rtol=0.01),
    mistake=61 * 583,
    hint="A quarter of an entry and of a key in each CSA layer, and 1/128 of an entry in each HCA layer.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** Write a function yourself: how many tokens are pending in a layer? It is checked against what the cache of the
# bundled model really holds after each of the 160 tokens above.

# %% tags=["hide-input"]
config = model.config
numbers_of = {4: 2 * 2 * (config.head_dim + config.index_head_dim), 128: 2 * config.head_dim}  # of each pending token
ratios = config.compress_ratios[: config.num_hidden_layers]


def against_the_cache(pending):
    """How often a function gives the bytes that the cache counted as pending."""
    right = sum(
        4 * sum(numbers_of[ratio] * pending(tokens, ratio) for ratio in ratios if ratio) == step["pending"]
        for tokens, step in enumerate(counted, start=1)
    )
    return right == len(counted), f"{right} of {len(counted)} counts agree"


exercise_3 = show.write(
    against_the_cache,
    wrong={"overlap forgotten": lambda tokens, ratio: tokens % ratio},
    hint="An entry of CSA also needs the block before its own: the last complete block must wait, too.",
)


# %%
def my_pending(tokens, ratio):
    """How many tokens a layer of this ratio, 4 (CSA) or 128 (HCA), keeps for its next entry after so many tokens."""


exercise_3(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: 128 times 128. 2: about 5 kB, where the 8 heads of ordinary attention need 250 kB. 3: the remainder; in CSA also
# the four tokens before, once they are there.
#
# </details>

# %% tags=["hide-input"]
exercise_1(128 * 128)
exercise_2(30 * (583 + 68) / 4 + 31 * 583 / 128)
exercise_3(lambda tokens, ratio: tokens % ratio if ratio == 128 else min(tokens, tokens % 4 + 4))
