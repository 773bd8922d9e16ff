"""The fixed texts of the chat formats of DeepSeek-V4 and V4.1: control tokens, tasks, efforts, the prose around tools.

Every string is the official one, character for character: the model was trained on exactly these.
"""

from typing import Final

BEGIN: Final = "<｜begin▁of▁sentence｜>"
END: Final = "<｜end▁of▁sentence｜>"
USER: Final = "<｜User｜>"
ASSISTANT: Final = "<｜Assistant｜>"
LATEST_REMINDER: Final = "<｜latest_reminder｜>"
SYSTEM: Final = "<｜System｜>"
IMAGE: Final = "<｜deepseek_image｜>"
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
"""Every control token that V4's chat format writes; a tokenizer must have each of them as one added token."""

CONTROL_TOKENS_OF_V41: Final = (*CONTROL_TOKENS, SYSTEM)
"""Those of V4.1. It knows IMAGE, too, but writes it only where an image stands, which is never here."""

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

V41_EFFORTS: Final = {
    "v4.1": {"low": 25, "high": 50, "xhigh": 75, "max": 100},
    "v4.1-api": {"low": 50, "high": 75, "max": 100},
}
"""The number that each word for an effort stands for in V4.1: two official mappings, which differ.

"v4.1" is that of the encoder in the checkpoint, "v4.1-api" that of DeepSeek's API and of the chat template. Both take
high where nothing is asked for.
"""

V41_LARGEST_EFFORT: Final = 100


def effort_line(effort: int) -> str:
    """V4.1's instruction for an effort from 1 to 100."""
    return f"Reasoning Effort: {effort} (range 1-100, the higher the value, the more thorough the reasoning)\n\n"


EFFORTS: Final[dict[str, dict[str, str]]] = {
    "april": {"non-think": "", "high": "", "max": ABSOLUTE_MAXIMUM},
    "0731": {"non-think": "", "low": "", "high": ABSOLUTE_MAXIMUM, "max": BEYOND_MAXIMUM},
    **{
        revision: {"non-think": "", **{word: effort_line(effort) for word, effort in efforts.items()}}
        for revision, efforts in V41_EFFORTS.items()
    },
}
"""The modes of each revision of the checkpoints, and what stands before everything else in a prompt of each.

"april" is V4-Flash and V4-Pro as first released; "0731" is V4-Flash-0731 and V4-Pro-0813; "v4.1" and "v4.1-api" are
V4.1-Flash, whose modes may also be numbers.
"""


def instruction_of(mode: str | int, revision: str) -> str:
    """What a prompt in this mode begins with; `check.check_mode_of` says which there are."""
    return effort_line(mode) if isinstance(mode, int) else EFFORTS[revision][mode]


def is_v41(revision: str) -> bool:
    """Whether a revision's prompts have the format of V4.1."""
    return revision in V41_EFFORTS


def control_tokens_of(revision: str) -> tuple[str, ...]:
    """Every control token that a revision's format writes."""
    return CONTROL_TOKENS_OF_V41 if is_v41(revision) else CONTROL_TOKENS


MODES: Final = ("non-think", "low", "high", "xhigh", "max")
"""Every mode with a name that some revision knows."""

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

# Within the tags of a tool-call block, which `tags` holds: what surrounds the names and values.
INVOKE_NAME_CLOSE: Final = '">\n'
PARAMETER_IS_STRING: Final = '" string="true">'
PARAMETER_IS_JSON: Final = '" string="false">'
NO_PARAMETERS: Final = "\n"
