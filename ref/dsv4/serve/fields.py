"""The fields of a request: each is read once and checked, and a field that nobody reads is refused."""

from collections.abc import Collection, Sequence
from typing import Any

from dsv4.arguments import integer, number
from dsv4.errors import DSV4Error, quoted


class RequestError(DSV4Error):
    """A request that cannot be answered: what the client is told, and with which status of HTTP.

    The message names the field, what was expected there and what was found, unless no field is to blame.
    """

    def __init__(self, message: str, field: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.field, self.status, self.code = field, status, code


class Fields:
    """One JSON object of a request. A field that is null counts as one that is not there, as OpenAI's clients mean it.

    Every method raises RequestError, which names the field with the way to it, for what is not as it must be.
    """

    def __init__(self, found: Any, where: str = "") -> None:
        """where: the way to the object; nothing for the body itself."""
        self._where = where
        if not isinstance(found, dict):
            raise wrong(where, "a JSON object", found)
        self._left = {name: value for name, value in found.items() if value is not None}

    def name(self, field: str) -> str:
        """The way to a field from the body."""
        return f"{self._where}.{field}" if self._where else field

    def value(self, field: str) -> Any:
        """What the field holds, unchecked; None where it is not there."""
        return self._left.pop(field, None)

    def integer(self, field: str, least: int = 0, most: int | None = None) -> int | None:
        """An integer from least to most, or None."""
        value = self.value(field)
        if isinstance(value, float) and value.is_integer():  # 100.0, as some languages write 100
            value = int(value)
        return None if value is None else integer(self.name(field), value, least, most, _of(self.name(field)))

    def number(self, field: str, least: float, most: float) -> float | None:
        """A number from least to most, or None."""
        value = self.value(field)
        if value is None:
            return None
        found = number(self.name(field), value, _of(self.name(field)))
        if not least <= found <= most:
            raise wrong(self.name(field), f"a number from {least:g} to {most:g}", value)
        return found

    def flag(self, field: str) -> bool | None:
        """True or false, or None."""
        value = self.value(field)
        if not isinstance(value, bool | None):
            raise wrong(self.name(field), "true or false", value)
        return value

    def text(self, field: str) -> str | None:
        """A string, or None."""
        value = self.value(field)
        if value is not None and not isinstance(value, str):
            raise wrong(self.name(field), "a string", value)
        return value

    def one_of(self, field: str, known: Collection[str]) -> str | None:
        """One of several words, or None."""
        value = self.value(field)
        if value is not None and not (isinstance(value, str) and value in known):
            raise wrong(self.name(field), f"one of {', '.join(known)}", value)
        return value

    def texts(self, field: str, most: int) -> tuple[str, ...]:
        """A string that is not empty, or a list of at most so many of them."""
        value = self.value(field)
        texts: Any = [value] if isinstance(value, str) else value or []
        if not isinstance(texts, list) or len(texts) > most:
            raise wrong(self.name(field), f"a string or a list of at most {most} strings", value)
        for place, text in enumerate(texts):
            if not isinstance(text, str) or not text:
                raise wrong(f"{self.name(field)}[{place}]", "a string that is not empty", text)
        return tuple(texts)

    def objects(self, field: str) -> list[dict[str, Any]] | None:
        """A list of JSON objects, or None."""
        value = self.value(field)
        if value is None:
            return None
        if not isinstance(value, list):
            raise wrong(self.name(field), "a list", value)
        for place, item in enumerate(value):
            if not isinstance(item, dict):
                raise wrong(f"{self.name(field)}[{place}]", "a JSON object", item)
        return value

    def inner(self, field: str) -> "Fields | None":
        """The fields of an object inside this one, or None."""
        value = self.value(field)
        return None if value is None else Fields(value, self.name(field))

    def without_effect(self, *fields: str) -> None:
        """Take note of fields that change nothing here, whatever they hold."""
        for field in fields:
            self.value(field)

    def only(self, field: str, *values: Any) -> None:
        """A field that is understood at these values alone, where it changes nothing."""
        value = self.value(field)
        if value is not None and not any(
            value == known and isinstance(value, bool) == isinstance(known, bool) for known in values
        ):
            expected = " or ".join(quoted(known) for known in values)
            raise wrong(self.name(field), f"{expected}, as nothing else is done here", value)

    def finish(self) -> None:
        """Refuse what is left: a field that were passed over in silence could be one that the client counts on."""
        for field in self._left:
            where = self.name(field)
            raise RequestError(f"{quoted(where)}: expected a field that is known here, found this one", where[:120])


def wrong(field: str, expected: str, found: object) -> RequestError:
    """The error of a field that holds something else."""
    return RequestError(f"{field or 'body'}: expected {expected}, found {quoted(found)}", field or None)


def named(error: DSV4Error) -> RequestError:
    """An error from below as one of a request: its message begins with the name of the field."""
    if isinstance(error, RequestError):
        return error
    field, found, _ = str(error).partition(": ")
    is_name = found and len(field) < 120 and not any(space in field for space in " \n")
    return RequestError(str(error), field if is_name else None)


def joined(parts: Sequence[str]) -> str:
    """Several texts of one message as one, as V4's format puts them."""
    return "\n\n".join(parts)


def _of(field: str) -> type[DSV4Error]:
    """A class of errors, as `dsv4.arguments` wants one, that knows the field."""

    class FieldError(RequestError):
        def __init__(self, message: str) -> None:
            super().__init__(message, field)

    return FieldError
