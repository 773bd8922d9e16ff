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
# # 15 · Training a tiny V4, and watching the indexer learn
#
# **Minutes:** 40 · **Read before:** [5](05_lightning_indexer.ipynb), [13](13_gradients.ipynb) · **You should know:**
# Kullback–Leibler divergence.
#
# V4 is not trained in the way it is used. In the first stage, its compressing layers read **all** visible entries: an
# untrained indexer would hide the entries from which they must learn. Then, for a short time, only the indexers learn
# where attention goes. In the last stage they choose, and everything learns together. The choice itself has no
# gradient, so the language loss cannot train an indexer. It has a loss of its own, which compares its scores $I$ with
# the attention $a$ that its layer gives to the entries; in each head, window and sink take a part of the attention,
# too:
#
# $$L^I = \frac{1}{T} \sum_t \text{KL}\left(p_t \,\|\, \text{softmax}(I_t)\right), \qquad
# p_{ts} = \frac{a_{ts}}{\sum_{s'} a_{ts'}}, \qquad
# a_{ts} = \frac{1}{H} \sum_h \frac{e^{c_{ths}}}{Z_{th}}$$
#
# No gradient passes through $p$, nor through the input of the indexer, so this loss trains only the indexer. Here a
# model with 140,000 weights goes through these stages in less than a minute.

# %%
from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4 import learn
from dsv4.learn.clip import clip_gradients
from dsv4.learn.evaluation import indexer_standing, intervened, random_choice
from dsv4.learn.losses.indexer import attention_to_entries, indexer_kl, indexer_target, visible_entries
from dsv4.learn.schedule import moment, stage_config
from dsv4.learn.texts.batches import Batch
from dsv4.learn.trainer import Trainer, _learns, _losses
from dsv4.learn.who_learns import is_indexer
from dsv4.ops import Ops

# %% [markdown]
# ## The project's code
# The loss and its target; what learns in each stage, and from which losses; and one step of training.

# %%
show.source(indexer_kl, indexer_target, _learns, _losses, Trainer.advance)

# %% [markdown]
# ## A language that needs memory
# Every line has four words. Some lines tell who has what. Then other lines ask for it, in random order. The third word
# of a line that asks can be predicted, but only from the line that told it. This line is usually far outside the window
# of eight tokens, and has an entry of its own. Each document combines things and people anew, so nothing can be
# memorised.

# %%
THINGS = "ring letter crown sword cup key map coin book lamp bell ship"
PEOPLE = "Kate Hugh Anne John Rose Mark Jane Paul Ruth Luke Emma Noah"
THINGS, PEOPLE = THINGS.split(), PEOPLE.split()
WORDS = [".", "tell", "who", *THINGS, *PEOPLE]
TELL, ASK = 1, 2


def document(generator, lines, facts):
    """Token ids [4 · lines]: as many facts told, then asked for in turn until the document is full."""
    things = 3 + generator.permutation(len(THINGS))[:facts]
    people = 3 + len(THINGS) + generator.permutation(len(PEOPLE))[:facts]
    turns = [np.arange(facts), *(generator.permutation(facts) for _ in range(lines // facts))]
    fact = np.concatenate(turns)[:lines]
    kind = np.where(np.arange(lines) < facts, TELL, ASK)
    return np.stack([kind, things[fact], people[fact], np.zeros_like(fact)], axis=1).ravel()


print("  ".join(WORDS[token] for token in document(np.random.default_rng(0), lines=9, facts=4)))

# %% [markdown]
# ## The model and the recipe
# The model has two layers: a sliding window, then CSA with an indexer that chooses 4 entries. HCA would have no entries
# of 128 tokens in documents as short as these. At first the documents have 64 tokens and 1, 2 or 4 facts, each asked
# for several times. Later they have 96 tokens and 12 facts, each asked for once.

# %% tags=["hide-input"]
config = dsv4.Config(
    vocab_size=len(WORDS),
    hidden_size=64,
    num_hidden_layers=2,
    num_hash_layers=0,
    num_nextn_predict_layers=0,
    num_attention_heads=4,
    head_dim=32,
    qk_rope_head_dim=8,
    q_lora_rank=32,
    o_lora_rank=16,
    o_groups=2,
    sliding_window=8,
    compress_ratios=(0, 4),
    index_n_heads=4,
    index_head_dim=32,
    index_topk=4,
    rope_theta=10000.0,
    compress_rope_theta=10000.0,
    rope_scaling=None,
    max_position_embeddings=128,
    n_routed_experts=4,
    n_shared_experts=1,
    num_experts_per_tok=1,
    moe_intermediate_size=32,
    scoring_func="sqrtsoftplus",
    norm_topk_prob=True,
    topk_method="noaux_tc",
    routed_scaling_factor=1.5,
    swiglu_limit=10.0,
    hc_mult=4,
    hc_sinkhorn_iters=20,
    hc_eps=1e-6,
    rms_norm_eps=1e-6,
    bos_token_id=0,
    eos_token_id=0,
    tie_word_embeddings=False,
    torch_dtype="float32",
    quantised=False,
)
recipe = learn.Recipe(
    model=config,
    stages=(
        learn.Stage("dense", steps=180, length=64, batch=16),
        learn.Stage("dense", steps=80, length=96, batch=12),
        learn.Stage("indexer", steps=40, length=96, batch=12),
        learn.Stage("sparse", steps=80, length=96, batch=12),
    ),
    learning_rate=0.02,
    final_learning_rate=0.002,
    indexer_learning_rate=0.02,
    warmup_steps=20,
    bias_speed=0.01,
    checkpoint_interval=100,
    seed=1,
)
FACTS = ((1, 2, 4), (12,), (12,), (12,))  # a document of each stage has one of these numbers
starts = np.cumsum([0, *(stage.steps for stage in recipe.stages)])


class Documents:
    """The batch of each step, drawn from its number alone."""

    def batch(self, step):
        now, generator = moment(recipe, step), np.random.default_rng(step)
        facts = generator.choice(FACTS[recipe.stages.index(now.stage)], now.batch)
        ids = np.stack([document(generator, now.stage.length // 4, count) for count in facts])
        return Batch(ids, np.ones(ids.shape, bool))


first = learn.new_model(config, recipe.seed)
print(f"{sum(array.size for array in first.parameters.values()):,} weights")

# %% [markdown]
# ## Training
# A `Trainer` does one step after another. `learn.pretrain`, which `dsv4 train` calls, adds texts, a tokenizer and a
# directory. Every 20 steps, the model is tested on 16 new documents with 192 questions: how many does it answer when it
# reads all visible entries, when its indexer chooses 4, and when 4 are chosen at random? The **standing** of the
# indexer says how much of its layer's attention to entries the chosen ones get: 0 is chance, 1 the best possible
# choice.

# %%
unread = np.stack([document(np.random.default_rng(10**6 + n), 24, 12) for n in range(16)])


def as_model(weights, index_topk=config.index_topk):
    """The weights as they are now, in the reference; index_topk: how many entries an indexer chooses."""
    arrays = dict(weights.parameters), dict(weights.others)
    return dsv4.Model(learn.Trainable(replace(config, index_topk=index_topk), *arrays), Ops(), False)


def answered(model):
    """The share of the questions whose answer is the model's likeliest word."""
    chosen = model(unread).argmax(axis=-1)
    return float((chosen[:, 49::4] == unread[:, 50::4]).mean())


def examined(weights):
    """Answers with all entries, with the indexer's, with random entries; and the standing of the indexer."""
    model = as_model(weights)
    standing = indexer_standing(model, unread)["layers.1.attn."].standing
    return [answered(as_model(weights, 24)), answered(model), answered(intervened(model, random_choice)), standing]


# %%
trainer = Trainer(recipe, first.weights, Documents())
losses, exams, models = [], [(0, *examined(trainer.weights))], {}
while trainer.step < recipe.steps:
    losses.append(trainer.advance().losses)
    if trainer.step == starts[2]:
        before_indexer = trainer.state()
    if trainer.step % 20 == 0:
        exams.append((trainer.step, *examined(trainer.weights)))
    if trainer.step in starts:
        models[trainer.step] = as_model(trainer.weights)
steps, with_all, with_choice, by_lot, standing = np.array(exams).T

# %% tags=["hide-input"]
figure, (top, middle, bottom) = plt.subplots(3, 1, figsize=(9, 6.6), sharex=True)
known = [step for step, found in enumerate(losses) if "next_token" in found]
for start, end in pairwise(starts):  # no line across the stage without this loss
    some = [step for step in known if start <= step < end]
    top.plot(some, [losses[step]["next_token"] for step in some], color=show.BLUE, linewidth=1)
top.set(title="loss", ylabel="nats per token")
middle.plot(steps, 100 * with_all, "s--", color=show.GREY, markersize=4, label="all entries read")
middle.plot(steps, 100 * with_choice, "o-", color=show.BLUE, markersize=4, label="4 chosen by the indexer")
middle.plot(steps, 100 * by_lot, "v:", color=show.ORANGE, markersize=4, label="4 chosen at random")
middle.set(title="questions answered", ylabel="answered, %", ylim=(-4, 104))
middle.legend(loc="upper left")
bottom.plot(steps, standing, "o-", color=show.BLUE, markersize=4)
bottom.axhline(0, color=show.GREY, linestyle=":")
bottom.axhline(1, color=show.GREY, linestyle=":")
bottom.set(title="the indexer: 0 is chance, 1 the best possible", xlabel="step", ylabel="standing", ylim=(-0.3, 1.15))
names = ["dense, 64 tokens", "dense, 96 tokens", "indexer", "sparse"]
for axes in (top, middle, bottom):
    for start in starts[1:-1]:
        axes.axvline(start, color=show.DARK, linewidth=0.8, linestyle=":")
for name, (start, end) in zip(names, pairwise(starts), strict=True):
    top.text((start + end) / 2, 0.96, name, transform=top.get_xaxis_transform(), ha="center", va="top", fontsize=10)
show.picture(
    figure,
    "Three plots over 380 steps of training in four stages. The loss falls quickly, then slowly while the "
    "model finds the answers. Questions answered with all entries rise then; with 4 chosen entries only "
    "after the indexer's stage, to nearly as many; with random entries few are answered. The indexer's "
    "standing rises from chance towards 1 in its own stage.",
)

# %% [markdown]
# At first the model learns only that lines begin with "who" and end with a full stop. Then it finds the answers, as
# long as it may read all entries; its indexer is untrained and would hide them. When this happens depends on the first
# weights: of three seeds that were tried, only this one succeeded within 240 steps. The warm-up trains the indexer and
# nothing else. From then on, the indexer chooses, and the rest of the model continues to learn with its choice.

# %%
rows = [
    [name, f"{with_all[place]:.0%}", f"{with_choice[place]:.0%}", f"{by_lot[place]:.0%}", f"{standing[place]:.2f}"]
    for name, place in zip(["(new)", *names], np.searchsorted(steps, starts), strict=True)
]
show.table(["after the stage", "all entries read", "4 chosen", "4 at random", "standing"], rows)

# %% [markdown]
# ## What it picks, before and after
# The picture shows the questions of one document in the CSA layer. The left panel has the share of attention that each
# entry gets when all may be read. The others show what the indexer chooses, before its warm-up and at the end. A circle
# marks the entry of the line that told the answer. An entry holds its own four tokens, and the four before.


# %%
def inside(model, ids):
    """For the word after which the answer stands: attention to the entries [questions, entries], and the choice."""
    seen = show.observe(model, ids)
    q, kv, entries = (seen[f"layers.1.attn.{name}"] for name in ("q", "kv", "compressor.out"))
    visible = visible_entries(np.ones(ids.shape, bool), entries.shape[1])
    sink = model.layers[1].attn.attn_sink
    attention = attention_to_entries(q, kv, entries, sink, config.sliding_window, visible)[0, 49::4]
    chosen = seen["layers.1.attn.indexer.topk"][0, 49::4]
    return attention, (np.arange(entries.shape[1]) == chosen[..., None]).any(axis=1)


shown = unread[:1]
attention, untrained = inside(models[starts[2]], shown)
_, trained = inside(models[starts[4]], shown)
told = [int(np.nonzero(shown[0, 1:48:4] == thing)[0][0]) for thing in shown[0, 49::4]]

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 3, figsize=(9, 3.6), sharey=True)
pictures = {
    "attention, all entries read": attention / attention.max(axis=1, keepdims=True),
    "chosen, before the warm-up": untrained,
    "chosen, at the end": trained,
}
for axes, (title, picture) in zip(panels, pictures.items(), strict=True):
    axes.imshow(picture, aspect="auto", vmax=1.3)
    axes.plot(told, range(12), "o", markersize=9, markerfacecolor="none", markeredgecolor=show.ORANGE)
    axes.set(title=title, xlabel="entry")
panels[0].set_ylabel("question")
panels[0].set_yticks(range(12), [WORDS[thing] for thing in shown[0, 49::4]], fontsize=10)
show.picture(
    figure,
    "Three panels of 12 questions against entries: the attention when all entries are read, the entries "
    "chosen before the warm-up, and those chosen at the end. Circles mark the entry with the answer. "
    "Attention and the trained choice lie in the circles, the untrained choice mostly elsewhere.",
)

# %% [markdown]
# ## Experiment: does the indexer learn, and from its loss?
# One null model is the indexer before its warm-up. The other continues from there with as many steps on the same
# documents, with its indexer choosing, but with the language loss alone. This loss gives the indexer's weights no
# gradient.


# %%
def without_its_loss():
    """From the state before the warm-up, all steps of the last two stages with the language loss alone."""
    other = Trainer(recipe, learn.new_model(config, recipe.seed).weights, Documents())
    other.load_state(before_indexer)
    model = learn.TrainableModel(other.weights)
    for step in range(starts[2], starts[4]):
        _, gradients = learn.gradients(model, Documents().batch(step).ids)
        other.optimiser.step(clip_gradients(gradients, recipe.clip_norm).gradients, recipe.learning_rate)
    return other.weights, gradients


alone, last_gradients = without_its_loss()
reached = [np.abs(last_gradients[name]).max() for name in last_gradients if is_indexer(name)]
print(f"largest gradient of the language loss in the indexer's {len(reached)} tensors: {max(reached)}")
results = {"trained": examined(trainer.weights), "alone": examined(alone)}
before = float(standing[list(steps).index(starts[2])])

# %%
show.experiment(
    "the indexer's standing at the end is 0.6 or more; 0 is chance, 1 the best possible choice",
    lambda found: found >= 0.6,
    results["trained"][3],
    nulls={"before the warm-up": before, "without its loss": results["alone"][3]},
    say=lambda found: f"its standing is {found:.2f}",
)

# %% [markdown]
# ## Experiment: is the choice any good?
# A query reads four of up to 23 entries. If the right ones are among them, the model answers nearly as often as when it
# reads all. One null model is the same model with random entries. The other is the model whose indexer has learnt
# nothing: perhaps the rest of it has found another way.

# %%
show.experiment(
    "with 4 entries chosen, at least 85 % of the questions are answered",
    lambda share: share >= 0.85,
    results["trained"][1],
    nulls={"the same model, random entries": results["trained"][2], "without its loss": results["alone"][1]},
    say=lambda share: f"{share:.0%} are answered",
)

# %% [markdown]
# ## Exercises
# **1.** A layer has two heads and two entries. The first head gives the entries 0.1 and 0.3 of its attention, and the
# rest to its window. The second head gives them 0.1 and 0.1. What is the indexer's target $p$?

# %% tags=["hide-input"]
exercise_1 = show.exercise(
    lambda p: np.allclose(indexer_target(np.array([[[0.1 + 0.1, 0.3 + 0.1]]]) / 2)[0, 0], p),
    mistake=((0.25 + 0.5) / 2, (0.75 + 0.5) / 2),
    hint="A head that reads mostly its window counts less: add the heads first, and normalise afterwards.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** Give scores of three entries for which the loss with the target (0.5, 0.25, 0.25) is zero. All must be
# positive, as is every sum of ReLUs with positive weights.


# %% tags=["hide-input"]
def loss_of(scores):
    """The loss of one query that sees three entries."""
    target = np.array([[[0.5, 0.25, 0.25]]])
    return float(indexer_kl(np.array([[scores]], float), target, np.ones((1, 1, 3), bool))[0, 0])


exercise_2 = show.exercise(
    lambda scores: min(scores) > 0 and abs(loss_of(scores)) < 1e-9,
    mistake=(0.5, 0.25, 0.25),
    hint="The loss compares the softmax of the scores, which does not change when a number is added to all of them.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** How many entries does the indexer choose in the second stage, whose documents have 96 tokens?

# %% tags=["hide-input"]
exercise_3 = show.exercise(
    lambda count: count == stage_config(config, recipe.stages[1]).index_topk,
    mistake=config.index_topk,
    hint="That stage is dense.",
)

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write the gradient of the indexer's loss yourself: of $\text{KL}(p_t \,\|\, \text{softmax}(I_t))$, summed over
# the queries, with respect to the scores $I$. It is compared with finite differences of `indexer_kl`.

# %% tags=["hide-input"]
generator = np.random.default_rng(0)
some_scores = generator.standard_normal((1, 5, 7))
some_targets = indexer_target(generator.random((1, 5, 7)))
all_entries = np.ones((1, 5, 7), bool)


def against_differences(gradient_of):
    """How far a gradient is from finite differences of the loss."""
    slopes, step = np.empty_like(some_scores), 1e-5
    for place in np.ndindex(some_scores.shape):
        moved = np.zeros_like(some_scores)
        moved[place] = step
        up, down = (indexer_kl(some_scores + sign * moved, some_targets, all_entries).sum() for sign in (1, -1))
        slopes[place] = (up - down) / (2 * step)
    error = np.abs(gradient_of(some_scores, some_targets) - slopes).max()
    return error < 1e-8, f"the largest error is {error:.1e}"


def reversed_divergence(scores, target):
    share = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    return share * (np.log(share / target) - (share * np.log(share / target)).sum(axis=-1, keepdims=True))


exercise_4 = show.write(
    against_differences,
    wrong={"the divergence of the other direction": reversed_divergence},
    hint="Only log softmax(I) depends on the scores, and p sums to 1. The result is short.",
)


# %%
def my_gradient(scores, target):
    """The gradient of the summed loss with respect to the scores: both [B, S, T] -> [B, S, T]. All are considered."""


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: the sums 0.2 and 0.4, divided by 0.6. 2: the logarithms 0, −log 2 and −log 2, with a number added that makes them
# positive. 3: all 24 that there can be. 4: $\text{softmax}(I_t) - p_t$.
#
# </details>


# %% tags=["hide-input"]
def solution_4(scores, target):
    exponential = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True) - target


exercise_1((1 / 3, 2 / 3))
exercise_2((1 + np.log(2), 1, 1))
exercise_3(24)
exercise_4(solution_4)
