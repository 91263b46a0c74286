"""Running averages of measurements."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fslr import MeasurementError
from fslr.training.averaging import RunningAverage
from fslr.training.estimate import RateEstimate
from tests.measuring import ROUNDING, SIGMAS, measurable


def estimate_with(rates: list[float], error: float = 0.1) -> RateEstimate:
    return RateEstimate(rates, [error] * len(rates), probes=1, examples=8)


def test_an_average_of_equal_measurements_equals_each_of_them() -> None:
    average = RunningAverage(0.9)
    for _ in range(5):
        averaged = average.add(estimate_with([2.0, 0.0]))
        assert averaged.unit_rates == pytest.approx([2.0, 0.0])
    assert averaged.relative_errors[1] == 0.0


def test_an_average_has_exponential_weights_and_a_smaller_error() -> None:
    average, decay, values = RunningAverage(0.5), 0.5, [1.0, 2.0, 4.0]
    for value in values:
        averaged = average.add(estimate_with([value]))
    weights = [decay ** (2 - i) * (1 - decay) / (1 - decay**3) for i in range(3)]
    expected = sum(w * v**2 for w, v in zip(weights, values, strict=True))
    assert averaged.unit_rates[0] == pytest.approx(math.sqrt(expected))
    spread = math.sqrt(sum((w * 0.2 * v**2) ** 2 for w, v in zip(weights, values, strict=True)))
    assert averaged.relative_errors[0] == pytest.approx(0.5 * spread / expected)


def test_a_measurement_with_many_probes_counts_as_many_measurements() -> None:
    at_once, one_by_one = RunningAverage(0.9), RunningAverage(0.9)
    at_once.add(estimate_with([2.0]), probes=40)
    for _ in range(40):
        one_by_one.add(estimate_with([2.0]))
    last = [average.add(estimate_with([4.0])) for average in (at_once, one_by_one)]
    assert last[0].unit_rates == pytest.approx(last[1].unit_rates)
    assert last[0].unit_rates[0] == pytest.approx(math.sqrt(0.9 * 4 + 0.1 * 16), rel=0.01)


def test_averaging_reduces_the_error_of_real_measurements_as_stated() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4))
    case = measurable(model, torch.randn(8, 5))
    estimator = case.estimator()
    average = RunningAverage(0.9)
    singles = [estimator.estimate(case.batch, case.update) for _ in range(60)]
    for single in singles:
        averaged = average.add(single)
    for i, (rate, error, exact) in enumerate(
        zip(averaged.unit_rates, averaged.relative_errors, case.exact(), strict=True)
    ):
        # A decay of 0.9 averages over (1 + 0.9) / (1 - 0.9) = 19 equal measurements.
        single_error = sum(single.relative_errors[i] for single in singles) / len(singles)
        assert single_error / 6 < error < single_error / 2 or i >= 2  # the last layer's are exact
        assert abs(math.log(rate / exact)) < SIGMAS * error + ROUNDING


def test_a_decay_of_zero_averages_nothing_and_one_out_of_range_is_refused() -> None:
    single = estimate_with([3.0])
    assert RunningAverage(0.0).add(single) is single
    for decay in (-0.1, 1.0, float("nan")):
        with pytest.raises(MeasurementError, match=r"averaging is .*; it must be in \[0, 1\)"):
            RunningAverage(decay)
