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
# # 20 · What V4.1 changed, and why
#
# **Minutes:** 50 · **Read before:** [2](02_hyper_connections.ipynb), [5](05_lightning_indexer.ipynb),
# [9](09_cache.ipynb) · **You should know:** hash tables, exclusive or.
#
# DeepSeek-V4.1-Flash keeps the parts of V4 and arranges them anew. Hyper-connections read the streams with weights that
# were made one sub-layer earlier, layers share their entries and the choice among them, and two layers look facts up in
# a table. With $F_l$ for sub-layer $l$, $X_l$ for the streams before it, and $\rho_s$ for the compression ratio of a
# layer $s$ that makes entries, the two equations of this notebook are
#
# $$X_{l+1} = B_l X_l + C_l\, F_l(A_{l-1} X_l), \qquad
# \text{bytes per token} = \sum_{s\,\in\,\text{sources}} \frac{b + b_I}{\rho_s}$$
#
# V4 has $A_l$ in the first one, and in the second one a sum over nearly all layers. $b$ = 288 are the bytes of an
# entry, $b_I$ = 68 those of an index key. [docs/v41.md](../docs/v41.md) says the same without experiments.
#
# The model here has ten layers and random weights, so it says nothing about quality; but it says what depends on what.
# DeepSeek's own classes have run it, too, and their results lie beside it.

# %%
import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from safetensors.numpy import load_file

import dsv4
import show
from dsv4.checkpoint import Checkpoint41, open_checkpoint
from dsv4.checkpoint.opening import read_any_config
from dsv4.cost import cost, memory, v41
from dsv4.model41.attention import Attention41
from dsv4.model41.block import Block41
from dsv4.model41.model import Model41
from dsv4.ops import Ops
from dsv4.ops.candidates import candidate_blocks, top_k_among
from dsv4.ops.elementwise import sigmoid
from dsv4.ops.engram import engram_gate, engram_moduli, engram_multipliers, engram_rows
from dsv4.ops.indexer import index_scores
from dsv4.text.engram_classes import classes_of

folder = show.ROOT / "tests/data/golden/v41_float"
official = load_file(folder / "expected.safetensors")
checkpoint = open_checkpoint(folder)
config = checkpoint.config
ids = official["p0.input_ids"][None]
length = int(official["p0.length"][0])  # of the prompt; the rest is what the model wrote
flash = dsv4.read_config(show.ROOT / "tests/data/configs/deepseek-v4-flash.json")
flash41 = read_any_config(show.ROOT / "tests/data/configs/deepseek-v4.1-flash.json")
million = 2**20


def small_model(ops=None, **changes):
    """The small model on a backend, with some of its settings changed."""
    changed = Checkpoint41(checkpoint.directory, replace(config, **changes), checkpoint.entries)
    return Model41(changed, ops or Ops(), fake_quant=False, token_classes=official["engram.token_map"])


class Listening(Ops):
    """NumPy's backend, which also keeps what some operations were given."""

    def __init__(self):
        self.made, self.used, self.read, self.asked = [], [], [], {}

    def mhc_weights(self, *arguments):
        weights = Ops.mhc_weights(*arguments)
        self.made.append(weights.pre)
        return weights

    def mhc_collapse(self, streams, pre):
        self.used.append(pre)
        return Ops.mhc_collapse(streams, pre)

    def sparse_attention(self, q, window, window_index, entries, *others):
        self.read.append(entries)
        return Ops.sparse_attention(q, window, window_index, entries, *others)

    def index_candidates(self, queries, keys, weights, *others):
        self.asked["pool"] = index_scores(queries, keys, weights)[0]
        return Ops.index_candidates(queries, keys, weights, *others)

    def index_top_k_among(self, queries, keys, weights, *others):
        self.asked["chosen in it"] = index_scores(queries, keys, weights)[0]
        return Ops.index_top_k_among(queries, keys, weights, *others)


def listened(**changes):
    """What the operations were given in one pass over the prompt, and what the observer saw."""
    ops = Listening()
    return ops, show.observe(small_model(ops, **changes), ids[:, :length])


ops, seen = listened()

# %% [markdown]
# ## Hyper-connections in a single pass
# A sub-layer of V4 first reads all streams to find out how to weight them, and only then can it read them. In V4.1 the
# weights `pre` are ready when a sub-layer begins, because the one before has made them. While the streams are read for
# that, `post`, `comb` and the next `pre` are computed as well.

# %%
show.source(Block41.__call__)

# %%
token = 40
made, used = (
    np.stack([pre[0, token] for pre in some], axis=1) for some in (ops.made, ops.used)
)  # [streams, sub-layers]

# %% tags=["hide-input"]
figure, panels = plt.subplots(2, 1, figsize=(9, 3.6), sharex=True)
for axes, (title, shares) in zip(panels, {"made in": made, "used in": used}.items(), strict=True):
    show.heatmap(axes, shares, "pre", vmin=0, vmax=1)
    axes.set_title(f"{title} a sub-layer")
    axes.set_yticks(range(4), range(1, 5))
panels[1].set_xticks(range(0, 21, 2), [*range(0, 20, 2), "head"])
panels[1].set_xlabel("sub-layer: even numbers attention, odd ones experts")
figure.supylabel("stream")
show.picture(
    figure,
    "The shares with which four streams are read, one column for each of twenty sub-layers: above where they are made, "
    "below where they are used. Below stands the same pattern, moved to the right by one; it begins with the first "
    "stream alone, and its last column is the head's.",
)

# %% [markdown]
# ## Experiment: one sub-layer later
# How many sub-layers lie between making and using? We compare the arrays that the operations are given. The null model
# is V4, the bundled model.


# %%
def delays(ops, layers):
    """For each sub-layer, how many sub-layers earlier the weights were made that it reads with; None for none."""
    found = []
    for number, pre in enumerate(ops.used[: 2 * layers]):
        same = [number - other for other, each in enumerate(ops.made) if np.array_equal(each, pre)]
        found.append(same[0] if same else None)
    return found


v4 = Listening()
bundled = dsv4.load(backend="numpy", fake_quant="off")
dsv4.Model(bundled.checkpoint, v4, fake_quant=False)(show.passage(length))
show.experiment(
    "every sub-layer but the first reads with weights made one sub-layer before",
    lambda found: found == [None] + [1] * (len(found) - 1),
    delays(ops, config.num_hidden_layers),
    nulls={"V4": delays(v4, bundled.config.num_hidden_layers)},
    say=lambda found: f"the delays are {', '.join('–' if one is None else str(one) for one in found)}",
)

# %% [markdown]
# ## Who makes entries, and who chooses
# In V4, each layer that compresses makes entries of its own, and each CSA layer chooses among them by itself. V4.1 has
# three kinds of layers for this: **Full** ones make entries and choose, **Reindex** ones choose among the entries of
# the latest source, **Reuse** ones take both from others.

# %%
show.source(Attention41._entries)


# %%
def latest(sources, layer):
    """The last of the sources that is not behind a layer."""
    return max(source for source in sources if source <= layer)


compressing = [layer for layer in range(flash41.num_hidden_layers) if flash41.compress_ratios[layer]]
entries_of = [flash41.kv_source(layer) for layer in compressing]
choice_of = [latest(flash41.index_source_layer_ids, layer) for layer in compressing]
in_pool = [layer for layer in flash41.index_source_layer_ids if flash41.has_candidates(layer)]

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3.6))
axes.plot(compressing, compressing, ":", color=show.GREY, label="V4: every layer its own")
axes.step(compressing, choice_of, "o-", where="post", color=show.ORANGE, linewidth=6, markersize=10, label="chosen in")
axes.step(compressing, entries_of, "s-", where="post", color=show.BLUE, markersize=5, label="entries of")
axes.plot(in_pool, in_pool, "D", color=show.GREEN, markersize=9, label="in layer 20's pool", zorder=3)
axes.axvspan(19.5, 39.5, color=show.LIGHT, zorder=0)
axes.text(2, 33, "entries of two tokens")
axes.text(27, 6, "entries of one token")
axes.set(title="V4.1-Flash: what each layer reads", xlabel="layer that reads", ylabel="layer that made it")
axes.set_xticks(range(0, 40, 4))
axes.set_yticks(flash41.index_source_layer_ids)
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
show.picture(
    figure,
    "For each layer of V4.1-Flash from 2 on, the layer whose entries it reads and the layer that chose them. Entries "
    "are a staircase with steps at 2, 8, 14 and 20, flat from there on. The choice has further steps at 24, 28, 32 and "
    "36, which are marked as made in the pool of layer 20. In V4 both would be the diagonal.",
)

# %%
kinds = ["SWA", "Full", "Reindex", "Reuse"]
rows = []
for name, one in {"V4.1-Flash": flash41, "the small model": config}.items():
    layers = range(one.num_hidden_layers)
    found = [[layer for layer in layers if one.layer_kind(layer) == kind] for kind in kinds]
    rows.append([name, *(f"{len(each)}: {', '.join(map(str, each[:8]))}{' …' * (len(each) > 8)}" for each in found)])
show.table(["", *kinds], rows)

# %% [markdown]
# ## Experiment: whose entries a layer reads
# The config says whose they should be. To find out whose they are, we compare the entries that each layer's attention
# is given with what each source has made. The null model has the same weights, but layer 4 is no source any more.


# %%
def sources_found(ops, seen, layers):
    """For each layer, the one whose entries its attention was given; None for no entries."""
    made = {n: seen[name] for n in range(layers) if (name := f"layers.{n}.attn.compressor.out") in seen}
    return [next((n for n, each in made.items() if np.array_equal(each, read)), None) for read in ops.read]


expected = [config.kv_source(n) if config.compress_ratios[n] else None for n in range(config.num_hidden_layers)]
without_4 = listened(kv_source_layer_ids=(2, 6))
show.experiment(
    f"layers 0 to 9 read {', '.join('–' if one is None else str(one) for one in expected)}",
    lambda found: found == expected,
    sources_found(ops, seen, config.num_hidden_layers),
    nulls={"layer 4 makes no entries": sources_found(*without_4, config.num_hidden_layers)},
    say=lambda found: f"they read {', '.join('–' if one is None else str(one) for one in found)}",
)

# %% [markdown]
# ## 890 bytes
# V4-Flash adds 3.5 kB for each token of a long text. V4.1's entries are much finer: they stand for two tokens or for
# one, where those of V4 stand for 4 or 128. If each of its layers had entries of its own, its cache would be three
# times that of V4, although an entry in FP4 has half the bytes. It is small because four layers make entries for all.


# %%
def per_token(one):
    """The bytes that a token adds to a long cache, of entries and of index keys."""
    cache_bytes = memory.cache_bytes if one is flash else v41.cache_bytes
    longer, shorter = (cache_bytes(one, context, "packed") for context in (2 * million, million))
    return np.array([(longer[part] - shorter[part]) / million for part in ("compressed", "indexer keys")])


alone = replace(flash41, kv_source_layer_ids=tuple(compressing), index_source_layer_ids=tuple(compressing))
in_fp4 = np.array([v41.entry_bytes(flash41, "packed") / (448 + 7 + 128), 1])
bytes_of = {
    "V4-Flash": per_token(flash),
    "V4-Flash, entries in FP4": per_token(flash) * in_fp4,
    "V4.1-Flash, nothing shared": per_token(alone),
    "V4.1-Flash": per_token(flash41),
}

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 2.8))
for row, (entries, keys) in enumerate(bytes_of.values()):
    axes.barh(row, entries, color=show.BLUE, height=0.62, label="entries" if row == 0 else None)
    axes.barh(row, keys, left=entries, color=show.ORANGE, height=0.62, label="index keys" if row == 0 else None)
    axes.text(entries + keys + 100, row, f"{entries + keys:,.0f}", va="center")
axes.set_yticks(range(len(bytes_of)), bytes_of)
axes.invert_yaxis()
axes.set(title="what each further token adds to the cache", xlabel="bytes", ylabel="model", xlim=(0, 11_500))
axes.legend(loc="lower right")
show.picture(
    figure,
    "Bars of the bytes that a token adds to the cache, by entries and index keys: 3,509 in V4-Flash, 1,914 with its "
    "entries in FP4, 10,324 in V4.1-Flash if each layer had entries of its own, and 890 as it is.",
)

# %% [markdown]
# ## Experiment: predicted and counted
# As in notebook 9, a cache is filled token by token and counts its own bytes; here in float32. The null model is the
# prediction for layers that share nothing.

# %%
model = small_model()
cache, counted = model.new_cache(), []
for number in ids[0, :40]:
    model([[number]], cache)
    counted.append(cache.nbytes())
own = tuple(layer for layer in range(config.num_hidden_layers) if config.compress_ratios[layer])


def predicted(one):
    """The bytes of each part after each of 40 tokens; the drafter's rings have read them as well."""
    return [v41.cache_bytes(one, tokens, "float32", draft_context=tokens) for tokens in range(1, 41)]


show.experiment(
    "each part has the predicted bytes after each of 40 tokens, exactly",
    lambda formula: formula == counted,
    predicted(config),
    nulls={"nothing shared": predicted(replace(config, kv_source_layer_ids=own, index_source_layer_ids=own))},
    say=lambda formula: (
        f"{sum(one == other for one, other in zip(formula, counted, strict=True))} of {len(counted)} agree in all parts"
    ),
)

# %% [markdown]
# ## The pool of candidates
# From layer 20 on, each token has an entry. At a million tokens, a Reindex layer would have to score a million keys for
# each query. Layer 20 scores them anyway. It cuts the entries into blocks of 8, and for each query it keeps the 2048
# blocks that have the best entries, always with the newest. The four layers behind it score only these.

# %%
show.source(candidate_blocks, top_k_among)


# %%
def scored(one, context):
    """The keys that all index sources together score for the last of so many tokens."""
    products = [each for each in cost(one, context).products if each.part == "indexer scores" and each.format == "fp4"]
    return sum(each.multiply_adds for each in products) // (one.index_n_heads * one.index_head_dim)


unbounded = replace(flash41, candidate_source_layer_id=None)
contexts = (2**14, million)
rows = [
    [name, *(f"{scored(one, each):,}" for each in contexts)] for name, one in {"no": unbounded, "yes": flash41}.items()
]
show.table(["pool", *(f"keys scored at {each:,} tokens" for each in contexts)], rows)

# %% [markdown]
# In the small model, layer 6 makes the pool and layer 8 chooses in it: a pool is 3 blocks of 4 entries, and 8 entries
# are chosen. Below are the scores of both layers for the last token of the prompt.

# %%
size, last = config.candidate_block_size, length - 1
pool = seen["layers.6.attn.indexer.candidates"][0]  # [S, blocks]
chosen = seen["layers.8.attn.indexer.topk"][0]  # [S, k]
_, free = listened(candidate_source_layer_id=None)
freely = free["layers.8.attn.indexer.topk"][0]

# %% tags=["hide-input"]
figure, panels = plt.subplots(2, 1, figsize=(9, 4), sharex=True)
for axes, scores in zip(panels, ops.asked.values(), strict=True):
    axes.bar(range(length), scores[last], color=show.GREY, width=0.8, label="score of an entry")
    for number, block in enumerate(pool[last]):
        start = block * size - 0.5
        axes.axvspan(start, start + size, color=show.GREEN, alpha=0.25, label=None if number else "the pool", zorder=0)
panels[0].set_title("layer 6 finds the pool")
panels[1].set_title("layer 8 chooses in it")
panels[1].bar(chosen[last], ops.asked["chosen in it"][last, chosen[last]], color=show.BLUE, width=0.8, label="chosen")
panels[1].plot(
    freely[last], ops.asked["chosen in it"][last, freely[last]], "v", color=show.ORANGE, label="its best of all entries"
)
panels[1].set_xlabel("entry")
figure.supylabel("score for the last token")
for axes in panels:
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
show.picture(
    figure,
    "The scores of 97 entries for the last token, in layer 6 above and layer 8 below. Three blocks of four entries are "
    "the pool: two with the highest scores of layer 6, and the newest, of which one entry is there. Layer 8 "
    "chooses eight of the nine entries in them, although its own highest scores all lie elsewhere.",
)

# %% [markdown]
# In a model with random weights, what layer 6 likes says little about what layer 8 likes. V4.1 was trained with the
# pool, so its layers have learnt to agree.
#
# ## Experiment: no choice outside the pool
# How many of the entries that layer 8 chooses lie in the pool of layer 6, for all queries that see more than a pool
# holds? The null model has no pool: its layer 8 chooses among all entries, and we count those in the blocks above.

# %%
late = slice(size * config.candidate_topk_blocks, length)


def inside(choice):
    """The share of the chosen entries that lie in a block of their query's pool."""
    return float(np.mean((choice[late, :, None] // size == pool[late, None, :]).any(axis=-1)))


show.experiment(
    "all chosen entries are in the pool",
    lambda share: share == 1,
    inside(chosen),
    nulls={"no pool": inside(freely)},
    say=lambda share: f"{share:.0%} are",
)

# %% [markdown]
# ## Engram
# Some facts hang on a few words: who follows "Alexander the". An Engram looks such things up and computes little. A
# token and the one, two or three before it are hashed, and the hashes name rows of a table, which are mixed into the
# streams. First, what is the same to a reader should be the same to a hash: tokens whose texts differ in case, marks
# or spaces are one **class**.

# %%
tokenizer = dsv4.Tokenizer.from_file(dsv4.bundled_model())
name_of_id = {number: name for name, number in tokenizer.vocabulary.items()}
names = [name_of_id[number] for number in range(len(name_of_id))]
texts = [tokenizer.decode([number]) for number in range(len(names))]
classes = classes_of(texts, names)
rows = []
for word in ("the", "B", "\n"):
    alike = [text for text, one in zip(texts, classes, strict=True) if one == classes[texts.index(word)]]
    rows.append([", ".join(f"`{text!r}`" for text in alike)])
print(f"The {len(texts)} tokens of the bundled model have {classes.max() + 1} classes.")
show.table(["tokens of one class"], rows)

# %% [markdown]
# The released model has 99,092 classes of 129,280 tokens. Each order, from two tokens to four, has eight hashes, each
# modulo a prime of its own. So 24 rows are read, each from a part of the table that belongs to one hash.

# %%
show.source(engram_rows)

# %%
settings = flash41.engram
multipliers = engram_multipliers(settings.layer_ids[0], settings.compressed_vocab_size, settings.max_ngram_size)
moduli = engram_moduli(len(settings.layer_ids), settings.max_ngram_size, settings.n_heads, settings.vocab_size)[0]


def rows_of(some):
    """The rows that each token of classes [S] reads, [S, 3, 8]; class 2 stands before the first token."""
    before = np.full(settings.max_ngram_size - 1, 2)
    found = engram_rows(np.concatenate([before, some])[None], multipliers, moduli)[0]
    return found.reshape(len(some), *moduli.shape)


line = tokenizer.encode("To be, or not to be: that is the question. And so, to be, or not to be?")
rows = rows_of(classes[line])
again = np.array([[rows[t, order, 0] in rows[:t, order, 0] for t in range(len(line))] for order in range(3)])

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 2.5))
axes.imshow(again, aspect="auto", vmin=0, vmax=1.3)
axes.set_xticks(range(len(line)), [repr(texts[number]) for number in line], rotation=90)
axes.set_yticks(range(3), ["2 tokens", "3 tokens", "4 tokens"])
axes.set(title="dark: this row was read before in the text", xlabel="token", ylabel="order of the hash")
axes.spines[:].set_visible(False)
show.picture(
    figure,
    "A grid of the tokens of a sentence against the three orders of hashes. Where to be, or not to be comes again, the "
    "rows are the ones that were read before: for two tokens from the second word of the phrase on, for four tokens "
    "two words later. At its first appearance only the second to be repeats a row, of order two.",
)

# %% [markdown]
# ## Experiment: the same words, elsewhere
# Take four tokens from The Tempest and put them at another place of the play. The 24 rows of the last of the four
# should be the same as before. The null models put the three words before it in another order, or leave away the first
# of them.

# %%
play = classes[show.passage(3000)[0]]
random = np.random.default_rng(0)
places = random.integers(4, len(play), 200)


def same_rows(changed):
    """In how many of 200 cases a token reads the same 24 rows after the four last tokens were moved and changed."""
    found = []
    for place in places:
        four = play[place - 3 : place + 1]
        elsewhere = play[random.integers(0, len(play) - 10) :][:10]
        moved = rows_of(np.concatenate([elsewhere, changed(four)]))[-1]
        found.append(np.array_equal(moved, rows_of(four)[-1]))
    return sum(found)


show.experiment(
    "all 24 rows are the same in each of 200 cases",
    lambda count: count == len(places),
    same_rows(lambda four: four),
    nulls={
        "the three before in another order": same_rows(lambda four: four[[1, 2, 0, 3]]),
        "only two before": same_rows(lambda four: four[1:]),
    },
    say=lambda count: f"they are in {count} of {len(places)}",
)

# %% [markdown]
# ## The gate
# The rows are projected to a key for each stream and to one value. The value is added to a stream by as much as its key
# resembles the stream: $\sigma$ of the product of both, each normalised, over $\sqrt d$, of which the root is taken and
# the sign kept. Without the root, the gate would be a switch: at $d$ = 5120, a cosine of 0.1 gives a product of 7.

# %%
cosines = np.linspace(-0.5, 0.5, 101)
d = flash41.hidden_size
stream, other = np.linalg.qr(random.standard_normal((d, 2)))[0].T * np.sqrt(d)  # of root mean square 1, at right angles
keys = cosines[:, None] * stream + np.sqrt(1 - cosines[:, None] ** 2) * other
keys_and_value = np.concatenate([keys, np.ones((len(keys), d))], axis=1)[None]  # one stream; the value is 1 everywhere
streams = np.broadcast_to(stream, (1, len(keys), 1, d))
gates = (engram_gate(streams, keys_and_value, np.ones((1, d)), np.ones((1, d)), 1e-20) - streams)[0, :, 0, 0]

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 2.8))
axes.plot(cosines, sigmoid(cosines * np.sqrt(d)), "--", color=show.GREY, label="without the root")
axes.plot(cosines, gates, color=show.BLUE, label="V4.1's gate")
axes.set(title="how much of the value is added", xlabel="cosine of stream and key", ylabel="gate")
axes.legend()
show.picture(
    figure,
    "The gate against the cosine of a stream and its key, from -0.5 to 0.5. Without the root it goes from 0 to 1 "
    "within a narrow range around 0. With the root it is steep at 0 only, and then rises slowly: 0.93 at a "
    "cosine of 0.1.",
)

# %% [markdown]
# ## A loop that scores with stale keys
# DeepSeek's released code has two ways through the model: one for a prompt, and one for a single token. The second one
# publishes index keys only in a step that completes an entry. A layer whose entries stand for two tokens completes
# one in every second step. In the steps between, it scores with the keys that were published last, and these are
# those of the **last source** of the step before: the keys of another layer. The official results of the small model
# are stored both ways: as released, and with the one line that cures it.

# %%
steps = np.arange(24)
right, stale = official["p0.decode.logits"], official["p0.decode.released.logits"]
differing = []
for layer in (2, 4):
    pairs = (official[f"p0.decode.{way}layers.{layer}.attn.indexer.topk"] for way in ("", "released."))
    differing.append([len(np.setdiff1d(*pair)) for pair in zip(*pairs, strict=True)])
apart = np.abs(stale - right).max(axis=1)

# %% tags=["hide-input"]
figure, (above, below) = plt.subplots(2, 1, figsize=(9, 3.6), sharex=True)
for offset, layer, counts, colour in zip((-0.2, 0.2), (2, 4), differing, (show.BLUE, show.ORANGE), strict=True):
    above.bar(length + steps + offset, counts, width=0.38, color=colour, label=f"layer {layer}")
above.set(title="chosen entries that differ, of 8", ylabel="entries", yticks=(0, 4, 8))
above.legend(loc="upper left", bbox_to_anchor=(1, 1))
below.plot(length + steps, apart, "o-", color=show.RED, markersize=4)
below.set(title="the logits", ylabel="largest difference", xlabel="position of the token")
below.set_xticks(length + steps[1::2])
show.picture(
    figure,
    "The released loop against the corrected one over 24 steps. Above, how many of eight chosen entries differ: in "
    "layer 2 only at even positions, where no entry is completed; in layer 4, behind it, once at an odd one, too. "
    "Below, the largest difference of the logits: from 2 to 11 at even positions, and never 0 again "
    "after the first of them.",
)

# %% [markdown]
# At even positions no entry is completed, and layer 2 chooses by the keys of layer 6. It reads nothing that such a
# choice could have changed, so at odd positions it is right again. Later layers do not recover wholly: their window
# keys come from streams that differ.
#
# ## Experiment: steps and one pass agree
# A model that is read in steps should say what it says in one pass. We compare 24 logits of dsv4 in one pass with
# DeepSeek's results in steps. The null model is the released loop.

# %%
one_pass = model(ids)[0, length : length + 24]
show.experiment(
    "the logits agree within 0.0002",
    lambda steps: np.abs(steps - one_pass).max() < 2e-4,
    right,
    nulls={"DeepSeek's loop as released": stale},
    say=lambda steps: f"they differ by at most {np.abs(steps - one_pass).max():.1g}",
)

# %% [markdown]
# ## Exercises
# **1.** Whose entries does layer 31 of V4.1-Flash read, and which layer has chosen them?

# %% tags=["hide-input"]
exercise_1 = show.exercise(
    lambda answer: tuple(answer) == (flash41.kv_source(31), latest(flash41.index_source_layer_ids, 31)),
    mistake=(28, 28),
    hint="Two numbers: the latest layer that makes entries, and the latest one that chooses.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** How many bytes would each token add if the entries of layer 20 stood for two tokens as well?

# %% tags=["hide-input"]
coarser = tuple(min(2, 2 * ratio) for ratio in flash41.compress_ratios)
exercise_2 = show.exercise(
    lambda answer: np.isclose(answer, per_token(replace(flash41, compress_ratios=coarser)).sum()),
    mistake=890 / 2,
    hint="Of the four sources, only the last one changes.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** How many keys does layer 24 score for a query with a million visible entries? At most, in a full pool.

# %% tags=["hide-input"]
exercise_3 = show.exercise(
    lambda answer: answer == flash41.candidate_topk_blocks * flash41.candidate_block_size,
    mistake=flash41.candidate_topk_blocks,
    hint="The pool holds 2048 blocks.",
)

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write `engram_rows` yourself. It is checked against rows that DeepSeek's code gives for the two tables of the
# released model.

# %% tags=["hide-input"]
released = json.loads((show.ROOT / "tests/data/engram_constants.json").read_text())
primes = np.array(released["primes"])


def against_the_official_rows(function):
    """How many of the official rows a function gives."""
    right, rows = 0, 0
    for text, expected in zip(released["class_sequences"], released["hash_rows"], strict=True):
        padded = np.array([[released["pad_class_in_example"]] * 3 + text])
        for table, numbers in enumerate(released["multipliers"]):
            wanted = np.array(expected)[:, table]
            right += int(np.sum(function(padded, np.array(numbers), primes[table])[0] == wanted))
            rows += wanted.size
    return right == rows, f"{right} of {rows} rows are right"


def summed(classes, multipliers, moduli):
    columns, total = [], classes[:, 3:] * multipliers[0]
    starts = np.cumsum(moduli).reshape(moduli.shape) - moduli
    for back in (1, 2, 3):
        total = total + classes[:, 3 - back : -back] * multipliers[back]
        columns.append(total[..., None] % moduli[back - 1] + starts[back - 1])
    return np.concatenate(columns, axis=-1)


def one_part_for_all(classes, multipliers, moduli):
    rows, starts = engram_rows(classes, multipliers, moduli), np.cumsum(moduli) - moduli.reshape(-1)
    return rows - starts


exercise_4 = show.write(
    against_the_official_rows,
    wrong={
        "a sum in place of the exclusive or": summed,
        "multipliers in reverse": lambda classes, multipliers, moduli: engram_rows(classes, multipliers[::-1], moduli),
        "all hashes in one part of the table": one_part_for_all,
    },
    hint="Begin with the class of the token times the first multiplier. For each order, take the exclusive or with one "
    "more class to the left times its multiplier, the remainder for each of the eight moduli, and add the sum of all "
    "moduli before that one.",
)


# %%
def my_engram_rows(classes, multipliers, moduli):
    """The rows of the table that each token reads: [B, S, 24], for each order its eight hashes, as integers.

    classes [B, 3 + S]: those of the three tokens before the first one, then of the tokens; multipliers [4]: of the
    token, of the one before it and so on; moduli [3, 8]: primes, for the orders 2, 3, 4.
    """


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: entries of layer 20, chosen in layer 28. 2: four halves of 356 bytes. 3: 2048 blocks of 8. 4: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_4(classes, multipliers, moduli):
    length = classes.shape[1] - 3
    starts = np.concatenate([[0], np.cumsum(moduli)[:-1]]).reshape(moduli.shape)
    hashed, columns = classes[:, 3:] * multipliers[0], []
    for back in (1, 2, 3):
        hashed = hashed ^ (classes[:, 3 - back : 3 - back + length] * multipliers[back])
        columns.append(hashed[..., None] % moduli[back - 1] + starts[back - 1])
    return np.concatenate(columns, axis=-1)


exercise_1((20, 28))
exercise_2(712)
exercise_3(16_384)
exercise_4(solution_4)
