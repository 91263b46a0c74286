"""LoRA in JAX: both factors of an adapter have one rate."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fslr.jax
from fslr.advisor.v1 import layout_pb2
from fslr.jax.groups import ModelGroups
from fslr.jax.model_forms import form_of
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


def pairs(model: Any, stacked: dict[str, int] | None = None) -> set[tuple[str, str]]:
    """Return the names of the factors of each adapter of a model."""
    groups = ModelGroups(model, form_of(model), stacked)
    return {(groups.names[a], groups.names[b]) for a, b in groups.adapters()}


def test_factors_of_modules_called_lora_are_found_by_their_shapes() -> None:
    up = {"a": jnp.ones((6, 2)), "b": jnp.ones((2, 8))}
    assert pairs({"lora_up": up, "down": up}) == {("lora_up.a", "lora_up.b")}
    dense = {"x": {"kernel": jnp.ones((6, 2))}, "y": {"kernel": jnp.ones((2, 8))}}
    assert pairs({"up": {"lora": dense}}) == {("up.lora.x.kernel", "up.lora.y.kernel")}
    stacked = {"lora": jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), up)}
    assert pairs(stacked, {"lora": 0}) == {("lora.0.a", "lora.0.b"), ("lora.1.a", "lora.1.b")}


class LoRALinear(eqx.Module):
    """A layer with an adapter, whose names say nothing."""

    weight: jax.Array
    first: jax.Array
    second: jax.Array


def test_factors_of_equinox_are_known_by_their_class() -> None:
    layer = LoRALinear(jnp.ones((8, 6)), jnp.ones((2, 6)), jnp.ones((8, 2)))
    assert pairs({"up": layer}) == {("up.first", "up.second")}
    groups = ModelGroups({"up": layer}, form_of({"up": layer}))
    kinds = {group.name: group.kind for group in groups.layout({"up": layer}).groups}
    assert kinds["up.first"] == layout_pb2.GROUP_KIND_ADAPTER_A
    assert kinds["up.second"] == layout_pb2.GROUP_KIND_ADAPTER_B
    assert kinds["up.weight"] != layout_pb2.GROUP_KIND_ADAPTER_A


@pytest.mark.parametrize(
    "module",
    [
        {"a": jnp.ones((6, 2)), "b": jnp.ones((3, 8))},  # different ranks
        {"a": jnp.ones((6, 8)), "b": jnp.ones((8, 2))},  # no low rank
        {"a": jnp.ones((6, 2)), "b": jnp.ones((2, 8)), "c": jnp.ones((5, 8))},  # not of this layer
        {"a": jnp.ones((6, 2))},
    ],
)
def test_other_matrices_of_such_modules_are_no_adapters(module: Any) -> None:
    assert pairs({"lora": module}) == set()
