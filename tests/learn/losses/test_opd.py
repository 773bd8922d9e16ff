"""On-policy distillation: by hand, and against every answer in a world of three tokens and three steps."""

import numpy as np
import pytest

from dsv4.learn import tape
from dsv4.learn.losses.opd import full_kl, opd, opd_covering
from learn.differences import hold
from learn.losses.enumeration import VOCAB, chances, log_table, table, world

TEACHERS, WEIGHTS = (1, 2), (0.7, 0.4)
"""Seeds of two teachers, and w_i: they need not sum to 1."""


def by_hand(here, logits, teacher):
    """∇ of the expected divergence over the student's answers, with their chances held fixed."""
    log_student, log_teacher = log_table(logits), log_table(teacher)
    chance, gradient, value = chances(here, logits), np.zeros_like(logits), 0.0
    for one, weight in enumerate(chance):
        length = int(here.drawn[one].sum())
        for t in range(length):
            row = here.rows[one, t]
            gap = log_student[row] - log_teacher[row]
            kl = sum(np.exp(log_student[row, v]) * gap[v] for v in range(VOCAB))
            value += weight * kl / length
            for v in range(VOCAB):
                gradient[row, v] += weight / length * np.exp(log_student[row, v]) * (gap[v] - kl)
    return value, gradient


@pytest.mark.parametrize("end", [pytest.param(None, id="three steps"), pytest.param(2, id="an end token")])
def test_the_expected_gradient_over_every_answer_of_the_student(end):
    here = world(end)
    logits = table(here, 0)
    chance = chances(here, logits)
    leaf, loss = tape.leaf(logits), 0
    expected, value = np.zeros_like(logits), 0.0
    for seed, weight in zip(TEACHERS, WEIGHTS, strict=True):
        teacher = table(here, seed)
        of_one, gradient = by_hand(here, logits, teacher)
        expected, value = expected + weight * gradient, value + weight * of_one
        for one, probability in enumerate(chance):
            rows, drawn = here.rows[[one]], here.drawn[[one]]
            loss = loss + opd(leaf[rows], teacher[rows], drawn) * (weight * probability)
    [found] = tape.gradients(loss, [leaf])
    assert abs(float(loss.data) - value) < 1e-12
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert np.abs(expected).max() > 0.01


def test_the_divergence_has_the_student_in_front():
    student, teacher = np.log(np.array([[0.5, 0.5, 1e-9]])), np.log(np.array([[0.98, 0.01, 0.01]]))
    forward = 0.5 * np.log(0.5 / 0.98) + 0.5 * np.log(0.5 / 0.01)
    np.testing.assert_allclose(full_kl(student, teacher), [forward], rtol=1e-6)
    assert full_kl(teacher, student) < 0.5 * full_kl(student, teacher)


def test_the_divergence_the_other_way_has_the_teacher_in_front():
    """By hand; and its gradient by a softmax is π_θ − π_E."""
    g = np.random.default_rng(3)
    student, teacher = g.standard_normal((1, 2, 4)), g.standard_normal((1, 2, 4))
    drawn = np.array([[True, False]])
    log_student, log_teacher = log_table(student[0]), log_table(teacher[0])
    by_hand = sum(np.exp(log_teacher[0, v]) * (log_teacher[0, v] - log_student[0, v]) for v in range(4))
    leaf = tape.leaf(student)
    loss = opd_covering(leaf, teacher, drawn)
    [found] = tape.gradients(loss, [leaf])
    assert abs(float(loss.data) - by_hand) < 1e-12
    np.testing.assert_allclose(found[0, 0], np.exp(log_student[0]) - np.exp(log_teacher[0]), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found[0, 1], 0)
    assert abs(by_hand - float(opd(student, teacher, drawn))) > 0.01


def test_the_whole_vocabulary_counts_and_not_the_drawn_token_alone():
    g = np.random.default_rng(0)
    logits, teacher, drawn = g.standard_normal((2, 4, 6)), g.standard_normal((2, 4, 6)), np.ones((2, 4), bool)
    drawn[1, 2:] = False
    leaf = tape.leaf(logits)
    [found] = tape.gradients(opd(leaf, teacher, drawn), [leaf])
    assert (found[drawn] != 0).all() and (found[~drawn] == 0).all()
    hold(lambda one: opd(one, teacher, drawn), logits)
    np.testing.assert_allclose(opd(logits, logits + 3, drawn), 0, atol=1e-12)


def test_each_answer_counts_the_same_whatever_its_length():
    g = np.random.default_rng(1)
    logits, teacher = g.standard_normal((1, 4, 5)), g.standard_normal((1, 4, 5))
    twice, drawn = np.repeat(logits, 2, axis=0), np.array([[1, 1, 1, 1], [1, 0, 0, 0]], bool)
    kl = full_kl(logits, teacher)[0]
    np.testing.assert_allclose(opd(twice, np.repeat(teacher, 2, axis=0), drawn), (kl.mean() + kl[0]) / 2)


def test_large_logits_and_float32():
    g = np.random.default_rng(2)
    student, teacher = ((g.standard_normal((1, 3, 9)) * 100).astype(np.float32) for _ in range(2))
    drawn = np.ones((1, 3), bool)
    found = opd(student, teacher, drawn)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, opd(student.astype(np.float64), teacher.astype(np.float64), drawn), rtol=1e-5)
