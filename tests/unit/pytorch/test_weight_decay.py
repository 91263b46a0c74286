"""Under the rule "independent" the weight decay of a step is what the user's settings say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from fslr.advisor.v1 import policy_pb2
from fslr.testing import FakeAdvisor
from fslr.torch import attach
from tests.scaled_steps import groups_of_a_step, scaler_of
from tests.weight_decays import (
    DECAY,
    INDEPENDENT,
    LEARNING_RATE,
    MULTIPLIERS,
    OPTIMIZERS,
    Products,
    backward,
)

SMALL_DECAY = 0.05  # with momentum, what is exact for weights that do not change


def decays_without_gradient(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
    """Return which part of each parameter a step with gradients of zero takes away."""
    optimizer.state.clear()
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return [
        ((b - p.detach()) * b).sum().item() / b.square().sum().item()
        for b, p in zip(before, model.parameters(), strict=True)
    ]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.9, 0.99])
@pytest.mark.parametrize("multiplier", [0.25, 4.0])
def test_the_first_step_with_momentum_decays_by_one_step(
    multiplier: float, momentum: float, nesterov: bool
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 3, bias=False)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=momentum, weight_decay=0.1, nesterov=nesterov
    )
    advisor = FakeAdvisor(multiplier, weight_decay=INDEPENDENT)
    with attach(model, optimizer, profile="x", advisor=advisor, answers="wait"):
        model(torch.randn(8, 6)).square().mean().backward()
        weights, gradient = model.weight.detach().clone(), model.weight.grad
        assert gradient is not None
        part = 1 + momentum if nesterov else 1.0  # of the gradient, and of the decay
        expected = weights - 0.1 * part * (multiplier * gradient + 0.1 * weights)
        optimizer.step()
    torch.testing.assert_close(model.weight.detach(), expected)


@pytest.mark.compatibility("PyTorch loop", "weight decay")
@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_decay_of_a_step_does_not_depend_on_the_multiplier(name: str, scaling: Any) -> None:
    model = Products()
    optimizer = OPTIMIZERS[name](model.parameters())
    advisor = FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT)
    with attach(model, optimizer, profile="x", advisor=advisor, scaling=scaling) as attachment:
        for _ in range(2):
            backward(model)
            optimizer.step()
        assert attachment.multipliers == list(MULTIPLIERS)
        assert attachment.failures == 0
        found = decays_without_gradient(model, optimizer)
    assert found == pytest.approx([LEARNING_RATE * DECAY] * len(MULTIPLIERS), rel=1e-3)


@pytest.mark.compatibility("PyTorch loop", "weight decay")
@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_under_the_rule_coupled_a_multiplier_scales_the_decay(name: str, scaling: Any) -> None:
    model = Products()
    optimizer = OPTIMIZERS[name](model.parameters())
    advisor = FakeAdvisor(MULTIPLIERS, weight_decay=policy_pb2.WEIGHT_DECAY_RULE_COUPLED)
    with attach(model, optimizer, profile="x", advisor=advisor, scaling=scaling):
        backward(model)
        optimizer.step()
        found = decays_without_gradient(model, optimizer)
    expected = [LEARNING_RATE * DECAY * multiplier for multiplier in MULTIPLIERS]
    assert found == pytest.approx(expected, rel=1e-2, abs=5e-7)  # a few units in the last place


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_groups_with_learning_rates_and_decays_of_their_own(
    name: str, scaling: Any
) -> None:
    """The first step, which is rescaled by the first answer, is one of them."""
    plain, advised = Products(), Products()
    groups = [{"params": [matrix]} for matrix in plain.matrices]
    optimizers = OPTIMIZERS[name](groups), OPTIMIZERS[name](advised.parameters())
    for group, multiplier in zip(optimizers[0].param_groups, MULTIPLIERS, strict=True):
        group["lr"] = group["lr"] * multiplier
        group["weight_decay"] = group["weight_decay"] / multiplier
    with attach(
        advised,
        optimizers[1],
        profile="x",
        advisor=FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT),
        scaling=scaling,
    ):
        for _ in range(5):
            for model, optimizer in zip((plain, advised), optimizers, strict=True):
                backward(model)
                optimizer.step()
            for p, q in zip(plain.parameters(), advised.parameters(), strict=True):
                torch.testing.assert_close(q, p, rtol=2e-4, atol=2e-5)


def test_groups_keep_their_own_decays_and_the_optimizer_shows_no_other() -> None:
    model = Products()
    matrices = list(model.matrices)
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices[:2], "weight_decay": 0.3},
            {"params": matrices[2:3], "weight_decay": 0.0},
            {"params": matrices[3:], "weight_decay": 0.2, "lr": 0.02},
        ],
        lr=0.01,
    )
    scaler = scaler_of(optimizer, matrices)
    before = optimizer.state_dict()["param_groups"]
    scaler.scale([0.5, 1.0, 0.5, 4.0], keeps_decay=True)
    parts = groups_of_a_step(scaler)
    assert [part["lr"] for part in parts] == pytest.approx([0.005, 0.01, 0.005, 0.08])
    assert [part["weight_decay"] for part in parts] == pytest.approx([0.6, 0.3, 0.0, 0.05])
    assert scaler.decays() == [0.0] * 4  # there was no step
    optimizer.step()
    assert scaler.decays() == pytest.approx([0.003, 0.003, 0.0, 0.004])  # as scheduled
    assert optimizer.state_dict()["param_groups"] == before
    assert scaler.state_dict() == {"notes": [{}] * 4}


def test_a_tiny_multiplier_gives_no_infinite_decay() -> None:
    model = Products()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    scaler = scaler_of(optimizer, list(model.parameters()))
    scaler.scale([1e-310] * 4, keeps_decay=True)
    (part,) = groups_of_a_step(scaler)
    assert part["weight_decay"] == 1e30


def with_momentum(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        model.parameters(), lr=1e-3, weight_decay=SMALL_DECAY, momentum=0.9, **options
    )


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"dampening": 0.5}])
def test_with_momentum_the_decay_is_kept_while_a_multiplier_stays(
    scaling: Any, options: dict[str, Any]
) -> None:
    """Scaling the update takes the decay in the momentum as that of weights that do not change."""
    shrunk: list[list[float]] = []
    for multipliers in ((1.0,) * 4, MULTIPLIERS):
        model = Products()
        optimizer = with_momentum(model, **options)
        with attach(
            model,
            optimizer,
            profile="x",
            advisor=FakeAdvisor(multipliers, weight_decay=INDEPENDENT),
            scaling=scaling,
        ):
            backward(model)
            optimizer.step()
            optimizer.state.clear()
            norms = []
            for _ in range(180):
                for parameter in model.parameters():
                    parameter.grad = torch.zeros_like(parameter)
                optimizer.step()
                norms.append([p.detach().norm().item() for p in model.parameters()])
        # The momentum has no decay at first.
        shrunk.append([math.log(a / b) for a, b in zip(norms[80], norms[-1], strict=True)])
    of_a_step = 1e-3 * SMALL_DECAY * (1 - options.get("dampening", 0.0)) / (1 - 0.9)
    if options.get("nesterov"):
        of_a_step = 1e-3 * SMALL_DECAY * (1 + 0.9 / (1 - 0.9))
    assert shrunk[0] == pytest.approx([99 * of_a_step] * 4, rel=0.02)
    assert shrunk[1] == pytest.approx(shrunk[0], rel=0.06)


def test_momentum_from_before_a_change_of_the_multiplier_has_the_earlier_decay() -> None:
    """This is what is not exact for L2 with momentum; it fades with the momentum."""
    model = Products()
    optimizer = with_momentum(model)
    scaler = scaler_of(optimizer, list(model.parameters()))
    decays: list[float] = []
    for step in range(80):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        before = model.matrices[0].detach().clone()
        scaler.scale([0.1 if step < 40 else 0.2] * 4, keeps_decay=True)
        optimizer.step()
        scaler.restore()
        decays.append(((before - model.matrices[0].detach()) / before).mean().item())
    kept = 1e-3 * SMALL_DECAY / (1 - 0.9)
    assert decays[39] == pytest.approx(kept, rel=0.05)
    assert decays[40] == pytest.approx(1.9 * kept, rel=0.05)
    assert decays[79] == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
def test_a_parameter_without_a_gradient_does_not_decay(scaling: Any) -> None:
    model = Products()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    with attach(
        model,
        optimizer,
        profile="x",
        advisor=FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT),
        scaling=scaling,
    ):
        backward(model)
        optimizer.step()
        before = model.matrices[1].detach().clone()
        backward(model)
        model.matrices[1].grad = None
        optimizer.step()
    assert torch.equal(model.matrices[1], before)
