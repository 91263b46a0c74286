"""Multipliers are rounded to few values where that is inside their noise, without a bias."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from advisor.policy import InvalidValueError, Limit, Policy
from tests.unit.policy.test_recommend import WIDE_BOUNDS, advise, measured

HALF_DISTANCE = float(np.log(2) / 16)  # of the default's eight values per octave


def places(multipliers: np.ndarray) -> np.ndarray:
    """Return where multipliers lie between the values, which are whole numbers."""
    found: np.ndarray = 8 * np.log2(multipliers)
    return found


@pytest.mark.parametrize(
    ("error", "is_rounded"),
    [(0.0, False), (0.9 * HALF_DISTANCE, False), (1.1 * HALF_DISTANCE, True), (0.3, True)],
)
def test_a_multiplier_is_rounded_if_its_error_exceeds_half_the_distance_of_two_values(
    error: float, is_rounded: bool
) -> None:
    policy = Policy(weigh_by_confidence=False, **WIDE_BOUNDS)
    answer = advise([[1.3]], measured([1.0], errors=[error]), policy)
    (place,) = places(answer.multipliers)
    assert (abs(place - round(place)) < 1e-9) == is_rounded
    assert abs(place - 8 * np.log2(1.3)) < 1
    assert answer.limits.tolist() == [Limit.ROUNDING if is_rounded else 0]


def test_noisy_groups_have_as_many_multipliers_as_there_are_values() -> None:
    ratios = np.exp(np.random.default_rng(0).uniform(np.log(0.5), np.log(2), 400))
    measurement = measured([1.0] * 400, errors=[0.2] * 400)
    policy = Policy(**WIDE_BOUNDS)
    answer = advise([ratios.tolist()], measurement, policy)
    assert len(np.unique(answer.multipliers)) <= 17  # two octaves
    exact = dataclasses.replace(policy, multiplier_values_per_octave=0)
    assert len(np.unique(advise([ratios.tolist()], measurement, exact).multipliers)) == 400


def test_rounding_keeps_the_expectation_of_the_logarithm() -> None:
    rates = np.exp(np.random.default_rng(1).uniform(-0.5, 0.5, 4000))
    measurement = measured(rates.tolist(), errors=[0.2] * len(rates))
    policy = Policy(weigh_by_confidence=False, **WIDE_BOUNDS)
    rounded = advise([[1.0] * len(rates)], measurement, policy)
    shifts = places(rounded.multipliers) - places(1 / rates)
    assert np.abs(shifts).max() < 1
    assert abs(shifts.mean()) < 4 * shifts.std() / np.sqrt(len(shifts))
    assert shifts.std() > 0.3  # both neighbors occur


def test_moves_shorter_than_the_distance_of_two_values_still_arrive() -> None:
    """A late measurement moves an average by a hundredth; nearest values would never change."""
    groups = 50
    policy = Policy(**WIDE_BOUNDS)
    multipliers = np.ones(groups)
    rng = np.random.default_rng(2)
    for step in range(20_000, 80_000, 100):
        rates = np.exp(0.1 * rng.standard_normal(groups))
        measurement = measured(
            rates.tolist(),
            errors=[0.1] * groups,
            multipliers=multipliers.tolist(),
            step=step,
            interval_steps=100,
        )
        multipliers = advise([[4.0] * groups], measurement, policy).multipliers
    # The average of a window of half the training has (1 - 1/16) of the way behind it.
    reached = np.log(multipliers).mean() / np.log(4.0)
    assert reached == pytest.approx(15 / 16, abs=0.03)


def test_the_same_measurement_has_the_same_answer_and_the_next_step_another() -> None:
    rates = np.exp(np.random.default_rng(3).uniform(-0.5, 0.5, 100)).tolist()
    first, again, later = (
        advise(
            [[1.0] * 100],
            measured(rates, errors=[0.2] * 100, step=step),
            Policy(averaging_window=0.0, **WIDE_BOUNDS),
        ).multipliers.tolist()
        for step in (5, 5, 6)
    )
    assert first == again
    assert first != later


def test_rounding_stays_inside_the_bounds() -> None:
    policy = Policy(
        min_multiplier_without_prior=0.96, max_multiplier_without_prior=1.04, averaging_window=0.0
    )
    rates = np.exp(np.random.default_rng(4).uniform(-0.05, 0.05, 200)).tolist()
    multipliers = advise([[1.0] * 200], measured(rates, errors=[0.2] * 200), policy).multipliers
    assert set(multipliers.tolist()) == {0.96, 1.0, 1.04}


@pytest.mark.parametrize("values", [-1, 1025])
def test_the_number_of_values_has_a_range(values: int) -> None:
    with pytest.raises(InvalidValueError, match=rf"{values} is not in \[0, 1024\]"):
        Policy(multiplier_values_per_octave=values)
