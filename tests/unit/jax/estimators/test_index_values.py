"""Integers that are known from the equations are those that JAX computes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fslr.jax.estimators.per_example.index_values import IndexValues


def _indices(data: Array, constant: Any) -> tuple[Array, ...]:
    rows = jnp.arange(6)
    wrapped = jnp.where(rows - 3 < 0, rows + 3, rows - 3)
    table = jnp.flip(wrapped.reshape(2, 3), 1).T
    clipped = jnp.clip(constant * 2 - rows, 1, 4)[::2]
    pairs = jnp.stack([rows, data], 1)
    some = jnp.where(rows > 3, data, jnp.maximum(-rows, -2))
    unequal = ~(rows == 2) & (rows != 4) | (rows >= 5)
    return table, clipped, jax.jit(lambda p: p + 1)(pairs), some, unequal.astype(jnp.int8)


def test_known_elements_have_the_values_that_jax_computes() -> None:
    constant = np.array([3, 1, 4, 1, 5, 9])
    data = jnp.array([2, 7, 1, 8, 2, 8])
    traced = jax.make_jaxpr(lambda data: _indices(data, constant))(data)
    values = IndexValues(traced.jaxpr, traced.consts)
    known = []
    for variable, expected in zip(traced.jaxpr.outvars, _indices(data, constant), strict=True):
        found = values.of(variable)
        assert found is not None
        np.testing.assert_array_equal(
            found.values[found.is_known], np.asarray(expected)[found.is_known]
        )
        known.append(found.is_known.tolist())
    table, clipped, pairs, some, unequal = known
    assert np.all(table)
    assert np.all(clipped)
    assert pairs == [[True, False]] * 6
    assert some == [True] * 4 + [False] * 2
    assert np.all(unequal)


def test_what_depends_on_data_or_is_no_integer_is_unknown() -> None:
    traced = jax.make_jaxpr(lambda data: (data + jnp.arange(6), jnp.arange(6.0)))(jnp.arange(6))
    values = IndexValues(traced.jaxpr, traced.consts)
    assert [values.of(variable) for variable in traced.jaxpr.outvars] == [None, None]


def test_a_long_chain_of_equations_is_unknown() -> None:
    def chain() -> Array:
        found = jnp.arange(3)
        for _ in range(2000):
            found = jax.lax.add(found, jnp.int32(1))
        return found

    traced = jax.make_jaxpr(chain)()
    assert IndexValues(traced.jaxpr, traced.consts).of(traced.jaxpr.outvars[0]) is None
