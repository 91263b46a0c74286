"""Models with side effects: state, random draws, constraints, masks and hooks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fslr.torch import MeasuringOptions, RateEstimate, Recorder


class Stateful(nn.Module):
    """Counts its calls, keeps a hidden state, and skips layers at random (Python's and NumPy's)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 6, max_norm=0.5)
        self.inner = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)
        self.calls = 0
        self.hidden = torch.zeros(())

    def forward(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        hidden = self.embed(tokens)
        if random.random() < 0.7:
            hidden = hidden + self.inner(hidden)
        if np.random.random() < 0.7:  # noqa: NPY002 - as libraries do
            hidden = torch.tanh(hidden)
        hidden = hidden + self.hidden.mean()
        self.hidden = hidden.detach()
        out: Tensor = self.head(hidden)
        return out


def train_stateful(recorder_of: Callable[..., Any]) -> tuple[Stateful, list[Tensor]]:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = Stateful()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    outputs: list[Tensor] = []
    recorder = recorder_of(model, optimizer)
    for _ in range(12):
        optimizer.zero_grad()
        # Four of twelve tokens per step: momentum moves rows that the batch does not renormalize.
        out = model(torch.randint(0, 12, (4,)))
        outputs.append(out.detach().clone())
        out.square().sum().backward()
        optimizer.step()
    if recorder is not None:
        assert recorder.failures == 0
        recorder.close()
    return model, [*outputs, *model.state_dict().values(), model.hidden]


def test_state_random_draws_and_max_norm_are_unchanged_by_measuring() -> None:
    plain_model, plain = train_stateful(lambda *_: None)
    next_draws = random.random(), np.random.random()  # noqa: NPY002
    model, recorded = train_stateful(lambda *to: Recorder(*to, every=1))
    assert all(map(torch.equal, plain, recorded))
    assert (random.random(), np.random.random()) == next_draws  # noqa: NPY002
    assert model.calls == plain_model.calls == 12
    assert model.embed.max_norm == 0.5


def measured(
    model: nn.Module,
    batch: Tensor,
    *,
    make: Callable[..., Any] = Recorder,
    lr: float = 0.1,
    **options: Any,
) -> RateEstimate:
    """Measure a step in which all gradients are 1."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with make(model, optimizer, options=MeasuringOptions(**options)) as recorder:
        model(batch)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    found: RateEstimate = recorder.estimate
    return found


def two_layers() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.parametrize("estimator", ["per_example", "full"])
def test_gradient_hooks_are_disabled_during_a_measurement(estimator: str) -> None:
    batch = torch.randn(8, 5)
    expected = measured(two_layers(), batch, estimator=estimator)
    model = two_layers()
    seen: list[str] = []

    def of_weight(gradient: Tensor) -> Tensor:
        seen.append("weight")
        return gradient.clamp(-1e-3, 1e-3)

    def of_module(_module: nn.Module, into: Any, _out: Any) -> Any:
        seen.append("module")
        return tuple(None if g is None else 7 * g for g in into)

    next(model.parameters()).register_hook(of_weight)
    model[1].register_full_backward_hook(of_module)
    assert measured(model, batch, estimator=estimator).unit_rates == expected.unit_rates
    assert seen == []
    model(batch).sum().backward()
    assert sorted(seen) == ["module", "weight"]


def test_a_forward_pre_hook_is_applied_once() -> None:
    batch = torch.randn(8, 5)
    expected = measured(two_layers(), batch / 255)
    model = two_layers()
    model.register_forward_pre_hook(lambda _module, args: (args[0] / 255,))
    assert measured(model, batch).unit_rates == expected.unit_rates


class Masked(nn.Module):
    """Sets some logits to minus infinity."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.inner = two_layers()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x) * self.scale
        return logits.masked_fill(torch.tensor([False, True, False]), float("-inf"))


def test_masked_logits_do_not_affect_the_linearity_error() -> None:
    batch = torch.randn(8, 5)
    found = measured(Masked(), batch, lr=1e-3)
    assert found.linearity_error is not None
    assert 0 < found.linearity_error < 0.1


def test_outputs_that_overflow_have_no_linearity_error() -> None:
    # The outputs are finite before the step and infinite after it; the rates are still known.
    found = measured(Masked(1e37), torch.ones(8, 5), lr=1e3)
    assert found.linearity_error is None
    assert all(rate > 0 for rate in found.unit_rates)


def last_rates_after_skipped_steps(averaging: float) -> list[float]:
    torch.manual_seed(0)
    model = two_layers()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)  # skips steps itself
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    batch = torch.randn(8, 5)
    options = MeasuringOptions(averaging=averaging)
    with Recorder(model, optimizer, every=1, options=options) as recorder:
        for scale in (float("inf"), float("inf"), 1.0):
            assert recorder.estimate is None
            optimizer.zero_grad()
            scaler.scale(model(batch).sum() * scale).backward()
            scaler.step(optimizer)
            scaler.update()
    assert recorder.estimate is not None
    return recorder.estimate.unit_rates


def test_skipped_steps_are_not_averaged() -> None:
    single = last_rates_after_skipped_steps(averaging=0.0)
    assert last_rates_after_skipped_steps(averaging=0.9) == pytest.approx(single)
