"""How a weight's numbers are stored, as a constant of kernels: they choose their code by it when they are compiled."""

from collections.abc import Callable, Mapping
from typing import Any

from numba import types
from numba.core.imputils import lower_constant
from numba.extending import models, overload, register_model, typeof_impl


class Storage:
    """How a weight's numbers are stored: a constant for kernels, without a value of its own."""

    def __init__(self, name: str) -> None:
        self.name = name


class _StorageType(types.Type):
    """The type of one Storage: functions that take it are compiled for each by itself."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Storage({name})")
        self.storage = name


@typeof_impl.register(Storage)
def _type_of_storage(storage: Storage, context: Any) -> _StorageType:
    return _StorageType(storage.name)


@register_model(_StorageType)
class _StorageModel(models.OpaqueModel):
    pass


@lower_constant(_StorageType)
def _constant_storage(context: Any, builder: Any, kind: Any, storage: Storage) -> Any:
    return context.get_dummy_value()


FP4, FP8, BFLOAT, FLOAT = (Storage(name) for name in ("FP4", "FP8", "bfloat16", "float32"))
"""FP4 with a scale for 32 columns, FP8 with one for 128 columns and some rows, and dense numbers without scales."""

MX = Storage("FP8 in blocks of 32")
"""FP8 with a scale for 32 columns and some rows."""

PAIRS = Storage("FP4 in pairs")
"""FP4 that is read two numbers a lane, and multiplied by an x in pairs too: see `pairs`."""


def by_storage(numbers: Mapping[str, int]) -> Callable[[Storage], int]:
    """A function of kernels that gives the number for a storage's name, a constant when a kernel is compiled."""

    def number(storage: Storage) -> int:
        raise NotImplementedError("only within kernels")

    @overload(number)
    def _number(storage):
        count = numbers[storage.storage]
        return lambda storage: count

    return number
