"""Train a module of Flax nnx with the learning rate of a smaller one.

    pip install '.[jax,server]' flax
    python examples/jax_nnx.py

The module and its ``nnx.Optimizer`` are changed in place, by the training and by the advice. Advice
transfers a learning rate, so the best one of the small module is found first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
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


def batches(steps: int) -> Iterator[dict[str, jax.Array]]:
    """Yield inputs and their labels: the largest of four products."""
    for key in jax.random.split(jax.random.key(1), steps):
        inputs = jax.random.normal(key, (64, 8))
        yield {"inputs": inputs, "labels": jnp.argmax(inputs[:, :4] * inputs[:, 4:], 1)}


def train(
    width: int, learning_rate: float, steps: int, attach: Callable[..., Any] | None = None
) -> tuple[float, Any]:
    """Train a module; return the mean of its last losses, and what was attached.

    Args:
        width: The width of the module.
        learning_rate: The learning rate.
        steps: Number of steps.
        attach: Attaches a function of module and batch, the module, and its optimizer.
    """
    model = Net(width, nnx.Rngs(0))
    tx = optax.chain(optax.adam(learning_rate), fslr.jax.scale_by_advice())
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    attached = attach(apply_fn, model, optimizer) if attach else None
    step = attached.wrap(train_step) if attached else train_step
    losses = [step(model, optimizer, batch) for batch in batches(steps)]
    return float(jnp.mean(jnp.stack(losses[-20:]))), attached


def record(learning_rate: float, steps: int) -> tuple[float, Any]:
    """Train the small module; return its loss and its profile."""
    provenance = fslr.Provenance(
        "residual network", BASE_WIDTH, DEPTH, dataset="products", batch_size=64
    )

    def recorder(*training: Any) -> fslr.jax.Recorder:
        return fslr.jax.Recorder(
            *training, learning_rate=learning_rate, every=10, provenance=provenance
        )

    loss, attached = train(BASE_WIDTH, learning_rate, steps, recorder)
    return loss, attached.profile()


def main() -> None:
    """Find the learning rate of the small module, and train the wide one with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="steps of each training")
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=[2.0**-7, 2.0**-6, 2.0**-5]
    )
    options = parser.parse_args()
    recorded = {rate: record(rate, options.steps) for rate in options.learning_rates}
    for rate, (loss, _) in recorded.items():
        print(f"width {BASE_WIDTH}, learning rate {rate:g}: {loss:.4f}")
    best = min(recorded, key=lambda rate: recorded[rate][0])
    profile = recorded[best][1]
    print(f"recorded at {best:g}: {len(profile.points)} points")

    def attachment(*training: Any) -> fslr.jax.Attachment:
        return fslr.jax.attach(
            *training,
            learning_rate=best,
            profile="residual-network",
            advisor=InProcessAdvisor(profile),
            total_steps=options.steps,
        )

    plain, _ = train(WIDTH, best, options.steps)
    advised, attached = train(WIDTH, best, options.steps, attachment)
    attached.close()
    print(f"width {WIDTH}, plain: {plain:.4f}")
    print(f"width {WIDTH}, advised: {advised:.4f}")
    print(f"  {attached!r}")


if __name__ == "__main__":
    main()
