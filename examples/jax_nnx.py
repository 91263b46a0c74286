"""Train a module of Flax nnx with learning rates from a smaller one.

    pip install '.[jax,server]' flax
    python examples/jax_nnx.py

The module and its ``nnx.Optimizer`` are changed in place, by the training and by the advice.
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

LEARNING_RATE = 0.01


class Net(nnx.Module):
    """A residual network on vectors."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Linear(8, width, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(2)])
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


def record(steps: int) -> Any:
    """Train the small model, and return its profile."""
    model = Net(16, nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(LEARNING_RATE), wrt=nnx.Param)
    recorder = fslr.jax.Recorder(apply_fn, model, optimizer, learning_rate=LEARNING_RATE, every=10)
    step = recorder.wrap(train_step)
    for batch in batches(steps):
        step(model, optimizer, batch)
    return recorder.profile(fslr.Provenance("residual network", width=16, depth=2))


def train(steps: int, profile: Any = None) -> float:
    """Train the wide model, and return the mean of its last losses."""
    model = Net(128, nnx.Rngs(0))
    tx = optax.chain(optax.adam(LEARNING_RATE), fslr.jax.scale_by_advice())
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    step: Any = train_step
    if profile is not None:
        attachment = fslr.jax.attach(
            apply_fn,
            model,
            optimizer,
            learning_rate=LEARNING_RATE,
            profile="residual-network",
            advisor=InProcessAdvisor(profile),
            total_steps=steps,
        )
        step = attachment.wrap(train_step)
    losses = [step(model, optimizer, batch) for batch in batches(steps)]
    if profile is not None:
        print(f"  {attachment!r}")
        attachment.close()
    return float(jnp.mean(jnp.stack(losses[-20:])))


def main() -> None:
    """Train all three models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200, help="steps of each training")
    steps = parser.parse_args().steps
    profile = record(steps)
    print(f"width 16, recorded: {len(profile.points)} points")
    print(f"width 128, plain: loss {train(steps):.4f}")
    print("width 128, advised:")
    print(f"  loss {train(steps, profile):.4f}")


if __name__ == "__main__":
    main()
