"""Rules of the functions that compute number by number. In all of them g is the gradient of the result y."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dsv4.learn.tape.graph import Like, Recorded
from dsv4.ops.types import Array


def _add(x: Array, y: Array) -> Recorded:
    """y = a + b: g, g"""
    return np.add(x, y), (Like(x), Like(y))


def _subtract(x: Array, y: Array) -> Recorded:
    """a − b: g, −g"""
    to_y = Like(y)
    return np.subtract(x, y), (Like(x), lambda g: to_y(-g))


def _multiply(x: Array, y: Array) -> Recorded:
    """a · b: g b, g a"""
    to_x, to_y = Like(x), Like(y)
    return np.multiply(x, y), (lambda g: to_x(g * y), lambda g: to_y(g * x))


def _divide(x: Array, y: Array) -> Recorded:
    """a / b: g / b, −g a / b²"""
    to_x, to_y = Like(x), Like(y)
    result = np.divide(x, y)
    return result, (lambda g: to_x(g / y), lambda g: to_y(-g * result / y))


def _negative(x: Array) -> Recorded:
    """−a: −g"""
    return np.negative(x), (lambda g: -g,)


def _exp(x: Array) -> Recorded:
    """e^a: g y"""
    result = np.exp(x)
    return result, (lambda g: g * result,)


def _log(x: Array) -> Recorded:
    """log a: g / a"""
    return np.log(x), (lambda g: g / x,)


def _sqrt(x: Array) -> Recorded:
    """√a: g / 2y"""
    result = np.sqrt(x)
    return result, (lambda g: g / (2 * result),)


def _square(x: Array) -> Recorded:
    """a²: 2 g a"""
    return np.square(x), (lambda g: g * (2 * x),)


def _logaddexp(x: Array, y: Array) -> Recorded:
    """log(e^a + e^b): g e^(a − y), g e^(b − y)"""
    to_x, to_y = Like(x), Like(y)
    result = np.logaddexp(x, y)
    return result, (lambda g: to_x(g * np.exp(x - result)), lambda g: to_y(g * np.exp(y - result)))


def _larger(function: Callable[..., Array]) -> Callable[..., Recorded]:
    """max(a, b) or min(a, b): g to the one that was taken, half of it to each where they are equal."""

    def rule(x: Array, y: Array) -> Recorded:
        to_x, to_y = Like(x), Like(y)
        result = function(x, y)

        def share(one: Array, other: Array) -> Array:
            share: Array = np.where(one == other, 0.5, one == result).astype(result.dtype)
            return share

        return result, (lambda g: to_x(g * share(x, y)), lambda g: to_y(g * share(y, x)))

    return rule


def _relu(x: Array, y: Array) -> Recorded:
    """max(a, c) of a number and a constant: g where the number is larger, 0 elsewhere, as of ReLU."""
    to_x, to_y = Like(x), Like(y)
    return np.maximum(x, y), (lambda g: to_x(np.where(x > y, g, 0)), lambda g: to_y(np.where(y > x, g, 0)))


def _limited(x: Array, y: Array) -> Recorded:
    """min(a, c) of a number and a constant: g where the number is no larger, 0 where it was cut, as of clip."""
    to_x, to_y = Like(x), Like(y)
    return np.minimum(x, y), (lambda g: to_x(np.where(x <= y, g, 0)), lambda g: to_y(np.where(y <= x, g, 0)))


def _clip(x: Array, low: Any, high: Any) -> Recorded:
    """a between fixed limits, or None for no limit: g where it lies within them or on them, 0 where it was cut."""
    to_x = Like(x)
    result = np.clip(x, low, high)
    return result, (lambda g: to_x(np.where(x == result, g, 0)),)


def _where(condition: Any, x: Array, y: Array) -> Recorded:
    """a where the condition holds, else b: g where each was taken."""
    to_x, to_y = Like(x), Like(y)
    pulls = None, lambda g: to_x(np.where(condition, g, 0)), lambda g: to_y(np.where(condition, 0, g))
    return np.where(condition, x, y), pulls


ELEMENTWISE: dict[Any, Callable[..., Recorded]] = {
    np.add: _add,
    np.subtract: _subtract,
    np.multiply: _multiply,
    np.divide: _divide,
    np.negative: _negative,
    np.exp: _exp,
    np.log: _log,
    np.sqrt: _sqrt,
    np.square: _square,
    np.logaddexp: _logaddexp,
    np.maximum: _larger(np.maximum),
    np.minimum: _larger(np.minimum),
    np.clip: _clip,
    np.where: _where,
}

AGAINST_A_CONSTANT: dict[Any, Callable[..., Recorded]] = {np.maximum: _relu, np.minimum: _limited}
"""Rules where one of two operands has no gradient: it is the limit of the other, and does not share with it."""
