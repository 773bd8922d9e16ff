"""Small worlds to post-train in: tasks without an end, drawn by number, each with a good answer and a checker.

Each has a train and a held-out split, which have no task in common. Prompts and answers are in V4's chat format, and
with the tokenizer of `vocabulary` a task of any world takes at most 128 tokens, beside the fixed text that the mode
"max" puts in front of every prompt.
"""

from dsv4.learn.post.worlds.calculator import CALCULATOR
from dsv4.learn.post.worlds.judging import JUDGING
from dsv4.learn.post.worlds.rules import RULES
from dsv4.learn.post.worlds.strings import STRINGS
from dsv4.learn.post.worlds.sums import SUMS
from dsv4.learn.post.worlds.verse import VERSE
from dsv4.learn.post.worlds.world import Task, World

WORLDS: dict[str, World] = {world.name: world for world in (SUMS, STRINGS, RULES, CALCULATOR, VERSE, JUDGING)}
"""The worlds by name."""

__all__ = ["WORLDS", "Task", "World"]
