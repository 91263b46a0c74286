"""Scaling a step changes the step, and nothing else of the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from fslr import AttachError
from fslr.torch import ModelGroups
from fslr.torch.optimizer import StepScaler, refuse_unscalable

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "SGD": lambda m: torch.optim.SGD(m.parameters(), lr=0.001, momentum=0.9, weight_decay=0.01),
    "Adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01),
    "AdamW": lambda m: torch.optim.AdamW(m.named_parameters(), lr=0.01),
    "two groups": lambda m: torch.optim.Adam(
        [
            {"params": [p for p in m.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in m.parameters() if p.dim() <= 1], "lr": 0.5},
        ],
        lr=0.01,
    ),
}


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 2))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    net(torch.randn(8, 4, generator=generator)).square().sum().backward()
    optimizer.step()


class Counting(torch.optim.Optimizer):
    """A user's own optimizer, which counts its steps in the group."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr, "count": 0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            group["count"] += 1
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * parameter.grad / group["count"])


OPTIMIZERS["Counting"] = lambda m: Counting(m.parameters(), lr=0.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_moves_each_parameter_by_its_multiplier(name: str) -> None:
    plain, scaled = model(), model()
    optimizers = OPTIMIZERS[name](plain), OPTIMIZERS[name](scaled)
    scaler = StepScaler(optimizers[1], list(scaled.parameters()))
    multipliers = [0.5, 2.0, 1.0, 2.0, 3.0, 0.5]
    for seed in range(3):
        scaled.load_state_dict(plain.state_dict())
        start = [p.detach().clone() for p in plain.parameters()]
        own = optimizers[1].param_groups
        step(plain, optimizers[0], seed)
        scaler.scale(multipliers)
        step(scaled, optimizers[1], seed)
        scaler.restore()
        assert optimizers[1].param_groups is own
        for p, q, s, m in zip(
            plain.parameters(), scaled.parameters(), start, multipliers, strict=True
        ):
            torch.testing.assert_close(q - s, (p - s) * m, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_s_state_and_checkpoint_are_those_without_us(name: str) -> None:
    plain, scaled = model(), model()
    optimizers = OPTIMIZERS[name](plain), OPTIMIZERS[name](scaled)
    scaler = StepScaler(optimizers[1], list(scaled.parameters()))
    for seed in range(3):
        scaled.load_state_dict(plain.state_dict())
        step(plain, optimizers[0], seed)
        scaler.scale([0.5, 2.0, 1.0, 2.0, 3.0, 0.5])
        step(scaled, optimizers[1], seed)
        scaler.restore()
    states = [optimizer.state_dict() for optimizer in optimizers]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    assert states[0]["state"].keys() == states[1]["state"].keys()
    for key, own in states[0]["state"].items():
        torch.testing.assert_close(own, states[1]["state"][key], rtol=0, atol=0)


def test_equal_multipliers_share_a_group() -> None:
    net = model()
    optimizer = OPTIMIZERS["two groups"](net)
    scaler = StepScaler(optimizer, list(net.parameters()))
    scaler.scale([2.0] * 6)
    assert len(optimizer.param_groups) == 2
    scaler.scale([1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    assert len(optimizer.param_groups) == 3
    scaler.restore()


def test_a_group_that_is_added_during_a_step_stays() -> None:
    net, more = model(), nn.Linear(2, 2)
    optimizer = OPTIMIZERS["SGD"](net)
    scaler = StepScaler(optimizer, list(net.parameters()))
    scaler.scale([2.0] * 6)
    optimizer.add_param_group({"params": list(more.parameters())})
    scaler.restore()
    assert [len(group["params"]) for group in optimizer.param_groups] == [6, 2]


def test_lbfgs_is_refused() -> None:
    with pytest.raises(AttachError, match=r"LBFGS steps along one direction.*another optimizer"):
        refuse_unscalable(torch.optim.LBFGS(model().parameters()))


def test_multipliers_act_on_the_scheduled_rate_and_schedulers_do_not_see_them() -> None:
    plain, scaled = model(), model()
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (plain, scaled)]
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(o, 0.5) for o in optimizers]
    scaler = StepScaler(optimizers[1], list(scaled.parameters()))
    for seed in range(3):
        scheduled = scaler.scheduled()
        assert scheduled == pytest.approx([0.1 * 0.5**seed] * 6)
        for net, optimizer in zip((plain, scaled), optimizers, strict=True):
            start = [p.detach().clone() for p in net.parameters()]
            if net is scaled:
                scaler.scale([3.0] * 6)
                assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3 * 0.5**seed)
            step(net, optimizer, seed)
            if net is scaled:
                scaler.restore()
            moves = [p.detach() - s for p, s in zip(net.parameters(), start, strict=True)]
            if net is plain:
                expected = [3.0 * move for move in moves]
        assert all(torch.allclose(m, e) for m, e in zip(moves, expected, strict=True))
        for net in (plain, scaled):  # the same weights again, for the next step to compare
            net.load_state_dict(plain.state_dict())
        for scheduler in schedulers:
            scheduler.step()


def test_scaling_again_after_a_step_that_raised_does_not_scale_twice() -> None:
    net = model()
    optimizer = OPTIMIZERS["SGD"](net)
    scaler = StepScaler(optimizer, list(net.parameters()))
    scaler.scale([2.0] * 6)
    scaler.scale([2.0] * 6)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.002)
    scaler.restore()
    assert optimizer.param_groups[0]["lr"] == 0.001


def test_an_optimizer_of_other_parameters_is_refused() -> None:
    stranger = nn.Linear(3, 2)
    optimizer = torch.optim.SGD([*model().parameters(), *stranger.parameters()], lr=0.1)
    with pytest.raises(AttachError, match=r"8 tensor\(s\) that are not parameters of the model"):
        ModelGroups(model(), optimizer)


def test_an_optimizer_of_frozen_parameters_is_refused() -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net.requires_grad_(False)
    with pytest.raises(AttachError, match=r"updates no trainable parameter of the model"):
        ModelGroups(net, optimizer)
