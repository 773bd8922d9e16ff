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
# # 10 · Multi-token prediction and speculative decoding
#
# To read two tokens costs a large model hardly more time than one: most of it goes into fetching the weights. So let
# something small guess the token after next, and let the model check the guess while it reads the next one. V4's
# **MTP module** is that something: one more block, which takes the streams at position $t$ and the token at $t+1$ and
# predicts the token at $t+2$. A guess is kept or refused by a rule that leaves the distribution of the text exactly as
# it was.
#
# $$X'_t = W_e\,\text{norm}(E_{\text{id}_{t+1}}) + W_h\,\text{norm}(X_t), \qquad
# P(\text{keep } x) = \min\!\Big(1, \frac{p(x)}{q(x)}\Big), \quad
# \text{else draw from } \frac{\max(p - q, 0)}{\sum \max(p - q, 0)}$$
#
# $p$ is what the model says, $q$ what the guess was drawn from.

# %%
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4.model.cache import Cache
from dsv4.model.mtp import MTP
from dsv4.text import decode, drafts
from dsv4.text.sampling import Sampler, residual

model = dsv4.load(backend="numpy")  # the bundled model
tokenizer = dsv4.Tokenizer.from_file(dsv4.bundled_model())

# %% [markdown]
# ## The module

# %%
show.source(MTP.__call__)

# %%
ids = show.passage(50)
states = model.states(ids)
logits = model.mtp_logits(states[:, :-1], ids[:, 1:])
streams, token = states[0, :-1].shape, (49, 1, model.config.hidden_size)
boxes = {
    "streams": show.Box("streams\nat t", streams, show.GREY, 0, 0),
    "state": show.Box("norm,\nproject", streams, show.BLUE, 2, 0),
    "next": show.Box("token\nat t + 1", ids[0, 1:].shape, show.DARK, 0, 1),
    "embed": show.Box("embed", token[::2], show.GREY, 1, 1),
    "token": show.Box("norm,\nproject", token, show.BLUE, 2, 1),
    "sum": show.Box("sum", streams, show.GREY, 3, 0.5),
    "block": show.Box("one block", streams, show.PURPLE, 4, 0.5),
    "head": show.Box("head", logits[0].shape, show.ORANGE, 5, 0.5),
    "guess": show.Box("token\nat t + 2", ids[0, 1:].shape, show.DARK, 6, 0.5),
}
paths = ["streams → state → sum → block → head → guess", "next → embed → token → sum"]
figure, axes = plt.subplots(figsize=(9.5, 2.3))
show.flow(axes, "the module on 50 tokens", boxes, paths)
plt.show()

# %% [markdown]
# The token is one row, which is added to each of the four streams. Embedding and head are the model's own.
#
# ## The rule
# A step reads the newest token and a draft of the next. `logits[0]` is what the model says about the draft's place,
# `logits[1]` about the place behind it.

# %%
show.source(drafts.accept, residual)

# %% [markdown]
# ## Experiment: the text's distribution stays what it was
# Any guesser will do for this; a bad one only gets refused more often. Here the bundled model itself guesses, from the
# last token alone, and the project's rule decides, 3000 times over. If the rule is right, the tokens that come
# out follow $p$, however far $q$ is from it. The null models are two rules that are nearly right: one keeps every
# guess, the other draws from $p$, and not from what is left of it, where a guess was refused.

# %%
prompt = tokenizer.encode("JULIET.\nO, my")
logits = model([prompt])[0, -1]
guesser_logits = model([prompt[-1:]])[0, -1]

batch = decode.Batch(model, Sampler(temperature=1, top_p=1, seed=0, batch=1), frozenset(), np.array([1]))
sampler = batch.sampler
p, q = sampler.distribution(logits, 0), sampler.distribution(guesser_logits, 0)


def right(draft):
    """The project's rule."""
    return drafts.accept(batch, 0, drafts.Drafts([draft], [q]), np.stack([logits, logits]))[0]


def keep_all(draft):
    return draft


def draw_from_p(draft):
    return draft if sampler.chance(0) * q[draft] < p[draft] else sampler.draw(p, 0)


def shares(rule, draws=3000):
    """How often each token comes out of a rule."""
    return np.bincount([rule(sampler.draw(q, 0)) for _ in range(draws)], minlength=p.size) / draws


came_out = shares(right)

# %%
best = np.argsort(-(p + q))[:10]
figure, axes = plt.subplots()
for offset, (name, values, colour) in enumerate(
    [("p, the model", p, show.BLUE), ("came out", came_out, show.GREEN), ("q, the guesser", q, show.ORANGE)]
):
    axes.bar(np.arange(10) + 0.27 * (offset - 1), values[best], width=0.25, color=colour, label=name)
axes.set_xticks(range(10), [repr(tokenizer.decode([token])) for token in best], fontsize=9)
axes.set(title="the ten likeliest tokens", ylabel="probability")
axes.legend()
plt.show()


# %%
def in_errors(shares):
    """How far the likely tokens' shares are from p at most, in standard errors of 3000 draws."""
    likely = p > 0.005
    return float((np.abs(shares - p) / np.sqrt(p * (1 - p) / 3000))[likely].max())


show.experiment(
    "every likely token comes out with its probability p, within four standard errors",
    lambda shares: in_errors(shares) < 4,
    came_out,
    nulls={"every guess kept": shares(keep_all), "refused, then drawn from all of p": shares(draw_from_p)},
    say=lambda shares: f"{in_errors(shares):.1f} standard errors at most",
)

# %% [markdown]
# ## Experiment: how many guesses are kept
# A guess survives with the probability $\sum_x \min(p(x), q(x))$: what the two distributions have in common. Each step
# then gives one token, or two. The module does not see the text itself, only the last block's streams at $t$ and the
# token at $t+1$; yet in these streams is whatever the model knew about the text. Beside it stand guessers without
# streams: the bundled model, which sees nothing but the last few tokens. The dots are the rule's own decisions, at 64
# places of a play that neither has read. The null model is the module's guess for another place.

# %%
text, places = show.passage(2048), np.arange(64, 2048, 31)
contexts = [1, 2, 4, 16]
states = model.states(text)
target = model.head(states)[0, places - 1]  # what the model says about each place
drafts_of_mtp = model.mtp_logits(states[:, :-1], text[:, 1:])[0, places - 2]  # [64, vocab]: seen up to the same token


def guesses(context):
    """What the model says at each place when it sees the `context` tokens before it: [64, vocab]."""
    return model(np.stack([text[0, place - context : place] for place in places]))[:, -1]


def acceptance(guesses):
    """The expected share of kept guesses, and the share that the rule kept."""
    expected, before = 0.0, (batch.drafted, batch.accepted)
    for row, guess in zip(target, guesses, strict=True):
        p, q = sampler.distribution(row, 0), sampler.distribution(guess, 0)
        expected += np.minimum(p, q).sum() / len(places)
        for _ in range(12):
            drafts.accept(batch, 0, drafts.Drafts([sampler.draw(q, 0)], [q]), np.stack([row, row]))
    return float(expected), (batch.accepted - before[1]) / (batch.drafted - before[0])


by_context = np.array([acceptance(guesses(context)) for context in contexts])  # [contexts, 2]
by_mtp, elsewhere = acceptance(drafts_of_mtp), acceptance(np.roll(drafts_of_mtp, 1, axis=0))

figure, axes = plt.subplots(figsize=(9, 3))
expected, kept = np.concatenate([by_context, [by_mtp]]).T
names = [*(f"the last {context}" if context > 1 else "the last token" for context in contexts), "MTP: streams"]
axes.bar(names, expected, color=[show.BLUE] * len(contexts) + [show.PURPLE], label="Σ min(p, q)")
axes.plot(names, kept, "o", color=show.ORANGE, label="kept by the rule")
axes.axhline(elsewhere[0], color=show.GREY, linestyle="--", label="MTP, another place")
axes.set(title="share of guesses kept, by what the guesser sees", ylim=(0, 1))
axes.legend(ncols=3)
plt.show()

# %%
show.experiment(
    "the rule keeps what Σ min(p, q) says, within 0.05, and a twentieth more than from who sees the same token alone",
    lambda kept: abs(kept[0] - kept[1]) < 0.05 and kept[0] >= by_context[0, 0] + 0.05,
    by_mtp,
    nulls={"MTP's guesses for another place": elsewhere, "the model with the last token alone": by_context[0]},
    say=lambda kept: f"{kept[1]:.0%} kept, {kept[0]:.0%} expected",
)

# %% [markdown]
# ## Experiment: the same greedy text
# With temperature 0 both distributions are a single token, and a guess is kept exactly if it is the model's own choice.
# Then the text with drafts must be the text without, token by token, although every refused guess has to be taken back
# out of the window, out of half-filled blocks and out of the indexer's keys. The null model is a cache in which a
# refused guess stays, and the right token is written behind it.


# %%
def greedy(**options):
    """120 greedy tokens behind 40, and the run that gave them."""
    prompt = ids[0, :40].tolist()
    run = dsv4.generate(model, prompt, max_new_tokens=120, temperature=0, stop_ids=(), **options)
    return [token.id for token in run], run


def same(tokens):
    return sum(one == other for one, other in zip(tokens, plain, strict=True))


plain, _ = greedy()
drafted, run = greedy(speculative=True)
with patch.object(Cache, "rollback", lambda cache, count: None):
    forgetful, _ = greedy(speculative=True)

show.experiment(
    "120 greedy tokens are the same with and without drafts",
    lambda tokens: tokens == plain,
    drafted,
    nulls={"refused guesses stay": forgetful},
    say=lambda tokens: f"{same(tokens)} of {len(plain)} are the same",
)
steps = len(plain) - run.accepted
print(
    f"{run.accepted} of {run.drafted} guesses were kept, the others taken back: {len(plain)} tokens in {steps} steps."
)
print(tokenizer.decode(drafted))

# %% [markdown]
# ## Exercises
# **1.** $p = (0.5, 0.5)$ and $q = (0.8, 0.2)$. With which probability is a guess kept?

# %%
exercise_1 = show.exercise(
    lambda answer: np.isclose(answer, np.minimum([0.5, 0.5], [0.8, 0.2]).sum()),
    mistake=0.5,
    hint="Sum over both tokens: how likely it is guessed, times how likely it is then kept.",
)
exercise_1(...)

# %% [markdown]
# **2.** And from which distribution is the token drawn when the guess was refused?

# %%
exercise_2 = show.exercise(
    lambda answer: np.allclose(answer, residual(np.array([0.5, 0.5]), np.array([0.8, 0.2]))),
    mistake=(0.5, 0.5),
    hint="Only tokens that were guessed too rarely have something left.",
)
exercise_2(...)

# %% [markdown]
# **3.** The model says $p = (0.6, 0.3, 0.1)$. Give a $q$ whose guesses are kept with the probability 0.9.

# %%
exercise_3 = show.exercise(
    lambda q: np.isclose(np.sum(q), 1) and np.min(q) >= 0 and np.isclose(np.minimum([0.6, 0.3, 0.1], q).sum(), 0.9),
    mistake=(0.6, 0.3, 0.1),
    hint="Move 0.1 from one token to another.",
)
exercise_3(...)

# %% [markdown]
# ## Solutions
# 1: 0.8 · 5/8 + 0.2 = 0.7. 2: the second token, with certainty. 3: any that gives one token 0.1 too much and others 0.1
# too little.

# %%
exercise_1(0.7)
exercise_2((0, 1))
exercise_3((0.7, 0.2, 0.1))
