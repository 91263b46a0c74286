"""A fault in any part that runs in a step or a call leaves a step that could have been made."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from fslr.testing import FakeAdvisor
from fslr.torch import MeasuringOptions, Recorder, attach
from fslr.torch.calls.training_calls import TrainingCalls
from fslr.torch.calls.training_watch import TrainingWatch
from fslr.torch.step_meter import StepMeter
from fslr.torch.steps import step_check
from fslr.torch.steps.inner_optimizer import InnerOptimizer
from fslr.torch.steps.joint_adam import JointAdam
from fslr.torch.steps.split_groups import SplitGroups
from fslr.torch.steps.step_scaler import StepScaler
from fslr.training.advised_run import AdvisedRun
from tests.small_net import MULTIPLIERS, net
from tests.would_be_steps import ExpectedStep, by_id

OTHERS = [3.0, 0.4, 1.5, 0.6]
FIRST = 3  # the step from which on calls fail
MOST_CALLS = 4  # of a part in one step that fail one after the other


class InjectedError(RuntimeError):
    """What a failing part raises."""


class OwnSgd(torch.optim.SGD):
    """An optimizer that is not known, so that it is tried out after changes of multipliers."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def mask(_inputs: Any, result: Tensor) -> Tensor:
    return torch.ones(result.shape[:1])


TRAININGS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "Adam": ([torch.optim.Adam], {}),
    "joint Adam": ([partial(torch.optim.Adam, foreach=True)], {}),
    "updates": ([torch.optim.Adam], {"scaling": "update"}),
    "unknown optimizer": ([OwnSgd], {}),
    "closure": ([torch.optim.SGD], {}),
    "several optimizers": ([torch.optim.Adam, torch.optim.SGD], {}),
    "accumulation": ([torch.optim.SGD], {}),
    "mask": ([torch.optim.SGD], {"options": MeasuringOptions(mask=mask)}),
    "recorder": ([torch.optim.Adam], {}),
}
IN_SHORT = {"joint Adam", "closure", "several optimizers", "recorder"}
SITES: list[tuple[Any, str]] = [
    (step_check, "try_out"),  # in the fourth change of multipliers, so first
    (TrainingCalls, "_known_autocasts"),
    (TrainingCalls, "_add"),
    (TrainingCalls, "latest"),
    (TrainingWatch, "called"),
    (TrainingWatch, "stepped"),
    (SplitGroups, "begin_step"),
    (SplitGroups, "refresh"),
    (SplitGroups, "merge"),
    (SplitGroups, "_parts_of"),
    (JointAdam, "_takes"),
    (InnerOptimizer, "note"),
    (InnerOptimizer, "present_versions"),
    (StepScaler, "check"),
    (StepScaler, "scale"),
    (StepScaler, "learning_rates"),
    (StepScaler, "decays"),
    (StepMeter, "begin_step"),
    (StepMeter, "end_step"),
    (StepMeter, "rescale_step"),
    (MeasuringOptions, "batch_of"),
    (AdvisedRun, "measured"),
]


class Fault:
    """Lets one call of a part fail.

    Args:
        owner: The class or module that holds it.
        name: Its name.
        patch: Replaces it.

    Attributes:
        fails_at: Which call from now on fails; 0: none.
        calls: Number of calls from now on.
    """

    def __init__(self, owner: Any, name: str, patch: pytest.MonkeyPatch) -> None:
        self.fails_at = self.calls = 0
        original = getattr(owner, name)

        def failing(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.fails_at:
                raise InjectedError(f"call {self.calls} of {name}")
            return original(*args, **kwargs)

        patch.setattr(owner, name, failing)

    def arm(self, fails_at: int) -> None:
        self.calls, self.fails_at = 0, fails_at


class Training:
    """A small training of one kind, whose steps are checked.

    Args:
        kind: A name in ``TRAININGS``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.model = net()
        self.advisor = FakeAdvisor(MULTIPLIERS, interval_steps=1)
        kinds, options = TRAININGS[kind]
        parameters = list(self.model.parameters())
        parts = [parameters] if len(kinds) == 1 else [parameters[:2], parameters[2:]]
        self.optimizers = [make(part, lr=0.01) for make, part in zip(kinds, parts, strict=True)]
        self.groups = [list(optimizer.param_groups) for optimizer in self.optimizers]
        self.attached: Any = (
            Recorder(self.model, self.optimizers, every=1)
            if kind == "recorder"
            else attach(
                self.model,
                self.optimizers,
                profile="x",
                advisor=self.advisor,
                **{"answers": "wait", "max_overhead": None, **options},
            )
        )

    @property
    def cadence(self) -> Any:
        of = self.attached._recording if self.kind == "recorder" else self.attached._run
        return of.cadence

    def _backward(self) -> Tensor:
        for _ in range(2 if self.kind == "accumulation" else 1):
            loss: Tensor = (self.model(torch.randn(8, 6)) - 1).square().mean()
            loss.backward()
        return loss

    def step(self) -> None:
        """Make a measured step, and check what became of weights and gradients."""
        self.cadence.next_step = 0  # after a failure it would wait
        multipliers: list[float] = getattr(self.attached, "multipliers", [1.0] * 4)
        both = [by_id(self.model.parameters(), each) for each in (MULTIPLIERS, OTHERS)]
        factors = by_id(self.model.parameters(), multipliers)
        measured = len(self.advisor.measurements)
        self.advisor.multipliers = OTHERS if multipliers == MULTIPLIERS else MULTIPLIERS
        self.model.zero_grad()
        expected: list[ExpectedStep] = []

        def closure() -> Tensor:
            self.model.zero_grad()
            loss = self._backward()
            expected.append(ExpectedStep(self.optimizers[0], factors, *both))
            return loss

        if self.kind == "closure":
            self.optimizers[0].step(closure)
        else:
            self._backward()
            for optimizer in self.optimizers:
                expected.append(ExpectedStep(optimizer, factors, *both))
                optimizer.step()
                optimizer.state_dict()
        if self.attached.step > 1:  # the first step gets its multipliers after it
            for one in expected:
                one.check()
            # The advisor never gets rates of other multipliers than those that it is told.
            is_scaled = all(one.is_scaled for one in expected)
            assert is_scaled or len(self.advisor.measurements) == measured
        for optimizer, groups in zip(self.optimizers, self.groups, strict=True):
            assert all(a is b for a, b in zip(optimizer.param_groups, groups, strict=True))
            assert {group["lr"] for group in groups} == {0.01}


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in IN_SHORT else pytest.param(kind, marks=pytest.mark.long)
        for kind in TRAININGS
    ],
)
def test_a_fault_in_any_part_leaves_a_step_that_could_have_been_made(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "fslr")
    training = Training(kind)
    for _ in range(FIRST):
        training.step()
    assert training.attached.failures == 0
    reached = set()
    for owner, name in SITES:
        with monkeypatch.context() as patch:
            fault = Fault(owner, name, patch)
            for fails_at in range(1, MOST_CALLS + 1):
                fault.arm(fails_at)
                training.step()
                if fault.calls < fails_at:
                    break
                reached.add(name)
    assert len(reached) > len(SITES) / 3
    failures = training.attached.failures
    training.step()
    assert training.attached.failures == failures > 0
    if kind != "recorder":
        assert training.attached.answer.step == training.attached.step - 1
    training.attached.close()
    assert not training.model._forward_pre_hooks
    assert not any(optimizer._optimizer_step_pre_hooks for optimizer in training.optimizers)


def test_a_fault_in_the_kernels_of_a_joint_step_is_the_trainings_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = Training("joint Adam")
    for _ in range(FIRST):
        training.step()
    with monkeypatch.context() as patch:
        fault = Fault(torch, "_foreach_lerp_", patch)
        fault.arm(1)
        with pytest.raises(InjectedError, match="call 1 of _foreach_lerp_"):
            training.step()
    training.step()
    assert training.attached.failures == 0
    training.attached.close()
