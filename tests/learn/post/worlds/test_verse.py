"""Verse and its judges: the rubric's points by hand, and the rewards of judgements."""

import numpy as np
import pytest

from dsv4.learn.post.worlds import WORLDS
from dsv4.learn.post.worlds.judging import LABELLED, judge_reward, judged, question
from dsv4.learn.post.worlds.verse import (
    ENDINGS,
    POINTS,
    SYLLABLES,
    Points,
    ending,
    points,
    rhyme,
    rubric,
    syllables,
    write,
)


@pytest.mark.parametrize(
    ("word", "count"), [("moon", 1), ("river", 2), ("the", 1), ("tree", 1), ("little", 1), ("stone", 1), ("listens", 2)]
)
def test_syllables_are_groups_of_vowels(word, count):
    assert syllables(word) == count


def test_rhymes_are_spelt_alike_and_no_word_rhymes_with_itself():
    for number, group in enumerate(ENDINGS):
        others = [word for other in ENDINGS[:number] + ENDINGS[number + 1 :] for word in other]
        assert all(rhyme(one, two) for one in group for two in group if one != two)
        assert not any(rhyme(one, two) for one in group for two in [*others, one])


@pytest.mark.parametrize(
    ("verse", "expected"),
    [
        ("The moon waits by the tree\nstill wind calls at the bee", Points(True, True, True)),
        ("the moon waits by the tree\nstill wind calls at the night", Points(False, True, True)),
        ("the moon waits by the tree\nstill wind calls at tree", Points(False, False, True)),
        ("the moon waits by the tree", Points(False, True, False)),
        ("moon waits by the tree\n\nwind calls at the bee\nbird waits by the knee", Points(True, False, False)),
        ("", Points(False, False, False)),
    ],
)  # fmt: skip
def test_points_by_hand(verse, expected):
    assert points(verse, 6) == expected


@pytest.mark.parametrize("wanted", SYLLABLES)
def test_a_verse_has_the_points_that_it_was_asked_to_have(wanted):
    for number in range(8):
        has = Points(*(bool(number >> bit & 1) for bit in range(3)))
        for seed in range(3):
            assert points(write(np.random.default_rng(seed), wanted, "moon", has), wanted) == has


def test_lines_that_do_not_rhyme_may_end_in_one_word():
    """A judge who never saw that takes it for a rhyme."""
    verses = [write(np.random.default_rng(seed), 7, "moon", Points(False, True, True)) for seed in range(40)]
    ends = [[line.split()[-1] for line in verse.split("\n")] for verse in verses]
    assert 0 < sum(one == other for one, other in ends) < 30


def test_the_score_of_verse_is_no_reward():
    assert [name for name, world in WORLDS.items() if not world.has_rule] == ["verse"]
    task = WORLDS["verse"].task("train", 0)
    assert f"{task.facts['syllables']} syllables" in rubric(task)
    assert f"{task.facts['syllables']} syllables" in task.messages[0]["content"]


@pytest.mark.parametrize(
    ("content", "judgement"),
    [
        ("Score: 0", 0),
        (" Score: 2\n", 2 / POINTS),
        ("Score: 3", 1),
        ("Score: 4", None),
        ("Score:2", None),
        ("2", None),
        ("Score: 2.", None),
        ("Score: 2 Score: 3", None),
    ],
)
def test_a_judgement_has_one_form(content, judgement):
    assert judged({"content": content, "tool_calls": []}) == judgement


def test_a_judges_reward_by_hand():
    assert judge_reward(1.0, 1.0) == 1
    assert judge_reward(0.25, 1.0) == judge_reward(1.0, 0.25) == 0.25
    assert judge_reward(0.0, 1.0) == 0
    assert judge_reward(None, 0.0) == 0


def test_judgements_are_learnt_from_a_small_labelled_set():
    world = WORLDS["judging"]
    asked = {str(world.task("train", number).messages) for number in range(LABELLED, 2 * LABELLED, 9)}
    assert asked <= {str(world.task("train", number).messages) for number in range(0, LABELLED, 9)}
    assert len(asked) > 5
    assert world.task("train", 5) == world.task("train", 5 + LABELLED)
    assert world.task("held-out", 5) != world.task("held-out", 5 + LABELLED)


def test_labels_are_the_points_and_near_judgements_count():
    world = WORLDS["judging"]
    for number in range(10):
        task = world.task("train", number)
        head, *lines, tail = task.messages[0]["content"].split("\n")
        wanted = int(head.split("rhyme, ")[1].split()[0])
        label = sum(points("\n".join(lines), wanted)) / POINTS
        assert (task.facts["score"], tail) == (label, "Score?")
        scores = [world.check(task, {"content": f"Score: {k}", "tool_calls": []}) for k in range(POINTS + 1)]
        np.testing.assert_allclose(scores, [1 - abs(k / POINTS - label) for k in range(POINTS + 1)])
        assert question(head, "\n".join(lines) + "\n") == task.messages


def test_a_judge_thinks_of_what_the_points_are_about():
    """The ends of the lines before the rhyme, and their syllables before the metre."""
    for number in range(20):
        task = WORLDS["judging"].task("train", number)
        head, *lines, _ = task.messages[0]["content"].split("\n")
        wanted = int(head.split("rhyme, ")[1].split()[0])
        *ends, rhymes, counts, metre, length = task.reasoning.split(", ")
        words = [line.split()[-1] for line in lines]
        assert ends == [f"{word} {ending(word)}" for word in words]
        assert [int(count) for count in counts.split()] == [sum(map(syllables, line.split())) for line in lines]
        found = points("\n".join(lines), wanted)
        said = (rhymes == "rhyme yes", metre == "metre yes", length == "length yes")
        assert said == tuple(found) and metre.startswith("metre ") and rhymes.startswith("rhyme ")
