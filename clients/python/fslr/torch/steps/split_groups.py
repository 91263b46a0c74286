"""The groups of one optimizer, split and scaled for the step function only.

A step is made with a *view* of the optimizer: an object of the same class with the same attributes,
except that its ``param_groups`` are split into parts with scaled learning rates. The optimizer
itself keeps its groups, so closures, hooks, schedulers and checkpoints find nothing else, and there
is nothing to put back when a step ends with an exception.
"""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from fslr.torch.steps.group_parts import (
    Group,
    GroupParts,
    Notes,
    Part,
    Shown,
    marks,
    scaled_learning_rate,
    still_true,
)
from fslr.torch.steps.group_settings import write_settings
from fslr.torch.steps.joint_adam import JointAdam, joint_step
from fslr.torch.steps.part_values import PartValues, fill, writes_into_groups
from fslr.torch.steps.weight_decay import WeightDecay
from fslr.training.setting_factors import SettingFactors

_OWN_HOOK = "_fslr_hook"  # marks hooks of this package


class SplitGroups:
    """Splits the groups of an optimizer and scales their learning rates, for its step function.

    Parameters of one group with equal multipliers stay in one part, so that the step costs no more
    than necessary. Parts are the same objects in each step as long as the multipliers are the same,
    so that a compiled step is not compiled again.

    What a step writes into a part is copied into the optimizer's group. Numbers that differ between
    the parts of a group (such as a step's weight in an average, where it depends on the learning
    rate) are kept per parameter for the next step; the group has those of its last part.

    Args:
        optimizer: The optimizer.

    Attributes:
        is_split: Whether a step is made with split groups at present.
        is_joint: Whether the step function sees the optimizer's own groups, because their parts are
            stepped together.
        was_read: Whether the last step read the split groups.
        failure: What went wrong while a step read them, or None; it then got the optimizer's own.
        notes: For each parameter's id, numbers of its part that differ from those of its group.
        settings: Factors on settings other than the learning rate, by the parameter's id; they are
            in force whatever the multipliers are.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._weight_decay = WeightDecay(optimizer)
        self._factors: dict[int, float] = {}
        self._keeps_decay = False
        self.is_split = False
        self._split: list[GroupParts] = []  # kept while neither groups nor multipliers change
        self._settings_of_split: Mapping[int, SettingFactors] = {}
        self._known: dict[object, Group] = {}
        self._list: list[Group] = []  # what the step function sees
        self._shown: Shown | None = None  # the same at the start of the step
        self._joint = JointAdam(optimizer)
        self.is_joint = False
        self._has_shown_parts = False
        self._is_plain = not writes_into_groups(optimizer)
        self._is_scaled = False
        self._is_replaced = False
        self.was_read = False
        self.failure: Exception | None = None
        self.notes: dict[int, Notes] = {}
        self.settings: Mapping[int, SettingFactors] = {}
        self._view: torch.optim.Optimizer | None = None

    @property
    def view(self) -> torch.optim.Optimizer:
        """What the step function is to be called with instead of the optimizer."""
        if self._view is None:  # recorders need none, and not every class can have one
            self._view = _view_of(self._optimizer, self)
        return self._view

    def arm(self, factors: dict[int, float], *, keeps_decay: bool) -> None:
        """Scale the steps that follow.

        Args:
            factors: Multipliers, > 0, by the parameter's id; others have 1.
            keeps_decay: Whether weight decay stays what the settings say, where that is possible.
        """
        if factors != self._factors or keeps_decay != self._keeps_decay:
            self.merge()
            self._split = []
        self._factors, self._keeps_decay = factors, keeps_decay
        self._is_scaled = any(factor != 1.0 for factor in factors.values())
        if not self.is_armed:
            self.merge()
            self.notes.clear()  # groups are not split, so what they hold is true of all

    def disarm(self) -> None:
        """Leave the steps that follow as they are."""
        self.settings = {}
        self.arm({}, keeps_decay=False)

    @property
    def is_armed(self) -> bool:
        """Whether any multiplier differs from 1, or any other setting changes."""
        return self._is_scaled or bool(self.settings)

    @property
    def may_step_jointly(self) -> bool:
        """Whether parts of a group may be stepped together."""
        return self._joint.is_possible

    def begin_step(self) -> None:
        """Split the groups as they are now."""
        if self.is_split:  # the step before raised an exception
            self.merge()
        self.was_read, self.failure, self._is_replaced = False, None, False
        self.is_joint = self._has_shown_parts = False
        groups = self._optimizer.param_groups
        split, self._split = self._split, []
        if not self._is_still(split, groups):
            known, self._known = self._known, {}
            self._settings_of_split = self.settings
            split = [self._parts_of(place, group, known) for place, group in enumerate(groups)]
            self._shown = None
        if self._shown is None:
            self._shown = Shown(split)
            self._list[:] = self._shown.groups
        self._split = split
        self.is_split = True

    def _is_still(self, split: Sequence[GroupParts], groups: Sequence[Group]) -> bool:
        """Return whether the parts of the step before are those of the step that begins."""
        if len(split) != len(groups) or self.notes or self.settings is not self._settings_of_split:
            return False
        return all(map(GroupParts.is_still, split, groups))

    def _parts_of(self, place: int, group: Group, known: dict[object, Group]) -> GroupParts:
        """Return a group in parts, each with one multiplier and equal notes."""
        parts: dict[object, Part] = {}
        names = group.get("param_names")
        for index, parameter in enumerate(group["params"]):
            factor = self._factors.get(id(parameter), 1.0)
            noted = self.notes.get(id(parameter)) if self.notes else None
            notes = still_true(noted, group) if noted else {}
            settings = self.settings.get(id(parameter)) if self.settings else None
            key: tuple[object, ...] = place, factor, settings
            if notes:
                key = *key, *sorted(notes.items())
            part = parts.get(key)
            if part is None:
                values = known.get(key)
                if values is None:
                    values = {} if self._is_plain else PartValues()
                self._known[key] = values
                fill(values, {**group, **notes, "lr": values.get("lr")})
                values["params"] = []
                if names is not None:
                    values["param_names"] = []
                part = parts[key] = Part(group, values, factor, settings)
                self._set_values(part)
            part.values["params"].append(parameter)
            if names is not None:
                part.values["param_names"].append(names[index])
        for part in parts.values():
            part.before = dict(part.values)
        return GroupParts(group, list(parts.values()), self._set_values)

    def _set_values(self, part: Part) -> None:
        """Set the learning rate and the weight decay of a part from those of its group."""
        group, values, factor = part.group, part.values, part.factor
        self._shown = None
        learning_rate = scaled_learning_rate(group["lr"], factor, values["lr"])
        dict.__setitem__(values, "lr", learning_rate)  # not written by a step
        scale = factor if self._keeps_decay else 1.0
        if part.settings is not None:
            write_settings(part.settings, group, values)
            of_recipe = part.settings
            scale /= of_recipe.decay_of_a_step if self._keeps_decay else of_recipe.weight_decay
        if scale != 1.0:
            decay = self._weight_decay.under(group, scale)
            if decay is not None:
                values["weight_decay"] = decay
        part.scaled = marks(values)

    def refresh(self) -> None:
        """Follow what was written into the optimizer's groups since the step began."""
        if not self.is_split:
            return
        for split in self._split:
            split.follow()
        groups = self._optimizer.param_groups
        if len(groups) == len(self._split) and groups[-1] is self._split[-1].group:
            return
        known = {id(split.group) for split in self._split}
        for place, group in enumerate(groups):
            if id(group) not in known:
                split = self._parts_of(place, group, {})
                self._split.append(split)
                self._list += [part.values for part in split.parts]

    def groups(self) -> list[Group]:
        """Return the groups that the step function sees; it never raises."""
        self.was_read = True
        self.is_joint = False
        if self._is_replaced or not self.is_split:
            return self._optimizer.param_groups
        try:
            if not self._is_plain and torch.compiler.is_compiling():
                self._make_plain()
            self.refresh()
            self.is_joint = (
                self._joint.is_possible
                and not self.notes
                and self._joint.takes(self._optimizer, self._split)
            )
        except Exception as error:  # noqa: BLE001 - the training's own step is under way
            self.failure = error
            return self._optimizer.param_groups
        if self.is_joint:
            return self._optimizer.param_groups
        self._has_shown_parts = True
        return self._list

    def _make_plain(self) -> None:
        """Show the step function plain dicts from now on: compilers take no others for groups."""
        self._is_plain = True
        plain = {id(values): dict(values) for values in self._known.values()}
        self._known = {key: plain[id(values)] for key, values in self._known.items()}
        for split in self._split:
            for part in split.parts:
                part.values = plain[id(part.values)]
        self._shown = Shown(self._split)
        self._list[:] = self._shown.groups

    def steps_jointly(self, group: Group) -> bool:
        """Step the parts of a group together, which the step function does not see.

        Args:
            group: The group that the step function has come to.

        Returns:
            Whether it is stepped.
        """
        of_group = next((split for split in self._split if split.group is group), None)
        if not self.is_split or of_group is None:
            return False
        adam = cast("torch.optim.Adam", self._optimizer)
        joint_step(adam, [part.values for part in of_group.parts])
        return True

    def replace(self, groups: list[Group]) -> None:
        """Let the optimizer have other groups, because the step function sets them."""
        if groups is not self._list:
            self._is_replaced = True
            self._optimizer.param_groups = groups

    def merge(self, *, has_returned: bool = False) -> None:
        """Copy what the step wrote into the parts to the optimizer's groups.

        Args:
            has_returned: Whether the step function has; else it ended with an exception.
        """
        if not self.is_split:
            return
        self.is_split = False
        if not self.notes and (
            not self._has_shown_parts
            or (self._shown is not None and self._shown.is_still(self._list))
        ):
            return
        merged, self._split = self._split, []
        ours = {id(part.values) for split in merged for part in split.parts}
        self._optimizer.param_groups += [g for g in self._list if id(g) not in ours]
        for split in merged:
            split.merge(has_returned=has_returned)
        self.notes = {key: notes for split in merged for key, notes in split.notes().items()}


def mark_as_own(hook: Callable[..., Any], owner: object) -> Callable[..., Any]:
    """Mark a step hook of this package, and return it.

    A step function that calls the one of its base class runs the hooks again. Those of the user
    then run with the optimizer, and those of this package do not run.

    Args:
        hook: The hook.
        owner: The object that it belongs to.
    """
    setattr(hook, _OWN_HOOK, owner)
    return hook


def owner_of(hook: object) -> object | None:
    """Return what a hook of this package belongs to; None for hooks of others."""
    return getattr(hook, _OWN_HOOK, None)


def _view_of(optimizer: torch.optim.Optimizer, split: SplitGroups) -> torch.optim.Optimizer:
    """Return an object of the optimizer's class that shares its attributes, except the groups."""
    kind = type(optimizer)

    def pre_hooks(_: Any) -> OrderedDict[int, Callable[..., Any]]:
        return _for_users(optimizer, view, optimizer._optimizer_step_pre_hooks)  # noqa: SLF001

    def post_hooks(_: Any) -> OrderedDict[int, Callable[..., Any]]:
        return _for_users(optimizer, view, optimizer._optimizer_step_post_hooks)  # noqa: SLF001

    entries: dict[str, Any] = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "param_groups": property(lambda _: split.groups(), lambda _, groups: split.replace(groups)),
        "_optimizer_step_pre_hooks": property(pre_hooks),
        "_optimizer_step_post_hooks": property(post_hooks),
    }
    if split.may_step_jointly:
        entries["_init_group"] = _joint_init_group(kind, split)
    view_kind = types.new_class(
        kind.__name__, (kind,), exec_body=lambda names: names.update(entries)
    )
    view: torch.optim.Optimizer = object.__new__(view_kind)
    object.__setattr__(view, "__dict__", optimizer.__dict__)
    return view


def _joint_init_group(kind: type[torch.optim.Optimizer], split: SplitGroups) -> Callable[..., bool]:
    """Return the method with which Adam's step function begins each group.

    It leaves the lists of tensors empty where the group is stepped already.
    """

    def init_group(view: torch.optim.Optimizer, group: Group, *lists: list[Tensor]) -> bool:
        if split.is_joint and split.steps_jointly(group):
            return False
        has_complex: bool = kind._init_group(view, group, *lists)  # type: ignore[attr-defined]  # noqa: SLF001
        return has_complex

    return init_group


def _for_users(
    optimizer: torch.optim.Optimizer,
    view: torch.optim.Optimizer,
    hooks: dict[int, Callable[..., Any]],
) -> OrderedDict[int, Callable[..., Any]]:
    """Return the users' hooks of a step that a step function makes, called with the optimizer."""

    def called_with_the_optimizer(hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            result = hook(optimizer, _exchanged(args, view, optimizer), kwargs)
            if isinstance(result, tuple) and len(result) == 2:
                return _exchanged(result[0], optimizer, view), result[1]
            return result

        return call

    return OrderedDict(
        (key, called_with_the_optimizer(hook))
        for key, hook in hooks.items()
        if not hasattr(hook, _OWN_HOOK)
    )


def _exchanged(args: Any, old: object, new: object) -> Any:
    """Return arguments with another first one, if it is the old one."""
    if isinstance(args, tuple) and args and args[0] is old:
        return (new, *args[1:])
    return args
