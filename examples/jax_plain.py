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
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import fslr
import fslr.jax
from advisor.local.in_process import InProcessAdvisor

BASE_WIDTH, WIDTH, DEPTH = 16, 256, 3


def init(width: int, seed: int) -> dict[str, dict[str, jax.Array]]:
    """Return the parameters of a perceptron."""
    sizes = [4, *[width] * DEPTH, 1]
    keys = jax.random.split(jax.random.key(seed), DEPTH + 1)
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


def batches(steps: int, seed: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Yield inputs and what is to be learned from them."""
    for key in jax.random.split(jax.random.key(1000 + seed), steps):
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


class Training:
    """The trainings of this example: perceptrons of any width, at one peak learning rate.

    Args:
        learning_rate: The peak of the schedule.
        steps: Number of steps.
        seed: Seed of the parameters and the data.
    """

    def __init__(self, learning_rate: float, steps: int, seed: int) -> None:
        self.schedule = optax.warmup_cosine_decay_schedule(
            learning_rate / 10, learning_rate, 10, steps
        )
        self.steps, self.seed = steps, seed

    def run(self, params: Any, opt_state: Any, step: Any) -> float:
        """Train a perceptron, and return the mean of its last losses."""
        losses = []
        for batch in batches(self.steps, self.seed):
            params, opt_state, loss = step(params, opt_state, batch)
            losses.append(loss)
        return float(jnp.mean(jnp.stack(losses[-20:])))

    def record(self) -> tuple[float, Any]:
        """Train the small perceptron; return its loss and its profile."""
        tx = optax.adamw(self.schedule)
        params = init(BASE_WIDTH, self.seed)
        opt_state = tx.init(params)
        recorder = fslr.jax.Recorder(
            apply_fn,
            params,
            opt_state,
            learning_rate=self.schedule,
            every=10,
            provenance=fslr.Provenance(
                "perceptron", BASE_WIDTH, DEPTH, dataset="a sine", batch_size=64
            ),
        )
        loss = self.run(params, opt_state, recorder.wrap(make_step(tx)))
        return loss, recorder.profile()

    def train(self, profile: Any = None) -> float:
        """Train the wide perceptron, and return its loss."""
        tx = optax.chain(optax.adamw(self.schedule), fslr.jax.scale_by_advice())
        params = init(WIDTH, self.seed)
        opt_state = tx.init(params)
        if profile is None:
            return self.run(params, opt_state, make_step(tx))
        with fslr.jax.attach(
            apply_fn,
            params,
            opt_state,
            learning_rate=self.schedule,
            profile="perceptron",
            advisor=InProcessAdvisor(profile),
            total_steps=self.steps,
        ) as attachment:
            loss = self.run(params, opt_state, attachment.wrap(make_step(tx)))
            for name, advice in attachment.by_name().items():
                print(f"  {name:10} multiplier {advice.multiplier:.3g} ({advice.outcome})")
        return loss


def main() -> None:
    """Find the learning rate of the small perceptron, and train the wide one with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="steps of each training")
    parser.add_argument("--seed", type=int, default=0, help="seed of parameters and data")
    parser.add_argument(
        "--learning-rates",
        type=float,
        nargs="+",
        default=[2.0**-6, 2.0**-5, 2.0**-4],
        help="peak learning rates that the small perceptron is trained with",
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
