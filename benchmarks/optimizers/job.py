"""A small training job on real text, and copies of it that share no state."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.text import Corpus, load_corpus
from fslr.torch.optimizers import with_held

Manner = Literal[
    "step",
    "closure",
    "second_order",
    "two_calls",
    "backward_and_closure",
    "closure_of_outputs",
    "own_backward",
]
"""How a training loop steps: after ``backward()``; with a closure; after a ``backward()`` that
keeps the graph; by the two calls of sharpness-aware optimizers; after ``backward()`` and with a
closure; with a closure that returns outputs and loss; or after a ``backward(loss)`` of the
optimizer."""

Batch = tuple[Tensor, Tensor]

_EMBEDDING, _WIDTH = 16, 64  # a tensor of 4,096 entries is the smallest that 8-bit states are for
_EXAMPLES, _CONTEXT = 8, 16


@cache
def _corpus() -> Corpus:
    return load_corpus()


def build_model(*, sparse: bool = False) -> nn.Sequential:
    """Return a model with an embedding, matrices and vectors, always with the same weights.

    Args:
        sparse: Whether the embedding has sparse gradients.
    """
    characters = len(_corpus().vocabulary)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Embedding(characters, _EMBEDDING, sparse=sparse),
            nn.Linear(_EMBEDDING, _WIDTH),
            nn.LayerNorm(_WIDTH),
            nn.Tanh(),
            nn.Linear(_WIDTH, _WIDTH),
            nn.Tanh(),
            nn.Linear(_WIDTH, characters),
        )


def batch(step: int) -> Batch:
    """Return the characters of a step, and those that follow them."""
    corpus = _corpus()
    generator = torch.Generator().manual_seed(step)
    return corpus.batch(corpus.train, _EXAMPLES, _CONTEXT, generator)


@dataclass(slots=True)
class Job:
    """A model and its optimizer.

    Attributes:
        model: The model.
        optimizer: The optimizer.
        manner: How it is stepped.
        gradients: Those that the latest step was made with.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    manner: Manner = "step"
    gradients: list[Tensor | None] = field(default_factory=list)

    def loss(self, characters: Batch) -> Tensor:
        """Return the mean loss of a batch, in nats."""
        inputs, targets = characters
        return nn.functional.cross_entropy(self.model(inputs).flatten(0, 1), targets.flatten())

    def step(self, number: int, gradients: Sequence[Tensor | None] | None = None) -> float:
        """Make a step and return the loss before it.

        Args:
            number: Its number; the same one gives the same batch and the same random numbers.
            gradients: What to step with instead of the gradients of the batch.
        """
        characters = batch(number)
        losses: list[float] = []

        def backward() -> Tensor:
            self.optimizer.zero_grad()
            with torch.enable_grad():
                loss = self.loss(characters)
                if self.manner == "own_backward":
                    self.optimizer.backward(loss)  # type: ignore[attr-defined]
                else:
                    loss.backward(create_graph=self.manner == "second_order")
            if gradients is not None:
                for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
                    parameter.grad = None if gradient is None else gradient.clone()
            losses.append(loss.item())
            self.gradients = [  # copies, since some optimizers write into them
                None if parameter.grad is None else parameter.grad.detach().clone()
                for parameter in self.model.parameters()
            ]
            return loss.detach()

        seed(number)
        if self.manner == "backward_and_closure":
            backward()
        if "closure" in self.manner:
            gives_outputs = self.manner == "closure_of_outputs"
            closure: Any = (lambda: (None, backward())) if gives_outputs else backward
            self.optimizer.step(closure)
            return losses[0]
        backward()
        step: Callable[[], object] = self.optimizer.step
        if self.manner == "two_calls":
            self.optimizer.first_step(zero_grad=True)  # type: ignore[attr-defined]
            backward()
            step = self.optimizer.second_step  # type: ignore[attr-defined]
        seed(number)
        step()
        return losses[0]

    def weights(self) -> list[Tensor]:
        """Return copies of the model's tensors."""
        return [parameter.detach().clone() for parameter in self.model.parameters()]

    def copied(self) -> Self:
        """Return the job in its present state, without hooks of anybody."""
        model = build_model(sparse=getattr(self.model[0], "sparse", False))  # type: ignore[index]
        model.load_state_dict(self.model.state_dict())
        memo: dict[int, Any] = {id(self.model): model}
        for old, new in zip(self.model.parameters(), model.parameters(), strict=True):
            new.requires_grad_(old.requires_grad)
            new.grad = None if old.grad is None else old.grad.detach().clone()
            memo[id(old)] = new
        return type(self)(model, _copied(self.optimizer, memo), self.manner)


def seed(number: int) -> None:
    """Seed what optimizers draw random numbers from."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - what optimizers use


def _copied(optimizer: torch.optim.Optimizer, memo: dict[int, Any]) -> torch.optim.Optimizer:
    """Return a copy of an optimizer with all of its attributes, which ``deepcopy`` leaves out."""
    originals = with_held(optimizer)
    for original in originals:
        memo[id(original)] = object.__new__(type(original))
    for original in originals:
        for name, value in vars(original).items():
            if name == "step":  # a scheduler has wrapped it, and it would step the original
                continue
            is_hook = name.startswith("_optimizer_") and name.endswith("_hooks")
            made = OrderedDict() if is_hook else copy.deepcopy(value, memo)
            memo[id(original)].__dict__[name] = made
    copied: torch.optim.Optimizer = memo[id(optimizer)]
    return copied
