"""Optimizers that combine others, each with groups of a different kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch


class Orthogonal(torch.optim.Optimizer):
    """Steps matrices along their orthogonalized momentum, as Muon does."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    momentum = self.state[parameter].setdefault(
                        "momentum", torch.zeros_like(parameter)
                    )
                    momentum.mul_(0.9).add_(parameter.grad)
                    u, _, v = torch.linalg.svd(momentum, full_matrices=False)
                    parameter.sub_(u @ v, alpha=group["lr"])


class Concatenated(torch.optim.Optimizer):
    """Has a list of its own, with the groups of the others."""

    def __init__(self, *inner: torch.optim.Optimizer) -> None:
        self.inner = inner
        super().__init__(list(self.groups()), {})

    def groups(self) -> Iterator[dict[str, Any]]:
        for one in self.inner:
            yield from one.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for one in self.inner:
            one.step()


class Joined(Concatenated):
    """Chains the groups of the others whenever someone asks for them."""

    is_built = False

    def __init__(self, *inner: torch.optim.Optimizer) -> None:
        super().__init__(*inner)
        self.is_built = True

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return list(self.groups()) if self.is_built else self.own

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.own = groups


class Copied(Concatenated):
    """Has groups of its own, whose learning rates the others get when they step."""

    def groups(self) -> Iterator[dict[str, Any]]:
        yield from map(dict, super().groups())

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for own, group in zip(self.param_groups, super().groups(), strict=True):
            group["lr"] = own["lr"]
        super().step(closure)
