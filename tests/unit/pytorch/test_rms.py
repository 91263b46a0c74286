"""Measurements report the RMS of weights and of updates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fslr import RunInfo
from fslr.advisor.v1 import policy_pb2
from fslr.torch import MeasuringOptions, Recorder, attach
from fslr.torch.model.snapshot import Snapshot
from tests.building import content_message
from tests.spy_advisor import SpyAdvisor
from tests.unit.training.numbers_training import await_answer

NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")
RATES = (0.01, 0.02, 0.0, 0.05)  # of each group


def trained(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    groups = [{"params": [p], "lr": lr} for p, lr in zip(model.parameters(), RATES, strict=True)]
    inputs = torch.randn(16, 6, dtype=dtype)

    def backward() -> None:
        model.zero_grad()
        model(inputs).square().mean().backward()

    return model, torch.optim.SGD(groups), backward


def rms(tensors: Iterator[Tensor] | Sequence[Tensor]) -> list[float]:
    return [t.detach().double().square().mean().sqrt().item() for t in tensors]


@pytest.mark.parametrize("on_host", [False, True])
def test_a_recorded_point_has_the_rms_of_weights_and_of_the_unit_update(on_host: bool) -> None:
    model, optimizer, backward = trained()
    with Recorder(model, optimizer, options=MeasuringOptions(snapshot_on_host=on_host)) as recorder:
        backward()
        weights = rms(model.parameters())
        # The unit update of SGD is the gradient; a group with learning rate 0 has none.
        updates = rms([p.grad for p in model.parameters() if p.grad is not None])
        optimizer.step()
    updates[2] = 0.0
    (point,) = recorder.profile("x").points
    assert list(point.weight_rms) == pytest.approx(weights, rel=1e-6)
    assert list(point.update_rms) == pytest.approx(updates, rel=1e-4)


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
def test_the_unit_update_of_an_advised_step_does_not_contain_the_multiplier(scaling: Any) -> None:
    model, optimizer, backward = trained()
    advisor = SpyAdvisor(content_message(NAMES, rate=0.1))
    policy = policy_pb2.Policy(min_interval_steps=1, max_interval_steps=1)
    run = RunInfo(policy=policy)
    with attach(
        model, optimizer, profile="x", advisor=advisor, run=run, scaling=scaling, strict=False
    ) as attachment:
        for _ in range(3):
            backward()
            weights = rms(model.parameters())
            updates = rms([p.grad for p in model.parameters() if p.grad is not None])
            optimizer.step()
            await_answer(attachment._run)
    updates[2] = 0.0
    last = advisor.measurements[-1]
    assert last.step == 2
    assert max(last.multipliers) > 1.5
    assert list(last.weight_rms) == pytest.approx(weights, rel=1e-6)
    assert list(last.update_rms) == pytest.approx(updates, rel=1e-3)


class CountsSyncs(TorchDispatchMode):
    """Counts the operations that wait for a device to return a number."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_sums_of_squares_wait_for_no_single_tensor() -> None:
    parameters = [nn.Parameter(torch.full((4,), float(i))) for i in range(20)]
    snapshot = Snapshot(parameters)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.5)
    with snapshot.restored() as step, CountsSyncs() as syncs:
        weights, changes, sizes = step.sums_of_squares()
    assert syncs.count == 0
    assert weights.tolist() == pytest.approx([4.0 * i**2 for i in range(20)])
    assert changes.tolist() == pytest.approx([1.0] * 20)
    assert sizes.tolist() == [4.0] * 20


def test_complex_and_empty_parameters_have_sums_of_squares() -> None:
    parameters = [
        nn.Parameter(torch.tensor([3 + 4j])),
        nn.Parameter(torch.zeros(0)),
        nn.Parameter(torch.full((2,), 300.0, dtype=torch.float16)),
    ]
    with Snapshot(parameters).restored() as step:
        weights, changes, sizes = step.sums_of_squares()
    assert weights.tolist() == pytest.approx([25.0, 0.0, 180_000.0])  # beyond float16's range
    assert changes.tolist() == [0.0] * 3
    assert sizes.tolist() == [1.0, 0.0, 2.0]


def test_points_lack_rms_if_that_of_one_step_is_unknown() -> None:
    model, optimizer, backward = trained()
    with Recorder(model, optimizer, every=1) as recorder:
        for _ in range(2):
            backward()
            optimizer.step()
    recorder._recording._points[1].ClearField("update_rms")
    assert not any(p.weight_rms or p.update_rms for p in recorder.profile("x").points)


@contextmanager
def huge_weights(model: nn.Module) -> Iterator[None]:
    with torch.no_grad():
        next(model.parameters()).fill_(1e300)
    yield


def test_rms_beyond_the_range_of_the_contract_are_unknown_and_the_rates_stay() -> None:
    model, optimizer, backward = trained(torch.float64)
    with Recorder(model, optimizer, every=1) as recorder, huge_weights(model):
        backward()
        optimizer.step()
    estimate = recorder.estimate
    assert estimate is not None
    assert (estimate.weight_rms, estimate.update_rms) == (None, None)
