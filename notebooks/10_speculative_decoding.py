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
import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4 import decode
from dsv4.model.mtp import MTP
from dsv4.sampling import Sampler, residual
from dsv4.tokenizer import Tokenizer

model = dsv4.load(backend="numpy")  # the bundled model
with_mtp = dsv4.load(show.ROOT / "tests/data/golden/small", backend="numpy")  # a small model of random weights
tokenizer = Tokenizer.from_file(dsv4.bundled_model())

# %% [markdown]
# ## The module

# %%
show.source(MTP.__call__)

# %%
ids = np.random.default_rng(0).integers(0, with_mtp.config.vocab_size, (1, 50))
states = with_mtp.states(ids)
logits = with_mtp.mtp_logits(states[:, :-1], ids[:, 1:])
figure, axes = plt.subplots(figsize=(9.5, 1.8))
steps = [
    ("streams at t", states[0, :-1].shape, show.BLUE),
    ("token at t+1", ids[0, 1:].shape, show.DARK),
    ("one block", states[0, :-1].shape, show.PURPLE),
    ("head", logits[0].shape, show.ORANGE),
    ("token at t+2", "argmax", show.DARK),
]
show.flow(axes, "the module on 50 tokens of a model with random weights", steps)
plt.show()

# %% [markdown]
# ## The rule
# A step reads the newest token and a draft of the next. `logits[0]` is what the model says about the draft's place,
# `logits[1]` about the place behind it.

# %%
show.source(decode._check, residual)

# %% [markdown]
# ## Experiment: the text's distribution stays what it was
# Any guesser will do for this; a bad one only gets refused more often. Here the bundled model itself guesses, from the
# last token alone, and the project's rule decides, 5000 times over. If the rule is right, the tokens that come
# out follow $p$, however far $q$ is from it.

# %%
prompt = tokenizer.encode("JULIET.\nO, my")
logits = model([prompt])[0, -1]
guesser_logits = model([prompt[-1:]])[0, -1]

batch = decode.Batch(model, Sampler(temperature=1, top_p=1, seed=0, batch=1), frozenset(), np.array([1]))
p = batch.sampler.distribution(logits)
q = batch.sampler.distribution(guesser_logits)

# %%
draws = 5000
outcomes = np.zeros(draws, np.int64)
for n in range(draws):
    draft = batch.sampler.draw(q, 0)
    outcomes[n] = decode._check(batch, 0, draft, q, np.stack([logits, logits]))[0]
came_out = np.bincount(outcomes, minlength=p.size) / draws

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
likely = p > 0.002
deviation = np.abs(came_out - p)[likely] / np.sqrt(p * (1 - p) / draws)[likely]
show.experiment(
    "every likely token comes out with its probability p, within four standard errors, although q is far from it",
    deviation.max() < 4 < (np.abs(q - p) / np.sqrt(p * (1 - p) / draws))[likely].max(),
    f"at most {deviation.max():.1f} standard errors over {likely.sum()} tokens; "
    f"p and q have {np.minimum(p, q).sum():.0%} in common",
)

# %% [markdown]
# ## How many guesses are kept
# A guess survives with the probability $\sum_x \min(p(x), q(x))$: what the two distributions have in common. Each step
# then gives one token, or two. The picture shows it for guessers that see more and more of the context, at 16 places
# of a text; the dots are the rule's own decisions.

# %%
text, places = show.passage(512), np.arange(128, 512, 24)
contexts = [1, 2, 4, 8, 16, 32, 64]
target = model(text)[0, places - 1]


def acceptance(context):
    """The expected share of kept guesses from a guesser that sees `context` tokens, and the share that was kept."""
    guesses = model(np.stack([text[0, place - context : place] for place in places]))[:, -1]
    expected, before = 0.0, (batch.drafted, batch.accepted)
    for row, guess in zip(target, guesses, strict=True):
        p, q = batch.sampler.distribution(row), batch.sampler.distribution(guess)
        expected += np.minimum(p, q).sum() / len(places)
        for _ in range(24):
            decode._check(batch, 0, batch.sampler.draw(q, 0), q, np.stack([row, row]))
    return expected, (batch.accepted - before[1]) / (batch.drafted - before[0])


expected, kept = zip(*map(acceptance, contexts), strict=True)
figure, axes = plt.subplots(figsize=(9, 3))
axes.plot(range(len(contexts)), expected, color=show.BLUE, label="Σ min(p, q)")
axes.plot(range(len(contexts)), kept, "o", color=show.ORANGE, label="kept by the rule")
axes.set_xticks(range(len(contexts)), contexts)
axes.set(title="share of guesses kept", xlabel="tokens that the guesser sees", ylim=(0, 1))
axes.legend()
plt.show()

# %%
show.experiment(
    "the rule keeps what Σ min(p, q) says, within 0.05, and a guesser that sees more is refused less",
    max(abs(one - other) for one, other in zip(expected, kept, strict=True)) < 0.05 and expected[-1] > expected[0],
    f"from {expected[0]:.2f} with {contexts[0]} token to {expected[-1]:.2f} with {contexts[-1]}",
)

# %% [markdown]
# ## Experiment: the same greedy text
# With temperature 0 both distributions are a single token, and a guess is kept exactly if it is the model's own choice.
# Then the text with drafts must be the text without, token by token, although every refused guess has to be taken back
# out of the window, out of half-filled blocks and out of the indexer's keys. The module here has random weights, so
# most of its guesses are refused: the harder case for the cache.

# %%
prompt = ids[0, :40].tolist()
plain = [token.id for token in dsv4.generate(with_mtp, prompt, max_new_tokens=100, temperature=0, stop_ids=())]
generation = dsv4.generate(with_mtp, prompt, max_new_tokens=100, temperature=0, stop_ids=(), speculative=True)
drafted = [token.id for token in generation]
show.experiment(
    "100 greedy tokens are the same with and without drafts",
    plain == drafted,
    f"{sum(a == b for a, b in zip(plain, drafted, strict=True))} of {len(plain)} are the same; "
    f"{generation.accepted} of {generation.drafted} guesses were kept, the others taken back",
)

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
