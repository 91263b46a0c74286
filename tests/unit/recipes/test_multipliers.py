"""A layer with a multiplier trains like one without, with the factors of the derivation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from advisor.recipes import Field
from advisor.recipes.multipliers import POWERS_OF_MULTIPLIER

_MULTIPLIER = 0.3
_STEPS = 6
_SETTINGS = {"lr": 0.05, "eps": 0.02, "weight_decay": 0.4}  # a large epsilon: errors would show
_FIELDS = {
    "lr": Field.LEARNING_RATE,
    "eps": Field.EPSILON,
    "weight_decay": Field.WEIGHT_DECAY,
}


class Orthogonalized(torch.optim.Optimizer):
    """Muon in float64: the polar factor of the momentum, and decoupled decay."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, eps: float, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for p in group["params"]:
                assert p.grad is not None
                state = self.state[p]
                state["momentum"] = 0.9 * state.get("momentum", torch.zeros_like(p)) + p.grad
                matrix = state["momentum"].reshape(len(p), -1)
                u, s, v = torch.linalg.svd(matrix, full_matrices=False)
                shrunk = u @ torch.diag(s / (s.norm() + group["eps"])) @ v  # as Muon starts
                u, _, v = torch.linalg.svd(shrunk, full_matrices=False)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * (u @ v + shrunk).reshape(p.shape))


Build = Callable[..., torch.optim.Optimizer]
OPTIMIZERS: dict[str, tuple[str, Build, dict[str, Any]]] = {
    "SGD": ("SGD", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "AdamW": ("Adam", torch.optim.AdamW, {}),
    "NAdamW": ("Adam", torch.optim.NAdam, {"decoupled_weight_decay": True}),
    "RMSprop": ("RMSprop", torch.optim.RMSprop, {"weight_decay": 0.0, "momentum": 0.5}),
    "Adagrad": ("Adagrad", torch.optim.Adagrad, {"weight_decay": 0.0}),
    "Muon": ("orthogonalized", Orthogonalized, {}),
}


def trained(
    weights: torch.Tensor, build: Build, settings: dict[str, Any], multiplier: float
) -> Any:
    """Return the weights after each step of a regression, times the multiplier."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(_STEPS, 8, 5, generator=generator, dtype=torch.float64)
    targets = torch.randn(_STEPS, 8, 4, generator=generator, dtype=torch.float64)
    parameter = nn.Parameter(weights.clone())
    optimizer = build([parameter], **settings)
    path = []
    for x, y in zip(inputs, targets, strict=True):
        optimizer.zero_grad()
        loss = (torch.tanh(multiplier * (x @ parameter.T)) - y).square().mean()
        loss.backward()
        optimizer.step()
        path.append(multiplier * parameter.detach().clone())
    return torch.stack(path)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_moving_a_multiplier_into_the_weights_changes_no_step(name: str) -> None:
    family, build, options = OPTIMIZERS[name]
    powers = POWERS_OF_MULTIPLIER[family]
    settings = {**_SETTINGS, **options}
    if family == "SGD":
        del settings["eps"]
    moved = {
        key: value * _MULTIPLIER ** powers[_FIELDS[key]] if key in _FIELDS else value
        for key, value in settings.items()
    }
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    with_multiplier = trained(weights, build, settings, _MULTIPLIER)
    initial = weights * _MULTIPLIER ** powers[Field.INITIAL_SCALE]
    without = trained(initial, build, moved, 1.0)
    torch.testing.assert_close(without, with_multiplier, rtol=1e-11, atol=1e-13)
    for key in (key for key in settings if key in _FIELDS and settings[key]):
        one_wrong = trained(initial, build, {**moved, key: settings[key]}, 1.0)
        assert not torch.allclose(one_wrong, with_multiplier, rtol=1e-4, atol=0), key
