"""Sixteen numbers at once: vectors as values that a kernel computes with.

`F32x16` and `U32x16` are types of Numba's that stand for LLVM's vectors <16 x float> and <16 x i32>. LLVM turns them
into one register where the processor has such wide ones, and into several where not, so that everything here runs
everywhere and gives the same bits. Operators work lane by lane: a + b, a * b, words & mask, words << 4.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
FLOATS = ir.VectorType(ir.FloatType(), LANES)
WORDS = ir.VectorType(ir.IntType(32), LANES)


class Vector(types.Type):
    """A vector of 16 numbers of 32 bits."""

    def __init__(self, name: str, lanes: ir.VectorType) -> None:
        super().__init__(name)
        self.lanes = lanes


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.lanes)


F32x16 = Vector("F32x16", FLOATS)
"""16 float32."""
U32x16 = Vector("U32x16", WORDS)
"""16 uint32: bits to be shifted and masked."""


def of_one(argument: types.Type, result: types.Type, emit: Callable[..., Any]) -> Any:
    """An intrinsic of one argument, whose code `emit(builder, value)` writes."""

    @intrinsic
    def function(context, a):
        return result(argument), lambda context, builder, signature, values: emit(builder, *values)

    return function


def of_two(first: types.Type, second: types.Type, result: types.Type, emit: Callable[..., Any]) -> Any:
    """An intrinsic of two arguments, whose code `emit(builder, first, second)` writes."""

    @intrinsic
    def function(context, a, b):
        return result(first, second), lambda context, builder, signature, values: emit(builder, *values)

    return function


def of_three(kind: types.Type, emit: Callable[..., Any]) -> Any:
    """An intrinsic of three arguments of one type, that of its result, whose code `emit(builder, a, b, c)` writes."""

    @intrinsic
    def function(context, a, b, c):
        return kind(kind, kind, kind), lambda context, builder, signature, values: emit(builder, *values)

    return function


def constant(lanes: ir.VectorType, value: Any) -> ir.Constant:
    """A vector with the same number in each lane, or with the given ones."""
    return ir.Constant(lanes, list(value) if isinstance(value, list | tuple) else [value] * lanes.count)


def call(builder: Any, name: str, result: ir.Type, *values: Any) -> Any:
    """A call of one of LLVM's intrinsic functions."""
    kind = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)


# Making vectors, and taking them apart.


def _splat(builder: Any, value: Any) -> Any:
    lanes = ir.VectorType(value.type, LANES)
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(WORDS, [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(lanes, ir.Undefined), zeros)


def _reduced(combine: Callable[..., Any]) -> Callable[..., Any]:
    """Combine lane i with lane i + 8, what results with i + 4, and so on: always in the same order."""

    def emit(builder: Any, value: Any) -> Any:
        for width in (8, 4, 2, 1):
            low, high = (
                builder.shuffle_vector(value, value, constant(ir.VectorType(ir.IntType(32), width), [*part]))
                for part in (range(width), range(width, 2 * width))
            )
            value = combine(builder, low, high)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return emit


def _sum_of_two(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b)


def _larger_float(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _larger_word(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_unsigned(">", a, b), a, b)


def _exchange(distance: int) -> Callable[..., Any]:
    """Lane i takes the number of lane i with the bit `distance` of i flipped."""
    partners = [lane ^ distance for lane in range(LANES)]
    return lambda builder, value: builder.shuffle_vector(value, value, constant(WORDS, partners))


splat = of_one(types.float32, F32x16, _splat)
"""The same float32 in each lane."""
splat_word = of_one(types.uint32, U32x16, _splat)
"""The same uint32 in each lane."""
lane_sum = of_one(F32x16, types.float32, _reduced(_sum_of_two))
"""The sum of the lanes, always in the same order."""
lane_max = of_one(F32x16, types.float32, _reduced(_larger_float))
"""The largest lane; any one where a lane is NaN."""
lane_max_word = of_one(U32x16, types.uint32, _reduced(_larger_word))
"""The largest lane, as an unsigned number."""
exchange_1 = of_one(F32x16, F32x16, _exchange(1))
"""Lanes 1, 0, 3, 2, …: neighbours change places."""
exchange_2 = of_one(F32x16, F32x16, _exchange(2))
"""Lanes 2, 3, 0, 1, 6, …: pairs change places."""
exchange_4 = of_one(F32x16, F32x16, _exchange(4))
"""Lanes 4 … 7, 0 … 3, 12 … 15, 8 … 11: quarters change places."""
exchange_8 = of_one(F32x16, F32x16, _exchange(8))
"""Lanes 8 … 15, 0 … 7: halves change places."""
extract = of_two(F32x16, types.intp, types.float32, lambda builder, vector, lane: builder.extract_element(vector, lane))
"""extract(vector, lane): one lane."""
floats = of_one(U32x16, F32x16, lambda builder, words: builder.bitcast(words, FLOATS))
"""The float32 that have these bits."""
words = of_one(F32x16, U32x16, lambda builder, floats: builder.bitcast(floats, WORDS))
"""The bits of these float32."""


# Arithmetic, lane by lane.

_F = F32x16
_add = of_two(_F, _F, _F, lambda builder, a, b: builder.fadd(a, b))
_subtract = of_two(_F, _F, _F, lambda builder, a, b: builder.fsub(a, b))
_multiply = of_two(_F, _F, _F, lambda builder, a, b: builder.fmul(a, b))
_divide = of_two(_F, _F, _F, lambda builder, a, b: builder.fdiv(a, b))
minimum = of_two(_F, _F, _F, lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
"""The smaller of a and b; b where one of them is NaN."""
maximum = of_two(_F, _F, _F, _larger_float)
"""The larger of a and b; b where one of them is NaN."""

greater = of_two(_F, _F, U32x16, lambda builder, a, b: builder.sext(builder.fcmp_ordered(">", a, b), WORDS))
"""All bits set in the lanes where a > b, none elsewhere: a mask for `choose`."""

_U = U32x16
_and = of_two(_U, _U, _U, lambda builder, a, b: builder.and_(a, b))
_or = of_two(_U, _U, _U, lambda builder, a, b: builder.or_(a, b))
_xor = of_two(_U, _U, _U, lambda builder, a, b: builder.xor(a, b))
_plus = of_two(_U, _U, _U, lambda builder, a, b: builder.add(a, b))
_minus = of_two(_U, _U, _U, lambda builder, a, b: builder.sub(a, b))
_left = of_two(_U, _U, _U, lambda builder, a, b: builder.shl(a, b))
_right = of_two(_U, _U, _U, lambda builder, a, b: builder.lshr(a, b))
larger_word = of_two(_U, _U, _U, _larger_word)
"""The larger of a and b as unsigned numbers. Magnitudes of float32 are in the order of their bits, a NaN on top."""
any_word = of_one(
    _U,
    types.boolean,
    lambda builder, a: builder.icmp_unsigned("!=", builder.bitcast(a, ir.IntType(512)), ir.IntType(512)(0)),
)
"""Whether any bit of any lane is set."""


fma = of_three(_F, lambda builder, a, b, c: call(builder, "llvm.fma.v16f32", FLOATS, a, b, c))
"""a · b + c, rounded once."""

square_root = of_one(_F, _F, lambda builder, a: call(builder, "llvm.sqrt.v16f32", FLOATS, a))
"""√a, rounded once."""


@intrinsic
def choose(context, mask, a, b):
    """a in the lanes where the mask has any bit set, b in the others."""

    def code(context, builder, signature, values):
        mask, a, b = values
        return builder.select(builder.icmp_unsigned("!=", mask, constant(WORDS, 0)), a, b)

    return _F(_U, _F, _F), code


def _define(symbol: Any, of_floats: Any, of_words: Any) -> None:
    """Make an operator of Python work on vectors; a whole number beside words stands in each lane."""

    @overload(symbol, inline="always")
    def on_vectors(a, b):
        if a == b == F32x16 and of_floats is not None:
            return lambda a, b: of_floats(a, b)
        if a == b == U32x16 and of_words is not None:
            return lambda a, b: of_words(a, b)
        if a == U32x16 and isinstance(b, types.Integer) and of_words is not None:
            return lambda a, b: of_words(a, splat_word(b))
        return None


for _symbol, _floats, _words in (
    (operator.add, _add, _plus),
    (operator.sub, _subtract, _minus),
    (operator.mul, _multiply, None),
    (operator.truediv, _divide, None),
    (operator.and_, None, _and),
    (operator.or_, None, _or),
    (operator.xor, None, _xor),
    (operator.lshift, None, _left),
    (operator.rshift, None, _right),
):
    _define(_symbol, _floats, _words)
