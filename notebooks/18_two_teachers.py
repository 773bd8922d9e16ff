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
# # 18 · Two teachers, one student
#
# **Minutes:** 25 · **Read before:** [17](17_reward.ipynb) · **You should know:** softmax, divergences.
#
# V4's post-training makes **specialists** first, each good at one thing. Then one **student** is to learn from all of
# them. In **on-policy distillation** (OPD) the student answers by itself. The specialist for the question reads the
# student's answer and says at every place what it would have said next: a whole distribution over the vocabulary. The
# student moves its own distribution towards that.
#
# $$\mathcal{L}(\theta) = \sum_i w_i \, \text{KL}\!\left(\pi_\theta \,\|\, \pi_{E_i}\right), \qquad
# \text{KL} = \sum_v \pi_\theta(v) \left( \log \pi_\theta(v) - \log \pi_{E_i}(v) \right)$$
#
# This is equation 29 of the report. Here it is done with two teachers and compared with three other ways to make one
# model from several.

# %%
import itertools

import matplotlib.pyplot as plt
import numpy as np

import dsv4
import show
from dsv4 import learn
from dsv4.learn import tape
from dsv4.learn.losses.opd import full_kl, log_softmax, opd, opd_covering
from dsv4.learn.losses.sft import sft

# %% [markdown]
# ## The project's code

# %%
show.source(opd, full_kl)

# %% [markdown]
# ## Two tasks
# A question is three letters and a mark: `cab<` asks for the letters backwards, *bac*, and `cab+` for the letters in
# order, *abc*. Every model below starts from the same weights, a small V4 with two layers. It has been shown some good
# answers of both kinds, and is right about every second time.

# %%
LETTERS, STEPS = "abcd", 3
BACKWARDS, IN_ORDER = len(LETTERS), len(LETTERS) + 1
TASKS = {"backwards": BACKWARDS, "in order": IN_ORDER}
config = dsv4.Config(
    vocab_size=len(LETTERS) + len(TASKS),
    hidden_size=32,
    num_hidden_layers=2,
    num_hash_layers=0,
    num_nextn_predict_layers=0,
    num_attention_heads=2,
    head_dim=32,
    qk_rope_head_dim=8,
    q_lora_rank=16,
    o_lora_rank=16,
    o_groups=1,
    sliding_window=8,
    compress_ratios=(0, 4),
    index_n_heads=2,
    index_head_dim=32,
    index_topk=4,
    rope_theta=10000.0,
    compress_rope_theta=10000.0,
    rope_scaling=None,
    max_position_embeddings=64,
    n_routed_experts=4,
    n_shared_experts=1,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    scoring_func="sqrtsoftplus",
    norm_topk_prob=True,
    topk_method="noaux_tc",
    routed_scaling_factor=1.5,
    swiglu_limit=10.0,
    hc_mult=2,
    hc_sinkhorn_iters=20,
    hc_eps=1e-6,
    rms_norm_eps=1e-6,
    bos_token_id=0,
    eos_token_id=0,
    tie_word_embeddings=False,
    torch_dtype="float32",
    quantised=False,
)
letters = np.array(list(itertools.product(range(len(LETTERS)), repeat=STEPS)))
letters = np.random.default_rng(0).permutation(letters)
QUESTIONS = {task: np.column_stack([letters, np.full(len(letters), mark)]) for task, mark in TASKS.items()}
RIGHT = {"backwards": letters[:, ::-1], "in order": np.sort(letters, axis=1)}


def answer_logits(model, questions, answers):
    """The logits [B, 3, vocab] that each token of an answer is drawn from."""
    return model(np.concatenate([questions, answers], axis=1)[:, :-1])[:, STEPS:]


def score(model, task):
    """The mean probability of the right answer to all questions of a task."""
    log = log_softmax(answer_logits(model, QUESTIONS[task], RIGHT[task]).data.astype(np.float64))
    return float(np.exp(np.take_along_axis(log, RIGHT[task][..., None], -1).sum(axis=(1, 2))).mean())


def draw(model, questions, generator):
    """An answer to each question, token by token, at temperature 1: [B, 3]."""
    answers = np.zeros((len(questions), 0), np.int64)
    for _ in range(STEPS):
        log = log_softmax(model(np.concatenate([questions, answers], axis=1))[:, -1].data.astype(np.float64))
        noise = generator.gumbel(size=log.shape)  # the largest of log π + noise is a draw from π
        answers = np.column_stack([answers, (log + noise).argmax(axis=1)])
    return answers


def fine_tuning_loss(model, questions, answers):
    """The project's loss of fine-tuning: −log π of the answers' tokens, on average."""
    ids = np.concatenate([questions, answers], axis=1)
    said = np.broadcast_to(np.arange(ids.shape[1]) > STEPS, ids.shape)
    return sft(model(ids), ids, np.ones(ids.shape, bool), said)


def copy_of(model):
    """A model with the same weights that learns by itself."""
    weights = model.weights
    return learn.TrainableModel(learn.Trainable(config, dict(weights.parameters), dict(weights.others)))


def train(model, steps, loss_of, rate=0.015):
    """The model after so many steps at a rate that falls to nothing; the scores at every tenth step."""
    optimiser = learn.Optimiser(config, model.weights.parameters)
    seen = []
    for step in range(steps + 1):
        if step % 10 == 0:
            seen.append([score(model, task) for task in TASKS])
        if step < steps:
            leaves = model.leaves
            gradients = tape.gradients(loss_of(model, step), list(leaves.values()))
            optimiser.step(dict(zip(leaves, gradients, strict=True)), rate * (1 - step / steps))
    return model, np.array(seen)


def some(task, step, count=16):
    """The questions of a step, and their right answers."""
    rows = np.arange(step * count, (step + 1) * count) % len(letters)
    return QUESTIONS[task][rows], RIGHT[task][rows]


def on_right_answers(*tasks):
    """Fine-tuning on the right answers of these tasks."""
    return lambda model, step: (
        sum(fine_tuning_loss(model, *some(task, step)) for task in tasks) * np.float32(1 / len(tasks))
    )


start, _ = train(learn.TrainableModel(learn.new_model(config, seed=0).weights), 25, on_right_answers(*TASKS))
teachers = {task: train(copy_of(start), 80, on_right_answers(task))[0] for task in TASKS}

# %%
models = {"start": start} | {f"teacher: {task}": teacher for task, teacher in teachers.items()}
scores = {name: [score(model, task) for task in TASKS] for name, model in models.items()}
show.table(["probability of the right answer", *TASKS], [[name, *map(float, row)] for name, row in scores.items()])

# %% [markdown]
# Each teacher is good at its own task. In the other one it is no better than the start, or has even forgotten what
# it knew: nothing in its training asked for that any more.
#
# ## Four ways to one model
# All learn from the same questions, in equally many steps and with equally many tokens:
#
# - **OPD**: the student answers, and its teacher's distribution stands behind, as in equation 29.
# - **OPD, teacher in front**: the same with $\text{KL}(\pi_E \| \pi_\theta)$.
# - **Imitation**: the teachers answer, and the student learns their answers by fine-tuning.
# - **Mean of the weights** of both teachers, which needs no training at all.

# %%
lots = np.random.default_rng(3)


def distilled(divergence, teachers=teachers):
    """The loss of a step: the student draws answers, each task's teacher judges them, w_i = 1/2."""

    def loss_of(student, step):
        total = 0
        for task, teacher in teachers.items():
            questions, _ = some(task, step)
            answers = draw(student, questions, lots)
            wanted = answer_logits(teacher, questions, answers).data
            drawn = np.ones(answers.shape, bool)
            total = total + divergence(answer_logits(student, questions, answers), wanted, drawn) * np.float32(0.5)
        return total

    return loss_of


def imitated(student, step):
    """The loss of a step: the teachers draw answers, the student learns to say them."""
    total = 0
    for task, teacher in teachers.items():
        questions, _ = some(task, step)
        total = total + fine_tuning_loss(student, questions, draw(teacher, questions, lots)) * np.float32(0.5)
    return total


STUDENT_STEPS = 120
swapped = dict(zip(teachers, reversed(list(teachers.values())), strict=True))
students, curves = {}, {}
for name, loss_of, steps in (
    ("OPD", distilled(opd), STUDENT_STEPS),
    ("OPD, teacher in front", distilled(opd_covering), STUDENT_STEPS),
    ("imitation", imitated, STUDENT_STEPS),
    ("OPD, teachers swapped", distilled(opd, swapped), 40),
):
    students[name], curves[name] = train(copy_of(start), steps, loss_of)
mean = {
    name: np.mean([teacher.weights.parameters[name] for teacher in teachers.values()], axis=0)
    for name in start.weights.parameters
}
students["mean of the weights"] = learn.TrainableModel(learn.Trainable(config, mean, start.weights.others))

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
for place, (axes, task) in enumerate(zip(panels, TASKS, strict=True)):
    for name, seen in curves.items():
        style = ":" if "swapped" in name else "-"
        axes.plot(10 * np.arange(len(seen)), seen[:, place], style, label=name)
    axes.axhline(scores[f"teacher: {task}"][place], color=show.DARK, linestyle="--", linewidth=1)
    axes.set(title=f"{task} (dashed: its teacher)", xlabel="step", ylim=(0, 1.02))
panels[0].set_ylabel("probability of\nthe right answer")
panels[1].legend(loc="center right", fontsize=10)
show.picture(
    figure,
    "Probability of the right answer over the student's steps, one panel for each task. OPD with the "
    "teacher in front and imitation rise to the teachers' dashed lines, OPD as in the report more slowly; "
    "with the teachers swapped the student stays low.",
)

# %%
reached = {name: [score(model, task) for task in TASKS] for name, model in students.items()}
show.table(["probability of the right answer", *TASKS], [[name, *map(float, row)] for name, row in reached.items()])

# %% [markdown]
# Three ways lead far, and here OPD is the slowest of them. With the student in front, a letter that it hardly ever says
# has little weight in the divergence, however much the teacher wants it: what the student does not try, it learns
# slowly. The report's student begins where it can do most things already; this one begins with about half of the
# answers. The mean of the weights of two models that were trained apart lies near the start.
#
# ## Experiment: one student of both teachers
# One model is to have at least three quarters of each teacher's score, in both tasks at once.


# %%
def share_of_teachers(row):
    """What a model reaches of the teachers' scores, in the task where that is less."""
    own = [scores[f"teacher: {task}"][place] for place, task in enumerate(TASKS)]
    return min(found / best for found, best in zip(row, own, strict=True))


others = ("mean of the weights", "OPD, teachers swapped")
show.experiment(
    "the student has at least three quarters of each teacher's score",
    lambda found: found >= 0.75,
    share_of_teachers(reached["OPD"]),
    nulls={name: share_of_teachers(reached[name]) for name in others}
    | {name: share_of_teachers(row) for name, row in scores.items()},
    say=lambda found: f"it has {found:.0%} at least",
)

# %% [markdown]
# ## Experiment: what stands in front
# Where the student can become its teacher, both directions lead there. They differ where it **cannot**. Below, the
# teacher's distribution over 41 tokens has two peaks, and the student can only make one: its logits are those of a
# bell, with a middle and a width. $\text{KL}(\pi_\theta \| \pi_E)$ punishes what the student says and the teacher
# would not; so it settles on one peak. $\text{KL}(\pi_E \| \pi_\theta)$ punishes what the student cannot say; so it
# becomes wide and talks between the peaks, where the teacher says nothing. A model that answers must not do that.

# %%
places = np.arange(41.0)
peaks = np.exp(-((places - 10) ** 2) / 18) + 0.8 * np.exp(-((places - 30) ** 2) / 18) + 1e-4
teacher_logits = np.log(peaks)[None, None]


def bell(middle, width):
    """The logits of the student: [1, 1, 41]."""
    return (((places - middle) / width) ** 2 * -0.5)[None, None]


def fitted(divergence):
    """The bell with the least divergence, found by trying many."""
    tried = itertools.product(np.arange(0, 41, 0.5), np.arange(1, 16, 0.5))
    one = np.ones((1, 1), bool)
    return min((bell(*pair) for pair in tried), key=lambda logits: float(divergence(logits, teacher_logits, one)))


def probabilities(logits):
    """[41]"""
    return np.exp(log_softmax(logits))[0, 0]


teacher_says = probabilities(teacher_logits)
student_says = {"student in front": probabilities(fitted(opd)), "teacher in front": probabilities(fitted(opd_covering))}

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 2.8))
axes.fill_between(places, teacher_says, color=show.LIGHT, label="teacher")
for name, says in student_says.items():
    axes.plot(places, says, label=f"student, {name}")
axes.set(xlabel="token", ylabel="probability")
axes.legend()
show.picture(
    figure,
    "A teacher's distribution with two peaks. The student fitted with the student in front lies on the "
    "higher peak; the one fitted with the teacher in front is wide and highest between the peaks.",
)

# %%
unheard = teacher_says < 0.005


def nonsense(says):
    """How often the student says what the teacher hardly ever would."""
    return float(says[unheard].sum())


show.experiment(
    "less than 5 % of what the student says are tokens that the teacher hardly ever says",
    lambda found: found < 0.05,
    nonsense(student_says["student in front"]),
    nulls={"teacher in front": nonsense(student_says["teacher in front"])},
    say=lambda found: f"it is {found:.0%}",
)

# %% [markdown]
# ## Exercises
# **1.** The student says *a* with 0.5 and *b* with 0.5, the teacher *a* with 0.25 and *b* with 0.75. How large is
# $\text{KL}(\pi_\theta \| \pi_E)$, in nats, to three digits?

# %% tags=["hide-input"]
halves, quarters = np.log([0.5, 0.5]), np.log([0.25, 0.75])
exercise_1 = show.exercise(
    lambda found: abs(found - float(full_kl(halves, quarters))) < 5e-4,
    mistake=round(float(full_kl(quarters, halves)), 3),
    hint="The student's probabilities stand in front: half of log 2 and half of log 2/3.",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** A teacher's logits for one token of V4-Pro are 129,280 numbers, its last hidden state is 7,168. The project
# keeps hidden states on disk and makes logits of them with the matrix of the head. How many times less has to be
# kept? A whole number will do.

# %% tags=["hide-input"]
exercise_2 = show.exercise(
    lambda found: round(found) == round(129280 / 7168),
    mistake=129280 - 7168,
    hint="Divide one by the other.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** Write the divergence of equation 29 for one place, from logits.


# %% tags=["hide-input"]
def verdict(function):
    """Whether a function is the divergence: against the project's own, for logits of several sizes."""
    g, worst = np.random.default_rng(5), 0.0
    for size in (0.1, 1.0, 300.0):
        student, teacher = g.standard_normal((2, 9)) * size
        expected = float(full_kl(student, teacher))
        with np.errstate(all="ignore"):
            found = float(function(student, teacher))
        worst = max(worst, abs(found - expected) / (1 + abs(expected)) if np.isfinite(found) else np.inf)
    return worst < 1e-9, f"at most {worst:.2g} from the project's own, for small and large logits"


def other_way(logits, teacher_logits):
    return (np.exp(log_softmax(teacher_logits)) * (log_softmax(teacher_logits) - log_softmax(logits))).sum()


def overflowing(logits, teacher_logits):
    student, teacher = (np.exp(one) / np.exp(one).sum() for one in (logits, teacher_logits))
    return (student * np.log(student / teacher)).sum()


exercise_3 = show.write(
    verdict,
    wrong={"the teacher in front": other_way, "exponentials that overflow": overflowing},
    hint="Take log softmax of both, with the largest logit taken away first; then the sum over the vocabulary.",
)


# %%
def divergence(logits, teacher_logits):
    """Σ_v π_θ(v) (log π_θ(v) − log π_E(v)) of logits [vocab] of the student and of the teacher."""


exercise_3(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: $0.5 \log(0.5/0.25) + 0.5 \log(0.5/0.75) = 0.144$. 2: 18 times. 3: subtract the maximum before the exponential,
# so that nothing overflows, and let the student's probabilities weigh the difference of the logs.
#
# </details>


# %% tags=["hide-input"]
def solution(logits, teacher_logits):
    """As the project has it."""
    student, teacher = (one - one.max() - np.log(np.exp(one - one.max()).sum()) for one in (logits, teacher_logits))
    return (np.exp(student) * (student - teacher)).sum()


exercise_1(0.144)
exercise_2(18)
exercise_3(solution)
