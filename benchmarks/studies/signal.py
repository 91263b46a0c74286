"""How much of a step's gradient is signal, and what that says of the best size of a step."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.training import loss_of
from benchmarks.transfer.models import build_task
from benchmarks.transfer.optimizers import build_optimizer
from benchmarks.transfer.training import Training

_BATCHES = 12  # gradients at each step that is looked at
_PARTS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the training, where it is looked at
_SEEDS = (0, 1)


def best_step_factor(base: Training, big: Training) -> float:
    """Return by how much the big model's outputs should move further than the base's.

    If noise grows the loss as the square of a step and signal lowers it in proportion, the best
    step of Adam grows with the square root of the signal. That of SGD grows with the signal, and
    moves outputs by that times the size of a gradient, which is the square root again
    (McCandlish et al., arXiv 1812.06162, section 2.2; Malladi et al., arXiv 2205.10287).

    Args:
        base: A plain training of the base.
        big: A plain training of the big model, at the same learning rate.
    """
    of_base, of_big = (
        statistics.fmean(signal(replace(training, seed=seed)) for seed in _SEEDS)
        for training in (base, big)
    )
    return math.sqrt(of_big / of_base)


def signal(training: Training) -> float:
    """Return which part of a squared gradient is signal, as a mean over a training.

    Args:
        training: A training without advice.

    Returns:
        The part, from 0 (noise) to 1; noise of its own can carry it slightly outside.
    """
    torch.manual_seed(training.seed)
    task = build_task(training.setting)
    factors = training.parametrization.prepare(task.model, training.setting, training.base)
    optimizer = build_optimizer(
        training.optimizer, task.model, training.learning_rate, factors, training.weight_decay
    )
    batches = torch.Generator().manual_seed(training.seed + 1)
    others = torch.Generator().manual_seed(training.seed + 2)
    parameters = [each for each in task.model.parameters() if each.requires_grad]
    looked_at = {round(part * (training.steps - 1)) for part in _PARTS}
    found = []
    for step in range(training.steps):
        if step in looked_at:
            gradients = [
                torch.autograd.grad(loss_of(task.model, *task.draw(others)), parameters)
                for _ in range(_BATCHES)
            ]
            weights = [_weight(optimizer.state.get(each, {})) for each in parameters]
            found.append(signal_of(gradients, weights))
        optimizer.zero_grad()
        loss_of(task.model, *task.draw(batches)).backward()
        optimizer.step()
    return statistics.fmean(found)


def signal_of(gradients: Sequence[Sequence[Tensor]], weights: Sequence[Tensor | float]) -> float:
    """Return which part of the mean squared gradient is the square of the mean one.

    Products of gradients of different batches have no noise on average, so the estimate of the
    numerator is unbiased.

    Args:
        gradients: The gradients of at least two batches, each with one tensor per parameter.
        weights: What each parameter's squares are weighed with: a tensor of its shape, or a number.
    """
    count = len(gradients)
    shared = own = 0.0
    for of_batches, weight in zip(zip(*gradients, strict=True), weights, strict=True):
        stacked = torch.stack(of_batches)
        own += float((stacked.square() * weight).sum())
        shared += float((stacked.sum(0).square() * weight).sum())
    return (shared - own) / (count * (count - 1)) / (own / count)


def _weight(state: dict[str, Tensor]) -> Tensor | float:
    """Return how an optimizer scales gradients, up to one factor: that of Adam, else 1."""
    if "exp_avg_sq" not in state:
        return 1.0
    return 1.0 / (state["exp_avg_sq"].sqrt() + 1e-8)
