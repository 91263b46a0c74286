"""The kind of an optimizer's weight decay, and the hints about kinds that cannot be kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fslr.advisor.v1 import policy_pb2
from fslr.testing import FakeAdvisor
from fslr.torch import attach
from fslr.torch.steps.weight_decay import DecayKind, WeightDecay
from tests.weight_decays import MULTIPLIERS, Products, backward


class Unknown(torch.optim.SGD):
    """An optimizer with a step of its own."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)


class UnknownAdamW(torch.optim.AdamW):
    """An optimizer with a step of its own, such as one whose decay has no learning rate."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)


class Wrapped(torch.optim.Optimizer):
    """An optimizer that shares the groups of another one."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner
        self.param_groups = inner.param_groups


class Lion(torch.optim.Optimizer):
    """Known by its name."""


class Plain(torch.optim.SGD):
    """An optimizer with the step of its base."""


class PlainAdamW(torch.optim.AdamW):
    """An optimizer with the step of its base."""


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        (torch.optim.AdamW, DecayKind.DECOUPLED),
        (lambda p: torch.optim.AdamW(p, weight_decay=0.0), DecayKind.NONE),
        (lambda p: torch.optim.Adam(p, weight_decay=0.1), DecayKind.OTHER),
        (torch.optim.Adam, DecayKind.NONE),
        (lambda p: torch.optim.RAdam(p, weight_decay=0.1), DecayKind.OTHER),
        (lambda p: torch.optim.RMSprop(p, weight_decay=0.1), DecayKind.OTHER),
        (lambda p: torch.optim.Adafactor(p, weight_decay=0.1), DecayKind.DECOUPLED),
        (lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1), DecayKind.L2),
        (lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1, momentum=1.0), DecayKind.OTHER),
        (lambda p: Plain(p, 0.1, weight_decay=0.1), DecayKind.L2),
        (lambda p: Unknown(p, 0.1, weight_decay=0.1), DecayKind.OTHER),
        (UnknownAdamW, DecayKind.OTHER),
        (PlainAdamW, DecayKind.DECOUPLED),
        (lambda p: Wrapped(torch.optim.AdamW(p)), DecayKind.DECOUPLED),
        (lambda p: Wrapped(torch.optim.SGD(p, 0.1, weight_decay=0.1)), DecayKind.L2),
        (lambda p: Lion(p, {"lr": 0.1, "weight_decay": 0.1}), DecayKind.DECOUPLED),
    ],
)
def test_the_kind_of_decay_is_found(
    optimizer: Callable[[Any], torch.optim.Optimizer], kind: DecayKind
) -> None:
    built = optimizer([nn.Parameter(torch.ones(2, 2))])
    assert WeightDecay(built).kind(built.param_groups[0]) is kind


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize(
    ("rule", "count"),
    [
        (policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT, 1),
        (policy_pb2.WEIGHT_DECAY_RULE_COUPLED, 0),
    ],
)
def test_l2_in_an_adaptive_optimizer_stays_unchanged_and_a_hint_says_so_once(
    rule: policy_pb2.WeightDecayRule.ValueType,
    count: int,
    scaling: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Products()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    decays: list[float] = []
    optimizer.register_step_pre_hook(
        lambda *_: decays.extend(group["weight_decay"] for group in optimizer.param_groups)
    )
    with (
        caplog.at_level(logging.INFO, "fslr"),
        attach(
            model,
            optimizer,
            profile="x",
            advisor=FakeAdvisor(MULTIPLIERS, weight_decay=rule),
            scaling=scaling,
        ),
    ):
        for _ in range(4):
            backward(model)
            optimizer.step()
    assert set(decays) == {0.1}
    hints = [r for r in caplog.records if "Adam normalizes it with the gradient" in r.getMessage()]
    assert len(hints) == count
    assert all("weight decay of 4 tensor(s)" in hint.getMessage() for hint in hints)


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize(
    ("decay", "multiplier", "rule", "count"),
    [
        (0.1, 0.5, policy_pb2.WEIGHT_DECAY_RULE_COUPLED, 1),
        (0.1, 0.5, policy_pb2.WEIGHT_DECAY_RULE_UNSPECIFIED, 1),
        (0.1, 0.5, policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT, 0),
        (0.1, 1.0, policy_pb2.WEIGHT_DECAY_RULE_COUPLED, 0),
        (0.0, 0.5, policy_pb2.WEIGHT_DECAY_RULE_COUPLED, 0),
    ],
)
def test_a_hint_says_once_that_multipliers_scale_the_decay(
    decay: float,
    multiplier: float,
    rule: policy_pb2.WeightDecayRule.ValueType,
    count: int,
    scaling: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Products()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=decay)
    advisor = FakeAdvisor([multiplier] * len(MULTIPLIERS), weight_decay=rule)
    with (
        caplog.at_level(logging.INFO, "fslr"),
        attach(model, optimizer, profile="x", advisor=advisor, scaling=scaling),
    ):
        for _ in range(4):
            backward(model)
            optimizer.step()
    hint = "multipliers scale the weight decay of 4 tensor(s) together with the rest"
    assert sum(hint in record.getMessage() for record in caplog.records) == count
