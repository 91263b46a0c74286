"""An optimizer that makes steps, and what its latest step was made with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fslr.torch.optimizers import are_same
from fslr.torch.steps.split_groups import SplitGroups
from fslr.torch.steps.weight_decay import WeightDecay

_WATCHED = 8  # tensors of each group that show whether a step was made


class InnerOptimizer:
    """An inner optimizer, and what its latest step was made with.

    Attributes:
        optimizer: The optimizer.
        split: Its groups while a step is scaled.
        decay: How it applies weight decay.
        by_update: Whether multipliers act on its update, after the step.
        is_correctable: Whether a change of the weights after its step lasts.
        follows: Whether a step with the present multipliers has read its split groups.
        has_stepped: Whether it has stepped since the training's step began.
        versions: Those of its first parameters when the latest step began.
        noted: The tensors of each group, with the learning rate and the decay of that step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.split = SplitGroups(optimizer)
        self.by_update = False
        self.is_correctable = True
        self.follows = False
        self.has_stepped = False
        self.versions: list[int] = []
        self.noted: list[tuple[list[Tensor], float, float]] = []
        self._decay = WeightDecay(optimizer)

    def note(self) -> None:
        """Note the learning rates and decays that the step function finds."""
        self.noted = [
            (group["params"], learning_rate(group), self._decay.of_step(group))
            for group in self.optimizer.param_groups
        ]

    def present_versions(self) -> list[int]:
        """Return what counts writes to some of the optimizer's tensors."""
        tensors = [p for group in self.optimizer.param_groups for p in group["params"][:_WATCHED]]
        return [0 if t.is_inference() else t._version for t in tensors]  # noqa: SLF001

    def scheduled(self) -> dict[int, float]:
        """Return the present learning rate of each parameter, by id."""
        return {
            id(parameter): scheduled
            for group in self.optimizer.param_groups
            for scheduled in (learning_rate(group),)
            for parameter in group["params"]
        }

    def stepped_with(self) -> dict[int, tuple[float, float]]:
        """Return the learning rate and the decay of each parameter in the latest step, by id."""
        if not self.has_stepped:
            return {}
        return {id(p): (used, decay) for tensors, used, decay in self.noted for p in tensors}


NotedGroup = tuple[list[Tensor], float]
"""The tensors of a group, and its learning rate."""


def is_of(noted: NotedGroup, group: dict[str, Any]) -> bool:
    """Return whether a group still has these tensors and this learning rate."""
    return noted[1] == learning_rate(group) and are_same(noted[0], group["params"])


def learning_rate(group: dict[str, Any]) -> float:
    """Return the learning rate of a group; 0 if it has none."""
    value = group.get("lr")
    if isinstance(value, Tensor):
        value = value.detach()
    return 0.0 if value is None else float(value)


def with_closure(
    entry: InnerOptimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a step's arguments, with a closure after which learning rates are looked at again.

    Args:
        entry: The optimizer.
        args: The arguments of its step.
        kwargs: The keyword arguments.
    """

    def followed(closure: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            try:
                return closure()
            finally:
                _follow(entry)

        return call

    if callable(kwargs.get("closure")):
        return args, {**kwargs, "closure": followed(kwargs["closure"])}
    if len(args) > 1 and callable(args[1]):
        return (args[0], followed(args[1]), *args[2:]), kwargs
    return args, kwargs


def _follow(entry: InnerOptimizer) -> None:
    """Follow learning rates that a closure wrote; it never raises."""
    try:
        entry.note()
        entry.split.refresh()
    except Exception as error:  # noqa: BLE001 - the training's own step is under way
        entry.split.failure = error
