"""A small network, its steps, and an attachment with known multipliers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fslr.testing import FakeAdvisor
from fslr.torch import Attachment, attach

MULTIPLIERS = [0.5, 2.0, 0.25, 4.0]
LEARNING_RATE = 0.01


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def backward(model: nn.Module, seed: int) -> Tensor:
    inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    loss: Tensor = (model(inputs) - 1).square().mean()
    loss.backward()
    return loss


def attached(
    model: nn.Module, optimizer: Any, *, interval: int = 3, **options: Any
) -> tuple[Attachment, FakeAdvisor]:
    advisor = FakeAdvisor(MULTIPLIERS, interval_steps=interval)
    options = {"max_overhead": None, **options}
    return attach(model, optimizer, profile="x", advisor=advisor, **options), advisor
