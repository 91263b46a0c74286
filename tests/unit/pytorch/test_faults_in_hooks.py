"""Nothing that fails later in a training leaves the hooks, whichever call into PyTorch fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fslr.testing import FakeAdvisor
from fslr.torch import attach
from fslr.torch.calls.training_calls import TrainingCalls
from fslr.torch.steps.step_hooks import StepHooks
from tests.would_be_steps import ExpectedStep, by_id

FIRST = 3  # the step from which on calls fail
MULTIPLIERS = [0.5, 2.0, 0.25, 4.0]


class InjectedError(RuntimeError):
    """What a failing call raises."""


class _Count:
    """Counts calls that hooks make, and lets one of them fail."""

    def __init__(self) -> None:
        self.is_active = False
        self.is_armed = False
        self.fails_at: int | None = None
        self.calls = 0

    def call(self) -> None:
        if not self.is_active:
            return
        self.calls += 1
        if self.calls == self.fails_at:
            raise InjectedError(f"call {self.calls}")


class _Functions(TorchFunctionMode):
    """Sees every function of PyTorch that is called from Python."""

    def __init__(self, count: _Count) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch._C._set_grad_enabled:  # it sets a flag, and cannot fail
            self.count.call()
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    """Sees every operator, also those of backward passes."""

    def __init__(self, count: _Count) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count.call()
        return func(*args, **(kwargs or {}))


@contextmanager
def _in_hooks(count: _Count) -> Iterator[None]:
    """Count the calls that are made inside of the hooks, and not those of the training."""

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: object, *args: Any, **kwargs: Any) -> Any:
            before, count.is_active = count.is_active, count.is_armed
            try:
                return method(self, *args, **kwargs)
            finally:
                count.is_active = before

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_before_step", "_after_step", "model_called", "restore"):
            patch.setattr(StepHooks, name, counted(getattr(StepHooks, name)))
        patch.setattr(TrainingCalls, "_keep", counted(TrainingCalls._keep))
        yield


class Net(nn.Module):
    """A small model."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.inner(x)))
        return out


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 7])
@pytest.mark.parametrize(
    ("mode", "scaling"), [(_Functions, "learning_rates"), (_Operators, "update")]
)
def test_a_fault_in_any_call_into_pytorch_stays_in_the_hooks(
    mode: Callable[[_Count], Any], scaling: Any, every: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "fslr")
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    groups = list(optimizer.param_groups)
    advisor = FakeAdvisor(MULTIPLIERS, interval_steps=1)
    count = _Count()

    def step() -> int:
        count.calls = 0
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        expected = ExpectedStep(optimizer, by_id(model.parameters(), MULTIPLIERS))
        optimizer.step()
        optimizer.state_dict()
        if attachment.step > 1:  # the first step gets its multipliers after it
            expected.check()
        assert all(a is b for a, b in zip(optimizer.param_groups, groups, strict=True))
        assert all(p.requires_grad for p in model.parameters())
        return count.calls

    with (
        _in_hooks(count),
        attach(
            model,
            optimizer,
            profile="x",
            advisor=advisor,
            scaling=scaling,
            answers="wait",
            max_overhead=None,
        ) as attachment,
        mode(count),
    ):
        for _ in range(FIRST):
            step()
        count.is_armed = True
        calls = step()
        assert calls > 50
        assert attachment.failures == 0
        tried = range(1, calls + 1, every)
        for fails_at in tried:
            attachment._run.cadence.next_step = 0  # after a failure it would wait
            count.fails_at = fails_at
            step()
        count.is_armed = False
        failures = attachment.failures
        assert failures > len(tried) / 4  # some calls may fail without a measurement's failing
        attachment._run.cadence.next_step = 0
        measured = len(advisor.measurements)
        step()
        assert len(advisor.measurements) == measured + 1
    assert attachment.step == FIRST + len(tried) + 2
    assert attachment.failures == failures
    assert not model._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks
