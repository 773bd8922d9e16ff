"""The fixed texts of DeepSeek-V4's chat format: control tokens, tasks, efforts and the prose around tools.

Every string is the official one, character for character: the model was trained on exactly these.
"""

from typing import Final

BEGIN: Final = "<｜begin▁of▁sentence｜>"
END: Final = "<｜end▁of▁sentence｜>"
USER: Final = "<｜User｜>"
ASSISTANT: Final = "<｜Assistant｜>"
LATEST_REMINDER: Final = "<｜latest_reminder｜>"
THINK: Final = "<think>"
END_THINK: Final = "</think>"
DSML: Final = "｜DSML｜"

TASKS: Final = {
    "action": "<｜action｜>",
    "query": "<｜query｜>",
    "authority": "<｜authority｜>",
    "domain": "<｜domain｜>",
    "title": "<｜title｜>",
    "read_url": "<｜read_url｜>",
}

CONTROL_TOKENS: Final = (BEGIN, END, USER, ASSISTANT, LATEST_REMINDER, THINK, END_THINK, DSML, *TASKS.values())
"""Every control token that the chat format writes; a tokenizer must have each of them as one added token."""

ABSOLUTE_MAXIMUM: Final = (
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, "
    "rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, considered "
    "alternative, and rejected hypothesis to ensure absolutely no assumption is left unchecked.\n\n"
)

BEYOND_MAXIMUM: Final = (
    "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: exhaustively decompose the "
    "problem into its most fundamental components, trace every causal chain to its root, and resolve the underlying "
    "cause rather than any surface symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from multiple angles and are certain "
    "that no assumption remains unchecked and no error remains undiscovered.\n\n"
)

EFFORTS: Final[dict[str, dict[str, str]]] = {
    "april": {"non-think": "", "high": "", "max": ABSOLUTE_MAXIMUM},
    "0731": {"non-think": "", "low": "", "high": ABSOLUTE_MAXIMUM, "max": BEYOND_MAXIMUM},
}
"""The modes of each revision of the checkpoints, and what stands before everything else in a prompt of each.

"april" is V4-Flash and V4-Pro as first released; "0731" is V4-Flash-0731 and V4-Pro-0813.
"""

MODES: Final = tuple(EFFORTS["0731"])
"""Every mode that some revision knows."""

TOOLS_BEFORE_SCHEMAS: Final = f"""

## Tools

You have access to a set of tools to help answer the user's question. \
You can invoke tools by writing a "<{DSML}tool_calls>" block like the following:

<{DSML}tool_calls>
<{DSML}invoke name="$TOOL_NAME">
<{DSML}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{DSML}parameter>
...
</{DSML}invoke>
<{DSML}invoke name="$TOOL_NAME2">
...
</{DSML}invoke>
</{DSML}tool_calls>

String parameters should be specified as is and set `string="true"`. \
For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by {THINK}), \
you MUST output your complete reasoning inside {THINK}...{END_THINK} BEFORE any tool calls or final response.

Otherwise, output directly after {END_THINK} with tool calls or final response.

### Available Tool Schemas

"""

TOOLS_AFTER_SCHEMAS: Final = """

You MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.
"""

RESPONSE_FORMAT: Final = """

## Response Format:

You MUST strictly adhere to the following schema to reply:
"""

TOOL_RESULT_OPEN: Final = "<tool_result>"
TOOL_RESULT_CLOSE: Final = "</tool_result>"
BETWEEN_BLOCKS: Final = "\n\n"
"""What separates tool results and user texts that share one turn."""

# A tool-call block, cut where the values go; written by encode.py and read by parse.py.
CALLS_OPEN: Final = f"\n\n<{DSML}tool_calls>\n"
INVOKE_OPEN: Final = f'<{DSML}invoke name="'
INVOKE_NAME_CLOSE: Final = '">\n'
PARAMETER_OPEN: Final = f'<{DSML}parameter name="'
PARAMETER_IS_STRING: Final = '" string="true">'
PARAMETER_IS_JSON: Final = '" string="false">'
PARAMETER_CLOSE: Final = f"</{DSML}parameter>\n"
NO_PARAMETERS: Final = "\n"
INVOKE_CLOSE: Final = f"</{DSML}invoke>\n"
CALLS_CLOSE: Final = f"</{DSML}tool_calls>"
