"""A training on four devices of the host, in a process of its own; prints what a test checks."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import fslr.jax
from fslr.jax import MeasuringOptions, multipliers_of
from tests.unit.jax.nets import batches, mlp_params, train_step_of
from tests.unit.jax.trainings import advisor, outputs_of


def train(mesh: Mesh | None) -> dict[str, Any]:
    """Train for four steps, with parameters and batches on a mesh if there is one."""
    tx = optax.chain(optax.adam(1e-2), fslr.jax.scale_by_advice())
    params: Any = mlp_params((3, 8, 2))

    spec: Any = PartitionSpec

    def placed(leaf: jax.Array, *axes: str | None) -> Any:
        if mesh is None:
            return leaf
        return jax.device_put(leaf, NamedSharding(mesh, spec(*axes)))

    params = {
        "Dense_0": {
            "bias": placed(params["Dense_0"]["bias"], "model"),
            "kernel": placed(params["Dense_0"]["kernel"], None, "model"),
        },
        "Dense_1": jax.tree.map(placed, params["Dense_1"]),
    }
    opt_state = jax.tree.map(lambda leaf: leaf if leaf.ndim else placed(leaf), tx.init(params))
    to = advisor()
    attachment = fslr.jax.attach(
        outputs_of,
        params,
        opt_state,
        profile="base",
        advisor=to,
        learning_rate=1e-2,
        options=MeasuringOptions(estimator="exact", linearity=False),
        answers="wait",
    )
    compiled = train_step_of(tx)
    step = attachment.wrap(compiled)
    counts = []
    for parts in batches(5):
        batch = tuple(placed(part, "data", None) for part in parts)
        params, opt_state, loss = step(params, opt_state, batch)
        counts.append(compiled._cache_size())
    return {
        "compiled": counts,
        "failures": attachment.failures,
        "multipliers": multipliers_of(opt_state)["Dense_0.kernel"],
        "unit_rates": [list(m.unit_rates) for m in to.measurements],
        "kernel": np.asarray(params["Dense_0"]["kernel"]).tolist(),
        "shards": len(params["Dense_0"]["kernel"].sharding.device_set),
        "loss": float(loss),
    }


if __name__ == "__main__":
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "model"))
    print(json.dumps([train(None), train(mesh)]))  # noqa: T201
