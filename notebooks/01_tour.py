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
# **Minutes:** 10 · **Read before:** nothing · **You should know:** that a language model predicts the next token.
#
# ![The architecture of DeepSeek-V4. Four residual streams run from the embedding down to the head; in each block,
# attention and then a mixture of experts read them and write to them. Attention joins window keys, compressed
# entries and a sink in one softmax; a module beside the head drafts further tokens. Each box names its source
# file.](../docs/pictures/architecture-light.svg)
#
# A language model takes the tokens so far and gives each possible next token a probability. In DeepSeek-V4, each token
# id selects a row of a table, the row is copied into four **streams**, a stack of blocks changes the streams, and a
# head turns them into one number for each token of the vocabulary. A block has two parts. **Attention** brings in
# information from earlier tokens. A **mixture of experts** then works on each token by itself. This notebook follows a
# text through the model; the others explain one part each.
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
# The tokenizer cuts text into pieces, each of which has a number, its **id**. Frequent words are one piece,
# rare ones several.

# %%
ids = tokenizer.encode("ROMEO.\nIt is the east, and Juliet is the sun.")
print("|".join(tokenizer.decode([token]) for token in ids).replace("\n", "⏎"))
print(ids)

# %% [markdown]
# ## The whole forward pass
# The loop over the blocks, and what one block does. `hc_attn` and `hc_ffn` are the hyper-connections, which read from
# the four streams and write back to them ([notebook 2](02_hyper_connections.ipynb)).

# %%
show.source(dsv4.Model.states, type(model.layers[0]).__call__)

# %% [markdown]
# ## The same with the shapes of a real pass
# The model passes every intermediate result to a function `observe`. The shapes below come from one pass over 200
# tokens of *The Tempest*, a play that the bundled model was not trained on.

# %%
ids = show.passage(200)
results = show.observe(model, ids)

# %% tags=["hide-input"]
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
show.picture(
    figure,
    "A flow of boxes from left to right: 200 token ids, embedded and repeated to 200 × 4 × 128 streams, "
    "pass through blocks 0 (window only), 1 (CSA), 2 (HCA) and 3 (CSA), all of the same shape, to the "
    "head, which gives 200 rows of logits. A second arrow leads from the ids to block 0.",
)

# %% [markdown]
# Block 0 also reads the ids, because it chooses its experts by them ([notebook 7](07_experts.ipynb)).
#
# Inside a block, the streams are read twice and written twice: `hc_attn` connects them with attention, `hc_ffn` with
# the experts. From its input, attention makes window keys, compressed entries and a query latent. The latent gives the
# queries and, together with the input, the indexer's choice of entries.

# %% tags=["hide-input"]
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
show.picture(
    figure,
    "The inside of block 1, a CSA layer. The streams are read and normalised to 200 × 128. From this come "
    "window keys, 50 compressed entries, and a query latent; the latent leads to the queries and, with "
    "the input, to the indexer's choice. All four meet in attention, whose output mHC writes into the "
    "streams. They are read once more for the experts, and written again.",
)

# %% [markdown]
# In a CSA layer, 200 tokens make 50 entries of four tokens each. The ids have the shape `[length]`, the streams
# `[length, n, d]`, the logits `[length, vocabulary]`.
#
# ## What comes out
# A softmax turns the logits at a position into probabilities for the next token. The picture shows the ten most
# probable tokens after the first words of a speech.

# %%
prompt = tokenizer.encode("JULIET.\nO, my")
logits = model([prompt])[0, -1]
probability = Sampler(temperature=1, top_p=1, seed=0, batch=1).distribution(logits, 0)
best = np.argsort(-probability)[:10]

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(8, 2.8))
axes.bar(range(10), probability[best], color=show.BLUE)
axes.set_xticks(range(10), [repr(tokenizer.decode([token])) for token in best])
axes.set(title="the ten likeliest tokens after “O, my”", xlabel="next token", ylabel="probability")
show.picture(
    figure,
    "A bar chart of the ten most probable next tokens after “O, my”, by falling probability. “lord” and "
    "“good” have nearly a quarter each, all others less than 0.03.",
)

# %% [markdown]
# `generate` draws a token from this distribution, appends it to the text, and runs the model again.

# %%
tokens = [token.id for token in dsv4.generate(model, prompt, max_new_tokens=40, temperature=0.7, seed=4)]
print(tokenizer.decode(prompt + tokens))

# %% [markdown]
# ## Experiment: does it use the earlier text?
# If attention brings in something useful, the model should predict a token better after the true text than after the
# same tokens in random order. The measure is the surprise, which is the negative log-likelihood in nats per token, of
# the last 64 of 200 tokens. The tokens before them are shuffled, except the nearest one. The null model is the same
# model without attention: it can predict only from the newest token, so the order cannot matter to it.


# %%
class Deaf(Ops):
    """NumPy's backend, with an attention that returns zeros."""

    @staticmethod
    def sparse_attention(queries, *others):
        return np.zeros_like(queries)


shuffled = ids.copy()
shuffled[0, :135] = np.random.default_rng(0).permutation(shuffled[0, :135])


def surprises(model):
    """The mean surprise at the last 64 tokens, after the true text and after its tokens in random order."""
    return [float(show.surprise(model(text), text)[0, -64:].mean()) for text in (ids, shuffled)]


# %%
show.experiment(
    "at least a tenth of a nat less surprise after the true text than after its tokens in random order",
    lambda nats: nats[0] < nats[1] - 0.1,
    surprises(model),
    nulls={"no attention": surprises(dsv4.Model(model.checkpoint, Deaf(), fake_quant=True))},
    say=lambda nats: f"{nats[0]:.3f} nats in true order, {nats[1]:.3f} in random order",
)

# %% [markdown]
# ## Exercises
# **1.** How many numbers represent one token between two blocks of the bundled model?

# %% tags=["hide-input"]
exercise_1 = show.exercise(
    lambda answer: answer == model.layer(0, model.first_streams(ids), ids)[0, 0].size,
    mistake=model.config.hidden_size,
    hint="Between blocks, a token is not one row of width d: count the streams.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** A token must not see later tokens. When the token at position 100 of the passage is replaced, at which position
# (counted from 0) do the logits change first?


# %% tags=["hide-input"]
def first_changed(position):
    """The first position whose logits change with the token at `position`."""
    other = ids.copy()
    other[0, position] = (other[0, position] + 1) % model.config.vocab_size
    changed = np.abs(model(other) - results["logits"]).max(axis=-1)[0] > 0
    return int(np.argmax(changed))


exercise_2 = show.exercise(
    lambda answer: answer == first_changed(100),
    mistake=101,
    hint="The logits at a position predict the next token, and the model has read the token at the position itself.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** Write your first operation: the embedding. Then replace the dots by `my_embedding`. `dsv4.check` tests
# it as the project tests its own.


# %% tags=["hide-input"]
def ids_from_one(ids, table):
    return table[ids - 1]


exercise_3 = show.write(
    show.properties("embedding"),
    wrong={"ids counted from 1": ids_from_one},
    hint="NumPy can index an array with an array of integers: each integer selects a row.",
)


# %%
def my_embedding(ids, table):
    """The rows of the table that the ids select: ids [B, S] integers, table [vocab, d] -> [B, S, d]."""


exercise_3(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: four streams of width 128. 2: position 100 itself: its logits predict token 101 and depend on token 100. 3: the ids
# index the rows of the table.
#
# </details>

# %% tags=["hide-input"]
exercise_1(4 * 128)
exercise_2(100)
exercise_3(lambda ids, table: table[ids])
