"""V4.1's chat format against the encoder that DeepSeek publishes, deepseek-recipe: random conversations as its API has.

Left out is what one side alone knows, such as developer messages here and images there, and where the API's encoder
differs from the checkpoint's, which is followed here: empty system messages, reminders, an answer behind an answer.
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4 import chat

pytestmark = pytest.mark.oracle

MODEL = "DeepSeek-V4.1-Flash"

TEXT = st.one_of(
    st.sampled_from(["", "Hello", "two\n\nlines ", "北京 🙂 é", '{"t": 5}', "a < b & c > d", 'say "x\\y"', "<think>"]),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
PARTS = st.lists(TEXT.map(lambda text: {"type": "text", "text": text}), min_size=1, max_size=3)
RULES = TEXT.filter(bool)
"""Of system messages: one that is empty is none for the API."""
VALUE = st.one_of(TEXT, st.integers(-9, 9), st.booleans(), st.none(), st.lists(TEXT, max_size=2))
NAMES = ("add", "get_weather")
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def tools_of(descriptions):
    """A request's tools, no two of one name, with their fields in the order into which the API brings them."""
    functions = [{"name": name, "description": text, "parameters": SCHEMA} for name, text in descriptions.items()]
    return [{"type": "function", "function": function} for function in functions]


TOOLS = st.dictionaries(st.sampled_from(NAMES), TEXT, max_size=2).map(tools_of)
ARGUMENTS = st.dictionaries(st.sampled_from(["a", "city", "länge"]), VALUE, max_size=2)
MODES = st.sampled_from(["non-think", "low", "high", "max"])


@st.composite
def turns(draw):
    """A user's or a later system message, or an answer with the results of its calls in any order."""
    role = draw(st.sampled_from(["user", "system", "assistant", "assistant"]))
    if role != "assistant":
        return [{"role": role, "content": draw(RULES if role == "system" else TEXT)}]
    answer = {"role": role, "content": draw(TEXT)}
    if draw(st.booleans()):
        answer["reasoning_content"] = draw(TEXT)
    arguments = draw(st.lists(ARGUMENTS, max_size=3))
    if not arguments:
        return [answer]
    calls = [
        {
            "id": f"c{number}",
            "type": "function",
            "function": {"name": draw(st.sampled_from(NAMES)), "arguments": json.dumps(one, ensure_ascii=False)},
        }
        for number, one in enumerate(arguments)
    ]
    order = draw(st.permutations(range(len(calls))))
    results = [{"role": "tool", "tool_call_id": f"c{number}", "content": draw(TEXT | PARTS)} for number in order]
    return [{**answer, "tool_calls": calls}, *results]


@st.composite
def conversations(draw):
    """Messages as a request has them, with a system message first or without, and a user's somewhere behind it."""
    first = [{"role": "system", "content": draw(RULES)}] if draw(st.booleans()) else []
    messages = [*first, {"role": "user", "content": draw(TEXT)}]
    for turn in draw(st.lists(turns(), max_size=4)):
        messages += turn
        if messages[-1]["role"] == "assistant":
            messages.append({"role": "user", "content": draw(TEXT)})
    return messages


@pytest.fixture(scope="module")
def official():
    """What the published encoder makes of a request: messages, tools and mode -> the prompt."""
    reason = "needs the published encoder of V4.1's chat format: pip install 'dsv4[oracle]'"
    recipe = pytest.importorskip("deepseek_recipe", reason=reason)
    if not hasattr(recipe, "DeepseekV41Encoding"):
        pytest.skip(f"needs a deepseek-recipe that has V4.1's format, found {recipe.__version__}")

    def prompt(messages, tools, mode):
        thinking = {"thinking": {"type": "disabled"}} if mode == "non-think" else {"reasoning_effort": mode}
        request = recipe.ChatCompletionRequest({"model": MODEL, "messages": messages, "tools": tools, **thinking})
        conversation = request.convert(recipe.ConversionOptions()).conversation
        return recipe.DeepseekV41Encoding().render_conversation(conversation).prompt

    return prompt


@settings(max_examples=300)
@given(messages=conversations(), tools=TOOLS, mode=MODES)
def test_random_conversations_are_written_alike(official, messages, tools, mode):
    ours = messages
    if tools:  # a request's tools belong to its first system message, which may be empty
        start = [] if messages[0]["role"] == "system" else [{"role": "system", "content": ""}]
        ours = [*start, *messages]
        ours[0] = {**ours[0], "tools": tools}
    assert chat.encode(ours, mode, revision="v4.1-api") == official(messages, tools, mode)


def test_the_comparison_can_fail(official):
    """The checkpoint's own numbers for the words are others than those of the API."""
    messages = [{"role": "user", "content": "Hello"}]
    assert chat.encode(messages, "high", revision="v4.1") != official(messages, [], "high")
