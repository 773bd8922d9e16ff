"""The chat formats of DeepSeek-V4 and V4.1: messages to the prompt's exact text, and a completion back to a message.

`encode` gives the official text. `encode_pieces` gives the same text in pieces that keep the format's own control
tokens apart from text that only looks like them; `dsv4.text.tokenizer.Tokenizer.encode_pieces` turns those into ids.
`parse` reads what the model answered, best as pieces too, which `Tokenizer.decode_pieces` makes of its ids. A message
is a dict with a `role`, as in OpenAI's interface:

    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.encode_pieces(encode_pieces(messages, mode="high"))
    ...
    message = parse(tokenizer.decode_pieces(answer_ids), mode="high")
"""

from dsv4.text.chat.encode import encode, encode_pieces
from dsv4.text.chat.parse import parse
from dsv4.text.chat.pieces import Control, Piece, Text, join
from dsv4.text.chat.templates import CONTROL_TOKENS, EFFORTS, MODES, TASKS

__all__ = [
    "CONTROL_TOKENS",
    "EFFORTS",
    "MODES",
    "TASKS",
    "Control",
    "Piece",
    "Text",
    "encode",
    "encode_pieces",
    "join",
    "parse",
]
