"""Optimizers that differ from gradient descent in one thing each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Simple(torch.optim.Optimizer):
    """Descends along the gradient; the base of optimizers that differ in one thing."""

    def __init__(self, params: Any, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        self.begin()
        for place, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, self.rate(place, group))

    def begin(self) -> None:
        pass

    def rate(self, _place: int, group: dict[str, Any]) -> float:
        return float(group["lr"])

    def update(self, parameter: Tensor, rate: float) -> None:
        assert parameter.grad is not None
        parameter.sub_(parameter.grad, alpha=rate)


class Recurring(Simple):
    """Writes its learning rate from a schedule of its own."""

    def begin(self) -> None:
        for group in self.param_groups:
            group["lr"] = 0.01


class OwnRates(Simple):
    """Has a list of learning rates of its own, one for each group."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.rates = [0.01 for _ in self.param_groups]

    def rate(self, place: int, _group: dict[str, Any]) -> float:
        return self.rates[place]


class FirstRates(Simple):
    """Keeps the learning rates of its first step."""

    first: list[float] | None = None

    def begin(self) -> None:
        if self.first is None:
            self.first = [group["lr"] for group in self.param_groups]

    def rate(self, place: int, _group: dict[str, Any]) -> float:
        assert self.first is not None
        return self.first[place]


class OneRate(Simple):
    """Wants one learning rate in all groups."""

    def begin(self) -> None:
        if len({group["lr"] for group in self.param_groups}) > 1:
            raise RuntimeError("all groups must have one learning rate")


class OwnReference(Simple):
    """Steps through a reference to itself that it kept."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.me = self

    def rate(self, place: int, _group: dict[str, Any]) -> float:
        return float(self.me.param_groups[min(place, len(self.me.param_groups) - 1)]["lr"])


class Normalized(Simple):
    """Moves a distance that does not depend on the learning rate much."""

    def rate(self, _place: int, group: dict[str, Any]) -> float:
        return math.sqrt(group["lr"]) / 10


class GroupNormalized(Simple):
    """Divides by the RMS of the gradients of a group."""

    def rate(self, _place: int, group: dict[str, Any]) -> float:
        gradients = torch.cat([parameter.grad.flatten() for parameter in group["params"]])
        return 0.01 * float(group["lr"] / gradients.square().mean().sqrt())


class OwnWeights(Simple):
    """Keeps weights of its own in a higher precision, and copies them into the model."""

    def update(self, parameter: Tensor, rate: float) -> None:
        state = self.state[parameter]
        if not state:
            state["weights"] = parameter.to(torch.float64, copy=True)
        assert parameter.grad is not None
        state["weights"].sub_(parameter.grad, alpha=rate)
        parameter.copy_(state["weights"])


class LateOwnWeights(OwnWeights):
    """Moves nothing in its first steps."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.steps = 0

    def begin(self) -> None:
        self.steps += 1

    def update(self, parameter: Tensor, rate: float) -> None:
        if self.steps > 5:
            super().update(parameter, rate)


class OwnWeightsOneRate(OwnWeights, OneRate):
    """Can be scaled in neither way."""


class Averaging(Simple):
    """Steps points of its own, and averages them; it has modes, as a module has."""

    is_in_train_mode = False

    def train(self) -> None:
        self.is_in_train_mode = True

    def begin(self) -> None:
        if not self.is_in_train_mode:
            raise RuntimeError("call train() first")

    def update(self, parameter: Tensor, rate: float) -> None:
        state = self.state[parameter]
        if not state:
            state.update(point=parameter.clone(), steps=0)
        state["steps"] += 1
        assert parameter.grad is not None
        state["point"].sub_(parameter.grad, alpha=rate)
        parameter.lerp_(state["point"], 1 / state["steps"])


class Sharpness(torch.optim.Optimizer):
    """Lets another optimizer step, and then moves against the sharpness itself."""

    def __init__(self, params: Any, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})
        self.inner = torch.optim.SGD(self.param_groups, lr=lr)
        self.param_groups = self.inner.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        closure = torch.enable_grad()(closure)
        loss = closure()
        tensors = [
            (p, g["lr"]) for g in self.param_groups for p in g["params"] if p.grad is not None
        ]
        gradients = [p.grad.clone() for p, _ in tensors if p.grad is not None]
        for (p, _), gradient in zip(tensors, gradients, strict=True):
            p.add_(gradient)
        closure()
        for (p, rate), gradient in zip(tensors, gradients, strict=True):
            assert p.grad is not None
            p.sub_(gradient).sub_(p.grad - gradient, alpha=9 * rate)
            p.grad.copy_(gradient)
        self.inner.step()
        return loss


class Tiny(Simple):
    """Moves weights by their rounding at first, whatever the learning rate."""

    def rate(self, _place: int, _group: dict[str, Any]) -> float:
        return 1e-8


class Later(Simple):
    """Computes its own learning rates from its 20th step on."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.steps = 0

    def begin(self) -> None:
        self.steps += 1

    def rate(self, _place: int, group: dict[str, Any]) -> float:
        return float(group["lr"]) if self.steps < 20 else 0.01


class LaterOneTensor(Later):
    """Computes its own learning rate for one of its tensors from its 20th step on."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.own = self.param_groups[0]["params"][-1]

    def rate(self, _place: int, group: dict[str, Any]) -> float:
        return float(group["lr"])

    def update(self, parameter: Tensor, rate: float) -> None:
        is_own = self.steps >= 20 and parameter is self.own
        super().update(parameter, 0.01 if is_own else rate)


class LaterOwnWeights(OwnWeights, Later):
    """Keeps weights of its own, and computes its own learning rates from its 20th step on."""


class KeepsWeightsLater(OwnWeights, Later):
    """Keeps weights of its own from its 20th step on."""

    def rate(self, place: int, group: dict[str, Any]) -> float:
        return Simple.rate(self, place, group)

    def update(self, parameter: Tensor, rate: float) -> None:
        if self.steps < 20:
            Simple.update(self, parameter, rate)
        else:
            super().update(parameter, rate)


class OwnRatesKeepsWeightsLater(KeepsWeightsLater):
    """The same, with learning rates of its own: in the end it can be scaled in neither way."""

    def rate(self, _place: int, _group: dict[str, Any]) -> float:
        return 0.01


class ReadsItselfLater(Later):
    """Steps through a reference to itself from its 22nd step on."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.me = self

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        Simple.step(self if self.steps < 21 else self.me, closure)


class ReadsItselfLaterOwnWeights(OwnWeights, ReadsItselfLater):
    """The same, with weights of its own."""
