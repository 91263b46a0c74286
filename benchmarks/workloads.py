"""Workloads of the benchmarks: models with real data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.char_gpt import CharGPT, CharGPTConfig
from benchmarks.image_models import ConvNet, ResMLP
from benchmarks.text import Corpus, load_corpus


@dataclass(frozen=True, slots=True)
class Workload:
    """A model and the data that it is trained on.

    Attributes:
        name: Name in tables and JSON.
        build: Builds the model; the caller seeds PyTorch first.
        draw: Draws inputs and targets, with examples along the leading dimension.
        learning_rate: Learning rate of Adam.
        examples: Examples per batch.
    """

    name: str
    build: Callable[[], nn.Module]
    draw: Callable[[torch.Generator], tuple[Tensor, Tensor]]
    learning_rate: float
    examples: int


@cache
def _corpus() -> Corpus:
    return load_corpus()


@cache
def _digits() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    return images, torch.tensor(digits.target, dtype=torch.int64)


def char_gpt(
    *,
    width: int,
    blocks: int,
    examples: int,
    context: int = 64,
    learning_rate: float = 2.0**-8,
    name: str = "char_gpt",
) -> Workload:
    """Return a character GPT on text of the Python standard library."""
    corpus = _corpus()
    config = CharGPTConfig(len(corpus.vocabulary), width, blocks, context)

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return corpus.batch(corpus.train, examples, context, generator)

    return Workload(name, lambda: CharGPT(config), draw, learning_rate, examples)


def _on_digits(name: str, build: Callable[[], nn.Module], examples: int) -> Workload:
    images, classes = _digits()

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(0, len(images), (examples,), generator=generator)
        return images[chosen], classes[chosen]

    return Workload(name, build, draw, 2.0**-9, examples)


def res_mlp() -> Workload:
    """Return the residual MLP on handwritten digits."""
    return _on_digits("res_mlp", ResMLP, 32)


def conv_net() -> Workload:
    """Return the convolutional network on handwritten digits."""
    return _on_digits("conv_net", ConvNet, 32)
