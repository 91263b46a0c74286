"""Steps of optimizers that are scaled by given multipliers, without a model or an advisor."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Collection, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr.torch.steps.step_hooks import StepHooks
from fslr.torch.steps.step_scaler import StepScaler


class NoCycle:
    """A step cycle that does nothing."""

    applied: Sequence[float] = ()

    def model_called(self) -> None:
        pass

    def before_step(self, members: Collection[int]) -> None:
        pass

    def after_step(self, members: Collection[int]) -> None:
        pass

    def step_failed(self, error: Exception) -> None:
        raise error


def scaler_of(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> StepScaler:
    """Return a scaler of an optimizer whose steps are hooked."""
    scaler = StepScaler(optimizer, list(parameters))
    StepHooks([optimizer], NoCycle(), scaler)
    return scaler


def groups_of_a_step(scaler: StepScaler) -> list[dict[str, Any]]:
    """Return copies of the groups that the next step of a scaler's only optimizer would see."""
    (entry,) = scaler._by_id.values()
    if not entry.split.is_armed:
        return [dict(group) for group in entry.optimizer.param_groups]
    entry.split.begin_step()
    groups = [copy.copy(group) for group in entry.split.view.param_groups]
    scaler.restore()
    return groups


def watch_adam(patch: pytest.MonkeyPatch) -> dict[int, float]:
    """Return the learning rates that steps of Adam are made with, by the parameter's id."""
    module = importlib.import_module("torch.optim.adam")
    adam, used = module.adam, dict[int, float]()

    def seeing(parameters: list[Tensor], *args: Any, lr: float, **options: Any) -> None:
        used.update((id(parameter), lr) for parameter in parameters)
        adam(parameters, *args, lr=lr, **options)

    patch.setattr(module, "adam", seeing)
    return used
