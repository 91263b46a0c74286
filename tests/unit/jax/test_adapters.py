"""LoRA in JAX: both factors of an adapter have one rate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fslr.jax
from tests.unit.jax.nets import batches
from tests.unit.jax.trainings import EXACT


def test_both_factors_of_an_adapter_have_the_rate_of_the_change_that_their_steps_make() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    frozen = jax.random.normal(keys[0], (3, 2))
    params: Any = {
        "up": {
            "lora_a": jax.random.normal(keys[1], (3, 2)),
            "lora_b": 0.1 * jax.random.normal(keys[2], (2, 2)),
        }
    }

    def apply_fn(params: Any, batch: Any) -> jax.Array:
        adapter = params["up"]
        outputs: jax.Array = batch[0] @ (frozen + adapter["lora_a"] @ adapter["lora_b"])
        return outputs

    tx = optax.adam(1e-3)

    @jax.jit
    def train_step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any]:
        grads = jax.grad(lambda p: jnp.mean((apply_fn(p, batch) - batch[1]) ** 2))(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    (batch,) = batches(1)
    recorder = fslr.jax.Recorder(
        apply_fn,
        params,
        tx.init(params),
        learning_rate=1e-3,
        every=1,
        options=EXACT,
    )
    after, _ = recorder.wrap(train_step)(params, tx.init(params), batch)
    rate_of_a, rate_of_b = recorder.profile("LoRA").points[0].unit_rates
    change = (apply_fn(after, batch) - apply_fn(params, batch)) / 1e-3
    assert rate_of_a == rate_of_b
    np.testing.assert_allclose(rate_of_a, np.sqrt(np.mean(change**2)), rtol=0.01)
