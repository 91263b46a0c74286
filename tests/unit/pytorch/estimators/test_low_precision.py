"""Training in 16 bits: routes and linearity errors must not depend on rounding."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn

from benchmarks.char_gpt import CharGPT, CharGPTConfig
from fslr.torch import MeasuringOptions, RateEstimate, Recorder
from tests.measuring import SIGMAS, measurable
from tests.models import Normalized, OwnFunction

_SEEDS = range(4)


class CastLogits(nn.Module):
    """Casts the logits of a model to float32, as most trainers do."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x).float()
        return logits


def gpt() -> nn.Module:
    return CastLogits(CharGPT(CharGPTConfig(vocabulary=23, width=32, context=64)))


def autocast(dtype: torch.dtype) -> AbstractContextManager[object]:
    context: AbstractContextManager[object] = torch.amp.autocast("cpu", dtype=dtype)
    return context


_PRECISIONS: dict[str, tuple[torch.dtype, Callable[[], AbstractContextManager[object]]]] = {
    "autocast to bfloat16": (torch.float32, lambda: autocast(torch.bfloat16)),
    "autocast to float16": (torch.float32, lambda: autocast(torch.float16)),
    "weights in bfloat16": (torch.bfloat16, nullcontext),
    "float32": (torch.float32, nullcontext),
}


def recorded(
    precision: str, seed: int, *, lr: float = 1e-3, model: nn.Module | None = None
) -> tuple[RateEstimate, dict[str, str]]:
    """Measure one Adam step of a language model."""
    dtype, context = _PRECISIONS[precision]
    torch.manual_seed(seed)
    model = (model or gpt()).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    options = MeasuringOptions(seed=seed, probes=2)
    tokens, targets = torch.randint(0, 23, (2, 8, 64))
    with Recorder(model, optimizer, every=1, options=options) as recorder:
        with context():
            logits = model(tokens)
        nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
    assert recorder.estimate is not None
    return recorder.estimate, recorder.slow_groups


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("precision", _PRECISIONS)
def test_rounding_makes_no_group_slow(precision: str, seed: int) -> None:
    _, slow = recorded(precision, seed)
    assert slow == {}


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_hidden_uses_are_found_in_low_precision(dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    model = OwnFunction().to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with Recorder(model, optimizer, every=1) as recorder:
        model(torch.randn(16, 4, dtype=dtype)).float().square().mean().backward()
        optimizer.step()
    assert recorder.slow_groups.keys() == {"scale"}
    assert "not visible" in recorder.slow_groups["scale"]


def test_rates_of_weights_in_bfloat16_are_those_in_float32() -> None:
    torch.manual_seed(0)
    model = gpt().bfloat16()
    measured = measurable(model, torch.randint(0, 23, (8, 64)))
    # The weights of layer norm are 1, and Adam's first step does not move them in bfloat16.
    measured.updates = [torch.randn_like(update) for update in measured.updates]
    estimate = measured.estimator(probes=10).estimate(measured.batch, measured.update)
    model.float()
    measured.updates = [update.float() for update in measured.updates]
    for rate, error, exact in zip(
        estimate.unit_rates, estimate.relative_errors, measured.exact(), strict=True
    ):
        assert abs(math.log(rate / exact)) < SIGMAS * error + 0.02


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("precision", ["autocast to bfloat16", "weights in bfloat16"])
def test_the_linearity_error_is_unknown_where_it_is_rounding(precision: str, seed: int) -> None:
    estimate, _ = recorded(precision, seed, lr=1e-4)
    assert estimate.linearity_error is None
    assert estimate.total_rate is not None
    assert estimate.total_rate > 0


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("precision", ["autocast to bfloat16", "weights in bfloat16"])
def test_a_linearity_error_far_above_rounding_is_known(precision: str, seed: int) -> None:
    estimate, _ = recorded(precision, seed, lr=0.1)
    reference, _ = recorded("float32", seed, lr=0.1)
    assert estimate.linearity_error is not None
    assert reference.linearity_error is not None
    assert estimate.linearity_error == pytest.approx(reference.linearity_error, rel=0.5)


def test_the_linearity_error_of_small_float32_steps_is_known() -> None:
    for seed in _SEEDS:
        estimate, _ = recorded("float32", seed, lr=1e-4)
        assert estimate.linearity_error is not None
        assert estimate.linearity_error < 0.01


def test_one_log_line_says_how_many_groups_are_slow_and_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Normalized()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        caplog.at_level(logging.INFO, logger="fslr"),
        Recorder(model, optimizer, every=1) as recorder,
    ):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    (line,) = [record.getMessage() for record in caplog.records if "slow" in record.getMessage()]
    assert line == (
        "1 of 3 groups is measured by a slower route, without bias but with more noise or time: "
        "1 (inner.weight) because the rows of a result depend on several examples, so they are "
        "summed. slow_groups names them all"
    )
    assert recorder.slow_groups.keys() == {"inner.weight"}
