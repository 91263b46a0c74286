"""What an optimizer's step would make of its tensors, with and without multipliers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def would_be(
    optimizer: torch.optim.Optimizer, multipliers: Mapping[int, float] | None = None
) -> dict[int, Tensor]:
    """Return each tensor as it would be after a step on its present gradient, by its id.

    Args:
        optimizer: The optimizer; it is not changed.
        multipliers: Factors on learning rates by the tensor's id. Default: all 1.
    """
    copies: dict[int, nn.Parameter] = {}
    groups = []
    for group in optimizer.param_groups:
        for tensor in group["params"]:
            copied = copies[id(tensor)] = nn.Parameter(tensor.detach().clone())
            copied.grad = None if tensor.grad is None else tensor.grad.clone()
            factor = (multipliers or {}).get(id(tensor), 1.0)
            groups.append({**group, "params": [copied], "lr": group["lr"] * factor})
    kind: Any = type(optimizer)
    stand_in: torch.optim.Optimizer = kind(groups)
    for group in optimizer.param_groups:
        for tensor in group["params"]:
            if tensor in optimizer.state:
                stand_in.state[copies[id(tensor)]] = copy.deepcopy(optimizer.state[tensor])
    stand_in.step()
    return {key: copied.detach() for key, copied in copies.items()}


class ExpectedStep:
    """What a step may make of tensors: as planned, or times a multiplier; and their gradients.

    Args:
        optimizer: The optimizer, right before its step.
        multipliers: The multipliers in force by the tensor's id.
        earlier: Those that may have stayed in force, because the present ones could not be set.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        multipliers: Mapping[int, float] | None = None,
        *earlier: Mapping[int, float],
    ) -> None:
        self._tensors = [p for group in optimizer.param_groups for p in group["params"]]
        self._gradients = [None if p.grad is None else p.grad.clone() for p in self._tensors]
        self._scaled = would_be(optimizer, multipliers)
        self._others = [would_be(optimizer), *(would_be(optimizer, each) for each in earlier)]

    def check(self) -> None:
        """Fail unless the step that was made is one of these for each tensor."""
        for tensor, gradient in zip(self._tensors, self._gradients, strict=True):
            allowed = [each[id(tensor)] for each in (self._scaled, *self._others)]
            assert any(_is_close(tensor.detach(), one) for one in allowed), (tensor, allowed)
            assert (tensor.grad is None) == (gradient is None)
            if gradient is not None and tensor.grad is not None:
                assert torch.equal(tensor.grad, gradient)

    @property
    def is_scaled(self) -> bool:
        """Whether the step that was made is that of the multipliers in force."""
        return all(_is_close(p.detach(), self._scaled[id(p)]) for p in self._tensors)


def by_id(tensors: Iterable[Tensor], multipliers: Iterable[float]) -> dict[int, float]:
    """Return multipliers by the id of the tensor that has them."""
    return dict(zip(map(id, tensors), multipliers, strict=True))


def _is_close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-6)
