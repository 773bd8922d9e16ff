"""Mistakes in what V4.1 changed on the way from messages to ids."""

from mutants.mutant import Mutant

V41 = "text/test_chat_v41.py"
OFFICIAL_TEXT = (f"{V41}::test_encode_gives_the_official_text",)
SYSTEM_TOKEN = (f"{V41}::test_the_system_token_comes_once_at_the_start_and_before_each_later_system_message",)

TEXT_V41 = (
    Mutant(
        name="system-message-without-its-token",
        trap="a system message of V4.1 is written as V4's, without a token",
        file="text/chat/encode41.py",
        old='if turn.role == "system" or (is_first and thinking):',
        new="if is_first and thinking:",
        tests=SYSTEM_TOKEN,
    ),
    Mutant(
        name="effort-without-the-system-token",
        trap="the line of the effort stands in front of a user's turn without the system token",
        file="text/chat/encode41.py",
        old='if turn.role == "system" or (is_first and thinking):',
        new='if turn.role == "system":',
        tests=OFFICIAL_TEXT,
    ),
    Mutant(
        name="effort-before-the-system-token",
        trap="the line of the effort stands before the system token instead of behind it",
        file="text/chat/encode41.py",
        old="            out.template(t.SYSTEM)\n        if is_first:\n            out.template(effort)\n",
        new="            out.template((effort if is_first else '') + t.SYSTEM)\n",
        tests=OFFICIAL_TEXT,
    ),
    Mutant(
        name="later-system-message-unanswered",
        trap="a system message behind the first is not answered, and earlier reasoning stays current",
        file="text/chat/encode41.py",
        old='return turn.is_user_like or (turn.role == "system" and index > 0)',
        new="return turn.is_user_like",
        tests=(f"{V41}::test_a_later_system_message_is_answered_and_makes_earlier_reasoning_old",),
    ),
    Mutant(
        name="first-system-message-answered",
        trap="the first system message counts as a user's turn: the answer behind it gets the assistant's token",
        file="text/chat/encode41.py",
        old='return turn.is_user_like or (turn.role == "system" and index > 0)',
        new='return turn.is_user_like or turn.role == "system"',
        tests=(f"{V41}::test_the_first_system_message_is_answered_where_it_is_the_last_alone",),
    ),
    Mutant(
        name="next-answer-behind-one-to-go-on-with",
        trap="the model is to go on with an answer, and is told to begin another",
        file="text/chat/encode41.py",
        old=' and not turn.message.get("wo_eos"))',
        new=")",
        tests=(f"{V41}::test_an_answer_that_is_last_is_followed_by_the_next_unless_the_model_goes_on_with_it",),
    ),
    Mutant(
        name="tags-without-the-space",
        trap="the tags of V4.1 are written without the space behind the token",
        file="text/chat/tags.py",
        old='Tags(" calls", " invoke", " parameter")',
        new='Tags("calls", "invoke", "parameter")',
        tests=OFFICIAL_TEXT,
    ),
    Mutant(
        name="tags-of-v4",
        trap="V4.1 calls tools with V4's tags",
        file="text/chat/tags.py",
        old="return V41_TAGS if is_v41(revision) else V4_TAGS",
        new="return V4_TAGS",
        tests=(f"{V41}::test_tags_have_a_space_behind_the_token_where_they_are_written_and_where_they_are_read",),
    ),
    Mutant(
        name="words-of-the-other-mapping",
        trap="the words for efforts stand for the numbers of the checkpoint's encoder where the API's were asked for",
        file="text/chat/templates.py",
        old='"v4.1-api": {"low": 50, "high": 75, "max": 100}',
        new='"v4.1-api": {"low": 25, "high": 50, "max": 100}',
        tests=OFFICIAL_TEXT,
    ),
    Mutant(
        name="image-token-as-text",
        trap="the text of the image token goes into a prompt, where it would stand for an image",
        file="text/chat/encode41.py",
        old="    check_no_image(messages)\n",
        new="",
        also=(("import Message, check_no_image", "import Message"),),
        tests=(f"{V41}::test_the_image_token_is_refused_wherever_somebody_typed_it",),
    ),
    Mutant(
        name="image-token-behind-escapes",
        trap="the image token is not seen in arguments whose JSON writes it with escapes",
        file="text/chat/check.py",
        old='load_arguments(function["arguments"])) for function',
        new='function["arguments"]) for function',
        tests=(f"{V41}::test_the_image_token_is_refused_in_any_arguments_however_json_writes_it",),
    ),
    Mutant(
        name="system-token-as-text-of-an-answer",
        trap="the system token in an answer of V4.1 is taken for text",
        file="text/chat/templates.py",
        old="return CONTROL_TOKENS_OF_V41 if is_v41(revision) else CONTROL_TOKENS",
        new="return CONTROL_TOKENS",
        tests=(f"{V41}::test_the_system_token_is_malformed_in_an_answer_of_v41_and_text_in_one_of_v4",),
    ),
)
