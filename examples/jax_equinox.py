"""Train an Equinox module with learning rates from a smaller one.

    pip install '.[jax,server]' equinox
    python examples/jax_equinox.py

The loop calls ``before_step`` and ``after_step`` itself, which suits any training step.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import fslr
import fslr.jax
from advisor.local.in_process import InProcessAdvisor

LEARNING_RATE = 0.01
Batch = tuple[jax.Array, jax.Array]


def apply_fn(model: Any, batch: Batch) -> jax.Array:
    """Return the outputs for a batch, [B, 1]."""
    outputs: jax.Array = jax.vmap(model)(batch[0])
    return outputs


def batches(steps: int) -> Iterator[Batch]:
    """Yield inputs and what is to be learned from them."""
    for key in jax.random.split(jax.random.key(1), steps):
        inputs = jax.random.normal(key, (64, 4))
        yield inputs, jnp.sin(2 * inputs[:, :1]) + inputs[:, 1:2] * inputs[:, 2:3]


def make_step(tx: optax.GradientTransformation) -> Any:
    """Return a compiled training step."""

    @eqx.filter_jit
    def make(batch: Batch, model: Any, opt_state: Any) -> tuple[jax.Array, Any, Any]:
        def loss_of(model: Any) -> jax.Array:
            return jnp.mean((apply_fn(model, batch) - batch[1]) ** 2)

        loss, grads = eqx.filter_value_and_grad(loss_of)(model)
        updates, opt_state = tx.update(grads, opt_state, eqx.filter(model, eqx.is_inexact_array))
        return loss, eqx.apply_updates(model, updates), opt_state

    return make


def build(width: int, tx: optax.GradientTransformation) -> tuple[Any, Any]:
    """Return a model and the state of its optimizer."""
    model = eqx.nn.MLP(4, 1, width, 2, activation=jax.nn.gelu, key=jax.random.key(0))
    return model, tx.init(eqx.filter(model, eqx.is_inexact_array))


def run(steps: int, width: int, tx: optax.GradientTransformation, attach: Any = None) -> Any:
    """Train a model; return the mean of its last losses, and what was attached."""
    model, opt_state = build(width, tx)
    attached = attach(model, opt_state) if attach is not None else None
    step, losses = make_step(tx), []
    for batch in batches(steps):
        if attached is not None:
            opt_state = attached.before_step(model, opt_state)
        loss, model, opt_state = step(batch, model, opt_state)
        if attached is not None:
            model = attached.after_step(model, opt_state, batch)
        losses.append(loss)
    return float(jnp.mean(jnp.stack(losses[-20:]))), attached


def main() -> None:
    """Train all three models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200, help="steps of each training")
    steps = parser.parse_args().steps

    def recorder(model: Any, opt_state: Any) -> fslr.jax.Recorder:
        return fslr.jax.Recorder(apply_fn, model, opt_state, learning_rate=LEARNING_RATE, every=10)

    _, recorded = run(steps, 16, optax.adam(LEARNING_RATE), recorder)
    profile = recorded.profile(fslr.Provenance("MLP of Equinox", width=16, depth=2))
    print(f"width 16, recorded: {len(profile.points)} points")

    tx = optax.chain(optax.adam(LEARNING_RATE), fslr.jax.scale_by_advice())
    loss, _ = run(steps, 128, tx)
    print(f"width 128, plain: loss {loss:.4f}")

    def attachment(model: Any, opt_state: Any) -> fslr.jax.Attachment:
        return fslr.jax.attach(
            apply_fn,
            model,
            opt_state,
            learning_rate=LEARNING_RATE,
            profile="mlp",
            advisor=InProcessAdvisor(profile),
            total_steps=steps,
        )

    loss, attached = run(steps, 128, tx, attachment)
    attached.close()
    print(f"width 128, advised: loss {loss:.4f}")
    print(f"  {attached!r}")


if __name__ == "__main__":
    main()
