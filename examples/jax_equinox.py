"""Train an Equinox module with the learning rate of a smaller one.

    pip install '.[jax,server]' equinox
    python examples/jax_equinox.py

The loop calls ``before_step`` and ``after_step`` itself, which suits any training step. Advice
transfers a learning rate, so the best one of the small module is found first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import fslr
import fslr.jax
from advisor.local.in_process import InProcessAdvisor

BASE_WIDTH, WIDTH, DEPTH = 16, 256, 3
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


def train(
    width: int, schedule: optax.Schedule, steps: int, attach: Callable[..., Any] | None = None
) -> tuple[float, Any]:
    """Train a module; return the mean of its last losses, and what was attached.

    Args:
        width: The width of the module.
        schedule: The learning rate of each step.
        steps: Number of steps.
        attach: Attaches a function of module and batch, the module, and the state of the
            optimizer.
    """
    tx = optax.chain(optax.adam(schedule), fslr.jax.scale_by_advice())
    model = eqx.nn.MLP(4, 1, width, DEPTH, activation=jax.nn.gelu, key=jax.random.key(0))
    opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    attached = attach(apply_fn, model, opt_state) if attach else None
    step, losses = make_step(tx), []
    for batch in batches(steps):
        if attached is not None:
            opt_state = attached.before_step(model, opt_state)
        loss, model, opt_state = step(batch, model, opt_state)
        if attached is not None:
            model = attached.after_step(model, opt_state, batch)
        losses.append(loss)
    return float(jnp.mean(jnp.stack(losses[-20:]))), attached


def schedule_of(peak: float, steps: int) -> optax.Schedule:
    """Return a schedule with a short warm-up."""
    return optax.warmup_cosine_decay_schedule(peak / 10, peak, 10, steps)


def record(peak: float, steps: int) -> tuple[float, Any]:
    """Train the small module; return its loss and its profile."""
    schedule = schedule_of(peak, steps)
    provenance = fslr.Provenance(
        "MLP", BASE_WIDTH, DEPTH, dataset="a sine and a product", batch_size=64
    )

    def recorder(*training: Any) -> fslr.jax.Recorder:
        return fslr.jax.Recorder(*training, learning_rate=schedule, every=10, provenance=provenance)

    loss, attached = train(BASE_WIDTH, schedule, steps, recorder)
    return loss, attached.profile()


def main() -> None:
    """Find the learning rate of the small module, and train the wide one with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="steps of each training")
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=[2.0**-5, 2.0**-4, 2.0**-3]
    )
    options = parser.parse_args()
    recorded = {rate: record(rate, options.steps) for rate in options.learning_rates}
    for rate, (loss, _) in recorded.items():
        print(f"width {BASE_WIDTH}, learning rate {rate:g}: {loss:.4f}")
    best = min(recorded, key=lambda rate: recorded[rate][0])
    profile = recorded[best][1]
    print(f"recorded at {best:g}: {len(profile.points)} points")
    schedule = schedule_of(best, options.steps)

    def attachment(*training: Any) -> fslr.jax.Attachment:
        return fslr.jax.attach(
            *training,
            learning_rate=schedule,
            profile="mlp",
            advisor=InProcessAdvisor(profile),
            total_steps=options.steps,
        )

    plain, _ = train(WIDTH, schedule, options.steps)
    advised, attached = train(WIDTH, schedule, options.steps, attachment)
    attached.close()
    print(f"width {WIDTH}, plain: {plain:.4f}")
    print(f"width {WIDTH}, advised: {advised:.4f}")
    print(f"  {attached!r}")


if __name__ == "__main__":
    main()
