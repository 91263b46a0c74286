"""A profile of a small transformer in PyTorch, used by the same one, four times wider, in Flax.

The two models have the same layers, initial weights of the same distribution, and the same names in
the spelling of their framework: ``blocks.0.up.weight`` is ``params.blocks_0.up.kernel``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import linen as nn

import fslr.jax
import fslr.torch
from advisor.local.in_process import InProcessAdvisor
from benchmarks.char_gpt import CharGPT, CharGPTConfig
from benchmarks.text import Corpus, load_corpus
from fslr.advisor.v1 import policy_pb2, profile_pb2

_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's for matrices
_TABLE = nn.initializers.normal(1.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of the two trainings.

    Attributes:
        base_width: Width of the model in PyTorch.
        factor: How many times wider the model in Flax is.
        blocks: Number of blocks of both.
        context: Length of the sequences.
        batch_size: Sequences per step.
        steps: Steps of both trainings.
        learning_rate: Adam's learning rate in both.
        every: Steps between two measurements.
    """

    base_width: int = 32
    factor: int = 4
    blocks: int = 2
    context: int = 32
    batch_size: int = 16
    steps: int = 120
    learning_rate: float = 2.0**-6
    every: int = 10


class Attention(nn.Module):
    """Causal self-attention, as in :class:`benchmarks.char_gpt.Attention`."""

    width: int
    head_width: int

    def setup(self) -> None:
        """Build the layers."""
        self.qkv = _dense(self.width, 3 * self.width)
        self.out = _dense(self.width, self.width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attend, ``[B, T, width] -> [B, T, width]``."""
        batch, length, width = x.shape
        heads = width // self.head_width
        split = self.qkv(x).reshape(batch, length, 3, heads, self.head_width)
        query, key, value = jnp.moveaxis(split, (2, 3), (0, 2))
        scores = query @ jnp.swapaxes(key, -2, -1) / math.sqrt(self.head_width)
        future = jnp.triu(jnp.ones((length, length), bool), 1)
        mixed = jax.nn.softmax(jnp.where(future, -jnp.inf, scores)) @ value
        attended: jax.Array = self.out(jnp.swapaxes(mixed, 1, 2).reshape(batch, length, width))
        return attended


class Block(nn.Module):
    """Transformer block with layer norms in front of its branches."""

    width: int
    head_width: int

    def setup(self) -> None:
        """Build the layers."""
        self.norm1 = nn.LayerNorm(epsilon=1e-5)
        self.attention = Attention(self.width, self.head_width)
        self.norm2 = nn.LayerNorm(epsilon=1e-5)
        self.up = _dense(self.width, 4 * self.width)
        self.down = _dense(4 * self.width, self.width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Add attention and feed-forward, ``[B, T, width] -> [B, T, width]``."""
        x += self.attention(self.norm1(x))
        fed: jax.Array = self.down(nn.gelu(self.up(self.norm2(x)), approximate=False))
        return x + fed


class FlaxCharGPT(nn.Module):
    """Maps character indices ``[B, T]`` to logits, as :class:`benchmarks.char_gpt.CharGPT`."""

    config: CharGPTConfig

    def setup(self) -> None:
        """Build the layers."""
        config = self.config
        self.characters = nn.Embed(config.vocabulary, config.width, embedding_init=_TABLE)
        self.positions = nn.Embed(config.context, config.width, embedding_init=_TABLE)
        self.blocks = [Block(config.width, config.head_width) for _ in range(config.blocks)]
        self.norm = nn.LayerNorm(epsilon=1e-5)
        self.head = _dense(config.width, config.vocabulary)

    def __call__(self, indices: jax.Array) -> jax.Array:
        """Return the logits of the next character at every position."""
        x = self.characters(indices) + self.positions(jnp.arange(indices.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits: jax.Array = self.head(self.norm(x))
        return logits


def _dense(inputs: int, outputs: int) -> nn.Dense:
    """Return a layer with the initial weights of PyTorch's."""

    def bias(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        bound = 1 / math.sqrt(inputs)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(outputs, kernel_init=_INIT, bias_init=bias)


def record_in_pytorch(plan: Plan) -> profile_pb2.ProfileContent:
    """Train the small model in PyTorch, and return its profile.

    Args:
        plan: The sizes.
    """
    torch.manual_seed(0)
    corpus = load_corpus()
    model = CharGPT(_config(plan, corpus))
    optimizer = torch.optim.Adam(model.parameters(), lr=plan.learning_rate)
    provenance = fslr.Provenance(
        "char GPT in PyTorch",
        width=plan.base_width,
        depth=plan.blocks,
        dataset="help topics of Python",
        batch_size=plan.batch_size,
        commit="",
        author="the benchmark",
    )
    with fslr.torch.Recorder(
        model, optimizer, every=plan.every, dense_start_steps=8, provenance=provenance
    ) as recorder:
        for inputs, targets in _batches(plan, corpus):
            logits = model(torch.from_numpy(inputs))
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), torch.from_numpy(targets).flatten()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return recorder.profile(provenance)


def train_in_flax(plan: Plan, profile: profile_pb2.ProfileContent | None) -> float:
    """Train the wide model in Flax, and return its validation loss.

    Args:
        plan: The sizes.
        profile: The profile that advises the training; None: none does.
    """
    corpus = load_corpus()
    net = FlaxCharGPT(_config(replace(plan, base_width=plan.base_width * plan.factor), corpus))
    tx = optax.chain(optax.adam(plan.learning_rate), fslr.jax.scale_by_advice())
    data = list(_batches(plan, corpus))
    params = net.init(jax.random.key(0), data[0][0])
    opt_state = tx.init(params)

    def loss_of(params: Any, batch: Any) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(
            net.apply(params, batch[0]), batch[1]
        )
        return jnp.mean(losses)

    @jax.jit
    def train_step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any]:
        updates, opt_state = tx.update(jax.grad(loss_of)(params, batch), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    step: Any = train_step
    if profile is not None:
        policy = policy_pb2.Policy(min_interval_steps=plan.every, max_interval_steps=plan.every)
        attachment = fslr.jax.attach(
            lambda params, batch: net.apply(params, batch[0]),
            params,
            opt_state,
            profile="char-gpt",
            advisor=InProcessAdvisor(profile),
            learning_rate=plan.learning_rate,
            run=fslr.RunInfo(policy=policy, total_steps=plan.steps),
            answers="wait",
        )
        step = attachment.wrap(train_step)
    for batch in data:
        params, opt_state = step(params, opt_state, batch)
    if profile is not None:
        attachment.close()
    validation = _batches(replace(plan, steps=4, batch_size=64), corpus, "validation")
    losses = [float(jax.jit(loss_of)(params, batch)) for batch in validation]
    return sum(losses) / len(losses)


def cross_framework(plan: Plan | None = None) -> dict[str, float]:
    """Return the validation losses of the wide model in Flax, ``plain`` and ``advised``.

    Args:
        plan: The sizes; None: the default ones.
    """
    plan = plan or Plan()
    profile = record_in_pytorch(plan)
    return {"plain": train_in_flax(plan, None), "advised": train_in_flax(plan, profile)}


def _config(plan: Plan, corpus: Corpus) -> CharGPTConfig:
    return CharGPTConfig(len(corpus.vocabulary), plan.base_width, plan.blocks, plan.context)


def _batches(
    plan: Plan, corpus: Corpus, split: Literal["train", "validation"] = "train"
) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    generator = torch.Generator().manual_seed(1)
    text = corpus.train if split == "train" else corpus.validation
    for _ in range(plan.steps):
        inputs, targets = corpus.batch(text, plan.batch_size, plan.context, generator)
        yield inputs.numpy(), targets.numpy()
