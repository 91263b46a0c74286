"""Functions that define only a backward rule, one that JAX cannot transpose."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import Array

from tests.unit.jax.estimators.cases import SIGMAS, Case, Params, normal

_X = normal(3, 6, 4)
_WEIGHTS = {"a": normal(0, 4, 6), "o": normal(1, 6, 3)}


@jax.custom_vjp
def doubled(w: Array) -> Array:
    return 2 * w


# Linear in the cotangent, which JAX cannot see.
doubled.defvjp(lambda w: (2 * w, None), lambda _, z: (2 * jnp.where(z > 0, z, z),))


def by_rule(p: Params, x: Array) -> Any:
    return jnp.tanh(x @ doubled(p["a"])) @ p["o"]


def without_rule(p: Params, x: Array) -> Any:
    return jnp.tanh(x @ (2 * p["a"])) @ p["o"]


def test_a_group_behind_such_a_rule_is_summed_without_bias() -> None:
    case = Case(by_rule, _WEIGHTS, _X)
    estimator = case.estimator(probes=64)
    found = estimator.measure(case.params, case.updates, case.batch, jax.random.key(0)).estimate()
    assert estimator.slow_groups == {
        "a": "a function that takes it has a derivative rule that cannot be transposed, so they "
        "are summed"
    }
    hidden, head = Case(without_rule, _WEIGHTS, _X).exact()
    assert found.relative_errors[0] < 0.045
    assert abs(found.unit_rates[0] / hidden - 1) < SIGMAS * found.relative_errors[0]
    assert found.unit_rates[1] == pytest.approx(head, rel=1e-5)


def test_the_exact_estimator_says_what_such_a_rule_lacks() -> None:
    with pytest.raises(TypeError, match="backward rule that cannot be transposed, so the function"):
        Case(by_rule, _WEIGHTS, _X).exact()
