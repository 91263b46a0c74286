"""The groups of one optimizer, split and scaled for the step function only.

A step is made with a *view* of the optimizer: an object of the same class with the same attributes,
except that its ``param_groups`` are split into parts with scaled learning rates. The optimizer
itself keeps its groups, so closures, hooks, schedulers and checkpoints find nothing else, and there
is nothing to put back when a step ends with an exception.
"""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fslr.torch.steps.group_settings import WRITTEN, write_settings
from fslr.torch.steps.weight_decay import WeightDecay
from fslr.training.setting_factors import SettingFactors

_Group = dict[str, Any]
_OWN_HOOK = "_fslr_hook"  # marks hooks of this package


@dataclass(slots=True)
class _Part:
    """A part of a group: the tensors with one multiplier.

    Attributes:
        group: The optimizer's group.
        values: The part, as the step function sees it.
        factor: Its multiplier.
        settings: The factors on its other settings; None: they are the group's.
        before: The values at the start of the step.
        seen: What the group's learning rate and decay were when they were scaled.
        scaled: The scaled ones.
    """

    group: _Group
    values: _Group
    factor: float
    settings: SettingFactors | None
    before: _Group
    seen: tuple[object, ...]
    scaled: tuple[object, ...]


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
        self._parts: list[_Part] = []
        self._known: dict[object, _Group] = {}
        self._list: list[_Group] = []
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
        self._factors, self._keeps_decay = factors, keeps_decay
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
        return bool(self.settings) or any(factor != 1.0 for factor in self._factors.values())

    @property
    def is_split(self) -> bool:
        """Whether a step is made with split groups at present."""
        return bool(self._parts)

    def begin_step(self) -> None:
        """Split the groups as they are now."""
        self.merge()  # a step that raised an exception did not
        self.was_read, self.failure, self._is_replaced = False, None, False
        known, self._known = self._known, {}
        parts: list[_Part] = []
        for place, group in enumerate(self._optimizer.param_groups):
            parts += self._split(place, group, known)
        self._parts = parts
        self._list[:] = [part.values for part in parts]

    def _split(self, place: int, group: _Group, known: dict[object, _Group]) -> list[_Part]:
        """Return a group in parts, each with one multiplier and equal notes."""
        parts: dict[object, _Part] = {}
        names = group.get("param_names")
        for index, parameter in enumerate(group["params"]):
            factor = self._factors.get(id(parameter), 1.0)
            noted = self.notes.get(id(parameter)) if self.notes else None
            notes = _still_true(noted, group) if noted else {}
            settings = self.settings.get(id(parameter)) if self.settings else None
            key: tuple[object, ...] = place, factor, settings
            if notes:
                key = *key, *sorted(notes.items())
            part = parts.get(key)
            if part is None:
                values = self._known[key] = known.get(key, {})
                rate = values.get("lr")
                values.clear()
                values.update(group, **notes)
                values["lr"] = rate
                values["params"] = []
                if names is not None:
                    values["param_names"] = []
                part = parts[key] = _Part(group, values, factor, settings, {}, (), ())
                self._set_rates(part)
            part.values["params"].append(parameter)
            if names is not None:
                part.values["param_names"].append(names[index])
        for part in parts.values():
            part.before = dict(part.values)
        return list(parts.values())

    def _set_rates(self, part: _Part) -> None:
        """Set the learning rate and the weight decay of a part from those of its group."""
        group, values, factor = part.group, part.values, part.factor
        part.seen = _marks(group)
        values["lr"] = _scaled(group["lr"], factor, values["lr"])
        scale = factor if self._keeps_decay else 1.0
        if part.settings is not None:
            write_settings(part.settings, group, values)
            of_recipe = part.settings
            scale /= of_recipe.decay_of_a_step if self._keeps_decay else of_recipe.weight_decay
        if scale != 1.0:
            decay = self._weight_decay.under(group, scale)
            if decay is not None:
                values["weight_decay"] = decay
        part.scaled = _marks(values)

    def refresh(self) -> None:
        """Follow what was written into the optimizer's groups since the step began."""
        if not self._parts:
            return
        for part in self._parts:
            if part.seen != _marks(part.group):
                self._set_rates(part)
        known = {id(part.group) for part in self._parts}
        for place, group in enumerate(self._optimizer.param_groups):
            if id(group) not in known:
                parts = self._split(place, group, {})
                self._parts += parts
                self._list += [part.values for part in parts]

    def groups(self) -> list[_Group]:
        """Return the groups that the step function sees; it never raises."""
        self.was_read = True
        if self._is_replaced or not self._parts:
            return self._optimizer.param_groups
        try:
            self.refresh()
        except Exception as error:  # noqa: BLE001 - the training's own step is under way
            self.failure = error
            return self._optimizer.param_groups
        return self._list

    def replace(self, groups: list[_Group]) -> None:
        """Let the optimizer have other groups, because the step function sets them."""
        if groups is not self._list:
            self._is_replaced = True
            self._optimizer.param_groups = groups

    def merge(self) -> None:
        """Copy what the step wrote into the parts to the optimizer's groups."""
        if not self._parts:
            return
        parts, self._parts = self._parts, []
        ours = {id(part.values) for part in parts}
        self._optimizer.param_groups += [g for g in self._list if id(g) not in ours]
        by_group: dict[int, list[_Part]] = {}
        for part in parts:
            by_group.setdefault(id(part.group), []).append(part)
            # Some optimizers count their steps in the group.
            written = {
                key: value
                for key, value in part.values.items()
                if not _is_own(key, part) and part.before.get(key, _MISSING) is not value
            }
            part.group.update(written)
        for of_group in by_group.values():
            _merge_learning_rates(of_group)
        self.notes = {
            id(parameter): notes
            for part in parts
            if (notes := _notes(part))
            for parameter in part.values["params"]
        }


_MISSING = object()
_RATES = ("lr", "weight_decay")
_OF_A_PART = {"params", "param_names", *_RATES}

Notes = dict[str, tuple[float, float]]
"""For each entry of a group: the value in the group itself, and that in the parameter's part."""


def _scaled(rate: Any, factor: float, earlier: Any) -> Any:
    """Return a learning rate times a factor; in the tensor of earlier steps if there is one.

    A compiled step would be compiled again for a new tensor.
    """
    scaled = rate * factor if factor != 1.0 else rate
    if not isinstance(scaled, Tensor):
        return scaled
    scaled = scaled.detach()
    if (
        isinstance(earlier, Tensor)
        and earlier is not rate
        and earlier.shape == scaled.shape
        and earlier.device == scaled.device
        and earlier.dtype == scaled.dtype
    ):
        return earlier.copy_(scaled)
    return scaled.clone()


def _marks(group: _Group) -> tuple[object, ...]:
    """Return what differs once the learning rate or the weight decay was written."""
    return tuple(_mark(group.get(key)) for key in _RATES)


def _mark(value: object) -> object:
    """Return what differs once a value was written; tensors are not read from their device."""
    return (id(value), value._version) if isinstance(value, Tensor) else value  # noqa: SLF001


def _merge_learning_rates(parts: list[_Part]) -> None:
    """Set a group's learning rate if the step function wrote those of its parts.

    Parts that all get the same learning rate were given an absolute one. Otherwise the step
    multiplied the one that was in force.
    """
    written = [
        (part, float(part.values["lr"]))
        for part in parts
        if _mark(part.values["lr"]) != part.scaled[0]
    ]
    if not written or written[0][0].seen != _marks(written[0][0].group):
        return
    part, now = written[0]
    is_absolute = len({p.factor for p in parts}) > 1 and len({rate for _, rate in written}) == 1
    value = now if is_absolute or part.factor == 1.0 else now / part.factor
    group = part.group
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(value)
    else:
        group["lr"] = value


def _is_own(key: str, part: _Part) -> bool:
    """Return whether an entry of a part is not the group's, and is made anew for each step."""
    return key in _OF_A_PART or (part.settings is not None and key in WRITTEN)


def _notes(part: _Part) -> Notes:
    """Return the numbers of a part that differ from those of its group."""
    group = part.group
    return {
        key: (group[key], noted)
        for key, noted in part.values.items()
        if noted is not group.get(key)  # nearly all entries are the same object: a quick way out
        and not _is_own(key, part)
        and key in group
        and _are_numbers(noted, group[key])
        and noted != group[key]
    }


def _still_true(notes: Notes, group: _Group) -> dict[str, float]:
    """Return the notes on entries that have not been changed in the group since."""
    return {
        key: noted
        for key, (left, noted) in notes.items()
        if _are_numbers(group.get(key)) and group[key] == left
    }


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, int | float) for value in values)


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

    entries = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "param_groups": property(lambda _: split.groups(), lambda _, groups: split.replace(groups)),
        "_optimizer_step_pre_hooks": property(pre_hooks),
        "_optimizer_step_post_hooks": property(post_hooks),
    }
    view_kind = types.new_class(
        kind.__name__, (kind,), exec_body=lambda names: names.update(entries)
    )
    view: torch.optim.Optimizer = object.__new__(view_kind)
    object.__setattr__(view, "__dict__", optimizer.__dict__)
    return view


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
