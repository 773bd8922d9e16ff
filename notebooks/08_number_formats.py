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
# # 8 · Number formats: FP4, FP8 and their scales
#
# **Minutes:** 40 · **Read before:** [1](01_tour.ipynb) · **You should know:** floating-point numbers: sign, exponent,
# mantissa.
#
# In the released models, the routed experts are stored with four bits per weight, most other matrices and the cached
# keys with eight. So few bits cannot hold the size of a number as well. Therefore a block of neighbouring numbers
# shares one **scale**, a power of two, and each number only says where it lies within the range of its block. A power
# of two costs no accuracy: multiplying by it changes the exponent and rounds nothing.
#
# $$x \approx s \cdot q, \qquad s = \min\{2^e : \max_{\text{block}} |x| \le 2^e \, q_{\max}\}, \qquad
# q_{\max} = 6 \;\text{(FP4 E2M1)}, \; 448 \;\text{(FP8 E4M3)}$$

# %%
import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.ops import Fp4Weight, Ops, dequantise, formats, quantise
from dsv4.ops.quantise import is_quantised

model = dsv4.load(backend="numpy", fake_quant="off")  # unrounded results: the rounding is studied here
ids = show.passage(256)
results = show.observe(model, ids)

# %% [markdown]
# ## All values of the two formats
# A format with few bits is a short list of numbers. Encoding a number means finding the nearest one in the list.
# Halfway between two, the even code is taken.

# %%
show.source(formats._fp8_magnitudes, formats._nearest)

# %% tags=["hide-input"]
figure, (fp4, fp8) = plt.subplots(2, 1, figsize=(9, 4))
fp4.vlines(formats.FP4_VALUES, 0, 1, color=show.ORANGE, linewidth=2)
for code, value in enumerate(formats.FP4_VALUES):
    row = 0.6 * (code % 2)  # neighbours in two rows
    fp4.text(value, 1.15 + row if code < 8 else -0.65 - row, f"{code:04b}", ha="center", fontsize=10)
fp4.set(title="all 16 codes of FP4, each with its bits (0000 and 1000 are both zero)", ylim=(-1.5, 2.4))
fp8.vlines(formats.FP8_VALUES, 0, 1, color=show.BLUE, linewidth=0.8)
fp8.set(title="all 254 numbers of FP8", ylim=(0, 1.1))
for axes in (fp4, fp8):
    axes.set(xlabel="value", yticks=[])
    axes.spines["left"].set_visible(False)
show.picture(
    figure,
    "Two number lines. Above, the 16 codes of FP4 at their values from −6 to 6, each with its four bits; "
    "they are dense near zero and far apart outside. Below, the 254 numbers of FP8 from −448 to 448, "
    "dense near zero in the same way.",
)

# %% [markdown]
# On a logarithmic axis, equal ratios are equal distances. There both formats are regular: FP4 has two values per
# doubling, FP8 eight. At the left end they become coarse, and smaller numbers become zero.

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 2.5))
for height, (values, colour) in enumerate([(formats.FP4_MAGNITUDES, show.ORANGE), (formats.FP8_MAGNITUDES, show.BLUE)]):
    axes.vlines(values[1:], height - 0.35, height + 0.35, color=colour, linewidth=1.2)
fp4_span, fp8_span = (np.log2(m[-1] / m[1]) for m in (formats.FP4_MAGNITUDES, formats.FP8_MAGNITUDES))
axes.set_xscale("log", base=2)
axes.set_yticks([0, 1], ["FP4", "FP8"])
axes.set_title(f"positive values: FP8 spans {fp8_span:.1f} doublings, FP4 {fp4_span:.1f}")
axes.set(xlabel="value", ylabel="format")
axes.spines["left"].set_visible(False)
show.picture(
    figure,
    "The positive values of FP4 and FP8 on a logarithmic axis. Each has equally many values in each "
    "doubling, FP8 more of them, and FP8 spans far more doublings; both become coarse at the left end.",
)

# %% [markdown]
# ## Block scales
# Here is a window key of the bundled model. In the cache, its first 64 channels are one block of FP8; the other 64 are
# rotated by the position, and stay as they are. For the picture the 64 channels are rounded to FP4, in blocks of 32,
# because its steps are large enough to be seen. The largest number of each block decides how fine its steps are.

# %%
show.source(quantise.block_scale, quantise.fake_quant_fp4)

# %%
key = results["layers.1.attn.kv"][0, 40, :64]
codes, scales = quantise.fp4_blocks(key)

# %% tags=["hide-input"]
figure, axes = plt.subplots()
for block, scale in enumerate(scales):
    edges = 32 * block - 0.5, 32 * block + 31.5
    axes.hlines(formats.FP4_VALUES * scale, *edges, color=show.ORANGE, linewidth=0.7)
axes.plot(key, "o", color=show.DARK, markersize=3.5, label="the key")
axes.plot(quantise.fake_quant_fp4(key), "_", color=show.RED, markersize=9, markeredgewidth=2, label="rounded to FP4")
axes.set(title=f"two blocks with the scales {scales[0]:g} and {scales[1]:g}", xlabel="channel", ylabel="value")
axes.legend(ncols=2, loc="lower right", frameon=True)
show.picture(
    figure,
    "A window key over 64 channels: points for its values, short red lines for the values rounded to FP4, "
    "and thin lines for all values that FP4 has in each of two blocks of 32 channels. Each point lies "
    "between two lines and is moved to the nearer one.",
)

# %% [markdown]
# ## Why FP4 → FP8 is lossless
# The experts are stored in FP4, and hardware multiplies them in FP8. The conversion loses nothing as long as the FP4
# scales within one FP8 block are not too far apart. The range of FP8 must hold both the largest number of the FP4 block
# with the largest scale and the smallest number of the FP4 block with the smallest scale. Here one FP8 block holds all
# FP4 values twice, once with the scale 1 and once with $2^{-\Delta}$. The picture counts the values that are lost.

# %%
gaps = np.arange(0, 22)
lost = []
for gap in gaps:
    both = np.concatenate([formats.FP4_VALUES, formats.FP4_VALUES * np.float32(2.0**-gap)])
    lost.append(int((quantise.fake_quant_fp8(both, len(both)) != both).sum()))

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 2.6))
axes.bar(gaps, lost, color=[show.RED if count else show.GREEN for count in lost])
axes.plot(gaps[np.array(lost) == 0], np.zeros(sum(count == 0 for count in lost)), "o", color=show.GREEN)
axes.set(
    title="values lost in the conversion from FP4 to FP8", xlabel="Δ: the scales differ by 2^Δ", ylabel="of 32 values"
)
axes.set_xticks(gaps)
show.picture(
    figure,
    "How many of 32 values are lost when FP4 becomes FP8, against the difference Δ of the scales. None is "
    "lost up to a difference of 14; beyond it, more and more.",
)

# %% [markdown]
# ## Experiment: the real experts
# Whether the scales are close enough depends on the weights, not on the format. Every FP4 matrix of the bundled model
# is converted to FP8, with its blocks of 128 × 128 weights, and compared bit by bit. The null model has the same
# matrices with random scales from a range of $2^{30}$, as they might be if the blocks had nothing in common.

# %%
experts = [expert for block in model.layers for expert in block.ffn.experts]
matrices = [matrix for expert in experts for matrix in expert if isinstance(matrix, Fp4Weight)]
random = np.random.default_rng(0)
scattered = [Fp4Weight(m.packed, random.integers(112, 142, m.scales.shape, np.uint8)) for m in matrices]


def survivors(matrices):
    """How many matrices are the same, bit by bit, after the conversion to FP8."""
    return sum(np.array_equal(dequantise(quantise.quantise_fp8(dequantise(m))), dequantise(m)) for m in matrices)


# %%
span = max(int(np.ptp(m.scales.astype(int))) for m in matrices)  # of exponents, within a matrix
show.experiment(
    "all FP4 matrices are the same in FP8, bit for bit",
    lambda count: count == len(matrices),
    survivors(matrices),
    nulls={"random scales": survivors(scattered)},
    say=lambda count: f"{count} of {len(matrices)} are the same",
)
print(f"The scales of a matrix span at most 2^{span}, and 2^14 is allowed.")

# %% [markdown]
# ## What rounding costs on real activations
# The released model rounds the inputs of its FP8 and FP4 products and its cached keys and entries to FP8, and the
# indexer's keys to FP4. Here is the quantization error of each on the activations of a text: the root mean square of
# the error in percent of that of the signal. Rounding changes a number by up to 6 % in FP8 and 25 % in FP4. So the
# averages should be a few percent in FP8, and about ten in FP4.


# %%
def attention_input(number):
    """The input of a layer's attention: its streams, collapsed and normalised."""
    streams = results[f"layers.{number - 1}.out"] if number else model.first_streams(ids)
    block, pre = model.layers[number], results[f"layers.{number}.hc_attn.pre"]
    return model.ops.rms_norm(model.ops.mhc_collapse(streams, pre), block.hc_attn.norm, model.config.rms_norm_eps)


for number in range(model.config.num_hidden_layers):
    results[f"layers.{number}.attn.in"] = attention_input(number)

# %%
content = slice(0, model.config.head_dim - model.config.qk_rope_head_dim)
roundings = {
    "inputs, FP8": ("attn.in", lambda x: x, lambda x: quantise.fake_quant_fp8(x, 128)),
    "window keys, FP8": ("attn.kv", lambda x: x[..., content], lambda x: quantise.fake_quant_fp8(x, 64)),
    "entries, FP8": ("attn.compressor.out", lambda x: x[..., content], lambda x: quantise.fake_quant_fp8(x, 64)),
    "indexer keys, FP4": ("attn.indexer.compressor.out", lambda x: x, quantise.fake_quant_fp4),
}
bars = []
for name, (result, part, rounded) in roundings.items():
    for layer in range(model.config.num_hidden_layers):
        if f"layers.{layer}.{result}" in results:
            x = part(results[f"layers.{layer}.{result}"])
            error = np.sqrt(np.mean((rounded(x) - x) ** 2) / np.mean(x**2))
            bars.append((f"{name}, layer {layer}", 100 * float(error)))

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 4.2))
names, errors = zip(*bars, strict=True)
colours = [show.ORANGE if "FP4" in name else show.BLUE for name in names]
drawn = axes.barh(names, errors, color=colours)
axes.bar_label(drawn, fmt="%.1f %%", padding=4)
axes.invert_yaxis()
axes.set(title="error of each rounding", xlabel="root mean square, in percent of the signal", ylabel="what is rounded")
show.picture(
    figure,
    "Horizontal bars of the rounding error in percent, for inputs, window keys and entries in FP8 and for "
    "the indexer's keys in FP4, in each layer. FP8 is off by a few percent everywhere, FP4 by about four "
    "times as much.",
)

# %% [markdown]
# ## Experiment: eight bits for the inputs, four for the weights
# The experts' weights have four bits, but their inputs are rounded to eight. Are eight needed? The measure is how much
# the rounding of the inputs changes the surprise at a text that the model has not read. The null model rounds the
# inputs to four bits, too, in the blocks of the indexer's keys.


# %%
class Rounding(Ops):
    """NumPy's backend, with another rounding of the inputs of quantised weights, and no other rounding."""

    def __init__(self, rounded):
        self.rounded = rounded

    def linear(self, x, weight, round_inputs=False):
        return Ops.linear(self.rounded(x) if round_inputs and is_quantised(weight) else x, weight)

    def linears(self, x, weights, round_inputs=False):
        return tuple(self.linear(x, weight, round_inputs) for weight in weights)

    def experts(self, x, routing, expert_list, limit, round_inputs):
        return Ops.experts(self.rounded(x), routing, expert_list, limit, round_inputs=False)

    def expert(self, x, weight, matrices, limit, round_inputs):
        return Ops.expert(self.rounded(x), weight, matrices, limit, round_inputs=False)

    fake_quant_fp8 = fake_quant_fp4 = staticmethod(lambda x, *block: x)


texts = np.concatenate([show.passage(256, start) for start in (0, 256)])


def surprise(rounded):
    """The surprise at each token of two texts, in nats."""
    return show.surprise(dsv4.Model(model.checkpoint, Rounding(rounded), fake_quant=True)(texts), texts)


# %%
exact = surprise(lambda x: x)
show.experiment(
    "rounding the inputs to FP8 changes the surprise by less than a hundredth of a nat",
    lambda cost: abs(cost) < 0.01,
    float((surprise(lambda x: quantise.fake_quant_fp8(x, 128)) - exact).mean()),
    nulls={"inputs in FP4": float((surprise(quantise.fake_quant_fp4) - exact).mean())},
    say=lambda cost: f"{cost:+.4f} nats a token",
)

# %% [markdown]
# How much all of it costs in perplexity on unread pages is measured in the
# [bundled model's README](../ref/dsv4/bundled/README.md).
#
# ## Exercises
# **1.** To which value does FP4 round 2.5, which lies halfway between two values?

# %% tags=["hide-input"]
exercise_1 = show.exercise(
    lambda answer: answer == formats.fp4_decode(formats.fp4_encode(np.array([2.5])))[0],
    mistake=3,
    hint="2 has the code 4 and 3 the code 5.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** What is the smallest positive number of FP8?

# %% tags=["hide-input"]
exercise_2 = show.exercise(
    lambda answer: answer == formats.FP8_MAGNITUDES[1],
    mistake=2.0**-6,
    hint="There are numbers below the smallest exponent: the subnormal ones.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** `block_scale` compares mantissas instead of taking a logarithm. Find a float32 number for which the logarithm,
# computed in float32, gives another scale.


# %% tags=["hide-input"]
def scale_by_logarithm(largest):
    """The scale as it is often written."""
    return np.exp2(np.ceil(np.log2(largest / np.float32(448))))


exercise_3 = show.exercise(
    lambda x: scale_by_logarithm(np.float32(x)) != quantise.block_scale(np.array(x, np.float32), 448.0, 1e-4),
    mistake=448 * 1024,
    hint="Look just above a power of two times 448; np.nextafter gives the next float.",
)

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write `fake_quant_fp8` yourself: round to FP8 and back, with one power-of-two scale for each block. Only
# encoding and decoding, `formats.fp8_encode` and `formats.fp8_decode`, are given. `dsv4.check` compares it with the
# definition bit by bit.


# %% tags=["hide-input"]
def scale_of_any_size(x, block):
    rounded = np.empty_like(x)
    for start in range(0, x.shape[-1], block):
        part = x[..., start : start + block]
        scale = np.maximum(np.abs(part).max(axis=-1, keepdims=True), x.dtype.type(1e-4)) / x.dtype.type(448)
        rounded[..., start : start + block] = formats.fp8_decode(formats.fp8_encode(part / scale)) * scale
    return rounded


exercise_4 = show.write(
    show.properties("fake_quant_fp8"),
    wrong={"a scale that is no power of two": scale_of_any_size},
    hint="The largest magnitude of a block counts as at least 1e-4. np.frexp splits a number into a fraction of at "
    "least one half and an exponent; a block with a NaN or an infinity becomes NaN.",
)


# %%
def my_fake_quant_fp8(x, block):
    """x [..., K] rounded to FP8 and back, with one power-of-two scale per `block` channels, the smallest that fits.

    The last block may be shorter. Returns the same shape and dtype.
    """


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: the even code, so 2. 2: one eighth of $2^{-6}$. 3: the number after 448 · 1024 needs the next scale, but its
# logarithm is rounded to exactly 10. 4: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_4(x, block):
    rounded = np.empty_like(x)
    for start in range(0, x.shape[-1], block):
        part = x[..., start : start + block]
        largest = np.maximum(np.abs(part).max(axis=-1, keepdims=True), x.dtype.type(1e-4))
        fraction, exponent = np.frexp(largest / x.dtype.type(448))
        scale = np.ldexp(np.ones_like(largest), exponent - (fraction == 0.5))
        scale = np.where(np.isfinite(largest), scale, np.nan).astype(x.dtype)
        rounded[..., start : start + block] = formats.fp8_decode(formats.fp8_encode(part / scale)) * scale
    return rounded


exercise_1(2)
exercise_2(2.0**-9)
exercise_3(np.nextafter(np.float32(448 * 1024), np.float32(np.inf)))
exercise_4(solution_4)
