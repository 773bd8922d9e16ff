"""A message as it is on the wire: bytes, so that they can be counted."""

import pickle
from typing import Any


def packed(message: Any) -> bytes:
    """A message as the bytes that are sent."""
    return pickle.dumps(message, protocol=5)


def unpacked(sent: bytes) -> Any:
    """The message of such bytes, which come from the run's own processes."""
    return pickle.loads(sent)
