"""`/tokenize`, `/detokenize` and `/tokenizer_info`, by which evaluation harnesses do without a tokenizer of their own.

The paths and forms are those of vLLM.
"""

from typing import Any

from dsv4.serve.fields import Fields, wrong
from dsv4.serve.service import Service


def tokenizer_info(service: Service) -> dict[str, Any]:
    """The begin and the end token, and how long a prompt may be."""
    names = service.tokenizer.control_of_id
    ends = {"bos_token": names[service.tokenizer.bos_id], "eos_token": names[service.tokenizer.eos_id]}
    return ends | {"model_max_length": service.context, "add_bos_token": service.tokenizer.add_bos}


def tokenized(fields: Fields, service: Service) -> dict[str, Any]:
    """The token ids of the text in a request. Raises RequestError.

    A text that is nothing but the name of a control token is that token; inside other text, none is.
    """
    text, begins = fields.text("prompt"), fields.flag("add_special_tokens")
    fields.without_effect("model")
    fields.finish()
    if text is None:
        raise wrong("prompt", "a string", None)
    control = {name: number for number, name in service.tokenizer.control_of_id.items()}.get(text)
    ids = service.tokenizer.encode(text) if control is None else [control]
    if begins is not False and service.tokenizer.add_bos:
        ids = [service.tokenizer.bos_id, *ids]
    return {"tokens": ids, "count": len(ids), "max_model_len": service.context}


def detokenized(fields: Fields, service: Service) -> dict[str, Any]:
    """The text of the token ids in a request. Raises RequestError."""
    ids = token_ids("tokens", fields.value("tokens"), service)
    fields.without_effect("model")
    fields.finish()
    return {"prompt": service.tokenizer.decode(ids)}


def token_ids(where: str, found: Any, service: Service) -> list[int]:
    """A list of token ids of the model. Raises RequestError, which names the place."""
    vocab_size = service.model.config.vocab_size
    if not isinstance(found, list):
        raise wrong(where, "a list of token ids", found)
    for place, token in enumerate(found):
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocab_size:
            raise wrong(f"{where}[{place}]", f"a token id from 0 to {vocab_size - 1}", token)
    return found
