"""A training loop for a character GPT, as a user would write it, that fslr can attach to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from benchmarks.char_gpt import CharGPT, CharGPTConfig
from benchmarks.text import Corpus

_VALIDATION_BATCHES = 20

Attach = Callable[[nn.Module, torch.optim.Optimizer], AbstractContextManager[object]]


def no_attachment(
    _model: nn.Module, _optimizer: torch.optim.Optimizer
) -> AbstractContextManager[None]:
    """Return a context that attaches nothing."""
    return nullcontext()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread, and with as many as before at the end.

    Several threads gain little with small models, and beside other processes they make a training
    many times slower, since each operation waits for the slowest thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What to train.

    Attributes:
        config: Shape of the model.
        learning_rate: Constant learning rate of Adam.
        steps: Optimizer steps.
        batch_size: Examples per step.
        seed: Seed of the initial weights and of the batches.
    """

    config: CharGPTConfig
    learning_rate: float
    steps: int
    batch_size: int = 20
    seed: int = 0


@dataclass(slots=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        losses: Training loss of each step, nats per character.
        validation_loss: Final loss on held-out documents, nats per character.
        seconds: Wall time of the training loop, without validation.
    """

    losses: list[float] = field(default_factory=list)
    validation_loss: float = float("nan")
    seconds: float = 0.0


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats, over examples and positions."""
    logits = model(inputs)
    return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def train(
    plan: TrainingPlan,
    corpus: Corpus,
    *,
    attach: Attach = no_attachment,
    on_step: Callable[[float], None] = lambda _loss: None,
) -> TrainingResult:
    """Train a model and validate it.

    Args:
        plan: What to train.
        corpus: The text.
        attach: Attaches fslr to the model and the optimizer; called before the first step.
        on_step: Called with the loss after each step.
    """
    torch.manual_seed(plan.seed)
    batches = torch.Generator().manual_seed(plan.seed + 1)
    model = CharGPT(plan.config)
    optimizer = torch.optim.Adam(model.parameters(), lr=plan.learning_rate)
    result = TrainingResult()
    begun = time.perf_counter()
    with attach(model, optimizer):
        for _ in range(plan.steps):
            inputs, targets = corpus.batch(
                corpus.train, plan.batch_size, plan.config.context, batches
            )
            loss = loss_of(model, inputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            result.losses.append(loss.item())
            on_step(result.losses[-1])
    result.seconds = time.perf_counter() - begun
    result.validation_loss = _validate(model, plan, corpus)
    return result


@torch.no_grad()
def _validate(model: nn.Module, plan: TrainingPlan, corpus: Corpus) -> float:
    model.eval()
    batches = torch.Generator().manual_seed(0)
    losses = [
        loss_of(
            model,
            *corpus.batch(corpus.validation, plan.batch_size, plan.config.context, batches),
        )
        for _ in range(_VALIDATION_BATCHES)
    ]
    return float(torch.stack(losses).mean())
