"""Small models in plain JAX, Flax and Equinox, and trainings of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Step = Callable[[Any, Any, Any], tuple[Any, Any, jax.Array]]


def mlp_params(sizes: tuple[int, ...] = (3, 8, 8, 2), seed: int = 0) -> dict[str, Any]:
    """Return the parameters of a perceptron, in the spelling of Flax linen."""
    generator = np.random.default_rng(seed)  # modules call this function: nothing is compiled
    return {
        f"Dense_{i}": {
            "kernel": jnp.asarray(generator.standard_normal(pair, np.float32) / pair[0] ** 0.5),
            "bias": jnp.asarray(np.zeros(pair[1], np.float32)),
        }
        for i, pair in enumerate(itertools.pairwise(sizes))
    }


def mlp(params: dict[str, Any], inputs: jax.Array) -> jax.Array:
    """Return the outputs of the perceptron."""
    for i in range(len(params)):
        layer = params[f"Dense_{i}"]
        inputs = inputs @ layer["kernel"] + layer["bias"]
        if i + 1 < len(params):
            inputs = jnp.tanh(inputs)
    return inputs


def batches(count: int, size: int = 8, features: int = 3) -> list[tuple[jax.Array, jax.Array]]:
    """Return batches of inputs and targets."""
    keys = jax.random.split(jax.random.key(7), count)
    inputs = [jax.random.normal(key, (size, features)) for key in keys]
    return [(x, jnp.stack([x.sum(1), x[:, 0] * x[:, 1]], 1)) for x in inputs]


def loss_of(params: Any, batch: Any) -> jax.Array:
    """Return the mean squared error of the perceptron."""
    inputs, targets = batch
    return jnp.mean((mlp(params, inputs) - targets) ** 2)


def train_step_of(
    tx: optax.GradientTransformation, loss: Callable[[Any, Any], jax.Array] = loss_of
) -> Any:
    """Return a compiled step of a training."""

    @jax.jit
    def train_step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return train_step
