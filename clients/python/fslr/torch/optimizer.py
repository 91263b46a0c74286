"""Multipliers on an optimizer: its groups are split, with scaled rates, for the time of a step.

Before and after a step the optimizer is as its user built it: schedulers, checkpoints and
``add_param_group`` find the groups that they know, and never see a multiplier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fslr.errors import AttachError


def refuse_unscalable(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer whose step cannot be scaled group by group.

    Args:
        optimizer: The optimizer.

    Raises:
        AttachError: It is LBFGS.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise AttachError(
            "LBFGS steps along one direction for all parameters, so groups cannot have learning "
            "rates of their own; use another optimizer"
        )


class StepScaler:
    """Scales the learning rates of an optimizer for the time of one step.

    Parameters of one group that have equal multipliers stay together; the step then costs no more
    than it has to.

    Args:
        optimizer: The optimizer.
        parameters: The parameters that have multipliers; others keep the scheduled rate.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
    ) -> None:
        self._optimizer = optimizer
        self._parameters = parameters
        self._own: list[dict[str, Any]] | None = None
        self._origins: list[int] = []

    def scheduled(self) -> list[float]:
        """Return the scheduled learning rate of each parameter."""
        groups = self._optimizer.param_groups if self._own is None else self._own
        by_parameter: dict[int, float] = {}
        for group in groups:
            rate = float(group["lr"])
            by_parameter.update((id(parameter), rate) for parameter in group["params"])
        return [by_parameter[id(parameter)] for parameter in self._parameters]

    def scale(self, multipliers: Sequence[float]) -> None:
        """Put ``scheduled * multiplier`` in force, until :meth:`restore`."""
        self.restore()  # after a step that raised, nobody else did
        if all(multiplier == 1.0 for multiplier in multipliers):
            return
        factors = dict(zip(map(id, self._parameters), multipliers, strict=True))
        own = self._optimizer.param_groups
        split: list[dict[str, Any]] = []
        origins: list[int] = []
        for origin, group in enumerate(own):
            parts: dict[float, dict[str, Any]] = {}
            names = group.get("param_names")
            for place, parameter in enumerate(group["params"]):
                factor = factors.get(id(parameter), 1.0)
                part = parts.get(factor)
                if part is None:
                    rate: float | Tensor = group["lr"] if factor == 1.0 else group["lr"] * factor
                    part = parts[factor] = {**group, "params": [], "lr": rate}
                    if names is not None:
                        part["param_names"] = []
                part["params"].append(parameter)
                if names is not None:
                    part["param_names"].append(names[place])
            split += parts.values()
            origins += [origin] * len(parts)
        self._own, self._origins = own, origins
        self._optimizer.param_groups = split

    def restore(self) -> None:
        """Put the optimizer's own groups back, with what the step itself noted in them."""
        if self._own is None:
            return
        own, split = self._own, self._optimizer.param_groups
        self._own = None
        self._optimizer.param_groups = own
        for origin, part in zip(self._origins, split, strict=False):
            # Some optimizers count their steps in the group.
            group = own[origin]
            group.update({
                key: value
                for key, value in part.items()
                if key not in {"params", "param_names", "lr"}
            })
        own += split[len(self._origins) :]  # a group that was added meanwhile
