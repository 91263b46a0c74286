"""The same weights, batch and update give the same rates in PyTorch and in JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array

from fslr.jax.estimators import ExactEstimator, PerExampleEstimator, leaf_groups
from tests.measuring import measurable

_PROBES = 100


def test_rates_agree() -> None:
    torch.manual_seed(0)
    layers = torch.nn.Embedding(11, 6), torch.nn.LayerNorm(6), torch.nn.Linear(6, 8)
    model = torch.nn.Sequential(*layers, torch.nn.GELU(), torch.nn.Linear(8, 11))
    tokens = torch.randint(0, 11, (6, 5))
    case = measurable(model, tokens)
    params = {
        name: parameter.detach().numpy()
        for name, parameter in zip(
            case.names, (group.parameter for group in case.groups), strict=True
        )
    }
    updates = {name: update.numpy() for name, update in zip(case.names, case.updates, strict=True)}

    def apply(p: Any, x: Array) -> Any:
        x = p["0.weight"][x]
        x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5)
        x = x * p["1.weight"] + p["1.bias"]
        x = jax.nn.gelu(x @ p["2.weight"].T + p["2.bias"], approximate=False)
        return x @ p["4.weight"].T + p["4.bias"]

    groups = leaf_groups(params)
    names = [group.name for group in groups]
    order = [case.names.index(name) for name in names]
    exact_torch = np.array(case.exact())[order]
    arguments = (params, updates, tokens.numpy(), jax.random.key(0))
    exact = ExactEstimator(apply, groups).measure(*arguments).estimate()
    np.testing.assert_allclose(exact.unit_rates, exact_torch, rtol=1e-4)
    of_torch = case.estimator(probes=_PROBES).estimate(case.batch, case.update)
    of_jax = PerExampleEstimator(apply, groups, probes=_PROBES).measure(*arguments).estimate()
    for place, name in enumerate(names):
        rate, error = (
            values[order[place]] for values in (of_torch.unit_rates, of_torch.relative_errors)
        )
        combined = np.hypot(error, of_jax.relative_errors[place])
        difference = abs(np.log(of_jax.unit_rates[place] / rate))
        assert difference < 5 * combined + 1e-4, (name, difference, combined)
        assert (error == 0) == (of_jax.relative_errors[place] == 0), name
