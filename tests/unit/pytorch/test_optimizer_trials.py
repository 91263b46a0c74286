"""Trying an optimizer out costs the same for large models, and is rare during a training."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

from fslr.torch.steps.optimizer_trial import Trial, try_out
from fslr.torch.steps.small_copy import SmallCopy
from fslr.torch.steps.step_check import StepCheck
from fslr.torch.steps.step_scaler import StepScaler
from fslr.training.events import Listeners
from tests.unusual_optimizers import Simple


@pytest.mark.parametrize(
    ("tensors", "is_training", "copies", "steps"),
    # Plain and scaled, during a training also with multipliers near 0, and twice to see whether a
    # change of the weights lasts.
    [(4, False, 4, 16), (4, True, 5, 22), (400, True, 5, 22)],
)
def test_a_trial_makes_the_same_steps_however_many_tensors_there_are(
    tensors: int, is_training: bool, copies: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Counter[str] = Counter()
    construct, step = SmallCopy.__init__, SmallCopy.step

    def constructed(small: SmallCopy, *args: Any, **options: Any) -> None:
        counts["copies"] += 1
        construct(small, *args, **options)

    def stepped(small: SmallCopy, number: int) -> None:
        counts["steps"] += 1
        step(small, number)
        counts["gradients"] += sum(p.grad is not None for p in small.parameters)

    monkeypatch.setattr(SmallCopy, "__init__", constructed)
    monkeypatch.setattr(SmallCopy, "step", stepped)
    optimizer = Simple([nn.Parameter(torch.ones(6, 6)) for _ in range(tensors)])
    try_out(optimizer, is_training=is_training)
    assert counts == {"copies": copies, "steps": steps, "gradients": 3 * steps}


def test_trials_during_a_training_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def note(*_: Any, **__: Any) -> Trial:
        tried.append(change)
        return Trial("", "")

    monkeypatch.setattr("fslr.torch.steps.step_check.try_out", note)
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(4)]
    optimizer = Simple(parameters)
    check = StepCheck(
        [optimizer], StepScaler(optimizer, parameters), Listeners([]), int, lambda _: None
    )
    for change in range(1, 65):
        for same in (1.0, 1.0, 1.005):  # less than 1% is no change
            check.multipliers_changed([same * 1.05**change] * 4)
    assert tried == [2, 4, 8, 16, 32, 64]


def test_a_wrapper_around_an_optimizer_without_modes_can_be_tried_out() -> None:
    class Wrapper(Simple):
        def train(self) -> None:
            self.param_groups.train()  # type: ignore[attr-defined]

    assert try_out(Wrapper([nn.Parameter(torch.ones(2, 2))])) == Trial("", "")
