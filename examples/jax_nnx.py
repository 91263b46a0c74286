"""Train a module of Flax nnx with the learning rate of a smaller one.

    pip install '.[jax,server]' flax
    python examples/jax_nnx.py

The module and its ``nnx.Optimizer`` are changed in place, by the training and by the advice. Advice
transfers a learning rate, so the best one of the small module is found first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import fslr
import fslr.jax
from advisor.local.in_process import InProcessAdvisor

BASE_WIDTH, WIDTH, DEPTH = 16, 128, 2


class Net(nnx.Module):
    """A residual network on vectors."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Linear(8, width, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(DEPTH)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, 4, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Return the logits, [B, 4]."""
        hidden = self.embed(inputs)
        for block in self.blocks:
            hidden += nnx.gelu(block(hidden))
        logits: jax.Array = self.head(self.norm(hidden))
        return logits


def apply_fn(model: Net, batch: Any) -> jax.Array:
    """Return the outputs for a batch."""
    return model(batch["inputs"])


@nnx.jit
def train_step(model: Net, optimizer: Any, batch: Any) -> jax.Array:
    """Change the model and its optimizer in place; return the loss."""

    def loss_of(model: Net) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(
            apply_fn(model, batch), batch["labels"]
        )
        return jnp.mean(losses)

    loss: jax.Array
    loss, grads = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, grads)
    return loss


def batches(steps: int, seed: int) -> Iterator[dict[str, jax.Array]]:
    """Yield inputs and their labels: the largest of four products."""
    for key in jax.random.split(jax.random.key(1000 + seed), steps):
        inputs = jax.random.normal(key, (64, 8))
        yield {"inputs": inputs, "labels": jnp.argmax(inputs[:, :4] * inputs[:, 4:], 1)}


class Training:
    """The trainings of this example: modules of any width, at one learning rate.

    Args:
        learning_rate: The learning rate.
        steps: Number of steps.
        seed: Seed of the modules and the data.
    """

    def __init__(self, learning_rate: float, steps: int, seed: int) -> None:
        self.learning_rate = learning_rate
        self.steps, self.seed = steps, seed

    def run(self, model: Net, optimizer: Any, step: Any) -> float:
        """Train a module, and return the mean of its last losses."""
        losses = [step(model, optimizer, batch) for batch in batches(self.steps, self.seed)]
        return float(jnp.mean(jnp.stack(losses[-20:])))

    def record(self) -> tuple[float, Any]:
        """Train the small module; return its loss and its profile."""
        model = Net(BASE_WIDTH, nnx.Rngs(self.seed))
        optimizer = nnx.Optimizer(model, optax.adam(self.learning_rate), wrt=nnx.Param)
        recorder = fslr.jax.Recorder(
            apply_fn,
            model,
            optimizer,
            learning_rate=self.learning_rate,
            every=10,
            provenance=fslr.Provenance(
                "residual network", BASE_WIDTH, DEPTH, dataset="products", batch_size=64
            ),
        )
        loss = self.run(model, optimizer, recorder.wrap(train_step))
        return loss, recorder.profile()

    def train(self, profile: Any = None) -> float:
        """Train the wide module, and return its loss."""
        model = Net(WIDTH, nnx.Rngs(self.seed))
        tx = optax.chain(optax.adam(self.learning_rate), fslr.jax.scale_by_advice())
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        if profile is None:
            return self.run(model, optimizer, train_step)
        with fslr.jax.attach(
            apply_fn,
            model,
            optimizer,
            learning_rate=self.learning_rate,
            profile="residual-network",
            advisor=InProcessAdvisor(profile),
            total_steps=self.steps,
        ) as attachment:
            loss = self.run(model, optimizer, attachment.wrap(train_step))
            print(f"  {attachment!r}")
        return loss


def main() -> None:
    """Find the learning rate of the small module, and train the wide one with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="steps of each training")
    parser.add_argument("--seed", type=int, default=0, help="seed of modules and data")
    parser.add_argument(
        "--learning-rates",
        type=float,
        nargs="+",
        default=[2.0**-7, 2.0**-6, 2.0**-5],
        help="learning rates that the small module is trained with",
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
