"""Workloads of the benchmarks: models with real data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.char_gpt import CharGPT, CharGPTConfig
from benchmarks.digits import draw_digits
from benchmarks.image_models import ConvNet, ResMLP
from benchmarks.text import load_corpus


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
    corpus = load_corpus()
    config = CharGPTConfig(len(corpus.vocabulary), width, blocks, context)

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return corpus.batch(corpus.train, examples, context, generator)

    return Workload(name, lambda: CharGPT(config), draw, learning_rate, examples)


def res_mlp() -> Workload:
    """Return the residual MLP on handwritten digits."""
    return Workload("res_mlp", ResMLP, draw_digits(32), 2.0**-9, 32)


def conv_net() -> Workload:
    """Return the convolutional network on handwritten digits."""
    return Workload("conv_net", ConvNet, draw_digits(32), 2.0**-9, 32)
