"""The hint that another way of scaling is cheaper."""

from __future__ import annotations

import logging
from itertools import count
from typing import Any

import pytest
import torch
from torch import nn

from advisor.local.in_process import InProcessAdvisor
from fslr.advisor.v1 import policy_pb2
from fslr.torch import attach
from fslr.torch.pace import Pace, splitting_cost_s
from tests.building import content_message


def test_splitting_many_groups_costs_more_than_few() -> None:
    optimizer = torch.optim.AdamW(nn.Linear(3, 2).parameters(), lr=0.1, fused=True)
    few, many = splitting_cost_s(optimizer, 10), splitting_cost_s(optimizer, 500)
    assert few is not None
    assert many is not None
    assert many > 3 * abs(few)


def test_an_optimizer_that_cannot_be_tried_out_has_no_cost() -> None:
    class Stubborn(torch.optim.SGD):
        def __init__(self, params: Any, needed: int) -> None:  # noqa: ARG002
            super().__init__(params, lr=0.1)

    assert splitting_cost_s(Stubborn(nn.Linear(3, 2).parameters(), 1), 4) is None


def test_a_hint_is_given_once_where_splitting_costs_more_than_a_twentieth(
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(100)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001, fused=True)
    names = [name for name, _ in model.named_parameters()]
    advisor = InProcessAdvisor(content_message(names))
    state = torch.get_rng_state()
    seldom = policy_pb2.Policy(min_interval_steps=1000, max_interval_steps=1000)
    with (
        caplog.at_level(logging.WARNING, "fslr"),
        attach(model, optimizer, profile="x", advisor=advisor, policy=seldom),
    ):
        model(torch.ones(8, 2)).square().sum().backward()
        for _ in range(60):  # no forward pass: as if the model took no time at all
            optimizer.step()
    hints = [r.getMessage() for r in caplog.records if "scaling" in r.getMessage()]
    assert torch.equal(state, torch.get_rng_state())
    (hint,) = hints
    assert "for each of 200 tensors costs " in hint


@pytest.mark.parametrize(
    ("step_s", "groups", "hints"), [(1e-6, 200, 1), (60, 200, 0), (1e-6, 8, 0)]
)
def test_no_hint_where_steps_are_long_or_groups_are_few(
    step_s: float, groups: int, hints: int, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = torch.optim.AdamW(nn.Linear(3, 2).parameters(), lr=0.1, fused=True)
    pace = Pace(optimizer, groups, clock=count(step=step_s).__next__)
    with caplog.at_level(logging.WARNING, "fslr"):
        for _ in range(60):
            pace.note(undisturbed=True)
    assert len(caplog.records) == hints
