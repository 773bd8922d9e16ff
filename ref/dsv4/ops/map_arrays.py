"""One way through everything that holds arrays: weights, packed rows, tuples of results, lists of experts."""

from collections.abc import Callable
from typing import Any

from dsv4.ops.packed_rows import PackedRows
from dsv4.ops.quantise import Fp4Weight, Fp8Weight


def map_arrays(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with each array in it changed, those of any backend.

    Weights, packed rows, tuples and lists are made anew from their changed parts; what holds no array stays as it is.
    """
    match value:
        case Fp8Weight(codes, scales, block):
            return Fp8Weight(change(codes), change(scales), block)
        case Fp4Weight(packed, scales):
            return Fp4Weight(change(packed), change(scales))
        case PackedRows(stored, form):
            return PackedRows(change(stored), form)
        case tuple() if hasattr(value, "_fields"):
            return type(value)(*(map_arrays(part, change) for part in value))
        case list() | tuple():
            return type(value)(map_arrays(part, change) for part in value)
    is_array = hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, type)  # as np.float32 is
    return change(value) if is_array else value
