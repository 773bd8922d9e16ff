"""The pages for people: one to chat with the model, and one that shows what happened inside for a text."""

import asyncio
import re
from importlib.resources import files

from dsv4.explain.page import page as explained_page
from dsv4.explain.record import record
from dsv4.model.language_model import LanguageModel
from dsv4.serve.fields import Fields, RequestError, wrong
from dsv4.serve.service import Service
from dsv4.serve.tokens import token_ids
from dsv4.text.tokenizer import Tokenizer

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "frame-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""What the chat page may fetch: answers of this server, and nothing else from anywhere."""


def chat_page() -> str:
    """The chat page, one file of HTML with its style and its script."""
    parts = {"style": _asset("chat.css"), "script": _asset("chat.js")}
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _asset("chat.html"))


async def explain_page(fields: Fields, service: Service) -> str:
    """The page of `dsv4 explain` for the token ids in a request. One is made at a time. Raises RequestError."""
    ids = fields.value("ids")
    fields.finish()
    most = service.limits.explained_tokens
    if service.model.store is not None:
        raise RequestError("ids: expected a model without --memory to look into, found one with it", "ids")
    if not isinstance(ids, list) or not 0 < len(ids) <= most:
        raise wrong("ids", f"a list of 1 to {most} token ids", ids)
    token_ids("ids", ids, service)
    async with service.explaining:
        return await asyncio.to_thread(_explained, service.model, service.tokenizer, ids)


def _explained(model: LanguageModel, tokenizer: Tokenizer, ids: list[int]) -> str:
    return explained_page(model, tokenizer, record(model, ids))


def _asset(name: str) -> str:
    return (files("dsv4.serve") / "page" / name).read_text(encoding="utf-8")
