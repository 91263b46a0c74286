"""Integers that a traced function computes from constants, such as the rows that it picks.

An index that does not depend on data is known before anything runs. ``x[jnp.arange(B), i]`` picks
with pairs of an example's own number, which is known, and a position, which is not. So elements
are known one by one. They are computed on request only, by NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal
from numpy.typing import NDArray

_MAX_ELEMENTS = 1 << 20  # of an array that is computed
_MAX_DEPTH = 100  # of equations that depend on each other


@dataclass(frozen=True, slots=True)
class KnownIntegers:
    """An array of integers or booleans, some of which are known.

    Attributes:
        values: The array; its elements have a meaning where they are known.
        is_known: Whether each element is known, of the same shape.
    """

    values: NDArray[Any]
    is_known: NDArray[np.bool_]


class IndexValues:
    """Finds the known values of a jaxpr's variables.

    Args:
        jaxpr: The jaxpr.
        consts: Its constants; those that are being traced are unknown.
        argument: Returns what is known of an argument, by its position.
        depth: Depth of equations that depend on the results.
    """

    def __init__(
        self,
        jaxpr: Jaxpr,
        consts: Sequence[Any] = (),
        argument: Callable[[int], KnownIntegers | None] = lambda position: None,  # noqa: ARG005
        depth: int = 0,
    ) -> None:
        self._consts = dict(zip(jaxpr.constvars, consts, strict=False))
        self._arguments = {variable: n for n, variable in enumerate(jaxpr.invars)}
        self._argument = argument
        self._made = {variable: eqn for eqn in jaxpr.eqns for variable in eqn.outvars}
        self._found: dict[Any, KnownIntegers | None] = {}
        self._depth = depth

    def of(self, variable: Any) -> KnownIntegers | None:
        """Return what is known of a variable; None: nothing is."""
        if isinstance(variable, Literal):
            return _constant(variable.val)
        if variable not in self._found:
            self._found[variable] = None if self._depth > _MAX_DEPTH else self._value(variable)
        return self._found[variable]

    def inside(
        self, eqn: JaxprEqn, jaxpr: Any, operands: Sequence[int | None] | None = None
    ) -> IndexValues:
        """Return the known values of a jaxpr that an equation calls.

        Args:
            eqn: The equation.
            jaxpr: The jaxpr that it calls, with its constants if it is closed.
            operands: The position of the operand that each argument is; None: unknown. The default
                is the operands in their order.
        """

        def argument(position: int) -> KnownIntegers | None:
            place = position if operands is None else operands[position]
            return None if place is None else self.of(eqn.invars[place])

        consts = getattr(jaxpr, "consts", ())
        return IndexValues(getattr(jaxpr, "jaxpr", jaxpr), consts, argument, self._depth)

    def _value(self, variable: Any) -> KnownIntegers | None:
        aval = variable.aval
        if not _can_be_known(aval):
            return None
        if variable in self._consts:
            return _constant(self._consts[variable])
        if variable in self._arguments:
            return self._argument(self._arguments[variable])
        eqn = self._made.get(variable)
        if eqn is None:
            return None
        self._depth += 1
        try:
            return self._result(eqn, variable)
        finally:
            self._depth -= 1

    def _result(self, eqn: JaxprEqn, variable: Any) -> KnownIntegers | None:
        name = eqn.primitive.name
        if name in _CALLS:
            jaxpr = eqn.params["jaxpr"]
            inner = self.inside(eqn, jaxpr)
            return inner.of(getattr(jaxpr, "jaxpr", jaxpr).outvars[eqn.outvars.index(variable)])
        rule = _RULES.get(name)
        if rule is None or not all(_can_be_known(operand.aval) for operand in eqn.invars):
            return None
        operands = [self.of(operand) or _unknown(operand.aval) for operand in eqn.invars]
        if operands and not any(operand.is_known.any() for operand in operands):
            return None
        with np.errstate(over="ignore"):  # integers wrap around on devices too
            found = rule(eqn, operands)
        return found if found.is_known.any() else None


def _can_be_known(aval: Any) -> bool:
    dtype = getattr(aval, "dtype", None)
    # Keys of random numbers have a type that only JAX knows.
    is_whole = dtype is not None and any(
        jnp.issubdtype(dtype, kind) for kind in (jnp.integer, jnp.bool_)
    )
    return is_whole and aval.size <= _MAX_ELEMENTS


def _constant(value: Any) -> KnownIntegers | None:
    if isinstance(value, jax.core.Tracer) or not getattr(value, "is_fully_addressable", True):
        return None
    found = np.asarray(value)
    if not _can_be_known(found):
        return None
    return KnownIntegers(found, np.ones(found.shape, bool))


def _unknown(aval: Any) -> KnownIntegers:
    return KnownIntegers(np.zeros(aval.shape, aval.dtype), np.zeros(aval.shape, bool))


_Rule = Callable[[JaxprEqn, list[KnownIntegers]], KnownIntegers]


def _elementwise(function: Callable[..., Any]) -> _Rule:
    def rule(eqn: JaxprEqn, operands: list[KnownIntegers]) -> KnownIntegers:
        aval: Any = eqn.outvars[0].aval
        is_known = np.logical_and.reduce([
            np.broadcast_to(operand.is_known, aval.shape) for operand in operands
        ])
        values = np.asarray(function(*(operand.values for operand in operands)))
        return KnownIntegers(np.broadcast_to(values, aval.shape).astype(aval.dtype), is_known)

    return rule


def _moved(move: Callable[[JaxprEqn, NDArray[Any]], NDArray[Any]]) -> _Rule:
    """Return a rule for a primitive that only moves elements."""

    def rule(eqn: JaxprEqn, operands: list[KnownIntegers]) -> KnownIntegers:
        (operand,) = operands
        return KnownIntegers(move(eqn, operand.values), move(eqn, operand.is_known))

    return rule


def _iota(eqn: JaxprEqn, operands: list[KnownIntegers]) -> KnownIntegers:  # noqa: ARG001
    aval: Any = eqn.outvars[0].aval
    dimension = eqn.params["dimension"]
    line = np.arange(aval.shape[dimension]).astype(aval.dtype)
    shape = [-1 if d == dimension else 1 for d in range(len(aval.shape))]
    return KnownIntegers(
        np.broadcast_to(line.reshape(shape), aval.shape), np.ones(aval.shape, bool)
    )


def _concatenate(eqn: JaxprEqn, operands: list[KnownIntegers]) -> KnownIntegers:
    axis = eqn.params["dimension"]
    return KnownIntegers(
        np.concatenate([operand.values for operand in operands], axis),
        np.concatenate([operand.is_known for operand in operands], axis),
    )


def _stack(eqn: JaxprEqn, operands: list[KnownIntegers]) -> KnownIntegers:
    axis = eqn.params["axis"]
    return KnownIntegers(
        np.stack([operand.values for operand in operands], axis),
        np.stack([operand.is_known for operand in operands], axis),
    )


def _select(eqn: JaxprEqn, operands: list[KnownIntegers]) -> KnownIntegers:  # noqa: ARG001
    which, *cases = operands
    shape = cases[0].values.shape
    chosen = np.broadcast_to(which.values, shape).astype(np.intp)[None]
    values, is_known = (
        np.take_along_axis(np.stack(parts), chosen, 0)[0]
        for parts in ([case.values for case in cases], [case.is_known for case in cases])
    )
    return KnownIntegers(values, is_known & np.broadcast_to(which.is_known, shape))


def _broadcast(eqn: JaxprEqn, values: NDArray[Any]) -> NDArray[Any]:
    aval: Any = eqn.outvars[0].aval
    places = eqn.params["broadcast_dimensions"]
    shape = [1] * len(aval.shape)
    for place, size in zip(places, values.shape, strict=True):
        shape[place] = size
    return np.broadcast_to(values.reshape(shape), aval.shape)


def _reshape(eqn: JaxprEqn, values: NDArray[Any]) -> NDArray[Any]:
    order = eqn.params.get("dimensions")
    aval: Any = eqn.outvars[0].aval
    return (values if order is None else values.transpose(order)).reshape(aval.shape)


def _squeeze(eqn: JaxprEqn, values: NDArray[Any]) -> NDArray[Any]:
    return np.squeeze(values, tuple(eqn.params["dimensions"]))


def _slice(eqn: JaxprEqn, values: NDArray[Any]) -> NDArray[Any]:
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or [1] * len(starts)
    return values[tuple(map(slice, starts, limits, steps))]


_CALLS = {"jit", "pjit", "closed_call"}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "not": np.invert,
    "convert_element_type": np.asarray,
    "copy": np.asarray,
    "clamp": lambda low, value, high: np.minimum(np.maximum(value, low), high),
}
_RULES: dict[str, _Rule] = {
    **{name: _elementwise(function) for name, function in _FUNCTIONS.items()},
    "iota": _iota,
    "concatenate": _concatenate,
    "select_n": _select,
    "broadcast_in_dim": _moved(_broadcast),
    "reshape": _moved(_reshape),
    "slice": _moved(_slice),
    "stack": _stack,
    "squeeze": _moved(_squeeze),
    "transpose": _moved(lambda eqn, values: values.transpose(eqn.params["permutation"])),
    "rev": _moved(lambda eqn, values: np.flip(values, eqn.params["dimensions"])),
}
