"""Values of a parsed config.json, taken with the error that names the key where one is missing or wrong."""

from dataclasses import fields
from typing import Any

from dsv4.config import LONGEST_LIST, Yarn, typed
from dsv4.errors import ConfigError, quoted

YARN: dict[str, Any] = {entry.name: entry.type for entry in fields(Yarn)}
"""The fields of `Yarn` and of rope_scaling, with their types."""


def required(raw: dict[str, Any], key: str, source: str) -> Any:
    """The value of a key that must be there."""
    if key not in raw:
        raise ConfigError(f"{source}: {key}: expected a value, found no such key")
    return raw[key]


def require_equal(found: Any, expected: Any, source: str, key: str) -> None:
    """Raises ConfigError unless a value is the expected one, and of its type."""
    if type(found) is not type(expected) or found != expected:
        raise ConfigError(f"{source}: {key}: expected {quoted(expected)}, found {quoted(found)}")


def section_of(raw: dict[str, Any], key: str, source: str) -> dict[str, Any]:
    """A JSON object inside another; empty where it is absent or null."""
    found = raw.get(key)
    if found is not None and not isinstance(found, dict):
        raise ConfigError(f"{source}: {key}: expected a JSON object, found {quoted(found)}")
    return found or {}


def list_of(raw: dict[str, Any], key: str, source: str) -> list[Any]:
    """A list that must be there, of no more entries than a model can need."""
    found = required(raw, key, source)
    if not isinstance(found, list):
        raise ConfigError(f"{source}: {key}: expected a list, found {quoted(found)}")
    if len(found) > LONGEST_LIST:
        raise ConfigError(f"{source}: {key}: expected at most {LONGEST_LIST} entries, found {len(found)}")
    return found


def yarn_of(section: dict[str, Any], source: str, key: str) -> dict[str, Any] | None:
    """The fields of `Yarn`; None for an absent section and for one of the type "default"."""
    if not section:
        return None
    kind = section["rope_type"] if "rope_type" in section else required(section, "type", source)
    if kind == "default":
        return None
    require_equal(kind, "yarn", source, f"{key} type")
    unknown = (
        set(section) - set(YARN) - {"rope_type", "type", "rope_theta", "partial_rotary_factor", "attention_factor"}
    )
    if unknown:
        raise ConfigError(
            f"{source}: {key}: expected {', '.join(YARN)}, found {quoted(min(unknown))}, which V4 does not know"
        )
    factor = typed(section.get("attention_factor", 1.0), float, source, f"{key} attention_factor")
    require_equal(factor, 1.0, source, f"{key} attention_factor")
    return {name: typed(required(section, name, source), kind, source, name) for name, kind in YARN.items()}
