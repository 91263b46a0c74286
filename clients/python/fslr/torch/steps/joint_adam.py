"""One step of Adam or AdamW for all parts of a group together.

PyTorch's step function steps one group after the other. Its ``foreach`` and ``fused`` kernels take
many tensors in one call, so that a group in thirty parts costs most of its time in Python. Here all
parts of a group are stepped with the same kernels in the same order as a group would be, and each
tensor has the learning rate and the weight decay of its part: the weights and the state are
bit-identical to those of PyTorch's step of the parts.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from fslr.torch.optimizers import are_same
from fslr.torch.steps.group_parts import Group, GroupParts

_USED = frozenset({
    *("params", "lr", "betas", "eps", "weight_decay", "amsgrad", "maximize"),
    *("foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"),
})
"""The entries of a group that PyTorch's step reads."""
_OF_A_SCALER = ("grad_scale", "found_inf")  # attributes of an optimizer that takes scaled gradients


class JointAdam:
    """Decides whether the parts of an optimizer's groups are stepped together, and does so.

    Args:
        optimizer: The optimizer, of any class.

    Attributes:
        is_possible: Whether the optimizer steps with the step function of PyTorch's Adam, and not
            one tensor after the other.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.is_possible = steps_as_adam(optimizer) and any(
            map(implementation, optimizer.param_groups)
        )
        self._judged: list[GroupParts] = []
        self._is_taken = False

    def takes(self, optimizer: torch.optim.Optimizer, split: Sequence[GroupParts]) -> bool:
        """Return whether the parts of groups can be stepped together, now; it never raises.

        Args:
            optimizer: The optimizer.
            split: Its groups in parts.
        """
        if torch.compiler.is_compiling():
            return False
        try:
            return self._takes(optimizer, split)
        except Exception:  # noqa: BLE001 - groups of an unknown form; PyTorch's own step takes parts
            return False

    def _takes(self, optimizer: torch.optim.Optimizer, split: Sequence[GroupParts]) -> bool:
        if not are_same(split, self._judged):
            self._judged = list(split)
            self._is_taken = False
            self._is_taken = any(len(of_group.parts) > 1 for of_group in split) and all(
                map(_is_taken, split)
            )
        return (
            self._is_taken
            and steps_as_adam(optimizer)
            and all(getattr(optimizer, name, None) is None for name in _OF_A_SCALER)
            and all(map(_has_numbers, split))
        )


def steps_as_adam(optimizer: torch.optim.Optimizer) -> TypeGuard[torch.optim.Adam]:
    """Return whether an optimizer steps with the step function of PyTorch's Adam and AdamW."""
    adam = torch.optim.Adam
    if not isinstance(optimizer, adam):
        return False
    step = inspect.unwrap(optimizer.step)
    # torch.compile wraps this function of each class of optimizers separately.
    init_group = inspect.unwrap(optimizer._init_group)  # noqa: SLF001
    return (
        getattr(step, "__func__", step) is inspect.unwrap(adam.step)
        and step.__module__ == adam.__module__  # else it was replaced in the class
        and getattr(init_group, "__func__", init_group) is inspect.unwrap(adam._init_group)  # noqa: SLF001
    )


def steps_groups_jointly(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether parts of an optimizer's groups cost its step next to nothing.

    Args:
        optimizer: The optimizer, before its first step.
    """
    return steps_as_adam(optimizer) and all(
        _are_numbers(group.get("lr"), group.get("weight_decay")) and not group.get("capturable")
        for group in optimizer.param_groups
    )


def implementation(group: Group) -> str:
    """Return the kernels that PyTorch steps a group of Adam with.

    Args:
        group: The group.

    Returns:
        ``"fused"`` or ``"foreach"``; empty: one tensor after the other.
    """
    fused, foreach = group.get("fused"), group.get("foreach")
    if fused:
        return "fused"
    if foreach or (fused is None and foreach is None and _is_default(group["params"])):
        return "foreach"
    return ""


def joint_step(optimizer: torch.optim.Adam, parts: Sequence[Group]) -> None:
    """Step the tensors of all parts of a group of Adam.

    Args:
        optimizer: The optimizer, whose state is used.
        parts: Groups that differ in nothing but their tensors, learning rates and weight decays,
            and are stepped with ``foreach`` or ``fused`` kernels.
    """
    lists: tuple[list[Tensor], ...] = ([], [], [], [], [], [])
    part_of: list[Group] = []  # of each tensor that has a gradient
    for part in parts:
        optimizer._init_group(part, *lists)  # noqa: SLF001
        part_of += [part] * (len(lists[0]) - len(part_of))
    if not part_of:
        return
    kernels = _fused if implementation(parts[0]) == "fused" else _foreach
    if len({(tensor.device, tensor.dtype) for tensor in lists[0]}) == 1:
        kernels(part_of, *lists)
        return
    groups_of = torch.optim.Optimizer._group_tensors_by_device_and_dtype  # noqa: SLF001
    of_kinds: Any = groups_of(list(lists), with_indices=True)  # type: ignore[arg-type]
    for tensors, places in of_kinds.values():
        kernels([part_of[place] for place in places], *tensors)


def _foreach(part_of: Sequence[Group], *lists: Any) -> None:
    """Step tensors of one device and type with the kernels that ``foreach=True`` stands for.

    Args:
        part_of: The part that each tensor is in.
        lists: The tensors, their gradients, the averages of these, the averages of their squares,
            the largest of these so far (empty without ``amsgrad``), and the numbers of their steps.
    """
    parameters, gradients, means, squares, largest_squares, steps = lists
    group = part_of[0]
    beta1, beta2 = group["betas"]
    if group["maximize"]:
        gradients = torch._foreach_neg(gradients)  # noqa: SLF001
    if steps[0].is_cpu:  # a number would be made a tensor once for each step
        torch._foreach_add_(steps, torch.tensor(1.0, device="cpu"), alpha=1.0)
    else:
        torch._foreach_add_(steps, 1)
    if group["decoupled_weight_decay"]:
        kept = [1 - part["lr"] * part["weight_decay"] for part in part_of]
        if any(factor != 1 for factor in kept):
            torch._foreach_mul_(parameters, kept)
    elif group["weight_decay"] != 0:
        decay = group["weight_decay"]
        gradients = torch._foreach_add(gradients, parameters, alpha=decay)  # noqa: SLF001
    torch._foreach_lerp_(means, gradients, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
    del gradients
    if group["amsgrad"]:
        torch._foreach_maximum_(largest_squares, squares)
        squares = largest_squares
    numbers = [step.item() for step in steps]
    roots = torch._foreach_sqrt(squares)  # noqa: SLF001
    torch._foreach_div_(roots, [(1 - beta2**number) ** 0.5 for number in numbers])
    torch._foreach_add_(roots, group["eps"])
    sizes = [
        (part["lr"] / (1 - beta1**number)) * -1
        for part, number in zip(part_of, numbers, strict=True)
    ]
    torch._foreach_addcdiv_(parameters, means, roots, sizes)


def _fused(part_of: Sequence[Group], *lists: Any) -> None:
    """Step tensors of one device and type with one fused kernel for each part.

    Args:
        part_of: The part that each tensor is in; those of a part follow each other.
        lists: As for :func:`_foreach`.
    """
    kernel: Callable[..., None] = (
        torch._fused_adamw_ if part_of[0]["decoupled_weight_decay"] else torch._fused_adam_
    )
    torch._foreach_add_(lists[-1], 1)
    start = 0
    for _, tensors in itertools.groupby(part_of, key=id):
        part = part_of[start]
        end = start + len(list(tensors))
        kernel(
            *(tensors[start:end] for tensors in lists),
            amsgrad=part["amsgrad"],
            lr=part["lr"],
            beta1=part["betas"][0],
            beta2=part["betas"][1],
            weight_decay=part["weight_decay"],
            eps=part["eps"],
            maximize=part["maximize"],
            grad_scale=None,
            found_inf=None,
        )
        start = end


def _is_taken(split: GroupParts) -> bool:
    """Return whether the parts of a group can be stepped together with its present settings."""
    group = split.group
    if not implementation(group) or not group.keys() >= _USED:
        return False
    if group["capturable"] or group["differentiable"]:
        return False
    if not _are_numbers(group["eps"], *group["betas"]) or not all(map(_is_plain, group["params"])):
        return False
    if not group["decoupled_weight_decay"] and any(part.settings for part in split.parts):
        return False  # they change a decay that is added to the gradient
    return all(
        part.values["betas"] is group["betas"] and part.values["eps"] is group["eps"]
        for part in split.parts
    ) and equals_pytorch(
        implementation(group) == "fused",
        bool(group["amsgrad"]),
        bool(group["maximize"]),
        bool(group["decoupled_weight_decay"]),
    )


def _has_numbers(split: GroupParts) -> bool:
    """Return whether what may change from step to step is as it was when it was judged."""
    group = split.group
    return _are_numbers(group["lr"], group["weight_decay"]) and bool(implementation(group))


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in {Tensor, nn.Parameter} and tensor.is_floating_point()


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _is_default(tensors: list[Tensor]) -> bool:
    """Return whether PyTorch steps tensors with ``foreach`` where its user asks for nothing."""
    try:
        from torch.optim.optimizer import _default_to_fused_or_foreach  # noqa: PLC0415

        return _default_to_fused_or_foreach(tensors, differentiable=False, use_fused=False)[1]
    except Exception:  # noqa: BLE001 - whatever a different PyTorch raises
        return False


@functools.cache
def equals_pytorch(fused: bool, amsgrad: bool, maximize: bool, decoupled: bool) -> bool:
    """Return whether :func:`joint_step` does what PyTorch's step of the parts does, to the bit.

    It is tried once for each kind of group, on a few numbers, so that a PyTorch that steps in a
    different way is stepped in its own.

    Args:
        fused: Whether the group is stepped with ``fused`` kernels; else it is ``foreach``.
        amsgrad: As in the group.
        maximize: As in the group.
        decoupled: Whether weight decay is that of AdamW.
    """
    try:
        with torch.no_grad():
            return _try_out(fused=fused, amsgrad=amsgrad, maximize=maximize, decoupled=decoupled)
    except Exception:  # noqa: BLE001 - whatever a different PyTorch raises
        return False


def _try_out(*, fused: bool, amsgrad: bool, maximize: bool, decoupled: bool) -> bool:
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    learning_rates = (0.25, 0.01, 0.25)
    decays = (0.125, 0.5, 0.125) if decoupled else (0.125,) * 3

    def tensors() -> list[nn.Parameter]:
        made = torch.arange(1.0, 22.0, dtype=torch.float32, device="cpu").view(3, 7) / 3
        return [nn.Parameter(row.clone()) for row in made]

    apart, together = tensors(), tensors()
    options: dict[str, Any] = {
        "fused": fused,
        "foreach": not fused,
        "amsgrad": amsgrad,
        "maximize": maximize,
    }

    def groups_of(parameters: list[nn.Parameter]) -> list[Group]:
        return [
            {"params": [p], "lr": r, "weight_decay": d}
            for p, r, d in zip(parameters, learning_rates, decays, strict=True)
        ]

    expected, optimizer = (kind(groups_of(each), **options) for each in (apart, together))
    step = inspect.unwrap(torch.optim.Adam.step)  # without hooks, which are for the user's steps
    for number in (1.0, -3.0, 0.5):
        for one, other in zip(apart, together, strict=True):
            one.grad, other.grad = (number * p.detach().sin() for p in (one, other))
        step(expected)
        joint_step(optimizer, optimizer.param_groups)
    return all(
        torch.equal(one, other)
        and expected.state[one].keys() == optimizer.state[other].keys()
        and all(map(torch.equal, expected.state[one].values(), optimizer.state[other].values()))
        for one, other in zip(apart, together, strict=True)
    )
