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
# Attention by itself does not know where a token stands. **RoPE** tells it by rotating pairs of channels of queries and
# keys, by an angle that grows with the position: the product of a rotated query and a rotated key depends on the
# distance of the two alone. V4 has one key-value head whose rows serve as keys **and as values**, so the values are
# rotated too, and a weighted sum of them carries absolute positions. Hence one more rotation, backwards by the query's
# own position, after which only distances are left. A **window** limits the keys to the last $w$ tokens, and a **sink**
# lets a head read nothing at all.
#
# $$o_t = R_{-t} \sum_{s = t - w + 1}^{t} a_{ts} \, R_s v_s = \sum_s a_{ts} R_{s-t} \, v_s, \qquad
# a_{ts} = \frac{e^{q_t \cdot k_s / \sqrt{c}}}{e^{\text{sink}} + \sum_{s'} e^{q_t \cdot k_{s'} / \sqrt{c}}}$$

# %%
import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.model.attention import layer_frequencies
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
# Each pair of channels turns at its own speed. The picture shows, for the released V4-Flash, after how many tokens a
# pair is back where it began. Layers without compression look at 128 tokens and use the usual speeds. Layers that
# compress look far back and use a larger base, and YaRN slows down the pairs that would else turn less than once in the
# context of the first training stage.

# %%
show.source(yarn_frequencies)

# %%
figure, axes = plt.subplots()
for ratio, name in ((0, "window only"), (4, "CSA and HCA")):
    axes.semilogy(2 * np.pi / layer_frequencies(flash, ratio), marker="o", markersize=4, label=name)
for position, name in ((flash.sliding_window, "the window"), (flash.max_position_embeddings, "the longest context")):
    axes.axhline(position, color=show.GREY, linestyle=":")
    axes.text(0, 1.5 * position, name, color=show.GREY)
axes.set(title="tokens for a whole turn, V4-Flash", xlabel="pair of channels")
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# ## The window
# Which positions does a query read? The model asks its span for them; −1 names nothing.

# %%
show.source(Span.window_columns)

# %%
span = Span(np.zeros(1, np.int64), np.array([length]), length)
columns = span.window_columns(window)  # [1, S, w], in rows that begin w − 1 positions before the first
reads = np.zeros((length, length + window - 1))
np.put_along_axis(reads, columns[0].clip(0), (columns[0] >= 0).astype(float), axis=1)

figure, axes = plt.subplots(figsize=(4.2, 3.6))
axes.imshow(reads[:, window - 1 :], vmax=1.4)
axes.set(title=f"a window of {window} tokens", xlabel="key at position", ylabel="query at position")
plt.show()

# %% [markdown]
# ## Experiment: only distances count, a million tokens on
# Take the real queries and keys of layer 0, turn all of them on as if the text stood further back in the context, and
# let them attend. If only distances count, the output must not change. On paper it does not; but the model computes in
# float32, where an angle of a million radians is known to a few hundredths of one. Does enough of it cancel out?
# The null model is the same attention whose output is not turned back.

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


figure, axes = plt.subplots()
axes.loglog(shifts[1:], changes(raw), "o-", color=show.ORANGE, label="as it is")
axes.loglog(shifts[1:], changes(turned_back), "o-", color=show.BLUE, label="turned back")
axes.set(title="change of attention's output when the whole text moves", xlabel="by tokens", ylabel="relative")
axes.legend()
plt.show()

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
# A softmax gives away all its weight, even where nothing is worth reading. The sink is a logit of its own for each
# head, which takes a share of the softmax and brings no value. Its share is what the output loses by it: the output
# with the sink is the output without it, times the share that is left.

# %%
with_sink = np.linalg.norm(attend(sink), axis=-1)[0]  # [S, H]
without_sink = np.linalg.norm(attend(np.full_like(sink, -np.inf)), axis=-1)[0]
share = 1 - with_sink / without_sink

bins = [(0, 1), (1, 4), (4, 16), (16, 64), (64, 256)]
figure, axes = plt.subplots()
for head, logit in enumerate(sink):
    means = [share[first:end, head].mean() for first, end in bins]
    axes.semilogy(means, "o-", label=f"head {head}, sink {logit:.2f}")
axes.set_xticks(range(len(bins)), [f"{first} … {end - 1}" for first, end in bins])
axes.set(title="the sink's mean share in layer 0", xlabel="queries at positions")
axes.legend(ncols=2, loc="upper right")
plt.show()

# %% [markdown]
# A large share says that a head found little worth reading. The first token has only itself to read.
#
# ## Exercises
# **1.** Which is the first position that the query at position 200 reads, with a window of 64?

# %%
exercise_1 = show.exercise(
    lambda answer: answer == int(np.argmax(reads[200, window - 1 :])),
    mistake=200 - 64,
    hint="The window of w tokens contains the query's own.",
)
exercise_1(...)

# %% [markdown]
# **2.** A query has a single key, whose logit is 0. Which sink leaves a quarter of the value?

# %%
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
exercise_2(...)

# %% [markdown]
# **3.** A port uses the plain base for the window keys of CSA layers, too. By which factor does its slowest pair turn
# too fast, in V4-Flash? (Within one percent.)

# %%
exercise_3 = show.exercise(
    lambda answer: np.isclose(answer, layer_frequencies(flash, 0)[-1] / layer_frequencies(flash, 4)[-1], rtol=0.01),
    mistake=16,
    hint="Two things differ for the slowest pair: the base, to the power 62/64, and YaRN's factor.",
)
exercise_3(...)

# %% [markdown]
# ## Solutions
# 1: 200 − 63. 2: the logarithm of 3. 3: 16 by the base (the 31st of 32 powers of 16 in all), and 16 by YaRN.

# %%
exercise_1(200 - 63)
exercise_2(np.log(3))
exercise_3(16 ** (62 / 64) * 16)
