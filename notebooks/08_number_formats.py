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
# The routed experts of the released models are stored in four bits per weight, most other matrices and the cached keys
# in eight. So few bits leave no room for size: a block of neighbouring numbers shares one **scale**, a power of two,
# and each number only says where it lies within the block's range. A power of two costs no accuracy: to multiply
# with it moves the exponent and rounds nothing.
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

model = dsv4.load(backend="numpy", fake_quant="off")  # no rounding: the rounding is what is looked at here
ids = show.passage(256)
results = show.observe(model, ids)

# %% [markdown]
# ## Every value there is
# A small float is a short list of numbers. To encode is to find the nearest one; a tie goes to the even code.

# %%
show.source(formats._fp8_magnitudes, formats._nearest)

# %%
figure, (fp4, fp8) = plt.subplots(2, 1, figsize=(9, 3.2))
fp4.vlines(formats.FP4_VALUES, 0, 1, color=show.ORANGE, linewidth=2)
for code, value in enumerate(formats.FP4_VALUES):
    fp4.text(value, 1.15 if code < 8 else -0.45, f"{code:04b}", ha="center", fontsize=8, rotation=0)
fp4.set(title="all 16 codes of FP4, each with its bits (0000 and 1000 are both zero)", ylim=(-0.6, 1.6))
fp8.vlines(formats.FP8_VALUES, 0, 1, color=show.BLUE, linewidth=0.8)
fp8.set(title="all 254 numbers of FP8", ylim=(0, 1.1))
for axes in (fp4, fp8):
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
plt.show()

# %% [markdown]
# On a logarithmic axis, where equal ratios are equal distances, both are combs: two values per doubling in FP4, eight
# in FP8. At the left end they become coarse; what is smaller still becomes zero.

# %%
figure, axes = plt.subplots(figsize=(9, 2.2))
for height, (values, colour) in enumerate([(formats.FP4_MAGNITUDES, show.ORANGE), (formats.FP8_MAGNITUDES, show.BLUE)]):
    axes.vlines(values[1:], height - 0.35, height + 0.35, color=colour, linewidth=1.2)
fp4_span, fp8_span = (np.log2(m[-1] / m[1]) for m in (formats.FP4_MAGNITUDES, formats.FP8_MAGNITUDES))
axes.set_xscale("log", base=2)
axes.set_yticks([0, 1], ["FP4", "FP8"])
axes.set_title(f"positive values: FP8 spans {fp8_span:.1f} doublings, FP4 {fp4_span:.1f}")
axes.spines["left"].set_visible(False)
plt.show()

# %% [markdown]
# ## Block scales
# A window key of the bundled model, as it is cached: the first 64 channels in one block of FP8 (the other 64 carry the
# position and stay as they are). For the picture they are rounded to FP4 as well, in blocks of 32, to make the steps
# visible: each block's steps are as fine as its own largest number allows.

# %%
show.source(quantise.block_scale, quantise.fake_quant_fp4)

# %%
key = results["layers.1.attn.kv"][0, 40, :64]
codes, scales = quantise.fp4_blocks(key)
figure, axes = plt.subplots()
for block, scale in enumerate(scales):
    edges = 32 * block - 0.5, 32 * block + 31.5
    axes.hlines(formats.FP4_VALUES * scale, *edges, color=show.ORANGE, linewidth=0.7)
axes.plot(key, "o", color=show.DARK, markersize=3.5, label="the key")
axes.plot(quantise.fake_quant_fp4(key), "_", color=show.RED, markersize=9, markeredgewidth=2, label="rounded to FP4")
axes.set(title=f"two blocks with the scales {scales[0]:g} and {scales[1]:g}", xlabel="channel")
axes.legend(ncols=2, loc="lower right", frameon=True)
plt.show()

# %% [markdown]
# ## Why FP4 → FP8 is lossless
# The experts are stored in FP4, and multiplied on hardware that knows FP8. Converting loses nothing as long as the FP4
# scales within one FP8 block are not too far apart: FP8's span has to hold both the largest number of the block with
# the largest scale and the smallest of the block with the smallest. Here all FP4 values stand twice in one FP8 block,
# once with the scale 1 and once with $2^{-\Delta}$, and those are counted that do not survive.

# %%
gaps = np.arange(0, 22)
lost = []
for gap in gaps:
    both = np.concatenate([formats.FP4_VALUES, formats.FP4_VALUES * np.float32(2.0**-gap)])
    lost.append(int((quantise.fake_quant_fp8(both, len(both)) != both).sum()))

figure, axes = plt.subplots(figsize=(9, 2.6))
axes.bar(gaps, lost, color=[show.RED if count else show.GREEN for count in lost])
axes.plot(gaps[np.array(lost) == 0], np.zeros(sum(count == 0 for count in lost)), "o", color=show.GREEN)
axes.set(title="values lost on the way from FP4 to FP8", xlabel="Δ: the scales differ by 2^Δ", ylabel="of 32 values")
axes.set_xticks(gaps)
plt.show()

# %% [markdown]
# ## Experiment: the real experts
# Whether the scales of real weights lie close enough is not a matter of the format but of the weights. Every FP4 matrix
# of the bundled model is taken to FP8 with its 128 × 128 squares, and compared bit by bit. The null model is made of
# the same matrices with scales drawn from a range of $2^{30}$, as they might be if the blocks had nothing in common.

# %%
experts = [expert for block in model.layers for expert in block.ffn.experts]
matrices = [matrix for expert in experts for matrix in expert if isinstance(matrix, Fp4Weight)]
random = np.random.default_rng(0)
scattered = [Fp4Weight(m.packed, random.integers(112, 142, m.scales.shape, np.uint8)) for m in matrices]


def survivors(matrices):
    """How many matrices are the same bit by bit behind FP8."""
    return sum(np.array_equal(dequantise(quantise.quantise_fp8(dequantise(m))), dequantise(m)) for m in matrices)


# %%
span = max(int(np.ptp(m.scales.astype(int))) for m in matrices)  # of exponents, within a matrix
show.experiment(
    "all FP4 matrices survive FP8 bit for bit",
    lambda count: count == len(matrices),
    survivors(matrices),
    nulls={"scattered scales": survivors(scattered)},
    say=lambda count: f"{count} of {len(matrices)} survive",
)
print(f"The scales of a matrix span 2^{span} at most, and 2^14 is allowed.")

# %% [markdown]
# ## What rounding costs on real activations
# The released model rounds the inputs of its FP8 and FP4 products and its cached keys and entries to FP8, and the
# indexer's keys to FP4. Here is each, on the activations of a text: the error's root mean square in percent of the
# signal's. A number halfway into its step is off by up to 6 % in FP8 and 25 % in FP4, so an average of a few percent
# against some ten is to be expected.


# %%
def attention_input(number):
    """What the products of a layer's attention read: its streams, collapsed and normalised."""
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

figure, axes = plt.subplots(figsize=(9, 4.2))
names, errors = zip(*bars, strict=True)
colours = [show.ORANGE if "FP4" in name else show.BLUE for name in names]
drawn = axes.barh(names, errors, color=colours)
axes.bar_label(drawn, fmt="%.1f %%", padding=4)
axes.invert_yaxis()
axes.set(title="error of each fake quantisation", xlabel="root mean square, percent of the signal's")
plt.show()

# %% [markdown]
# ## Experiment: eight bits for the inputs, four for the weights
# The experts' weights have four bits, but what they are multiplied with is rounded to eight. Is that care needed? The
# measure is what the rounding of the products' inputs does to the likelihood of unread text. The null model has inputs
# of four bits as well, with the same blocks as the indexer's.


# %%
class Rounding(Ops):
    """NumPy's backend, with another rounding of what is multiplied with quantised weights, and no other."""

    def __init__(self, rounded):
        self.rounded = rounded

    def linear(self, x, weight, round_inputs=False):
        return Ops.linear(self.rounded(x) if round_inputs and is_quantised(weight) else x, weight)

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
# What this does to the text, the likelihood of unread pages, is measured in the
# [bundled model's README](../ref/dsv4/bundled/README.md).
#
# ## Exercises
# **1.** What does FP4 make of 2.5, which lies halfway between two of its values?

# %%
exercise_1 = show.exercise(
    lambda answer: answer == formats.fp4_decode(formats.fp4_encode(np.array([2.5])))[0],
    mistake=3,
    hint="2 has the code 4 and 3 the code 5.",
)
exercise_1(...)

# %% [markdown]
# **2.** The smallest positive number of FP8?

# %%
exercise_2 = show.exercise(
    lambda answer: answer == formats.FP8_MAGNITUDES[1],
    mistake=2.0**-6,
    hint="There are numbers below the smallest exponent: the subnormal ones.",
)
exercise_2(...)

# %% [markdown]
# **3.** `block_scale` compares mantissas instead of taking a logarithm. Find a float32 for which the logarithm,
# computed in float32, gives another scale.


# %%
def scale_by_logarithm(largest):
    """The scale as many write it."""
    return np.exp2(np.ceil(np.log2(largest / np.float32(448))))


exercise_3 = show.exercise(
    lambda x: scale_by_logarithm(np.float32(x)) != quantise.block_scale(np.array(x, np.float32), 448.0, 1e-4),
    mistake=448 * 1024,
    hint="Look just above a power of two times 448: np.nextafter is a help.",
)
exercise_3(...)

# %% [markdown]
# ## Solutions
# 1: the even code, so 2. 2: one eighth of $2^{-6}$. 3: the number after 448 · 1024 needs the next scale, but its
# logarithm rounds to exactly 10.

# %%
exercise_1(2)
exercise_2(2.0**-9)
exercise_3(np.nextafter(np.float32(448 * 1024), np.float32(np.inf)))
