"""Train a plain JAX model with the learning rate of a smaller one.

    pip install '.[jax,server]'
    python examples/jax_plain.py

Advice transfers a learning rate, so the best one of a perceptron of width 16 is found first. Then a
perceptron of width 256 is trained with it, first without, then with the multipliers of an advisor
in this process. With a service, pass its address as the advisor instead.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import fslr
import fslr.jax
from advisor.local.in_process import InProcessAdvisor

BASE_WIDTH, WIDTH, DEPTH = 16, 256, 3


def init(width: int) -> dict[str, dict[str, jax.Array]]:
    """Return the parameters of a perceptron."""
    sizes = [4, *[width] * DEPTH, 1]
    keys = jax.random.split(jax.random.key(0), DEPTH + 1)
    params = {}
    for n, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        kernel = jax.random.normal(keys[n], (inputs, outputs)) / inputs**0.5
        params[f"layer_{n}"] = {"w": kernel, "b": jnp.zeros(outputs)}
    return params


def apply_fn(params: Any, batch: Any) -> jax.Array:
    """Return the outputs for a batch, [B, 1]."""
    hidden, _ = batch
    for n in range(DEPTH):
        layer = params[f"layer_{n}"]
        hidden = jax.nn.gelu(hidden @ layer["w"] + layer["b"])
    head = params[f"layer_{DEPTH}"]
    outputs: jax.Array = hidden @ head["w"] + head["b"]
    return outputs


def batches(steps: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Yield inputs and what is to be learned from them."""
    for key in jax.random.split(jax.random.key(1), steps):
        inputs = jax.random.normal(key, (64, 4))
        yield inputs, jnp.sin(2 * inputs[:, :1]) * inputs[:, 1:2]


def make_step(tx: optax.GradientTransformation) -> Any:
    """Return a compiled training step that donates its arguments."""

    def train_step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        def loss_of(params: Any) -> jax.Array:
            return jnp.mean((apply_fn(params, batch) - batch[1]) ** 2)

        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return jax.jit(train_step, donate_argnums=(0, 1))


def train(
    width: int, schedule: optax.Schedule, steps: int, attach: Callable[..., Any] | None = None
) -> tuple[float, Any]:
    """Train a perceptron; return the mean of its last losses, and what was attached.

    Args:
        width: The width of the perceptron.
        schedule: The learning rate of each step.
        steps: Number of steps.
        attach: Attaches a function of parameters and batch, the parameters, and the state of the
            optimizer.
    """
    tx = optax.chain(optax.adamw(schedule), fslr.jax.scale_by_advice())
    params = init(width)
    opt_state = tx.init(params)
    attached = attach(apply_fn, params, opt_state) if attach else None
    step = attached.wrap(make_step(tx)) if attached else make_step(tx)
    losses = []
    for batch in batches(steps):
        params, opt_state, loss = step(params, opt_state, batch)
        losses.append(loss)
    return float(jnp.mean(jnp.stack(losses[-20:]))), attached


def schedule_of(peak: float, steps: int) -> optax.Schedule:
    """Return a schedule with a short warm-up."""
    return optax.warmup_cosine_decay_schedule(peak / 10, peak, 10, steps)


def record(peak: float, steps: int) -> tuple[float, Any]:
    """Train the small perceptron; return its loss and its profile."""
    schedule = schedule_of(peak, steps)
    provenance = fslr.Provenance("perceptron", BASE_WIDTH, DEPTH, dataset="a sine", batch_size=64)

    def recorder(*training: Any) -> fslr.jax.Recorder:
        return fslr.jax.Recorder(*training, learning_rate=schedule, every=10, provenance=provenance)

    loss, attached = train(BASE_WIDTH, schedule, steps, recorder)
    return loss, attached.profile()


def main() -> None:
    """Find the learning rate of the small perceptron, and train the wide one with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="steps of each training")
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=[2.0**-6, 2.0**-5, 2.0**-4]
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
            profile="perceptron",
            advisor=InProcessAdvisor(profile),
            total_steps=options.steps,
        )

    plain, _ = train(WIDTH, schedule, options.steps)
    advised, attached = train(WIDTH, schedule, options.steps, attachment)
    attached.close()
    print(f"width {WIDTH}, plain: {plain:.4f}")
    print(f"width {WIDTH}, advised: {advised:.4f}")
    for name, advice in attached.by_name().items():
        print(f"  {name:10} multiplier {advice.multiplier:.3g} ({advice.outcome})")


if __name__ == "__main__":
    main()
