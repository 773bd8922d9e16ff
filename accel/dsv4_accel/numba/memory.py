"""Loads and stores of vectors: how their numbers come from arrays and go back.

They take a flat array and the position of the first number; where NUMBA_BOUNDSCHECK is set, a position from which a
load or store would leave the array raises IndexError.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from dsv4_accel.numba.compile import CHECKS_BOUNDS, inlined
from dsv4_accel.numba.vectors import FLOATS, LANES, WORDS, F32x16, U32x16, Vector, call, constant, extract


def _pointer(context: Any, builder: Any, kind: types.Array, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
    return builder.gep(data, [index])


def loader(item: types.Type, count: int, result: Vector, widen: Callable[..., Any]) -> Any:
    """An intrinsic (array, index) that loads `count` items, which `widen(builder, items)` turns into a vector."""

    @intrinsic
    def load(context, array, index):
        if not (isinstance(array, types.Array) and array.dtype == item and isinstance(index, types.Integer)):
            return None

        def code(context, builder, signature, values):
            pointer = _pointer(context, builder, signature.args[0], *values)
            items = ir.VectorType(context.get_data_type(item), count)
            return widen(builder, builder.load(builder.bitcast(pointer, items.as_pointer()), align=item.bitwidth // 8))

        return result(array, types.intp), code

    return _guarded(load, count)


def partial_loader(item: types.Type, count: int, result: Vector, widen: Callable[..., Any]) -> Any:
    """An intrinsic (array, index, present) that loads `present` < count items, with zeros behind them."""

    @intrinsic
    def load(context, array, index, present):
        def code(context, builder, signature, values):
            array, index, present = values
            pointer = _pointer(context, builder, signature.args[0], array, index)
            items = ir.VectorType(context.get_data_type(item), count)
            room = cgutils.alloca_once_value(builder, ir.Constant(items, [0] * count))
            builder.store(ir.Constant(items, [0] * count), room)
            cgutils.raw_memcpy(builder, builder.bitcast(room, pointer.type), pointer, present, item.bitwidth // 8)
            return widen(builder, builder.load(room))

        return result(array, types.intp, types.intp), code

    if not CHECKS_BOUNDS:
        return load

    @inlined
    def checked(array, index, present):
        if index < 0 or index + present > array.size:
            raise IndexError("a vector load leaves its array")
        return load(array, index, present)

    return checked


def _guarded(load: Any, count: int) -> Any:
    if not CHECKS_BOUNDS:
        return load

    @inlined
    def checked(array, index):
        if index < 0 or index + count > array.size:
            raise IndexError("a vector load leaves its array")
        return load(array, index)

    return checked


def _repeated(builder: Any, items: Any) -> Any:
    return builder.shuffle_vector(items, ir.Constant(items.type, ir.Undefined), constant(WORDS, 0))


def _as_words(builder: Any, items: Any) -> Any:
    return builder.bitcast(items, WORDS)


def _widened(builder: Any, items: Any) -> Any:
    return builder.zext(items, WORDS)


def _bfloats(builder: Any, items: Any) -> Any:
    """bfloat16 is the upper half of a float32."""
    return builder.bitcast(builder.shl(_widened(builder, items), constant(WORDS, 16)), FLOATS)


load = loader(types.float32, LANES, F32x16, lambda builder, items: items)
"""load(array of float32, index): 16 float32."""
load_repeated = loader(types.float32, 1, F32x16, _repeated)
"""load_repeated(array of float32, index): one float32, in each lane."""
load_uint32 = loader(types.uint32, LANES, U32x16, lambda builder, items: items)
"""load_uint32(array of uint32, index): 16 uint32."""
load_bfloats = loader(types.uint16, LANES, F32x16, _bfloats)
"""load_bfloats(array of uint16, index): 16 bfloat16, widened."""
load_words = loader(types.uint8, 4 * LANES, U32x16, _as_words)
"""load_words(array of uint8, index): 64 bytes, four a lane, the first in the lowest bits."""
load_part = partial_loader(types.float32, LANES, F32x16, lambda builder, items: items)
"""load_part(array of float32, index, present): as `load`, zeros from lane `present` on."""


@intrinsic
def _store(context, array, index, vector):
    def code(context, builder, signature, values):
        array, index, vector = values
        pointer = _pointer(context, builder, signature.args[0], array, index)
        builder.store(vector, builder.bitcast(pointer, vector.type.as_pointer()), align=4)

    return types.void(array, types.intp, vector), code


@inlined
def store(array, index, vector):
    """Put 16 float32, or 16 uint32 into an array of uint32, into a flat array from an index on."""
    if CHECKS_BOUNDS and (index < 0 or index + LANES > array.size):
        raise IndexError("a vector store leaves its array")
    _store(array, index, vector)


@inlined
def store_part(array, index, vector, present):
    """Put the first `present` lanes into a flat array from an index on."""
    for lane in range(present):
        array[index + lane] = extract(vector, lane)


@inlined
def load_to_end(array, index):
    """16 float32 of a flat array, or those that it has from an index on, and zeros behind."""
    if index + LANES <= array.size:
        return load(array, index)
    return load_part(array, index, array.size - index)


@inlined
def store_to_end(array, index, vector):
    """Put 16 float32 into a flat array, or as many as it has room for from an index on."""
    if index + LANES <= array.size:
        store(array, index, vector)
    else:
        store_part(array, index, vector, array.size - index)


@inlined
def copy(source, target):
    """target[i] = source[i]: what Numba makes of `target[:] = source` is slow to compile, with texts for its errors."""
    for i in range(source.size):
        target[i] = source[i]


@intrinsic
def address(context, array):
    """Where the first item of an array stands in memory."""

    def code(context, builder, signature, values):
        first = _pointer(context, builder, signature.args[0], values[0], ir.IntType(64)(0))
        return builder.ptrtoint(first, ir.IntType(64))

    return types.int64(array), code


@intrinsic
def pointer_to(context, address):
    """A pointer to what stands at an address."""

    def code(context, builder, signature, values):
        return builder.inttoptr(values[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), code


@inlined
def bytes_at(address, count):
    """The bytes that stand at an address, as an array."""
    return carray(pointer_to(address), count, np.uint8)


@intrinsic
def prefetch(context, array, index):
    """Ask for the cache line with this item, which may lie beyond the array: nothing is read then.

    It comes into the second fastest cache: what a kernel asks for ahead is more than the fastest one can hold beside
    what it works with, and only few lines at a time can be on their way there.
    """

    def code(context, builder, signature, values):
        pointer = builder.bitcast(_pointer(context, builder, signature.args[0], *values), ir.IntType(8).as_pointer())
        options = [ir.IntType(32)(option) for option in (0, 2, 1)]  # to read, all caches but the first, data
        call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, *options)

    return types.void(array, types.intp), code
