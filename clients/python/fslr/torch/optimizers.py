"""What a user passes as optimizers, and which of them make the steps.

An optimizer may wrap or combine others: its ``step`` then calls theirs. The innermost ones are
called *inner* optimizers here. Their groups hold the learning rates that steps are made with.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fslr.errors import AttachError

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]
"""One optimizer, or several that train one model together."""

_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
_WRAPPED = ("optimizer", "_optimizer")  # where Accelerate, Lightning and DeepSpeed keep theirs
_NOT_OPTIMIZERS = {"state", "param_groups", "defaults"}  # attributes that hold no optimizer
_MAX_DEPTH = 3


def checked_optimizers(optimizers: object) -> tuple[torch.optim.Optimizer, ...]:
    """Return what a user passed as optimizers, without wrappers that only pass calls on.

    Args:
        optimizers: An optimizer, or several of them.

    Raises:
        AttachError: Something in it is not an optimizer, takes no step hooks, or has no usable
            learning rate; or two of them are the same or update the same tensor.
    """
    if isinstance(optimizers, (list, tuple, set, frozenset, Iterator)):
        listed = list(optimizers)
    elif isinstance(optimizers, Mapping):
        listed = list(optimizers.values())
    else:
        listed = [optimizers]
    if not listed:
        raise AttachError("there is no optimizer; pass the one that trains the model, or several")
    checked = tuple(map(_unwrapped, listed))
    _refuse_shared(checked)
    for optimizer in checked:
        for inner in inner_optimizers(optimizer):
            _refuse_learning_rates(inner)
    return checked


def _unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """Return the optimizer inside wrappers that have its groups and take no hooks.

    Raises:
        AttachError: There is no optimizer in it that takes step hooks.
    """
    name = type(optimizer).__name__
    for attribute in _WRAPPED:
        wrapped = _attribute(optimizer, attribute)
        if not isinstance(wrapped, torch.optim.Optimizer) or wrapped is optimizer:
            continue
        if isinstance(optimizer, torch.optim.lr_scheduler.LRScheduler):
            raise AttachError(
                f"{name} is a scheduler, not an optimizer; pass the optimizer that it was built "
                "with"
            )
        if not _takes_hooks(optimizer):
            return _unwrapped(wrapped)
    if _takes_hooks(optimizer):
        found: torch.optim.Optimizer = optimizer
        return found
    if isinstance(optimizer, torch.optim.Optimizer):
        raise AttachError(
            f"{name} takes no step hooks: its constructor does not call that of "
            "torch.optim.Optimizer; pass the optimizer that it wraps, or a list of those that it "
            "combines, if they make the whole step"
        )
    if isinstance(optimizer, nn.Module):
        raise AttachError(
            f"the optimizer is a module ({name}); pass the model first and its optimizer second"
        )
    raise AttachError(
        f"the optimizer is a {name}, not a torch.optim.Optimizer; pass the one that makes the "
        "steps, or a list of them"
    )


def _attribute(optimizer: object, name: str) -> object:
    try:
        return getattr(optimizer, name, None)
    except Exception:  # noqa: BLE001 - a property of a class that we do not know
        return None


def _takes_hooks(optimizer: object) -> bool:
    return isinstance(optimizer, torch.optim.Optimizer) and all(
        hasattr(optimizer, name) for name in _HOOKS
    )


def inner_optimizers(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """Return the optimizers that make the steps of one: itself, or the innermost that it holds.

    Args:
        optimizer: An optimizer, which may wrap or combine others.

    Raises:
        AttachError: The groups of one that it holds cannot be read.
    """
    return _innermost(optimizer, {id(optimizer)})


def _innermost(optimizer: torch.optim.Optimizer, seen: set[int]) -> list[torch.optim.Optimizer]:
    updated = {id(p) for group in _groups(optimizer) for p in group["params"]}
    found: list[torch.optim.Optimizer] = []
    for held in held_optimizers(optimizer):
        if id(held) in seen:
            continue
        seen.add(id(held))
        # An optimizer of other tensors is only kept here.
        if any(id(p) in updated for group in _groups(held) for p in group["params"]):
            found += _innermost(held, seen)
    return found or [optimizer]


def held_optimizers(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """Return the optimizers in the attributes of one, also in lists, tuples and dicts there."""
    found: dict[int, torch.optim.Optimizer] = {}

    def look(value: object, depth: int) -> None:
        if isinstance(value, torch.optim.Optimizer):
            if value is not optimizer and _takes_hooks(value):
                found[id(value)] = value
        elif depth < _MAX_DEPTH and isinstance(value, (list, tuple)):
            for entry in value:
                look(entry, depth + 1)
        elif depth < _MAX_DEPTH and type(value) is dict:
            for entry in list(value.values()):
                look(entry, depth + 1)

    for name, value in list(getattr(optimizer, "__dict__", {}).items()):
        if name not in _NOT_OPTIMIZERS and not name.startswith("_optimizer_"):
            look(value, 0)
    return list(found.values())


def with_held(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """Return an optimizer and all that it holds, directly or not."""
    found = [optimizer]
    for one in found:
        found += [held for held in held_optimizers(one) if not any(held is f for f in found)]
    return found


def parameters_of(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """Iterate over the tensors in the groups of an optimizer."""
    for group in optimizer.param_groups:
        yield from group["params"]


def are_same(some: Collection[object], others: Collection[object]) -> bool:
    """Return whether two collections hold the same objects in the same order.

    Args:
        some: One of them; equal objects count only if they are one object.
        others: The other one.
    """
    return len(some) == len(others) and all(map(operator.is_, some, others))


def updated_by(
    optimizers: Sequence[torch.optim.Optimizer],
) -> dict[int, tuple[Tensor, torch.optim.Optimizer]]:
    """Return each tensor that optimizers update, by its id, with the inner optimizer that does.

    A tensor that is only in the groups of the outer one belongs to the outer one.

    Args:
        optimizers: As :func:`checked_optimizers` returns them.
    """
    found: dict[int, tuple[Tensor, torch.optim.Optimizer]] = {}
    for optimizer in optimizers:
        for one in (optimizer, *inner_optimizers(optimizer)):
            found.update((id(p), (p, one)) for p in parameters_of(one))
    return found


def name_of(optimizers: Sequence[torch.optim.Optimizer]) -> str:
    """Return the name of the first of the optimizers that make the steps.

    Args:
        optimizers: As :func:`checked_optimizers` returns them.
    """
    return type(inner_optimizers(optimizers[0])[0]).__name__


def learning_rate_of(group: Mapping[str, Any]) -> float:
    """Return the learning rate of a group.

    Raises:
        AttachError: It has none, or one that is not a number.
    """
    if "lr" not in group:
        raise AttachError(
            "a group of the optimizer has no learning rate ('lr'); multipliers and rates are per "
            "learning rate, so use an optimizer with one"
        )
    value = group["lr"]
    if (
        isinstance(value, Tensor)
        and value.numel() == 1
        and not (value.is_complex() or value.is_meta)
    ):
        return float(value.detach())
    if value is None:
        raise AttachError(
            "the learning rate of a group of the optimizer is None, so it computes its own; "
            "multipliers and rates are per learning rate, so give it one (for Adafactor: "
            "relative_step=False and lr=...)"
        )
    if isinstance(value, bool) or not isinstance(value, numbers.Real):  # NumPy's are, too
        raise AttachError(
            f"the learning rate of a group of the optimizer is a {type(value).__name__}; it must "
            "be a number, or a tensor with one element that has a value"
        )
    return float(value)


def largest_learning_rate(optimizers: Iterable[torch.optim.Optimizer]) -> float:
    """Return the largest learning rate that the schedules of optimizers are built on."""
    return max(
        _announced_learning_rate(group)
        for optimizer in optimizers
        for inner in inner_optimizers(optimizer)
        for group in inner.param_groups
    )


def _announced_learning_rate(group: dict[str, Any]) -> float:
    """Return the learning rate that a group's schedule is built on; without one, its own."""
    rate = group.get("initial_lr", group["lr"])
    first = float(rate.detach() if isinstance(rate, Tensor) else rate)
    # OneCycleLR starts far below the learning rate that it is built on.
    largest: Any = group.get("max_lr") if "initial_lr" in group else None
    if isinstance(largest, Tensor) and largest.numel() == 1:
        largest = largest.item()
    if isinstance(largest, bool) or not isinstance(largest, (int, float)):
        return first
    return max(first, float(largest)) if math.isfinite(largest) else first


def _refuse_learning_rates(optimizer: torch.optim.Optimizer) -> None:
    name = type(optimizer).__name__
    groups = _groups(optimizer)
    if not groups:
        raise AttachError(f"{name} has no parameter groups yet; attach after they are added")
    for group in groups:
        try:
            learning_rate_of(group)
        except AttachError as error:
            raise AttachError(f"{name} cannot be attached: {error}") from None


def _groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the groups of an optimizer.

    Raises:
        AttachError: It has none, or none that can be read.
    """
    try:
        groups = list(optimizer.param_groups)
        others = [p for group in groups for p in group["params"] if not isinstance(p, Tensor)]
    except Exception as error:
        raise AttachError(
            f"{type(optimizer).__name__} cannot be attached: its parameter groups cannot be read "
            f"({type(error).__name__}: {error}); pass the optimizer that makes the steps"
        ) from error
    if others:
        raise AttachError(
            f"{type(optimizer).__name__} cannot be attached: a {type(others[0]).__name__} is among "
            "the parameters in its groups; keep only tensors there"
        )
    return groups


def _refuse_shared(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    owners: dict[int, torch.optim.Optimizer] = {}
    for optimizer in optimizers:
        name = type(optimizer).__name__
        if sum(other is optimizer for other in optimizers) > 1:
            raise AttachError(f"the same optimizer ({name}) is listed twice; list each one once")
        for parameter in [p for group in _groups(optimizer) for p in group["params"]]:
            other = owners.setdefault(id(parameter), optimizer)
            if other is not optimizer:
                raise AttachError(
                    f"{type(other).__name__} and {name} update the same tensor (shape "
                    f"{tuple(parameter.shape)}); list only the outer one if one wraps the other, "
                    "and give each tensor to one optimizer"
                )
