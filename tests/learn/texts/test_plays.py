"""Plays become speeches, and speeches conversations."""

import pytest

from dsv4.learn.texts.plays import Speech, conversations, scenes, tidy

PLAY = """HAMLET

by William Shakespeare

ACT I.

Scene I. Elsinore.

[Enter Francisco and Bernardo.]

Ber.
Who's there?  \n\n\n
FRANCISCO
Nay, answer me: stand, and [aside] unfold
yourself.

[A bell strikes.]

Be quick.

Ber.
[Exit.]

SCENE II.

1 Clown.
Is she to be buried in Christian burial?
"""


def test_speeches_of_each_scene():
    first, second = scenes(tidy(PLAY))
    assert first == [
        Speech("Ber", "Who's there?"),
        Speech("FRANCISCO", "Nay, answer me: stand, and  unfold\nyourself.\nBe quick."),
    ]
    assert second == [Speech("1 Clown", "Is she to be buried in Christian burial?")]
    assert first[0].text == "Ber.\nWho's there?"


def test_a_prologue_may_be_who_speaks_or_what_begins():
    """As in the play within A Midsummer Night's Dream, and before Romeo and Juliet."""
    play = """PROLOGUE

[Enter Chorus.]

Chor.
Two households.

PROLOGUE
If we offend,
it is with our good will.

EPILOGUE.
[Spoken by a dancer.]

First my fear.

Epilogue.
Then my curtsy.

ACT V.
SCENE I. A hall.

Ber.
More strange than true.
"""
    assert scenes(play) == [
        [Speech("Chor", "Two households."), Speech("PROLOGUE", "If we offend,\nit is with our good will.")],
        [Speech("Epilogue", "Then my curtsy.")],
        [Speech("Ber", "More strange than true.")],
    ]


def test_tidy_leaves_one_blank_line_and_no_blanks_behind():
    assert tidy("\n a  \n\n\n\n b\n \n\t\nc") == "a\n\n b\n\nc\n"


def speech(words):
    return Speech("A", words)


@pytest.mark.parametrize(("characters", "lengths"), [(1, [2, 2]), (4, [2, 2]), (5, [4]), (100, [4])])
def test_a_speech_is_answered_by_the_next(characters, lengths):
    found = conversations([speech(words) for words in ("aa", "bb", "cc", "dd", "ee")], characters)
    assert [len(one) for one in found] == lengths
    messages = [message for one in found for message in one]
    assert [message["content"] for message in messages] == ["aa", "bb", "cc", "dd"]  # e has no answer
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
