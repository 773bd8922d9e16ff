"""What V4 and V4.1 call the tags of a tool-call block, and the block cut where the values go."""

from dataclasses import dataclass

from dsv4.text.chat.templates import DSML, END_THINK, THINK, is_v41


@dataclass(frozen=True)
class Tags:
    """The names of the three tags, as they stand behind the token `｜DSML｜`.

    What surrounds names and values within a tag is the same in both formats and stands in `templates`.
    """

    calls: str
    invoke: str
    parameter: str

    @property
    def calls_open(self) -> str:
        """Begins a block, behind the content."""
        return f"\n\n<{DSML}{self.calls}>\n"

    @property
    def calls_close(self) -> str:
        """Ends a block."""
        return f"</{DSML}{self.calls}>"

    @property
    def invoke_open(self) -> str:
        """Stands before the name of a tool."""
        return f'<{DSML}{self.invoke} name="'

    @property
    def invoke_close(self) -> str:
        """Ends a call."""
        return f"</{DSML}{self.invoke}>\n"

    @property
    def parameter_open(self) -> str:
        """Stands before the name of a parameter."""
        return f'<{DSML}{self.parameter} name="'

    @property
    def parameter_close(self) -> str:
        """Stands behind the value of a parameter."""
        return f"</{DSML}{self.parameter}>\n"

    @property
    def tools_before_schemas(self) -> str:
        """What tells the model how to call tools, up to their schemas."""
        return f"""

## Tools

You have access to a set of tools to help answer the user's question. \
You can invoke tools by writing a "<{DSML}{self.calls}>" block like the following:

<{DSML}{self.calls}>
<{DSML}{self.invoke} name="$TOOL_NAME">
<{DSML}{self.parameter} name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{DSML}{self.parameter}>
...
</{DSML}{self.invoke}>
<{DSML}{self.invoke} name="$TOOL_NAME2">
...
</{DSML}{self.invoke}>
</{DSML}{self.calls}>

String parameters should be specified as is and set `string="true"`. \
For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by {THINK}), \
you MUST output your complete reasoning inside {THINK}...{END_THINK} BEFORE any tool calls or final response.

Otherwise, output directly after {END_THINK} with tool calls or final response.

### Available Tool Schemas

"""


V4_TAGS = Tags("tool_calls", "invoke", "parameter")

V41_TAGS = Tags(" calls", " invoke", " parameter")
"""Each name of V4.1 begins with a space."""


def tags_of(revision: str) -> Tags:
    """The tags of a revision's format."""
    return V41_TAGS if is_v41(revision) else V4_TAGS
