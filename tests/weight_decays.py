"""Optimizers that decay weights, and a model of matrices to train with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fslr.advisor.v1 import policy_pb2

INDEPENDENT = policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT
LEARNING_RATE, DECAY = 1e-2, 0.3
MULTIPLIERS = (1e-3, 0.05, 1.0, 10.0)
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=LEARNING_RATE, weight_decay=DECAY),
    "AdamW foreach": lambda p: torch.optim.AdamW(
        p, lr=LEARNING_RATE, weight_decay=DECAY, foreach=True
    ),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=LEARNING_RATE, weight_decay=DECAY, fused=True),
    "AdamW with a tensor": lambda p: torch.optim.AdamW(
        p, lr=torch.tensor(LEARNING_RATE), weight_decay=DECAY, foreach=False
    ),
    "Adam, decoupled": lambda p: torch.optim.Adam(
        p, lr=LEARNING_RATE, weight_decay=DECAY, decoupled_weight_decay=True
    ),
    "NAdam, decoupled": lambda p: torch.optim.NAdam(
        p, lr=LEARNING_RATE, weight_decay=DECAY, decoupled_weight_decay=True
    ),
    "RAdam, decoupled": lambda p: torch.optim.RAdam(
        p, lr=LEARNING_RATE, weight_decay=DECAY, decoupled_weight_decay=True
    ),
    "SGD": lambda p: torch.optim.SGD(p, lr=LEARNING_RATE, weight_decay=DECAY),
    "SGD foreach": lambda p: torch.optim.SGD(p, lr=LEARNING_RATE, weight_decay=DECAY, foreach=True),
    "SGD with tensors": lambda p: torch.optim.SGD(
        p, lr=torch.tensor(LEARNING_RATE), weight_decay=torch.tensor(DECAY), foreach=False
    ),
}
if hasattr(torch.optim, "Muon"):  # newer than the oldest supported version
    OPTIMIZERS["Muon"] = lambda p: torch.optim.Muon(p, lr=LEARNING_RATE, weight_decay=DECAY)


class Products(nn.Module):
    """A model of matrices, as Muon needs them, that are used one after the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.matrices = nn.ParameterList(torch.randn(4, 4) for _ in MULTIPLIERS)

    def forward(self, x: Tensor) -> Tensor:
        for matrix in self.matrices:
            x = torch.tanh(x @ matrix)
        return x


def backward(model: nn.Module, *, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(1)
    model.zero_grad()
    (scale * model(torch.randn(8, 4, generator=generator)).square().mean()).backward()
