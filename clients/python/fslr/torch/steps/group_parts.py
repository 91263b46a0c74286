"""One group of an optimizer in parts, each with one multiplier, as a step function sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from operator import itemgetter, methodcaller
from typing import Any

from torch import Tensor

from fslr.errors import MeasurementError
from fslr.torch.optimizers import are_same
from fslr.torch.steps.group_settings import WRITTEN
from fslr.torch.steps.part_values import PartValues
from fslr.training.setting_factors import SettingFactors

Group = dict[str, Any]

Notes = dict[str, tuple[float, float]]
"""For each entry of a group: the value in the group itself, and that in the parameter's part."""

RATES = ("lr", "weight_decay")
"""The entries of a group that are scaled."""
_MISSING = object()
_OF_A_PART = {"params", "param_names", *RATES}


class Part:
    """A part of a group: the tensors with one multiplier.

    Args:
        group: The optimizer's group.
        values: The part, as the step function sees it.
        factor: Its multiplier.
        settings: The factors on its other settings; None: they are the group's.

    Attributes:
        before: The values at the start of the step.
        scaled: What differs once its learning rate or weight decay was written.
    """

    __slots__ = ("before", "factor", "group", "scaled", "settings", "values")

    def __init__(
        self, group: Group, values: Group, factor: float, settings: SettingFactors | None
    ) -> None:
        self.group, self.values = group, values
        self.factor, self.settings = factor, settings
        self.before: Group = {}
        self.scaled: tuple[object, ...] = ()

    def is_own(self, key: str) -> bool:
        """Return whether an entry is not the group's, and is made anew for each step."""
        return key in _OF_A_PART or (self.settings is not None and key in WRITTEN)

    def written(self) -> Group:
        """Return what the step has written; some optimizers count their steps in the group."""
        return {
            key: value
            for key, value in self.values.items()
            if not self.is_own(key) and self.before.get(key, _MISSING) is not value
        }

    def notes(self, left: Group) -> Notes:
        """Return the numbers of the part that differ from those of its group.

        Args:
            left: What steps left in the group. Where it holds something else by now, that is true
                of all parts.
        """
        group = self.group
        return {
            key: (group[key], noted)
            for key, noted in self.values.items()
            if noted is not group.get(key)  # nearly all are the same object: a quick way out
            and not self.is_own(key)
            and key in group
            and _are_numbers(noted, group[key])
            and noted != group[key]
            and group[key] is left.get(key)
        }


class GroupParts:
    """A group of an optimizer in parts.

    As long as the group holds the same objects, its parts need not be made again.

    Args:
        group: The optimizer's group.
        parts: Its parts.
        set_values: Sets the learning rate and the weight decay of a part from those of its group.

    Attributes:
        group: The optimizer's group.
        parts: Its parts.
    """

    __slots__ = (
        *("_decay", "_has_tensors", "_keys", "_left", "_lr", "_names", "_seen", "_set_values"),
        *("_tensors", "_values", "group", "parts"),
    )

    def __init__(
        self, group: Group, parts: Sequence[Part], set_values: Callable[[Part], None]
    ) -> None:
        self.group, self.parts = group, parts
        self._set_values = set_values
        self._keys, self._values = list(group), list(group.values())
        self._tensors = list(group["params"])
        self._names = list(group.get("param_names") or ())
        self._seen = marks(group)
        self._has_tensors = _has_tensors(self._seen)
        self._lr, self._decay = group.get("lr"), group.get("weight_decay")
        self._left = dict(group)
        for part in parts:
            if isinstance(part.values, PartValues):
                part.values.on_write = partial(self._written, part)

    def is_still(self, group: Group) -> bool:
        """Return whether the parts are those of a group that a step begins with.

        A learning rate and a weight decay that were written since are followed.

        Args:
            group: The group.
        """
        if (
            group is not self.group
            or not are_same(group["params"], self._tensors)
            or self._keys != list(group)
            or self._names != (group.get("param_names") or [])
        ):
            return False
        if not are_same(group.values(), self._values):
            pairs = zip(self._keys, group.values(), self._values, strict=True)
            if any(new is not old and key not in RATES for key, new, old in pairs):
                return False
            self._values = list(group.values())
        elif not self._has_tensors:
            return True
        self.follow()
        return True

    def follow(self) -> None:
        """Follow a learning rate or a weight decay that was written into the group."""
        group = self.group
        if (
            group.get("lr") is self._lr
            and group.get("weight_decay") is self._decay
            and not self._has_tensors
        ):
            return
        self._lr, self._decay = group.get("lr"), group.get("weight_decay")
        present = marks(group)
        if present == self._seen:
            return
        self._seen, self._has_tensors = present, _has_tensors(present)
        for part in self.parts:
            if "weight_decay" in group:
                part.values["weight_decay"] = group["weight_decay"]
            self._set_values(part)

    def _written(self, part: Part, key: str) -> None:
        """Copy an entry to the group that a step function has written into a part.

        A learning rate is copied once all parts have theirs: a step that ends before has written
        none, as far as the group knows.
        """
        if key == "lr":
            if len(self._with_written_learning_rate()) == len(self.parts):
                self._merge_learning_rates()
        elif not part.is_own(key):
            self.group[key] = self._left[key] = part.values[key]

    def merge(self, *, has_returned: bool) -> None:
        """Copy what a step wrote into the parts to the group.

        Args:
            has_returned: Whether the step function has; else it ended with an exception.
        """
        for part in self.parts:
            if not isinstance(part.values, PartValues):
                written = part.written()
                self.group.update(written)
                self._left.update(written)
        if has_returned or len(self._with_written_learning_rate()) == len(self.parts):
            self._merge_learning_rates()

    def notes(self) -> dict[int, Notes]:
        """Return the notes of each parameter whose part differs from the group, by its id."""
        return {
            id(parameter): notes
            for part in self.parts
            if (notes := part.notes(self._left))
            for parameter in part.values["params"]
        }

    def _with_written_learning_rate(self) -> list[Part]:
        return [part for part in self.parts if _mark(part.values["lr"]) != part.scaled[0]]

    def _merge_learning_rates(self) -> None:
        """Set the group's learning rate if the step function wrote those of its parts.

        Parts that all get the same learning rate were given an absolute one. Otherwise the step
        multiplied the one that was in force.
        """
        written = [(part, float(part.values["lr"])) for part in self._with_written_learning_rate()]
        if not written or self._seen != marks(self.group):
            return
        part, now = written[0]
        is_absolute = (
            len({p.factor for p in self.parts}) > 1 and len({value for _, value in written}) == 1
        )
        value = now if is_absolute or part.factor == 1.0 else now / part.factor
        if isinstance(self.group["lr"], Tensor):
            self.group["lr"].fill_(value)
        else:
            self.group["lr"] = value
        self._lr, self._seen = self.group["lr"], marks(self.group)  # parts need not follow that


class Shown:
    """The parts that a step function sees, all that is in them, and whether it has changed that.

    It is looked at in each step, so it compares all parts at once.

    Args:
        split: The groups in parts.

    Attributes:
        groups: The parts.
    """

    def __init__(self, split: Sequence[GroupParts]) -> None:
        self._parts = [part for of_group in split for part in of_group.parts]
        self.groups = [part.values for part in self._parts]
        self._keys, self._values, self._tensors = _contents(self.groups)
        self._has_tensors = any(_has_tensors(part.scaled) for part in self._parts)

    def is_still(self, groups: Sequence[Group]) -> bool:
        """Return whether a step has left its groups as they were.

        Args:
            groups: The groups that it saw.
        """
        if not are_same(groups, self.groups):
            return False
        keys, values, tensors = _contents(groups)
        return (
            keys == self._keys
            and are_same(values, self._values)
            and are_same(tensors, self._tensors)
            and not (
                self._has_tensors and any(part.scaled != marks(part.values) for part in self._parts)
            )
        )


def _contents(groups: Sequence[Group]) -> tuple[list[str], list[object], list[Tensor]]:
    """Return the names and the values of the entries of groups, and their tensors."""
    return (
        list(chain.from_iterable(groups)),
        list(chain.from_iterable(map(_VALUES, groups))),
        list(chain.from_iterable(map(_PARAMS, groups))),
    )


_VALUES = methodcaller("values")
_PARAMS = itemgetter("params")


def scaled_learning_rate(learning_rate: Any, factor: float, earlier: Any) -> Any:
    """Return a learning rate times a factor; in the tensor of earlier steps if there is one.

    A compiled step would be compiled again for a new tensor.

    Args:
        learning_rate: The learning rate of the group.
        factor: The multiplier.
        earlier: The scaled learning rate of the step before; None: there is none.

    Raises:
        MeasurementError: The group has no learning rate any more.
    """
    if learning_rate is None and factor != 1.0:
        raise MeasurementError(
            "the learning rate of a group of the optimizer is None now, so there is nothing to "
            "multiply; give the group a number"
        )
    scaled = learning_rate * factor if factor != 1.0 else learning_rate
    if not isinstance(scaled, Tensor):
        return scaled
    scaled = scaled.detach()
    if (
        isinstance(earlier, Tensor)
        and earlier is not learning_rate
        and earlier.shape == scaled.shape
        and earlier.device == scaled.device
        and earlier.dtype == scaled.dtype
    ):
        return earlier.copy_(scaled)
    return scaled.clone()


def marks(group: Group) -> tuple[object, ...]:
    """Return what differs once the learning rate or the weight decay of a group was written."""
    return _mark(group.get("lr")), _mark(group.get("weight_decay"))


def _has_tensors(of_group: tuple[object, ...]) -> bool:
    """Return whether marks are those of tensors, which may be written in place."""
    return any(isinstance(mark, tuple) for mark in of_group)


def _mark(value: object) -> object:
    """Return what differs once a value was written; tensors are not read from their device."""
    return (id(value), value._version) if isinstance(value, Tensor) else value  # noqa: SLF001


def still_true(notes: Notes, group: Group) -> dict[str, float]:
    """Return the notes on entries that have not been changed in the group since.

    Args:
        notes: Notes of a parameter.
        group: Its group.
    """
    return {
        key: noted
        for key, (left, noted) in notes.items()
        if _are_numbers(group.get(key)) and group[key] == left
    }


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, int | float) for value in values)
