"""Evaluates single equations of a jaxpr, and their derivatives by some operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import JaxprEqn

from fslr.jax.estimators.derivatives import linearized


def evaluate(eqn: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    """Return the results of an equation.

    Args:
        eqn: The equation.
        values: Its operands.
    """
    params: Any = eqn.primitive.get_bind_params(eqn.params)  # type: ignore[no-untyped-call]
    # Older versions of JAX return functions beside the parameters.
    functions, params = params if isinstance(params, tuple) else ((), params)
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*functions, *values, **params)  # type: ignore[no-untyped-call]
    return list(results) if eqn.primitive.multiple_results else [results]


def is_float(value: Any) -> bool:
    """Return whether a value is an array of real floating-point numbers."""
    return bool(jnp.issubdtype(jnp.result_type(value), jnp.floating))


def changes_of(
    eqn: JaxprEqn, values: Sequence[Any], changes: Mapping[int, Array]
) -> list[Array | None]:
    """Return the first-order changes of an equation's results.

    Args:
        eqn: The equation.
        values: Its operands.
        changes: Changes of some operands, by their positions.

    Returns:
        One change per result; None for a result that is not floating-point.

    Raises:
        TypeError: The equation has no derivative that can be used.
    """
    positions = sorted(changes)
    fixed = [jax.lax.stop_gradient(value) for value in values]

    def results_at(operands: list[Array]) -> list[Any]:
        moved = list(fixed)
        for position, operand in zip(positions, operands, strict=True):
            moved[position] = operand
        return [result for result in evaluate(eqn, moved) if is_float(result)]

    at = [fixed[position] for position in positions]
    tangents = [changes[position] for position in positions]
    if eqn.primitive.name == "custom_vjp_call":
        found = iter(linearized(results_at, at)[1](tangents))
    else:
        found = iter(jax.jvp(results_at, (at,), (tangents,))[1])
    avals: list[Any] = [variable.aval for variable in eqn.outvars]
    floats = [jnp.issubdtype(aval.dtype, jnp.floating) for aval in avals]
    return [next(found) if each else None for each in floats]
