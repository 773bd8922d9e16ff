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
# **Minutes:** 35 · **Read before:** [1](01_tour.ipynb) · **You should know:** sampling from a distribution, standard
# errors.
#
# A large model needs hardly more time for two tokens than for one, because most of the time goes into reading the
# weights from memory. So a small module can guess the token after the next one, and the model checks this **draft**
# while it reads the next token. V4's **MTP module** (multi-token prediction) makes the guess. It is one more block,
# which takes the streams at position $t$ and the token at $t+1$, and predicts the token at $t+2$. A rule accepts or
# rejects each draft in such a way that the distribution of the text stays exactly the same.
#
# $$X'_t = W_e\,\text{norm}(E_{\text{id}_{t+1}}) + W_h\,\text{norm}(X_t), \qquad
# P(\text{keep } x) = \min\!\Big(1, \frac{p(x)}{q(x)}\Big), \quad
# \text{else draw from } \frac{\max(p - q, 0)}{\sum \max(p - q, 0)}$$
#
# $p$ is the model's distribution, $q$ the one from which the draft was drawn. "Keep" means that the draft is accepted.

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

# %% tags=["hide-input"]
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
show.picture(
    figure,
    "The MTP module on 50 tokens as a flow of boxes: the streams at t and the embedded token at t + 1 are "
    "each normalised and projected, added, passed through one block and the head, and give a guess of the "
    "token at t + 2.",
)

# %% [markdown]
# The token becomes one row, which is added to each of the four streams. Embedding and head are those of the model.
#
# ## The rule
# A step reads the newest token and a draft of the next one. `logits[0]` are the model's logits for the place of the
# draft, `logits[1]` those for the place after it.

# %%
show.source(drafts.accept, residual)

# %% [markdown]
# ## Experiment: the distribution of the text stays the same
# This must hold for any source of drafts; drafts of a bad one are only rejected more often. Here the bundled model
# itself makes the drafts, from the last token alone, and the project's rule decides 3000 times. If the rule is right,
# the tokens that come out follow $p$, however different $q$ is. The null models are two rules that are nearly right:
# one accepts every draft. The other draws from $p$ after a rejection, and not from what remains of it.

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

# %% tags=["hide-input"]
figure, axes = plt.subplots()
for offset, (name, values, colour) in enumerate(
    [("p, the model", p, show.BLUE), ("came out", came_out, show.GREEN), ("q, the guesser", q, show.ORANGE)]
):
    axes.bar(np.arange(10) + 0.27 * (offset - 1), values[best], width=0.25, color=colour, label=name)
axes.set_xticks(range(10), [repr(tokenizer.decode([token])) for token in best], fontsize=10)
axes.set(title="the ten likeliest tokens", xlabel="next token", ylabel="probability")
axes.legend()
show.picture(
    figure,
    "Bars for the ten likeliest tokens, three for each: the model's probability p, the share that came "
    "out of the rule, and the draft's probability q. The shares that came out agree with p, also where q "
    "is far from it.",
)


# %%
def in_errors(shares):
    """The largest distance of a likely token's share from p, in standard errors of 3000 draws."""
    likely = p > 0.005
    return float((np.abs(shares - p) / np.sqrt(p * (1 - p) / 3000))[likely].max())


show.experiment(
    "every likely token comes out with its probability p, within four standard errors",
    lambda shares: in_errors(shares) < 4,
    came_out,
    nulls={"every draft accepted": shares(keep_all), "rejected, then drawn from all of p": shares(draw_from_p)},
    say=lambda shares: f"at most {in_errors(shares):.1f} standard errors away",
)

# %% [markdown]
# ## Experiment: how many drafts are accepted
# A draft is accepted with the probability $\sum_x \min(p(x), q(x))$, the overlap of the two distributions. Each step
# then gives one token, or two. The module does not read the text itself, but only the last block's streams at $t$ and
# the token at $t+1$. These streams contain what the model knows about the text. For comparison there are drafts without
# streams: those of the bundled model when it sees only the last few tokens. The dots show the decisions of the rule at
# 64 places of a play that the model has not read. One null model is the module's draft for another place.

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
    """The expected share of accepted drafts, and the share that the rule accepted."""
    expected, before = 0.0, (batch.drafted, batch.accepted)
    for row, guess in zip(target, guesses, strict=True):
        p, q = sampler.distribution(row, 0), sampler.distribution(guess, 0)
        expected += np.minimum(p, q).sum() / len(places)
        for _ in range(12):
            drafts.accept(batch, 0, drafts.Drafts([sampler.draw(q, 0)], [q]), np.stack([row, row]))
    return float(expected), (batch.accepted - before[1]) / (batch.drafted - before[0])


by_context = np.array([acceptance(guesses(context)) for context in contexts])  # [contexts, 2]
by_mtp, elsewhere = acceptance(drafts_of_mtp), acceptance(np.roll(drafts_of_mtp, 1, axis=0))

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3))
expected, kept = np.concatenate([by_context, [by_mtp]]).T
names = [*(f"the last {context}" if context > 1 else "the last token" for context in contexts), "MTP: streams"]
axes.bar(names, expected, color=[show.BLUE] * len(contexts) + [show.PURPLE], label="Σ min(p, q)")
axes.plot(names, kept, "o", color=show.ORANGE, label="accepted by the rule")
axes.axhline(elsewhere[0], color=show.GREY, linestyle="--", label="MTP, another place")
axes.set(title="drafts accepted", xlabel="what the draft is made from", ylabel="share of drafts", ylim=(0, 1))
axes.legend(ncols=3)
show.picture(
    figure,
    "The share of accepted drafts for drafts from the last 1, 2, 4 and 16 tokens and for MTP. Bars show "
    "what is expected, dots what the rule accepted; they agree. Drafts from more tokens are accepted more "
    "often, and MTP about as often as those from 4. A dashed line for MTP at another place lies far below.",
)

# %%
show.experiment(
    "the rule accepts Σ min(p, q), within 0.05, and at least 0.05 more than for drafts from the last token alone",
    lambda kept: abs(kept[0] - kept[1]) < 0.05 and kept[0] >= by_context[0, 0] + 0.05,
    by_mtp,
    nulls={"MTP's drafts for another place": elsewhere, "the model with the last token alone": by_context[0]},
    say=lambda kept: f"{kept[1]:.0%} accepted, {kept[0]:.0%} expected",
)

# %% [markdown]
# ## Experiment: the same greedy text
# With temperature 0, both distributions have a single token, and a draft is accepted exactly if it is the model's own
# choice. So the text with drafts must be the text without drafts, token by token. For this, every rejected draft must
# be removed from the window, from blocks that are not complete, and from the indexer's keys. The null model is a cache
# in which rejected drafts stay, and the right token is written after them.


# %%
def greedy(**options):
    """120 greedy tokens after a prompt of 40, and the run that gave them."""
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
    nulls={"rejected drafts stay": forgetful},
    say=lambda tokens: f"{same(tokens)} of {len(plain)} are the same",
)
steps = len(plain) - run.accepted
print(
    f"{run.accepted} of {run.drafted} drafts were accepted, the others removed: {len(plain)} tokens in {steps} steps."
)
print(tokenizer.decode(drafted))

# %% [markdown]
# ## Exercises
# **1.** $p = (0.5, 0.5)$ and $q = (0.8, 0.2)$. With which probability is a draft accepted?

# %% tags=["hide-input"]
exercise_1 = show.exercise(
    lambda answer: np.isclose(answer, np.minimum([0.5, 0.5], [0.8, 0.2]).sum()),
    mistake=0.5,
    hint="Sum over both tokens: the probability of the draft, times the probability that it is then accepted.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** From which distribution is the token drawn when this draft is rejected?

# %% tags=["hide-input"]
exercise_2 = show.exercise(
    lambda answer: np.allclose(answer, residual(np.array([0.5, 0.5]), np.array([0.8, 0.2]))),
    mistake=(0.5, 0.5),
    hint="Only tokens with p above q have something left.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** The model has $p = (0.6, 0.3, 0.1)$. Give a $q$ whose drafts are accepted with the probability 0.9.

# %% tags=["hide-input"]
exercise_3 = show.exercise(
    lambda q: np.isclose(np.sum(q), 1) and np.min(q) >= 0 and np.isclose(np.minimum([0.6, 0.3, 0.1], q).sum(), 0.9),
    mistake=(0.6, 0.3, 0.1),
    hint="Move 0.1 from one token to another.",
)

# %%
exercise_3(...)

# %% [markdown]
# **4.** Write the rule yourself: from a draft of $q$ to the token that is written. It is checked as in the first
# experiment: 3000 drafts, and the tokens that come out must follow $p$.


# %% tags=["hide-input"]
def follows_p(rule, draws=3000):
    """Whether the tokens that come out of a rule follow p, and how far they are from it."""
    random = np.random.default_rng(1)
    drawn = random.choice(p.size, draws, p=q)
    away = in_errors(np.bincount([rule(p, q, draft, random) for draft in drawn], minlength=p.size) / draws)
    return away < 4, f"the likely tokens are at most {away:.1f} standard errors away from p"


def from_all_of_p(p, q, draft, random):
    return draft if random.random() * q[draft] < p[draft] else random.choice(p.size, p=p)


exercise_4 = show.write(
    follows_p,
    wrong={"after a rejection, drawn from all of p": from_all_of_p},
    hint="random.random() is a number between 0 and 1, and random.choice(p.size, p=weights) draws a token; the weights "
    "must sum to 1.",
)


# %%
def my_rule(p, q, draft, random):
    """The draft, or another token in its place: p and q [vocab] probabilities, draft a token drawn from q.

    random: a generator of NumPy, for what the rule leaves to chance.
    """


exercise_4(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: 0.8 · 5/8 + 0.2 = 0.7. 2: the second token, with certainty. 3: any $q$ that gives one token 0.1 too much and others
# 0.1 too little in all. 4: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_4(p, q, draft, random):
    if random.random() * q[draft] < p[draft]:
        return draft
    left = np.maximum(p - q, 0)
    return random.choice(p.size, p=left / left.sum())


exercise_1(0.7)
exercise_2((0, 1))
exercise_3((0.7, 0.2, 0.1))
exercise_4(solution_4)
