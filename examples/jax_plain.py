"""Train a plain JAX model with learning rates from a smaller one.

    pip install '.[jax,server]'
    python examples/jax_plain.py

A perceptron of width 16 is trained and recorded. Then one of width 128 is trained at the same
learning rate, first without, then with the multipliers of an advisor in this process. With a
service, pass its address as the advisor instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import fslr
import fslr.jax
from advisor.local.in_process import InProcessAdvisor

SCHEDULE = optax.warmup_cosine_decay_schedule(0.002, 0.02, 10, 300)


def init(width: int) -> dict[str, dict[str, jax.Array]]:
    """Return the parameters of a perceptron with two hidden layers."""
    sizes = {"first": (4, width), "second": (width, width), "head": (width, 1)}
    keys = jax.random.split(jax.random.key(0), len(sizes))
    return {
        name: {"w": jax.random.normal(key, shape) / shape[0] ** 0.5, "b": jnp.zeros(shape[1])}
        for key, (name, shape) in zip(keys, sizes.items(), strict=True)
    }


def apply_fn(params: Any, batch: Any) -> jax.Array:
    """Return the outputs for a batch, [B, 1]."""
    hidden, _ = batch
    for name in ("first", "second"):
        hidden = jax.nn.gelu(hidden @ params[name]["w"] + params[name]["b"])
    outputs: jax.Array = hidden @ params["head"]["w"] + params["head"]["b"]
    return outputs


def batches(steps: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Yield inputs and what is to be learned from them."""
    for key in jax.random.split(jax.random.key(1), steps):
        inputs = jax.random.normal(key, (64, 4))
        yield inputs, jnp.sin(3 * inputs[:, :1]) * inputs[:, 1:2]


def make_step(tx: optax.GradientTransformation) -> Any:
    """Return a compiled training step that donates its arguments."""

    def train_step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        def loss_of(params: Any) -> jax.Array:
            return jnp.mean((apply_fn(params, batch) - batch[1]) ** 2)

        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return jax.jit(train_step, donate_argnums=(0, 1))


def record(steps: int) -> Any:
    """Train the small model, and return its profile."""
    tx = optax.adamw(SCHEDULE)
    params = init(16)
    opt_state = tx.init(params)
    recorder = fslr.jax.Recorder(apply_fn, params, opt_state, learning_rate=SCHEDULE, every=10)
    train_step = recorder.wrap(make_step(tx))
    for batch in batches(steps):
        params, opt_state, _ = train_step(params, opt_state, batch)
    return recorder.profile(fslr.Provenance("perceptron", width=16, depth=2))


def train(steps: int, profile: Any = None) -> float:
    """Train the wide model, and return the mean of its last losses."""
    tx = optax.chain(optax.adamw(SCHEDULE), fslr.jax.scale_by_advice())
    params = init(128)
    opt_state = tx.init(params)
    train_step = make_step(tx)
    attachment = None
    if profile is not None:
        attachment = fslr.jax.attach(
            apply_fn,
            params,
            opt_state,
            learning_rate=SCHEDULE,
            profile="perceptron",
            advisor=InProcessAdvisor(profile),
            total_steps=steps,
        )
        train_step = attachment.wrap(train_step)
    losses = []
    for batch in batches(steps):
        params, opt_state, loss = train_step(params, opt_state, batch)
        losses.append(loss)
    if attachment is not None:
        for name, advice in attachment.by_name().items():
            print(f"  {name:10} multiplier {advice.multiplier:.3g} ({advice.outcome})")
        attachment.close()
    return float(jnp.mean(jnp.stack(losses[-20:])))


def main() -> None:
    """Train all three models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="steps of each training")
    steps = parser.parse_args().steps
    profile = record(steps)
    print(f"width 16, recorded: {len(profile.points)} points")
    print(f"width 128, plain: loss {train(steps):.4f}")
    print("width 128, advised:")
    print(f"  loss {train(steps, profile):.4f}")


if __name__ == "__main__":
    main()
