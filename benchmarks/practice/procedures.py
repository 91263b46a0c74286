"""The optimizers and the schedules of the practice benchmark."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from benchmarks.practice.setups import Procedure
from benchmarks.transfer.optimizers import MuonWithAdamW

_BETAS = (0.9, 0.95)
_COSINE_END = 0.1  # of the learning rate
_WSD_DECAY = 0.2  # part of the steps


def build_optimizer(
    procedure: Procedure, model: nn.Module, learning_rate: float
) -> torch.optim.Optimizer:
    """Return the optimizer of a procedure; only matrices decay.

    Args:
        procedure: The procedure.
        model: The model.
        learning_rate: The learning rate that the schedule is built on.
    """
    by_kind: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2
        by_kind.setdefault((is_matrix, is_matrix and "blocks." in name), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": learning_rate,
            "weight_decay": procedure.weight_decay if is_matrix else 0.0,
            **({"muon": in_block} if procedure.optimizer == "Muon" else {}),
            **({} if procedure.optimizer == "Muon" and in_block else {"betas": _BETAS}),
        }
        for (is_matrix, in_block), parameters in by_kind.items()
    ]
    if procedure.optimizer == "Muon":
        return MuonWithAdamW(groups)
    return torch.optim.AdamW(groups, fused=True)


def schedule_factor(procedure: Procedure, step: int) -> float:
    """Return the factor of a schedule on the learning rate.

    Args:
        procedure: The procedure.
        step: The step, counted from 0.
    """
    steps = procedure.steps
    if procedure.schedule == "constant":
        return 1.0
    warm_up = max(1, round(procedure.warm_up * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    if procedure.schedule == "cosine":
        progress = (step - warm_up) / max(1, steps - warm_up)
        return _COSINE_END + (1 - _COSINE_END) * (1 + math.cos(math.pi * progress)) / 2
    return min(1.0, (steps - step) / max(1, round(_WSD_DECAY * steps)))
