"""Splitting an optimizer's groups and scaling its learning rates change nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from fslr import AttachError
from fslr.torch import ModelGroups
from fslr.torch.optimizer import StepScaler, split_groups

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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_splitting_keeps_options_and_state_bit_for_bit(name: str) -> None:
    plain, split = model(), model()
    plain_optimizer, split_optimizer = OPTIMIZERS[name](plain), OPTIMIZERS[name](split)
    for seed in range(3):
        step(plain, plain_optimizer, seed)
        step(split, split_optimizer, seed)
    split_groups(split_optimizer)
    assert [len(group["params"]) for group in split_optimizer.param_groups] == [1] * 6
    for seed in range(3, 6):
        step(plain, plain_optimizer, seed)
        step(split, split_optimizer, seed)
    assert all(p.isfinite().all() for p in plain.parameters())
    assert all(
        torch.equal(p, q) for p, q in zip(plain.parameters(), split.parameters(), strict=True)
    )
    options = {k: v for k, v in plain_optimizer.param_groups[0].items() if "param" not in k}
    for key, value in options.items():
        assert split_optimizer.param_groups[0][key] == value


def test_a_scheduler_that_is_attached_already_is_refused_with_the_remedy() -> None:
    optimizer = OPTIMIZERS["Adam"](model())
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(AttachError, match=r"attach fslr first, then build the scheduler"):
        split_groups(optimizer)
    assert optimizer.state_dict() == before


def test_lbfgs_is_refused() -> None:
    with pytest.raises(AttachError, match=r"LBFGS steps along one direction.*another optimizer"):
        split_groups(torch.optim.LBFGS(model().parameters()))


def test_multipliers_act_on_the_scheduled_rate_and_schedulers_do_not_see_them() -> None:
    plain, scaled = model(), model()
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (plain, scaled)]
    split_groups(optimizers[1])
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
    split_groups(optimizer)
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
