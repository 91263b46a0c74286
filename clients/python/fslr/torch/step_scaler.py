"""Applies multipliers to an optimizer: its groups are split and scaled during a step.

Between steps the optimizer is as its user built it: schedulers, checkpoints and
``add_param_group`` find the groups that they know, and never see a multiplier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from fslr.errors import AttachError
from fslr.torch.weight_decay import WeightDecay

_MANY_TENSORS = 64  # with fewer, the model is small and a few milliseconds do not matter


def refuse_unscalable(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer whose step cannot be scaled group by group.

    Args:
        optimizer: The optimizer.

    Raises:
        AttachError: The optimizer is LBFGS.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise AttachError(
            "LBFGS steps along one direction for all parameters, so groups cannot have different "
            "learning rates; use a different optimizer, or observe_only=True"
        )


def splitting_hint(optimizer: torch.optim.Optimizer, tensors: int) -> str:
    """Return a hint that splitting this optimizer's groups may be slow; empty if it is not.

    A ``foreach`` or ``fused`` step handles all tensors of a group together, so splitting its groups
    costs it the most. PyTorch uses ``foreach`` by default on CUDA.

    Args:
        optimizer: The optimizer.
        tensors: Number of tensors that have their own multiplier.
    """
    if tensors < _MANY_TENSORS or not any(map(_steps_together, optimizer.param_groups)):
        return ""
    return (
        f"the optimizer steps the tensors of a group together, and {tensors} tensors may get "
        "different learning rates; if its step takes notably longer now, use "
        'attach(..., scaling="update"), which scales the update after the step and keeps one more '
        "copy of the weights in memory"
    )


def _steps_together(group: dict[str, Any]) -> bool:
    if group.get("fused") or group.get("foreach"):
        return True
    by_default = "foreach" in group and group["foreach"] is None
    return by_default and any(parameter.is_cuda for parameter in group["params"])


class StepScaler:
    """Scales the learning rates of an optimizer during a step; its weight decay may stay the same.

    Parameters of one group with equal multipliers stay in one part, so that the step costs no more
    than necessary. The list of groups stays the same object, because optimizers that wrap another
    one share it.

    What a step writes into its groups is copied into the optimizer's own groups. Numbers that
    differ between the parts of a group (such as a step's weight in an average, where it depends on
    the learning rate) are kept per parameter for the next step; the own group has those of its last
    part.

    Args:
        optimizer: The optimizer.
        parameters: The parameters that have multipliers; others keep the scheduled learning rate.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
    ) -> None:
        self._optimizer = optimizer
        self._parameters = parameters
        self._own: list[dict[str, Any]] | None = None
        self._split: list[tuple[int, dict[str, Any]]] = []  # each part, and its group's place
        self._notes: dict[int, _Notes] = {}  # by the parameter's id
        self._weight_decay = WeightDecay(optimizer)

    def learning_rates(self) -> list[float]:
        """Return the scheduled learning rate of each parameter."""
        return self._of_groups(lambda group: float(group["lr"]))

    def decays(self) -> list[float]:
        """Return which part of each parameter a scheduled step takes away as weight decay.

        It is 0 where there is none, or none that can be kept apart from the rest of the update.
        """
        return self._of_groups(self._weight_decay.of_step)

    def _of_groups(self, value: Callable[[dict[str, Any]], float]) -> list[float]:
        """Return for each parameter the value of its group, as the optimizer's user sees it."""
        groups = self._optimizer.param_groups if self._own is None else self._own
        by_parameter: dict[int, float] = {}
        for group in groups:
            found = value(group)
            by_parameter.update((id(parameter), found) for parameter in group["params"])
        return [by_parameter[id(parameter)] for parameter in self._parameters]

    def scale(self, multipliers: Sequence[float], *, keeps_decay: bool = False) -> None:
        """Put ``scheduled * multiplier`` in force, until :meth:`restore`.

        Args:
            multipliers: One for each parameter, > 0.
            keeps_decay: Whether weight decay stays what the settings say, where that is possible;
                see :mod:`.weight_decay`.
        """
        self.restore()  # a step that raised an exception did not
        if all(multiplier == 1.0 for multiplier in multipliers):
            self._notes.clear()  # the groups are not split, so what they hold is true of all
            return
        factors = dict(zip(map(id, self._parameters), multipliers, strict=True))
        own = list(self._optimizer.param_groups)
        self._split = [
            (origin, part)
            for origin, group in enumerate(own)
            for part in self._parts(group, factors, keeps_decay=keeps_decay)
        ]
        self._own = own  # before the list changes, so that an interrupt can always be undone
        self._optimizer.param_groups[:] = [part for _, part in self._split]

    def _parts(
        self, group: dict[str, Any], factors: dict[int, float], *, keeps_decay: bool
    ) -> list[dict[str, Any]]:
        """Return a group in parts, each with one multiplier and equal notes."""
        parts: dict[object, dict[str, Any]] = {}
        names = group.get("param_names")
        for place, parameter in enumerate(group["params"]):
            factor = factors.get(id(parameter), 1.0)
            noted = self._notes.get(id(parameter))
            notes = _still_true(noted, group) if noted else {}
            key = (factor, *sorted(notes.items())) if notes else factor
            part = parts.get(key)
            if part is None:
                part = parts[key] = {**group, **notes, "params": []}
                if factor != 1.0:
                    part["lr"] = group["lr"] * factor
                    decay = self._weight_decay.under(group, factor) if keeps_decay else None
                    if decay is not None:
                        part["weight_decay"] = decay
                if names is not None:
                    part["param_names"] = []
            part["params"].append(parameter)
            if names is not None:
                part["param_names"].append(names[place])
        return list(parts.values())

    def restore(self) -> None:
        """Put the optimizer's own groups back, with what the step wrote into their parts."""
        if self._own is None:
            return
        own = self._own
        for origin, part in self._split:
            # Some optimizers count their steps in the group.
            own[origin].update({k: value for k, value in part.items() if k not in _OF_A_PART})
        self._notes = {
            id(parameter): notes
            for origin, part in self._split
            if (notes := _notes(part, own[origin]))
            for parameter in part["params"]
        }
        known = {*map(id, own), *(id(part) for _, part in self._split)}
        added = [group for group in self._optimizer.param_groups if id(group) not in known]
        self._optimizer.param_groups[:] = own + added
        self._own, self._split = None, []

    def state_dict(self) -> dict[str, Any]:
        """Return what the optimizer's own checkpoint does not contain."""
        self.restore()
        return {"notes": [self._notes.get(id(parameter), {}) for parameter in self._parameters]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called."""
        self._notes = {
            id(parameter): {key: (left, noted) for key, (left, noted) in notes.items()}
            for parameter, notes in zip(self._parameters, state["notes"], strict=True)
        }


_OF_A_PART = {"params", "param_names", "lr", "weight_decay"}

_Notes = dict[str, tuple[float, float]]
"""For each entry of a group: the value in the group itself, and that in the parameter's part."""


def _notes(part: dict[str, Any], group: dict[str, Any]) -> _Notes:
    """Return the numbers of a part that differ from those of its group."""
    return {
        key: (group[key], noted)
        for key, noted in part.items()
        if noted is not group[key]  # nearly all entries are the same object: a quick way out
        and key not in _OF_A_PART
        and _are_numbers(noted, group[key])
        and noted != group[key]
    }


def _still_true(notes: _Notes, group: dict[str, Any]) -> dict[str, float]:
    """Return the notes on entries that have not been changed in the group since."""
    return {
        key: noted
        for key, (left, noted) in notes.items()
        if _are_numbers(group.get(key)) and group[key] == left
    }


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, int | float) for value in values)
