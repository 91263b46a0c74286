"""The base learning rate of a run is the one that a recording of it would have."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.optim import lr_scheduler

from advisor.local.in_process import InProcessAdvisor
from fslr import RunInfo
from fslr.advisor.v1 import policy_pb2, profile_pb2
from fslr.torch import Recorder, attach
from fslr.torch.optimizers import largest_learning_rate
from tests.building import COMPLETE_PROVENANCE
from tests.training_jobs import wide

STEPS = 12
Schedule = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]

SCHEDULES: dict[str, Schedule] = {
    "none": lambda o: lr_scheduler.LambdaLR(o, lambda _: 1.0),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.01, total_steps=STEPS),
}


def recorded(schedule: Schedule) -> profile_pb2.ProfileContent:
    model, optimizer, backward = wide()
    scheduler = schedule(optimizer)
    with Recorder(model, optimizer, every=2, provenance=COMPLETE_PROVENANCE) as recorder:
        for _ in range(STEPS - 1):
            backward()
            optimizer.step()
            scheduler.step()
    return recorder.profile("x")


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_with_the_schedule_of_the_profile_gets_no_warning(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    base = recorded(SCHEDULES[name])
    model, optimizer, backward = wide()
    scheduler = SCHEDULES[name](optimizer)
    policy = policy_pb2.Policy(min_interval_steps=2, max_interval_steps=2)
    advisor = InProcessAdvisor(base)
    with (
        caplog.at_level(logging.WARNING, "fslr"),
        attach(
            model,
            optimizer,
            profile="x",
            advisor=advisor,
            run=RunInfo(policy=policy),
        ) as attachment,
    ):
        for _ in range(3):
            backward()
            optimizer.step()
            scheduler.step()
    assert attachment.answer is not None
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize(
    ("entries", "learning_rate"),
    [
        ({}, 0.1),
        ({"initial_lr": 0.4}, 0.4),
        ({"initial_lr": 0.04, "max_lr": 1.0}, 1.0),
        ({"initial_lr": 0.04, "max_lr": torch.tensor(1.0)}, 1.0),
        # PyTorch's schedulers do not set this, so its meaning is unknown.
        ({"max_lr": 1.0}, 0.1),
        ({"initial_lr": 0.4, "max_lr": 0.2}, 0.4),
        ({"initial_lr": 0.4, "max_lr": None}, 0.4),
        ({"initial_lr": 0.4, "max_lr": True}, 0.4),
        ({"initial_lr": 0.4, "max_lr": float("inf")}, 0.4),
        ({"initial_lr": 0.4, "max_lr": "large"}, 0.4),
        ({"initial_lr": 0.4, "max_lr": torch.ones(2)}, 0.4),
    ],
)
def test_the_base_learning_rate_is_the_largest_that_a_scheduler_announced(
    entries: dict[str, float | str | Tensor | None], learning_rate: float
) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    optimizer.param_groups[0].update(entries)
    assert largest_learning_rate([optimizer]) == pytest.approx(learning_rate)
