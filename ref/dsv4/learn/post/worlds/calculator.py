"""A tool: products that are too large to be guessed, and a calculator that is called in V4's own format (DSML).

A task is one turn of the conversation: the question, to be answered with a call, or the question with the call and its
result, to be answered with words. The tools' schemas are not in the prompt, unlike with the released model: their text
alone is longer than a task here may be.
"""

import json
import re
from typing import Any

import numpy as np

from dsv4.learn.post.worlds.world import Message, Task, World, says

TOOL = "calculator"
LARGEST = 10**12
"""Of a number that the calculator takes."""


def calculate(expression: str) -> str:
    """What the fake calculator says: a sum, difference or product of two whole numbers, or "error"."""
    found = re.fullmatch(r"\s*(-?[0-9]{1,13})\s*([-+*])\s*(-?[0-9]{1,13})\s*", expression)
    if found is None:
        return "error"
    a, sign, b = int(found[1]), found[2], int(found[3])
    if max(abs(a), abs(b)) > LARGEST:
        return "error"
    return str({"+": a + b, "-": a - b, "*": a * b}[sign])


def called(message: Message) -> str | None:
    """What the calculator answers to the calls of a message; None unless there is one call, of it, as it wants it."""
    calls = message["tool_calls"]
    if len(calls) != 1 or calls[0]["function"]["name"] != TOOL:
        return None
    arguments: dict[str, Any] = json.loads(calls[0]["function"]["arguments"])
    if arguments.keys() != {"expression"} or not isinstance(arguments["expression"], str):
        return None
    return calculate(arguments["expression"])


def _draw(generator: np.random.Generator) -> Task:
    a, b = (int(one) for one in generator.integers(100, 1000, 2))
    expression = f"{a}*{b}"
    question = {"role": "user", "content": f"What is {expression}?"}
    function = {"name": TOOL, "arguments": json.dumps({"expression": expression})}
    call = {"type": "function", "function": function}
    result = calculate(expression)
    if generator.random() < 0.5:
        facts = {"result": result}
        return Task((question,), "", "too large for me", "; ask", tool_calls=(call,), facts=facts)
    said = {"role": "assistant", "content": "", "tool_calls": [call]}
    messages = (question, said, {"role": "tool", "content": result})
    return Task(messages, result, "it says so", "; done")


def _check(task: Task, message: Message) -> float:
    """The call whose result is the product, without a word beside it; or the result, said."""
    if not task.tool_calls:
        return says(task, message)
    return float(called(message) == task.facts["result"] and not message["content"].strip())


CALCULATOR = World("calculator", _draw, _check)
