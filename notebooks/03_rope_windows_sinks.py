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
# # 3 · RoPE, windows and sinks: why the output is turned back
#
# **Minutes:** 40 · **Read before:** [1](01_tour.ipynb) · **You should know:** softmax attention, rotations in a plane.
#
# Attention by itself does not know where a token stands. **RoPE** rotates pairs of channels of queries and keys by an
# angle that grows with the position. The product of a rotated query and a rotated key then depends only on the distance
# between them. V4 has a single key-value head, whose rows serve as keys **and as values**. So the values are rotated,
# too, and their weighted sum contains absolute positions. Therefore the output is rotated once more, backwards by the
# query's own position, and only distances are left: this is the **inverse RoPE**. A **window** limits the keys to the
# last $w$ tokens. A **sink** allows a head to read nothing.
#
# $$o_t = R_{-t} \sum_{s = t - w + 1}^{t} a_{ts} \, R_s v_s = \sum_s a_{ts} R_{s-t} \, v_s, \qquad
# a_{ts} = \frac{e^{q_t \cdot k_s / \sqrt{c}}}{e^{\text{sink}} + \sum_{s'} e^{q_t \cdot k_{s'} / \sqrt{c}}}$$

# %%
import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.model.attention import Attention, layer_frequencies
from dsv4.model.span import Span
from dsv4.ops import attention
from dsv4.ops.rope import rope, yarn_frequencies

model = dsv4.load(backend="numpy", fake_quant="off")
config = model.config
flash = dsv4.read_config(show.ROOT / "tests/data/configs/deepseek-v4-flash.json")
length, window = 256, config.sliding_window
results = show.observe(model, show.passage(length))

# %% [markdown]
# ## Rotation

# %%
show.source(rope)

# %% [markdown]
# Each pair of channels turns at its own speed. The picture shows, for the released V4-Flash, how many tokens a pair
# needs for one full turn. Layers without compression read 128 tokens and use the usual speeds. Layers with compression
# read far back. They use a larger base, and YaRN slows down those pairs that would not complete a turn within the
# context of the first training stage.

# %%
show.source(yarn_frequencies)

# %% tags=["hide-input"]
figure, axes = plt.subplots()
for ratio, name in ((0, "window only"), (4, "CSA and HCA")):
    axes.semilogy(2 * np.pi / layer_frequencies(flash, ratio), marker="o", markersize=4, label=name)
for position, name in ((flash.sliding_window, "the window"), (flash.max_position_embeddings, "the longest context")):
    axes.axhline(position, color=show.GREY, linestyle=":")
    axes.text(0, 1.5 * position, name, color=show.GREY)
axes.set(title="tokens for a full turn, V4-Flash", xlabel="pair of channels", ylabel="tokens")
axes.legend(loc="lower right")
show.picture(
    figure,
    "Tokens for a full turn of each pair of channels in V4-Flash, on a logarithmic scale, for layers with "
    "a window only and for CSA and HCA layers. Both rise steadily; the compressing layers' slowest pairs "
    "turn far more slowly than the longest context, the others' do not. Dotted lines mark the window and "
    "the longest context.",
)

# %% [markdown]
# ## The window
# Which positions does a query read? A `Span` knows them: it holds the positions of the tokens of one pass. −1 stands
# for "no key".

# %%
show.source(Span.window_columns)

# %%
span = Span(np.zeros(1, np.int64), np.array([length]), length)
columns = span.window_columns(window)  # [1, S, w], in rows that begin w − 1 positions before the first
reads = np.zeros((length, length + window - 1))
np.put_along_axis(reads, columns[0].clip(0), (columns[0] >= 0).astype(float), axis=1)

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(4.2, 3.6))
axes.imshow(reads[:, window - 1 :], vmax=1.4)
axes.set(title=f"a window of {window} tokens", xlabel="key at position", ylabel="query at position")
show.picture(
    figure,
    "A square of queries against keys. Each query reads the keys of a diagonal band that ends at its own "
    "position and is 64 tokens wide; the first queries read fewer.",
)

# %% [markdown]
# ## Experiment: only distances count, even a million tokens later
# Take the real queries and keys of layer 0, rotate all of them as if the text began later in the context, and compute
# attention. If only distances count, the output must not change. In exact arithmetic it does not. But the model
# computes in float32, where an angle of a million radians is known only to a few hundredths of a radian. Do these
# errors cancel well enough? The null model is the same attention without the rotation back.

# %%
show.source(attention._attend)

# %%
frequencies = layer_frequencies(config, 0)
here = np.arange(length)[None]
plain_queries, plain_keys = (rope(results[f"layers.0.attn.{name}"], -here, frequencies) for name in ("q", "kv"))
sink = model.layers[0].attn.attn_sink
nothing = np.zeros((1, 0, config.head_dim)), np.zeros((1, length, 0), np.int64)  # layer 0 has no compressed entries


def attend(sink, shift=0):
    """Attention of layer 0 over its window, as if the text began at position `shift`, before the turn back."""
    queries, keys = (rope(x, here + shift, frequencies) for x in (plain_queries, plain_keys))
    rows = np.concatenate([np.zeros((1, window - 1, config.head_dim), np.float32), keys], axis=1)
    return attention.sparse_attention(queries, rows, columns, *nothing, sink)


# %%
shifts = [0, 1, 100, 10_000, 100_000, 1_000_000]
raw = [attend(sink, shift) for shift in shifts]
turned_back = [rope(output, -(here + shift), frequencies) for output, shift in zip(raw, shifts, strict=True)]


def changes(outputs):
    """How far each output is from the first, over the size of the first."""
    return [float(np.linalg.norm(output - outputs[0]) / np.linalg.norm(outputs[0])) for output in outputs[1:]]


# %% tags=["hide-input"]
figure, axes = plt.subplots()
axes.loglog(shifts[1:], changes(raw), "o-", color=show.ORANGE, label="not turned back")
axes.loglog(shifts[1:], changes(turned_back), "o-", color=show.BLUE, label="turned back")
axes.set(title="change of attention's output when the text moves", xlabel="moved by tokens", ylabel="relative change")
axes.legend()
show.picture(
    figure,
    "The relative change of attention's output against the number of tokens by which the text moves, from "
    "1 to a million, both logarithmic. Without the rotation back, the change is as large as the output "
    "itself; with it, the change is far below one percent and grows slowly.",
)

# %%
show.experiment(
    "wherever the text stands in the first million tokens, the output changes by less than 1 %",
    lambda outputs: max(changes(outputs)) < 0.01,
    turned_back,
    nulls={"not turned back": raw},
    say=lambda outputs: f"it changes by {max(changes(outputs)):.2%} at most",
)

# %% [markdown]
# ## Sinks
# The weights of a softmax sum to 1, even where nothing is worth reading. The sink is one learnt logit for each head. It
# takes a share of the softmax and adds no value. So the output with the sink is the output without it, times the share
# that the sink leaves; from the two outputs follows the share.

# %%
with_sink = np.linalg.norm(attend(sink), axis=-1)[0]  # [S, H]
without_sink = np.linalg.norm(attend(np.full_like(sink, -np.inf)), axis=-1)[0]
share = 1 - with_sink / without_sink

bins = [(0, 1), (1, 4), (4, 16), (16, 64), (64, 256)]

# %% tags=["hide-input"]
figure, axes = plt.subplots()
for head, logit in enumerate(sink):
    means = [share[first:end, head].mean() for first, end in bins]
    axes.semilogy(means, "o-", label=f"head {head}, sink {logit:.2f}")
axes.set_xticks(range(len(bins)), [f"{first} … {end - 1}" for first, end in bins])
axes.set(title="the sink's mean share in layer 0", xlabel="queries at positions", ylabel="share of the softmax")
axes.legend(ncols=2, loc="upper right")
show.picture(
    figure,
    "The sink's mean share of the softmax in layer 0, for each head, for queries at positions 0, 1 to 3, "
    "4 to 15, 16 to 63 and 64 to 255, on a logarithmic scale. The share falls as queries have more to "
    "read, and differs between heads.",
)

# %% [markdown]
# A large share says that a head found little worth reading. The first token can read only itself.
#
# ## The whole layer
# Layers with compression read entries beside the window: notebooks [4](04_compressed_attention.ipynb) to
# [6](06_heavy_compression_and_the_schedule.ipynb) say where they come from. All keys, the positions $W_t$ of the window
# and the entries $E_t$, share **one softmax** with the sink:
#
# $$o_t = R_{-t} \Big( \sum_{s \in W_t} a_{ts} \, k_s + \sum_{i \in E_t} a_{ti} \, e_i \Big), \qquad
# a_{tj} = \frac{e^{q_t \cdot k_j / \sqrt{c}}}
# {e^{\text{sink}} + \sum_{s \in W_t} e^{q_t \cdot k_s / \sqrt{c}} + \sum_{i \in E_t} e^{q_t \cdot e_i / \sqrt{c}}}$$
#
# where $k_s$ and $e_i$ are the rotated rows, which are keys and values. Here is the code of the layer, from its input
# to its output:

# %%
show.source(Attention.__call__)

# %% [markdown]
# Two more ideas keep the matrices of a layer with many heads small.
#
# **The query latent.** $H$ heads of $c$ channels need $H c$ numbers for each token; in V4-Flash they are 32,768, made
# of 4,096. A direct projection would be the largest matrix of the layer. Instead, the input is first reduced to a
# **latent** `qr` of `q_lora_rank` channels and normalised. All queries are computed from it, and so are the indexer's
# ([notebook 5](05_lightning_indexer.ipynb)):
#
# $$c^Q_t = \text{RMSNorm}(W^a_Q x_t), \qquad q_{t,h} = R_t \, \frac{q'_{t,h}}{\text{rms}(q'_{t,h})}, \qquad
# q'_{t} = W^b_Q \, c^Q_t$$
#
# `rms_scale` divides each head by its root mean square, so that no head's logits grow without limit.
#
# **The grouped output projection.** The outputs of the heads have $H c$ numbers again, and must become $d$. Heads are
# cut into `o_groups` groups. Each group has its own small matrix, which reduces its heads to `o_lora_rank` channels,
# and one matrix projects the results of all groups to the width of the model. In the first step, groups do not mix:
#
# $$y_t = W^b_O \, \big[\, W^a_{O,1} \, o_t^{(1)} \; ; \; \dots \; ; \; W^a_{O,g} \, o_t^{(g)} \,\big]$$
#
# The table compares the number of weights with that of direct projections.

# %%
rows = []
for name in ("flash", "pro"):
    released = dsv4.read_config(show.ROOT / f"tests/data/configs/deepseek-v4-{name}.json")
    d, heads = released.hidden_size, released.num_attention_heads * released.head_dim
    through_latent = released.q_lora_rank * (d + heads)
    grouped = released.o_lora_rank * (heads + released.o_groups * d)
    for part, small in (("queries, by a latent", through_latent), ("output, in groups", grouped)):
        rows.append([f"{name}: {part}", f"{d * heads:,}", f"{small:,}", f"{small / (d * heads):.0%}"])
show.table(["weights of one layer", "direct", "V4", "share"], rows)

# %% [markdown]
# ## Exercises
# **1.** With a window of 64, which is the first position that the query at position 200 reads?

# %% tags=["hide-input"]
exercise_1 = show.exercise(
    lambda answer: answer == int(np.argmax(reads[200, window - 1 :])),
    mistake=200 - 64,
    hint="The window of w tokens contains the query's own token.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** A query has a single key, whose logit is 0. Which sink leaves a quarter of the value?

# %% tags=["hide-input"]
exercise_2 = show.exercise(
    lambda answer: np.allclose(
        attention.sparse_attention(
            np.array([[[[0.0, 1.0]]]]),  # the query is orthogonal to the key
            np.array([[[1.0, 0.0]]]),
            np.zeros((1, 1, 1), np.int64),
            np.zeros((1, 0, 2)),
            np.zeros((1, 1, 0), np.int64),
            np.array([float(answer)]),
        )[0, 0, 0],
        [0.25, 0],
    ),
    mistake=3,
    hint="The key has the weight 1 / (1 + e^sink).",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** A port uses the usual base for the window keys of CSA layers, too. In V4-Flash, by which factor does its
# slowest pair then turn too fast? (Within one percent.)

# %% tags=["hide-input"]
exercise_3 = show.exercise(
    lambda answer: np.isclose(answer, layer_frequencies(flash, 0)[-1] / layer_frequencies(flash, 4)[-1], rtol=0.01),
    mistake=16,
    hint="Two things differ for the slowest pair: the base, to the power 62/64, and YaRN's factor.",
)

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write `sparse_attention` yourself: one softmax over the named rows of the window, the named entries and the
# sink. Plain loops over sequences, tokens and heads are fast enough. `dsv4.check` runs the project's own tests on it.


# %% tags=["hide-input"]
def without_sink(queries, window, window_index, entries, entry_index, attn_sink):
    nothing = np.full_like(attn_sink, -np.inf)
    return attention.sparse_attention(queries, window, window_index, entries, entry_index, nothing)


exercise_4 = show.write(
    show.properties("sparse_attention"),
    wrong={"no sink": without_sink},
    hint="For one query, collect the rows whose index is not −1. Append the sink to the logits, and subtract the "
    "largest before the exponential. A query without any row gives zeros.",
)


# %%
def my_sparse_attention(queries, window, window_index, entries, entry_index, attn_sink):
    """queries [B, S, H, c] over the rows that they name, which are keys and values -> [B, S, H, c].

    window [B, W, c] with window_index [B, S, K1], entries [B, T, c] with entry_index [B, S, K2]: row numbers, −1 for
    none; attn_sink [H].
    """


exercise_4(...)

# %% [markdown]
# **5.** Write `grouped_linear` yourself, the first half of the output projection.


# %% tags=["hide-input"]
def one_matrix(x, weight, groups):
    rank = len(weight) // groups
    return np.concatenate([part @ weight[:rank].T for part in np.split(x, groups, axis=-1)], axis=-1)


exercise_5 = show.write(
    show.properties("grouped_linear"),
    wrong={"the first group's matrix for all": one_matrix},
    hint="np.split cuts an array into equal parts along an axis; group g has rows g·rank to (g + 1)·rank − 1.",
)


# %%
def my_grouped_linear(x, weight, groups):
    """x [..., groups · c] times one matrix for each group: weight [groups · rank, c] -> [..., groups · rank]."""


exercise_5(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: 200 − 63. 2: the logarithm of 3. 3: the base is 16 times as large, which makes a factor of $16^{62/64}$, and YaRN
# makes another of 16. 4 and 5: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_4(queries, window, window_index, entries, entry_index, attn_sink):
    output = np.zeros_like(queries)
    for b, t, head in np.ndindex(queries.shape[:3]):
        rows = [window[b, row] for row in window_index[b, t] if row >= 0]
        rows += [entries[b, row] for row in entry_index[b, t] if row >= 0]
        if rows:
            query, keys = queries[b, t, head], np.stack(rows)
            logits = np.append(keys @ query * query.dtype.type(len(query) ** -0.5), attn_sink[head]).astype(query.dtype)
            weights = np.exp(logits - logits.max())
            output[b, t, head] = weights[:-1] @ keys / weights.sum()
    return output


def solution_5(x, weight, groups):
    rank = len(weight) // groups
    parts = np.split(x, groups, axis=-1)
    return np.concatenate([part @ weight[g * rank : (g + 1) * rank].T for g, part in enumerate(parts)], axis=-1)


exercise_1(200 - 63)
exercise_2(np.log(3))
exercise_3(16 ** (62 / 64) * 16)
exercise_4(solution_4)
exercise_5(solution_5)
