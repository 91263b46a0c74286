"""Train an Equinox module with the learning rate of a smaller one.

    pip install '.[jax,server]' equinox
    python examples/jax_equinox.py

The loop calls ``before_step`` and ``after_step`` itself, which suits any training step. Advice
transfers a learning rate, so the best one of the small module is found first.
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

BASE_WIDTH, WIDTH, DEPTH = 16, 256, 3
Batch = tuple[jax.Array, jax.Array]


def apply_fn(model: Any, batch: Batch) -> jax.Array:
    """Return the outputs for a batch, [B, 1]."""
    outputs: jax.Array = jax.vmap(model)(batch[0])
    return outputs


def batches(steps: int, seed: int) -> Iterator[Batch]:
    """Yield inputs and what is to be learned from them."""
    for key in jax.random.split(jax.random.key(1000 + seed), steps):
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


class Training:
    """The trainings of this example: modules of any width, at one peak learning rate.

    Args:
        learning_rate: The peak of the schedule.
        steps: Number of steps.
        seed: Seed of the modules and the data.
    """

    def __init__(self, learning_rate: float, steps: int, seed: int) -> None:
        self.schedule = optax.warmup_cosine_decay_schedule(
            learning_rate / 10, learning_rate, 10, steps
        )
        self.steps, self.seed = steps, seed

    def run(self, width: int, tx: optax.GradientTransformation, attach: Any = None) -> Any:
        """Train a module; return the mean of its last losses, and what was attached."""
        key = jax.random.key(self.seed)
        model = eqx.nn.MLP(4, 1, width, DEPTH, activation=jax.nn.gelu, key=key)
        opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))
        attached = attach(model, opt_state) if attach is not None else None
        step, losses = make_step(tx), []
        for batch in batches(self.steps, self.seed):
            if attached is not None:
                opt_state = attached.before_step(model, opt_state)
            loss, model, opt_state = step(batch, model, opt_state)
            if attached is not None:
                model = attached.after_step(model, opt_state, batch)
            losses.append(loss)
        return float(jnp.mean(jnp.stack(losses[-20:]))), attached

    def record(self) -> tuple[float, Any]:
        """Train the small module; return its loss and its profile."""
        provenance = fslr.Provenance(
            "MLP of Equinox", BASE_WIDTH, DEPTH, dataset="a sine and a product", batch_size=64
        )
        loss, recorder = self.run(
            BASE_WIDTH,
            optax.adam(self.schedule),
            lambda model, opt_state: fslr.jax.Recorder(
                apply_fn,
                model,
                opt_state,
                learning_rate=self.schedule,
                every=10,
                provenance=provenance,
            ),
        )
        return loss, recorder.profile()

    def train(self, profile: Any = None) -> float:
        """Train the wide module, and return its loss."""

        def attachment(model: Any, opt_state: Any) -> fslr.jax.Attachment:
            return fslr.jax.attach(
                apply_fn,
                model,
                opt_state,
                learning_rate=self.schedule,
                profile="mlp",
                advisor=InProcessAdvisor(profile),
                total_steps=self.steps,
            )

        tx = optax.chain(optax.adam(self.schedule), fslr.jax.scale_by_advice())
        loss, attached = self.run(WIDTH, tx, None if profile is None else attachment)
        if attached is not None:
            print(f"  {attached!r}")
            attached.close()
        return float(loss)


def main() -> None:
    """Find the learning rate of the small module, and train the wide one with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="steps of each training")
    parser.add_argument("--seed", type=int, default=0, help="seed of modules and data")
    parser.add_argument(
        "--learning-rates",
        type=float,
        nargs="+",
        default=[2.0**-5, 2.0**-4, 2.0**-3],
        help="peak learning rates that the small module is trained with",
    )
    arguments = parser.parse_args()
    found = {}
    for learning_rate in arguments.learning_rates:
        training = Training(learning_rate, arguments.steps, arguments.seed)
        found[learning_rate] = training.record()
        print(f"width {BASE_WIDTH}, learning rate {learning_rate:g}: {found[learning_rate][0]:.4f}")
    best = min(found, key=lambda learning_rate: found[learning_rate][0])
    profile = found[best][1]
    print(f"recorded at {best:g}: {len(profile.points)} points")
    training = Training(best, arguments.steps, arguments.seed)
    print(f"width {WIDTH}, plain: {training.train():.4f}")
    print(f"width {WIDTH}, advised: {training.train(profile):.4f}")


if __name__ == "__main__":
    main()
