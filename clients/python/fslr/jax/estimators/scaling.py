"""Scales of updates: float16 cannot hold the small updates of some optimizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr

from fslr.jax.estimators.groups import LeafGroup
from fslr.jax.estimators.jaxprs import all_equations


def uses_float16(function: ClosedJaxpr) -> bool:
    """Return whether a traced function computes in float16.

    Args:
        function: The function.
    """
    avals: list[Any] = [variable.aval for variable in function.jaxpr.invars]
    avals += [v.aval for eqn in all_equations(function.jaxpr) for v in eqn.outvars]
    return any(getattr(aval, "dtype", None) == jnp.float16 for aval in avals)


def scaled(updates: Sequence[Array], groups: Sequence[LeafGroup]) -> tuple[list[Array], Array]:
    """Return updates whose largest element is 1 in each group, and what they were divided by.

    Args:
        updates: The updates of all leaves.
        groups: The groups.

    Returns:
        The updates in float32, and the divisor of each group, float32 [groups].
    """
    scales: list[Array] = []
    found = list(updates)
    for group in groups:
        parts = [_part(updates[index].astype(jnp.float32), group) for index in group.leaves]
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(part), initial=0.0) for part in parts]))
        scale = jnp.where(largest > 0, largest, 1.0)
        scales.append(scale)
        for index in group.leaves:
            whole = found[index].astype(jnp.float32)
            if group.layer is None:
                found[index] = whole / scale
            else:
                place = (slice(None),) * group.axis + (group.layer,)
                found[index] = whole.at[place].divide(scale)
    return found, jnp.stack(scales)


def _part(leaf: Array, group: LeafGroup) -> Array:
    """Return a group's part of a leaf."""
    return leaf if group.layer is None else jnp.take(leaf, group.layer, axis=group.axis)
