"""Multipliers are averages over the training so far."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import Limit, Measurement, Outcome, Policy
from tests.unit.policy.test_recommend import WIDE_BOUNDS, advise, measured


@given(
    st.lists(st.tuples(st.integers(1, 500), st.floats(2.0**-8, 2.0**8)), min_size=1, max_size=20)
)
def test_multipliers_with_a_window_of_one_are_the_mean_over_the_training(
    intervals: list[tuple[int, float]],
) -> None:
    """Logarithms are averaged, weighted by the interval before each; the first counts 25 steps."""
    policy = Policy(averaging_window=1.0, **WIDE_BOUNDS)
    multipliers = advise([[1.0]], measured([0.01], step=0), policy).multipliers
    assert multipliers.tolist() == [100.0]
    step, total = 0, 25 * float(np.log(100.0))
    for interval, rate in intervals:
        step += interval
        total -= interval * float(np.log(rate))
        later = measured(
            [rate], step=step, multipliers=multipliers.tolist(), interval_steps=interval
        )
        multipliers = advise([[1.0]], later, policy).multipliers
        assert np.log(multipliers[0]) == pytest.approx(total / (step + 25), abs=1e-9)


@pytest.mark.parametrize(
    ("window", "step", "interval", "part"),
    [
        (1.0, 100, 25, 0.2),
        (0.5, 100, 25, 1 / 3),
        (0.5, 50, 25, 0.5),
        (0.5, 50, 100, 1.0),  # the window is not longer than the interval
        (0.0, 10_000, 25, 1.0),
        (1e-300, 10_000, 25, 1.0),
        (1e-300, 10_000, 5, 0.2),
        (1.0, 100, 0, 1.0),  # the first measurement, of a training that continues at step 100
    ],
)
def test_a_measurement_moves_the_average_by_its_fraction_of_the_window(
    window: float, step: int, interval: int, part: float
) -> None:
    later = measured([1.0], step=step, multipliers=[2.0], interval_steps=interval)
    answer = advise([[8.0]], later, Policy(averaging_window=window, **WIDE_BOUNDS))
    assert answer.multipliers == pytest.approx([2.0 * 4.0**part])
    assert answer.outcomes == (Outcome.MATCHED,)
    assert answer.limits.tolist() == [Limit.AVERAGING if part < 1 else 0]


def test_nothing_is_averaged_if_the_interval_is_unknown() -> None:
    """A client may report advised groups without the interval; averaging would never move them."""
    later = dataclasses.replace(measured([1.0], step=100), advised=np.array([True]))
    answer = advise([[3.0]], later)
    assert (answer.multipliers.tolist(), answer.limits.tolist()) == ([3.0], [0])


def test_averaging_follows_drift_and_smooths_fluctuation() -> None:
    """If rates fluctuate around a slow drift, the average is closer to the drift."""
    rng = np.random.default_rng(0)
    missed = {}
    for window in (0.0, 0.5, 1.0):
        policy = Policy(averaging_window=window, **WIDE_BOUNDS)
        multipliers, errors = np.ones(100), []
        for step in range(25, 2001, 25):
            drift = (step / 25) ** 0.2
            rates = np.exp(0.7 * rng.standard_normal(100)) / drift
            later = Measurement(step, rates, np.zeros(100), multipliers, 25)
            multipliers = advise([[1.0] * 100], later, policy).multipliers
            errors.append(np.mean(np.square(np.log(multipliers / drift))))
        missed[window] = float(np.sqrt(np.mean(errors)))
    assert missed[0.0] == pytest.approx(0.7, rel=0.1)
    assert missed[0.5] < 0.4 * missed[0.0]
    assert missed[1.0] < 0.4 * missed[0.0]
