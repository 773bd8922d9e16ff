"""Arrays as a page carries them: whole numbers in few bits, one behind the other, deflated and in base64."""

import base64
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.ops.types import Array, Ints

TYPES: dict[str, type[np.unsignedinteger]] = {"u1": np.uint8, "u2": np.uint16, "u4": np.uint32}


class Packer:
    """Collects arrays; each method returns how the page's script finds the numbers again.

    A description is {"at": byte, "type": "u1", "u2" or "u4", "shape": [...]}, and for what is no whole number
    "low" and "step": the number is low + step · code, and its square where "root" is true.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def whole(self, values: Ints) -> dict[str, Any]:
        """Whole numbers of at least 0, as they are. Raises ValueError for others, and for numbers of 2³² and more."""
        largest, least = (int(values.max()), int(values.min())) if values.size else (0, 0)
        kind = next((name for name, dtype in TYPES.items() if largest <= np.iinfo(dtype).max), None)
        if kind is None or least < 0:
            raise ValueError(f"whole: expected numbers from 0 to 2^32 − 1, found {least} … {largest}")
        return self._add(values, kind)

    def linear(self, values: Array, bits: int) -> dict[str, Any]:
        """Numbers in equal steps from the least, or 0, to the largest, so that the error is half a step at most.

        bits: 8 or 16.
        """
        low = min(float(values.min(initial=0)), 0.0)
        steps = 2**bits - 1
        step = (float(values.max(initial=0)) - low) / steps or 1.0
        codes = np.rint((values.astype(np.float64) - low) / step)
        return self._add(codes, f"u{bits // 8}") | {"low": low, "step": step}

    def root(self, values: Array, bits: int) -> dict[str, Any]:
        """Numbers from 0 to 1 by their square roots, so that small ones keep their digits.

        bits: 8 or 16. With 8, a share of 1 is 0.004 off at most, one of 0.01 0.0004; with 16, 256 times less.
        """
        steps = 2**bits - 1
        codes = np.rint(np.sqrt(np.clip(values.astype(np.float64), 0, 1)) * steps)
        return self._add(codes, f"u{bits // 8}") | {"low": 0.0, "step": 1 / steps, "root": True}

    def text(self) -> str:
        """All arrays, as the page holds them."""
        return base64.b64encode(zlib.compress(b"".join(self._parts), 9)).decode()

    def _add(self, codes: npt.NDArray[Any], kind: str) -> dict[str, Any]:
        """Place an array at a multiple of 4 bytes, where every type may stand."""
        stored = np.ascontiguousarray(codes.astype(np.dtype(TYPES[kind]).newbyteorder("<"))).tobytes()
        at = self._size
        padded = stored + bytes(-len(stored) % 4)
        self._parts.append(padded)
        self._size += len(padded)
        return {"at": at, "type": kind, "shape": list(codes.shape)}
