"""Mistakes on the way from messages to ids."""

from mutants.mutant import Mutant

OFFICIAL_TEXT = ("text/test_chat.py::test_encode_gives_the_official_text",)

OFFICIAL_EFFORTS = ("text/test_chat_efforts.py::test_efforts_give_the_official_text",)

TEXT = (
    Mutant(
        name="user-text-as-template",
        trap="special-token text in user content becomes control pieces",
        file="text/chat/write.py",
        old="        else:\n            out.content(block.text)",
        new="        else:\n            out.template(block.text)",
        tests=("text/test_chat.py::test_special_token_text_in_user_content_is_not_a_control_token",),
    ),
    Mutant(
        name="text-with-control-ids",
        trap="special-token text in content is parsed as control tokens by the tokenizer",
        file="text/tokenizer.py",
        old="ids.extend(self.encode(piece.text))",
        new="ids.extend(self.encode(piece.text, allow_special=True))",
        tests=("text/test_tokenizer.py::test_content_adds_no_control_id_to_those_of_the_template",),
    ),
    Mutant(
        name="control-tokens-in-the-vocabulary",
        trap="control tokens are taken from added_tokens but stay reachable in the vocabulary",
        file="text/tokenizer.py",
        old='for token, token_id in model["vocab"].items() if token not in control}',
        new='for token, token_id in model["vocab"].items()}',
        also=(("if not _touches(merge, control)]", "]"),),
        tests=("text/test_tokenizer.py::test_no_text_becomes_a_control_id_in_an_unusual_file",),
    ),
    Mutant(
        name="old-reasoning-kept",
        trap="the reasoning of earlier turns stays in the prompt",
        file="text/chat/encode.py",
        old="(not drop_thinking or index > last_user)",
        new="True",
        tests=OFFICIAL_TEXT,
    ),
    Mutant(
        name="tool-results-as-they-came",
        trap="tool results stay in the order in which they came instead of that of their calls",
        file="text/chat/turns.py",
        old="    _sort_tool_results(turns)\n",
        new="",
        tests=OFFICIAL_TEXT,
    ),
    Mutant(
        name="max-instruction-last",
        trap="the instruction of Think Max is written behind the messages instead of before them",
        file="text/chat/encode.py",
        old="    out.template(t.instruction_of(mode, revision))\n",
        new="",
        also=(
            ("    return out.finish()", "    out.template(t.instruction_of(mode, revision))\n    return out.finish()"),
        ),
        tests=OFFICIAL_TEXT,
    ),
    Mutant(
        name="efforts-of-april-for-all",
        trap="a checkpoint of 0731 gets April's texts: nothing for high, and high's for max",
        file="text/chat/templates.py",
        old='"high": ABSOLUTE_MAXIMUM, "max": BEYOND_MAXIMUM',
        new='"high": "", "max": ABSOLUTE_MAXIMUM',
        tests=OFFICIAL_EFFORTS,
    ),
    Mutant(
        name="effort-without-thinking",
        trap="the instruction of an effort stands in a prompt that closes the thinking at once",
        file="text/chat/templates.py",
        old='"0731": {"non-think": ""',
        new='"0731": {"non-think": BEYOND_MAXIMUM',
        tests=OFFICIAL_EFFORTS,
    ),
    Mutant(
        name="effort-before-the-begin-token",
        trap="the instruction of an effort stands in front of the begin token",
        file="text/chat/encode.py",
        old="    if add_bos:\n        out.template(t.BEGIN)\n    out.template(t.instruction_of(mode, revision))\n",
        new="    out.template(t.instruction_of(mode, revision))\n    if add_bos:\n        out.template(t.BEGIN)\n",
        tests=OFFICIAL_EFFORTS,
    ),
    Mutant(
        name="low-for-april",
        trap="the mode low is taken for April's checkpoints, which were never trained on it",
        file="text/chat/templates.py",
        old='"april": {"non-think": "",',
        new='"april": {"non-think": "", "low": "",',
        tests=("text/test_chat_efforts.py::test_low_is_not_aprils",),
    ),
    Mutant(
        name="every-checkpoint-of-april",
        trap="a checkpoint with a DSpark drafter is prompted with April's texts",
        file="text/chat/revision.py",
        old='return "april" if config.dspark is None else "0731"',
        new='return "april"',
        tests=("text/test_chat_efforts.py::test_the_configuration_says_which_texts_unless_told",),
    ),
    Mutant(
        name="ids-of-calls-on-the-call-only",
        trap="an id that stands on a call's function, as the official encoder allows, does not order the results",
        file="text/chat/turns.py",
        old='call.get("id") or call["function"].get("id")',
        new='call.get("id")',
        tests=("text/test_chat_messages.py",),
    ),
    Mutant(
        name="text-that-looks-like-a-control-token",
        trap="the parser takes the text of a control token for the token, whatever the pieces say",
        file="text/chat/reader.py",
        old="and self._controls[first:after] == controls",
        new="",
        tests=("text/test_chat_pieces.py",),
    ),
    Mutant(
        name="cut-completion-keeps-its-end",
        trap="what may begin a tool call or a control token stays in the content of a completion that was cut",
        file="text/chat/reader.py",
        old="tails = [*begun, _HALF_A_CHARACTER]",
        new="tails = []",
        tests=("text/test_chat_parse.py",),
    ),
)
