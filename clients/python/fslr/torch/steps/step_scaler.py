"""Applies multipliers to the steps of one or several optimizers, and knows what they stepped with.

Between and during steps the optimizers are as their user built them: schedulers, checkpoints,
closures and ``add_param_group`` find the groups that they know, and never see a multiplier.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from fslr.torch.optimizers import inner_optimizers, updated_by
from fslr.torch.steps.group_settings import settings_not_taken
from fslr.torch.steps.inner_optimizer import (
    InnerOptimizer,
    NotedGroup,
    is_of,
    learning_rate,
    with_closure,
)
from fslr.torch.steps.joint_adam import steps_groups_jointly
from fslr.training.setting_factors import SettingFactors

_T = TypeVar("_T")
_MANY_TENSORS = 64  # with fewer, the model is small and a few milliseconds do not matter


def splitting_hint(optimizers: Sequence[torch.optim.Optimizer], tensors: int) -> str:
    """Return a hint that splitting these optimizers' groups may be slow; empty if it is not.

    A ``foreach`` or ``fused`` step handles all tensors of a group together, so splitting its groups
    costs it the most; Adam and AdamW are stepped together in parts, too (:mod:`.joint_adam`).
    PyTorch uses ``foreach`` by default on CUDA.

    Args:
        optimizers: The optimizers.
        tensors: Number of tensors that have their own multiplier.
    """
    groups = [
        group
        for optimizer in optimizers
        if not steps_groups_jointly(optimizer)
        for group in optimizer.param_groups
    ]
    if tensors < _MANY_TENSORS or not any(map(_steps_together, groups)):
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
    """Scales the steps of optimizers, by their learning rates or by their updates.

    Args:
        optimizers: The optimizer, or several.
        parameters: The parameters that have multipliers; others keep the scheduled learning rate.

    Attributes:
        inner: The optimizers that make the steps.
        parameters: The parameters that have multipliers.
        other_multipliers: What different attachments multiplied the latest step by, by the
            parameter's id.
        on_begin: Called with the multipliers of a step of the training before it is prepared.
    """

    def __init__(
        self,
        optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        parameters: Sequence[nn.Parameter],
    ) -> None:
        given = [optimizers] if isinstance(optimizers, torch.optim.Optimizer) else list(optimizers)
        owners = updated_by(given)
        inner = [one for optimizer in given for one in inner_optimizers(optimizer)]
        inner += [owner for _, owner in owners.values() if not any(owner is one for one in inner)]
        self._by_id = {id(optimizer): InnerOptimizer(optimizer) for optimizer in inner}
        self.inner = [entry.optimizer for entry in self._by_id.values()]
        self.parameters = parameters
        self.other_multipliers: dict[int, float] = {}
        self.on_begin: Callable[[Sequence[float]], None] | None = None
        self._owners = [
            self._by_id[id(owners[id(p)][1])] if id(p) in owners else None for p in parameters
        ]
        self._settings = [SettingFactors()] * len(parameters)
        self._scales_updates = False  # of any optimizer
        self._in_force: tuple[list[float], bool] | None = None  # None: not known, or by updates
        # The latest learning rates of groups, and of parameters.
        self._scheduled: tuple[list[NotedGroup], list[float]] = [], []

    def set_settings(self, factors: Sequence[SettingFactors]) -> list[str]:
        """Multiply settings of the optimizers in the steps that follow, until :meth:`disarm`.

        Args:
            factors: One for each parameter.

        Returns:
            For each optimizer that cannot take some of them, a line that says so.
        """
        lines = []
        applied = [SettingFactors()] * len(self.parameters)
        for entry in self._by_id.values():
            own = [place for place, owner in enumerate(self._owners) if owner is entry]
            of_tensors = [(self.parameters[place], factors[place]) for place in own]
            line = settings_not_taken(entry.optimizer, of_tensors, by_update=entry.by_update)
            lines += [line] if line else []
            if entry.by_update:
                continue
            for place in own:
                applied[place] = factors[place]
            entry.split.settings = {
                id(tensor): of_tensor
                for tensor, of_tensor in of_tensors
                if of_tensor.changes_a_setting
            }
        self._settings = applied
        return lines

    def scale_updates_of(self, optimizer: torch.optim.Optimizer) -> None:
        """Let multipliers act on the updates of an optimizer, instead of on its learning rates.

        Its groups are then not split, so that a recipe's factors on other settings end.
        """
        for entry in self._entries(optimizer):
            entry.by_update = self._scales_updates = True
        self._end_splitting(optimizer)

    def scale_learning_rates_of(self, optimizer: torch.optim.Optimizer) -> None:
        """Let multipliers act on the learning rates of an optimizer that would undo an update."""
        self.do_not_correct(optimizer)
        for entry in self._entries(optimizer):
            entry.by_update = False
        self._scales_updates = any(entry.by_update for entry in self._by_id.values())

    def leave_unscaled(self, optimizer: torch.optim.Optimizer) -> list[int]:
        """Step an optimizer as scheduled, with its own settings: no multiplier acts on it.

        Returns:
            The places of its parameters. Their multipliers have to be 1 from now on.
        """
        self.scale_learning_rates_of(optimizer)
        return self._end_splitting(optimizer)

    def _end_splitting(self, optimizer: torch.optim.Optimizer) -> list[int]:
        """Leave an optimizer its groups and settings, and return the places of its parameters."""
        entries = self._entries(optimizer)
        for entry in entries:
            entry.split.disarm()
        places = [i for i, owner in enumerate(self._owners) if any(owner is e for e in entries)]
        for place in places:
            self._settings[place] = SettingFactors()
        self._in_force = None
        return places

    def _entries(self, optimizer: torch.optim.Optimizer) -> list[InnerOptimizer]:
        """Return the entries of an optimizer and of those that it holds."""
        inner = optimizer, *inner_optimizers(optimizer)
        return [self._by_id[id(one)] for one in inner if id(one) in self._by_id]

    def has_settings(self, optimizer: torch.optim.Optimizer) -> bool:
        """Return whether a recipe's factors on settings of an optimizer are in force."""
        return any(entry.split.settings for entry in self._entries(optimizer))

    def scales_updates_of(self, optimizer: torch.optim.Optimizer) -> bool:
        """Return whether multipliers act on the updates of an optimizer."""
        return any(entry.by_update for entry in self._entries(optimizer))

    def check(self, multipliers: Sequence[float]) -> None:
        """Find out whether learning rates can still be scaled, before a step is prepared.

        Args:
            multipliers: Those of the step, one for each parameter.
        """
        if self.on_begin is not None:
            self.on_begin(multipliers)

    def update_factors(
        self, multipliers: Sequence[float], members: Collection[int] | None = None
    ) -> list[float]:
        """Return what updates are to be multiplied by, after the step.

        Args:
            multipliers: One for each parameter.
            members: Places in :attr:`inner` of the optimizers that have stepped; None: all.
        """
        if not self._scales_updates:
            return [1.0] * len(multipliers)
        places = range(len(self.inner)) if members is None else members
        stepped = {id(self.inner[place]) for place in places}
        return [
            multiplier
            if owner is not None and owner.by_update and id(owner.optimizer) in stepped
            else 1.0
            for owner, multiplier in zip(self._owners, multipliers, strict=True)
        ]

    def do_not_correct(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave the weights of an optimizer after its step, because it would undo a change."""
        for entry in self._entries(optimizer):
            entry.is_correctable = False

    def is_correctable(self, optimizer: torch.optim.Optimizer) -> bool:
        """Return whether a change of an optimizer's weights after its step lasts."""
        return all(entry.is_correctable for entry in self._entries(optimizer))

    @property
    def can_correct(self) -> bool:
        """Whether updates can be multiplied after a step; all optimizers start alike."""
        return all(owner is None or owner.is_correctable for owner in self._owners)

    def learning_rates(self) -> list[float]:
        """Return the scheduled learning rate of each parameter; 0 if no optimizer has it now."""
        groups = [group for entry in self._by_id.values() for group in entry.optimizer.param_groups]
        noted, scheduled = self._scheduled
        if len(groups) != len(noted) or not all(map(is_of, noted, groups)):
            noted = [(list(group["params"]), learning_rate(group)) for group in groups]
            scheduled = self._of_parameters(InnerOptimizer.scheduled, 0.0)
            self._scheduled = noted, scheduled
        return list(scheduled)

    def step_learning_rates(self) -> list[float]:
        """Return the learning rates that the training's step was made with, without multipliers.

        Returns:
            One for each parameter; 0 if its optimizer has not stepped since :meth:`begin_step`.
            Those of different attachments are included: a recorder beside an attachment sees steps
            that are scaled.
        """
        stepped_with = self._stepped_with()
        return [
            used * self.other_multipliers.get(id(parameter), 1.0)
            for parameter, (used, _) in zip(self.parameters, stepped_with, strict=True)
        ]

    def decays(self) -> list[float]:
        """Return which part of each parameter the step took away as weight decay, unscaled.

        It is 0 where there is none, or none that can be kept apart from the rest of the update.
        """
        return [
            decay * factors.weight_decay
            for (_, decay), factors in zip(self._stepped_with(), self._settings, strict=True)
        ]

    def kept_decays(self) -> list[float]:
        """Return the same for steps whose weight decay is independent of multipliers.

        It is what the settings say, or what the recipe makes of them.
        """
        return [
            decay * factors.learning_rate
            for decay, factors in zip(self.decays(), self._settings, strict=True)
        ]

    def _stepped_with(self) -> list[tuple[float, float]]:
        """Return the learning rate and the decay of each parameter in the latest step."""
        return self._of_parameters(InnerOptimizer.stepped_with, (0.0, 0.0))

    def _of_parameters(
        self, values: Callable[[InnerOptimizer], dict[int, _T]], default: _T
    ) -> list[_T]:
        by_owner = {key: values(entry) for key, entry in self._by_id.items()}
        return [
            default if owner is None else by_owner[id(owner.optimizer)].get(id(parameter), default)
            for owner, parameter in zip(self._owners, self.parameters, strict=True)
        ]

    def begin_step(self) -> None:
        """Forget what the step before was made with: a step of the training begins."""
        for entry in self._by_id.values():
            entry.has_stepped = False

    def scale(
        self, multipliers: Sequence[float], *, keeps_decay: bool = False, everything: bool = False
    ) -> None:
        """Make the steps that follow with ``scheduled * multiplier``, until the next call.

        Args:
            multipliers: One for each parameter, > 0.
            keeps_decay: Whether weight decay stays what the settings say, where that is possible;
                see :mod:`.weight_decay`.
            everything: Whether to do so for optimizers too whose updates are to be scaled.
        """
        self._in_force = None
        factors = dict(zip(map(id, self.parameters), multipliers, strict=True))
        for entry in self._by_id.values():
            if everything or not entry.by_update:
                entry.split.arm(factors, keeps_decay=keeps_decay)
            else:
                entry.split.disarm()
            entry.follows = False
        if not self._scales_updates:
            self._in_force = list(multipliers), keeps_decay

    def is_scaled(self, multipliers: Sequence[float], *, keeps_decay: bool) -> bool:
        """Return whether the steps that follow are scaled like that already, and no update is.

        Args:
            multipliers: As for :meth:`scale`.
            keeps_decay: As for :meth:`scale`.
        """
        in_force = self._in_force
        return (
            in_force is not None
            and in_force[0] == multipliers
            and in_force[1] == keeps_decay
            and not self._scales_updates
        )

    def restore(self) -> None:
        """Copy what steps wrote into split groups to the optimizers' own."""
        for entry in self._by_id.values():
            if entry.split.is_split:
                entry.split.merge()

    def disarm(self) -> None:
        """Make the steps that follow as scheduled, with the optimizers' own settings."""
        self._settings = [SettingFactors()] * len(self.parameters)
        self._in_force = None
        for entry in self._by_id.values():
            entry.split.disarm()

    def entered(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Return what the step function of an inner optimizer is to be called with.

        Args:
            optimizer: The optimizer whose step begins.
            args: The arguments of its step; the first one is the optimizer.
            kwargs: The keyword arguments.

        Returns:
            The arguments; None: as they are.
        """
        entry = self._by_id.get(id(optimizer))
        if entry is None:
            return None
        entry.has_stepped = True
        entry.note()
        changed = with_closure(entry, args, kwargs)
        if entry.split.is_armed and args and args[0] is optimizer:
            entry.split.begin_step()
            if not entry.follows:
                entry.versions = entry.present_versions()
            return (entry.split.view, *changed[0][1:]), changed[1]
        return None if changed[0] is args and changed[1] is kwargs else changed

    def left(self, optimizer: torch.optim.Optimizer) -> str:
        """Take note that the step function of an inner optimizer has returned.

        Returns:
            Why the step was not scaled; empty: it was, or was not to be.

        Raises:
            Exception: The split groups could not be used during the step.
        """
        entry = self._by_id.get(id(optimizer))
        if entry is None:
            return ""
        was_split = entry.split.is_split
        if was_split:
            entry.split.merge(has_returned=True)
        failure, entry.split.failure = entry.split.failure, None
        if failure is not None:
            raise failure
        entry.follows = entry.follows or (was_split and entry.split.was_read)
        if not was_split or entry.follows or entry.versions == entry.present_versions():
            return ""
        return "its step reads learning rates from somewhere other than its groups"

    def state_dict(self) -> dict[str, Any]:
        """Return what the optimizers' own checkpoints do not contain.

        Call :meth:`restore` before, unless a step is under way.
        """
        return {
            "notes": [
                {} if owner is None else owner.split.notes.get(id(parameter), {})
                for owner, parameter in zip(self._owners, self.parameters, strict=True)
            ]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called."""
        for owner, parameter, notes in zip(
            self._owners, self.parameters, state["notes"], strict=True
        ):
            if owner is not None:
                owner.split.notes[id(parameter)] = {
                    key: (left, noted) for key, (left, noted) in notes.items()
                }
