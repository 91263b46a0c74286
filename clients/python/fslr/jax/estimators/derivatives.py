"""Forward-mode derivatives, also of functions that define only their reverse mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import Array

from fslr.jax.estimators.jaxprs import has_primitive


def linearized(
    function: Callable[[list[Array]], Any], values: Sequence[Array]
) -> tuple[Any, Callable[[list[Array]], Any]]:
    """Return a function's result, and its derivative as a function of tangents.

    A function with a :class:`jax.custom_vjp` has no forward mode. Its derivative is then the
    transposed one of its reverse mode, which is linear in the cotangent.

    Args:
        function: The function of a list of arrays.
        values: Where to differentiate it.

    Raises:
        TypeError: The function has no derivative in forward mode, and its reverse mode cannot be
            transposed.
    """
    values = list(values)
    if _has_forward_mode(function, values):
        return jax.linearize(function, values)
    result, pullback = jax.vjp(function, values)
    like = jax.tree.map(jax.typeof, result)

    def tangent_map(tangents: list[Array]) -> Any:
        return jax.linear_transpose(lambda cotangent: pullback(cotangent)[0], like)(tangents)[0]

    try:
        jax.eval_shape(tangent_map, values)
    except (AssertionError, NotImplementedError, TypeError) as error:
        # JAX itself says little: an assertion fails where a rule is not written as a linear one.
        raise TypeError(
            "a jax.custom_vjp has a backward rule that cannot be transposed, so the "
            "function has no derivative in forward mode; write the rule with operations that are "
            "linear in the cotangent, or define a jax.custom_jvp"
        ) from error
    return result, tangent_map


def _has_forward_mode(function: Callable[[list[Array]], Any], values: list[Array]) -> bool:
    # jax.linearize says nothing about a custom_vjp; only compiling what it returns fails.
    jvp = jax.make_jaxpr(lambda at: jax.jvp(function, (at,), (at,)))(values)
    return not has_primitive(jvp.jaxpr, "custom_lin")
