"""Multipliers on an optimizer: one group a tensor, scaled learning rates for the time of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fslr.errors import AttachError


def split_groups(optimizer: torch.optim.Optimizer) -> None:
    """Give every tensor of an optimizer a param group of its own, options and state kept.

    Order, options (``lr``, ``weight_decay``, ...) and the state by parameter stay as they are, so
    the next step computes what it would have computed.

    Args:
        optimizer: The optimizer, changed in place. Nothing happens if it is split already.

    Raises:
        AttachError: A learning-rate scheduler is attached: it remembers one learning rate a group.
            Or the optimizer takes one group only (LBFGS).
    """
    if all(len(group["params"]) == 1 for group in optimizer.param_groups):
        return
    if isinstance(optimizer, torch.optim.LBFGS):
        raise AttachError(
            "LBFGS steps along one direction for all parameters, so groups cannot have learning "
            "rates of their own; use another optimizer"
        )
    if has_scheduler(optimizer):
        raise AttachError(
            "a learning-rate scheduler is attached to the optimizer already, and it remembers the "
            "groups as they were; attach fslr first, then build the scheduler"
        )
    split: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        names = group.get("param_names")
        for i, parameter in enumerate(group["params"]):
            own = {**group, "params": [parameter]}
            if names is not None:
                own["param_names"] = [names[i]]
            split.append(own)
    optimizer.param_groups[:] = split


def has_scheduler(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a learning-rate scheduler was built on the optimizer."""
    return any("initial_lr" in group for group in optimizer.param_groups)


class StepScaler:
    """Scales the learning rates of an optimizer for the time of one step.

    Schedulers see the scheduled learning rates alone: they are back before anyone else looks.

    Args:
        optimizer: The optimizer. To :meth:`scale` it must have one param group a tensor.
        parameters: The parameters that have multipliers; others keep the scheduled rate.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
    ) -> None:
        self._optimizer = optimizer
        self._parameters = parameters
        self._scheduled: list[float | Tensor] | None = None

    def scheduled(self) -> list[float]:
        """Return the scheduled learning rate of each parameter."""
        by_parameter = {
            id(parameter): group["lr"]
            for group in self._optimizer.param_groups
            for parameter in group["params"]
        }
        return [float(by_parameter[id(parameter)]) for parameter in self._parameters]

    def scale(self, multipliers: Sequence[float]) -> None:
        """Put ``scheduled * multiplier`` in force, until :meth:`restore`."""
        self.restore()  # after a step that raised, nobody else did
        factors: Mapping[int, float] = dict(
            zip(map(id, self._parameters), multipliers, strict=True)
        )
        groups = self._optimizer.param_groups
        self._scheduled = [group["lr"] for group in groups]
        for group in groups:
            factor = factors.get(id(group["params"][0]), 1.0)
            if factor != 1.0:
                group["lr"] = group["lr"] * factor

    def restore(self) -> None:
        """Put the scheduled learning rates back."""
        if self._scheduled is None:
            return
        for group, rate in zip(self._optimizer.param_groups, self._scheduled, strict=True):
            group["lr"] = rate
        self._scheduled = None
