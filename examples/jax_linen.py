"""Train a module of Flax linen, kept in a TrainState, with the learning rate of a smaller one.

    pip install '.[jax,server]' flax
    python examples/jax_linen.py

The modules predict the next byte of Python's own documentation from the 16 bytes before it. Advice
transfers a learning rate, so the best one of the small module is found first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pydoc_data.topics import topics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

import fslr
import fslr.jax
from advisor.local.in_process import InProcessAdvisor

BASE_WIDTH, WIDTH, CONTEXT, BATCH = 16, 512, 16, 64


class Net(nn.Module):
    """A network with two hidden layers."""

    width: int

    @nn.compact
    def __call__(self, windows: jax.Array) -> jax.Array:
        """Return the logits of the next byte, [B, 256]."""
        hidden = nn.Embed(256, 8)(windows).reshape(len(windows), -1)
        for _ in range(2):
            hidden = nn.gelu(nn.Dense(self.width)(hidden))
        logits: jax.Array = nn.Dense(256)(hidden)
        return logits


def batches(steps: int) -> list[tuple[jax.Array, jax.Array]]:
    """Return windows of bytes, and the byte that follows each."""
    text = np.frombuffer("".join(topics.values()).encode(), np.uint8).astype(np.int32)
    starts = np.random.default_rng(0).integers(len(text) - CONTEXT, size=(steps, BATCH, 1))
    windows = text[starts + np.arange(CONTEXT + 1)]
    return [(jnp.asarray(rows[:, :-1]), jnp.asarray(rows[:, -1])) for rows in windows]


@jax.jit
def train_step(state: Any, batch: Any) -> tuple[Any, jax.Array]:
    """Return the state after a step, and the loss before it."""

    def loss_of(params: Any) -> jax.Array:
        logits = state.apply_fn({"params": params}, batch[0])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]))

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=grads), loss


def train(
    width: int, learning_rate: float, steps: int, attach: Callable[..., Any] | None = None
) -> tuple[float, Any]:
    """Train a module; return the mean of its last losses, and what was attached.

    Args:
        width: The width of the module.
        learning_rate: The learning rate.
        steps: Number of steps.
        attach: Attaches a function of parameters and batch, the parameters, and the state of the
            optimizer.
    """
    net, data = Net(width), batches(steps)
    state: Any = TrainState.create(  # type: ignore[no-untyped-call]
        apply_fn=net.apply,
        params=net.init(jax.random.key(0), data[0][0])["params"],
        tx=optax.chain(optax.adam(learning_rate), fslr.jax.scale_by_advice()),
    )

    def outputs(params: Any, batch: Any) -> Any:
        return net.apply({"params": params}, batch[0])

    attached = attach(outputs, state.params, state.opt_state) if attach else None
    losses = []
    for batch in data:
        if attached is not None:
            opt_state = attached.before_step(state.params, state.opt_state)
            state = state.replace(opt_state=opt_state)
        state, loss = train_step(state, batch)
        if attached is not None:
            params = attached.after_step(state.params, state.opt_state, batch)
            state = state.replace(params=params)
        losses.append(loss)
    return float(jnp.mean(jnp.stack(losses[-20:]))), attached


def record(learning_rate: float, steps: int) -> tuple[float, Any]:
    """Train the small module; return its loss and its profile."""
    provenance = fslr.Provenance("MLP", BASE_WIDTH, 2, dataset="help topics", batch_size=BATCH)

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
        "--learning-rates", type=float, nargs="+", default=[2.0**-7, 2.0**-6, 2.0**-5, 2.0**-4]
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
            profile="mlp",
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
