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
# # 1 · A tour: text in, text out
#
# A language model is a function from the tokens so far to a probability for each possible next token. DeepSeek-V4
# computes it in one direction: token ids become rows of a table, each row is repeated into four **streams**, a stack
# of blocks changes the streams, and a head turns them into one number per word of the vocabulary. A block holds two
# things: an attention, which brings in what stood before, and a mixture of experts, which works on each token alone.
# The other notebooks take the parts one by one; this one follows a text through all of them.
#
# $$\text{logits} = \text{Head}\big(B_L(\cdots B_2(B_1(X_0)))\big), \qquad
# X_0[t] = (E_{\text{id}_t}, \dots, E_{\text{id}_t}) \in \mathbb{R}^{n \times d}$$
#
# Here $E$ is the embedding table, $d$ the width, $n = 4$ the number of streams and $L$ the number of blocks.

# %%
import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.ops import Ops
from dsv4.text.sampling import Sampler

model = dsv4.load(backend="numpy")  # the bundled model, and the backend whose source is shown here
tokenizer = dsv4.Tokenizer.from_file(dsv4.bundled_model())

# %% [markdown]
# ## From text to ids and back
# The tokenizer cuts text into pieces that it has a number for. Frequent words are one piece, rare ones are several.

# %%
ids = tokenizer.encode("ROMEO.\nIt is the east, and Juliet is the sun.")
print("|".join(tokenizer.decode([token]) for token in ids).replace("\n", "⏎"))
print(ids)

# %% [markdown]
# ## The whole forward pass
# This is all of it: the loop over the blocks, and what one block does. `hc_attn` and `hc_ffn` are the hyper-connections
# that read from the four streams and write back to them (notebook 2).

# %%
show.source(dsv4.Model.states, type(model.layers[0]).__call__)

# %% [markdown]
# ## The same with live shapes
# `observe` is called with every intermediate result. The shapes below are those of one run over 200 tokens of
# *The Tempest*, a play that the bundled model has not read.

# %%
ids = show.passage(200)
results = show.observe(model, ids)

# %%
kinds = [model.config.layer_kind(number) for number in range(model.config.num_hidden_layers)]
colours = {"SWA": show.GREEN, "CSA": show.BLUE, "HCA": show.PURPLE}
boxes = {
    "ids": show.Box("ids", ids.shape[1:], show.DARK, 0, 0),
    "first": show.Box("embed,\nrepeat", model.first_streams(ids).shape[1:], show.GREY, 1, 1),
    "head": show.Box("head", results["logits"].shape[1:], show.ORANGE, 6, 0),
}
for number, kind in enumerate(kinds):
    shape = results[f"layers.{number}.out"].shape[1:]
    boxes[f"block {number}"] = show.Box(f"block {number}\n{kind}", shape, colours[kind], 2 + number, 0)

figure, axes = plt.subplots(figsize=(10, 2))
paths = ["ids → first → block 0 → block 1 → block 2 → block 3 → head", "ids → block 0"]
show.flow(axes, "the whole pass: what each part hands on for one sequence", boxes, paths)
plt.show()

# %% [markdown]
# Block 0 reads the ids as well: it chooses its experts by them (notebook 7). Inside a block, much happens side by side.
# The streams are read twice and written twice: `hc_attn` stands around attention, `hc_ffn` around the experts. What
# attention reads goes four ways: it becomes window keys, entries, and a query latent, from which come the queries and,
# with attention's input once more, the indexer's choice of entries.

# %%
layer = {name.removeprefix("layers.1."): result.shape[1:] for name, result in results.items()}
read, latent = layer["attn.out"], (len(ids[0]), model.config.q_lora_rank)
boxes = {
    "streams": show.Box("streams", layer["out"], show.GREY, 0, 0),
    "x": show.Box("mHC reads,\nnorm", read, show.ORANGE, 1, 2),
    "latent": show.Box("query\nlatent", latent, show.BLUE, 2, 1),
    "queries": show.Box("queries", layer["attn.q"], show.BLUE, 3, 1),
    "chosen": show.Box("indexer's\nchoice", layer["attn.indexer.topk"], show.PURPLE, 3, 2),
    "entries": show.Box("compressed\nentries", layer["attn.compressor.out"], show.PURPLE, 3, 3),
    "keys": show.Box("window\nkeys", layer["attn.kv"], show.GREEN, 3, 4),
    "attention": show.Box("attention", layer["attn.out"], show.BLUE, 4, 2),
    "between": show.Box("mHC writes\nand mixes", layer["out"], show.ORANGE, 5, 0),
    "y": show.Box("mHC reads,\nnorm", read, show.ORANGE, 6, 2),
    "experts": show.Box("experts", layer["ffn.out"], show.RED, 7, 2),
    "out": show.Box("mHC writes\nand mixes", layer["out"], show.ORANGE, 8, 0),
}
paths = [
    "streams → between → out",
    "streams → x → latent → queries → attention → between",
    "x → chosen → attention",
    "latent → chosen",
    "x → entries → attention",
    "x → keys → attention",
    "between → y → experts → out",
]
figure, axes = plt.subplots(figsize=(10, 4.2))
show.flow(axes, "inside block 1, a CSA layer", boxes, paths)
plt.show()

# %% [markdown]
# 200 tokens fill 50 entries of four tokens each in a CSA layer. Ids have the shape `[length]`, the streams
# `[length, n, d]`, the logits `[length, vocabulary]`.
#
# ## What comes out
# Each position's logits, through a softmax, are the model's opinion on the next token. The picture shows the ten most
# probable continuations of one speech's beginning.

# %%
prompt = tokenizer.encode("JULIET.\nO, my")
logits = model([prompt])[0, -1]
probability = Sampler(temperature=1, top_p=1, seed=0, batch=1).distribution(logits, 0)
best = np.argsort(-probability)[:10]

figure, axes = plt.subplots(figsize=(8, 2.8))
axes.bar(range(10), probability[best], color=show.BLUE)
axes.set_xticks(range(10), [repr(tokenizer.decode([token])) for token in best])
axes.set(title="the ten likeliest tokens after “O, my”", ylabel="probability")
plt.show()

# %% [markdown]
# `generate` draws from this distribution, appends the token, and asks again.

# %%
tokens = [token.id for token in dsv4.generate(model, prompt, max_new_tokens=40, temperature=0.7, seed=4)]
print(tokenizer.decode(prompt + tokens))

# %% [markdown]
# ## Experiment: does it read what stood before?
# If attention carries something useful, the model should be less surprised by a token when the true text stands before
# it than when the same words stand there in disorder. The measure is the negative log-likelihood, in nats per token, of
# the last 64 of 200 tokens; the disorder ends one token before them. The null model is the same one without attention:
# it has the newest token to guess from, and nothing else can reach it.


# %%
class Deaf(Ops):
    """NumPy's backend, with an attention that brings in nothing."""

    @staticmethod
    def sparse_attention(queries, *others):
        return np.zeros_like(queries)


shuffled = ids.copy()
shuffled[0, :135] = np.random.default_rng(0).permutation(shuffled[0, :135])


def surprises(model):
    """The mean surprise at the last 64 tokens, behind the true text and behind its words in disorder."""
    return [float(show.surprise(model(text), text)[0, -64:].mean()) for text in (ids, shuffled)]


# %%
show.experiment(
    "at least a tenth of a nat less surprise behind the true text than behind its words in disorder",
    lambda nats: nats[0] < nats[1] - 0.1,
    surprises(model),
    nulls={"no attention": surprises(dsv4.Model(model.checkpoint, Deaf(), fake_quant=True))},
    say=lambda nats: f"{nats[0]:.3f} nats in true order, {nats[1]:.3f} in disorder",
)

# %% [markdown]
# ## Exercises
# **1.** How many numbers stand for one token between two blocks of the bundled model?

# %%
exercise_1 = show.exercise(
    lambda answer: answer == model.layer(0, model.first_streams(ids), ids)[0, 0].size,
    mistake=model.config.hidden_size,
    hint="A token is not one row of width d between blocks: count the streams.",
)
exercise_1(...)

# %% [markdown]
# **2.** A token must not see the future. Give the position (counted from 0) of the first logits that change when the
# token at position 100 of the passage is replaced.


# %%
def first_changed(position):
    """The first position whose logits change with the token at `position`."""
    other = ids.copy()
    other[0, position] = (other[0, position] + 1) % model.config.vocab_size
    changed = np.abs(model(other) - results["logits"]).max(axis=-1)[0] > 0
    return int(np.argmax(changed))


exercise_2 = show.exercise(
    lambda answer: answer == first_changed(100),
    mistake=101,
    hint="The logits at a position speak of the next token, and have read the token at the position itself.",
)
exercise_2(...)

# %% [markdown]
# ## Solutions
# 1: four streams of width 128. 2: position 100 itself: its logits have read token 100 in order to guess token 101.

# %%
exercise_1(4 * 128)
exercise_2(100)
