from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import (
    Alignment,
    InvalidValueError,
    Layout,
    Limit,
    Measurement,
    Outcome,
    Policy,
    Recommendation,
    Reference,
    UnmatchedRule,
    map_layout,
    recommend,
)
from tests.building import profile_of

RATES = st.one_of(st.just(0.0), st.floats(1e-300, 1e300), st.floats(0, 1e-300))
FACTORS = st.floats(1e-6, 1e6)
WIDE_BOUNDS: dict[str, Any] = {
    "min_multiplier": 1e-9,
    "max_multiplier": 1e9,
    "min_multiplier_without_prior": 1e-9,
    "max_multiplier_without_prior": 1e9,
}


def measured(
    rates: list[float],
    *,
    step: int = 0,
    errors: list[float] | None = None,
    multipliers: list[float] | None = None,
    interval_steps: int = 0,
    total_steps: int = 0,
    linearity_error: float | None = None,
    probes: int = 0,
) -> Measurement:
    return Measurement(
        step,
        np.array(rates),
        np.array(errors if errors is not None else [0.0] * len(rates)),
        np.array(multipliers if multipliers is not None else [1.0] * len(rates)),
        interval_steps,
        total_steps,
        linearity_error,
        probes,
    )


def advise(
    base: list[list[float]],
    measurement: Measurement,
    policy: Policy | None = None,
    *,
    names: list[str] | None = None,
) -> Recommendation:
    letters = [chr(97 + i if i < 26 else 0x4E00 + i) for i in range(len(base[0]))]
    base_names = [f"g{letter}." for letter in letters]
    profile = profile_of(base_names, base)
    policy = policy or Policy()
    layout = Layout.of_names(names or base_names)
    mapping = map_layout(layout, profile.layout, policy.depth_rule)
    return recommend(profile, Reference(profile), mapping, policy, measurement)


@given(st.lists(st.tuples(RATES, RATES, st.floats(0, 1e30), FACTORS), min_size=1, max_size=12))
def test_multipliers_are_always_finite_and_inside_the_bounds(
    groups: list[tuple[float, float, float, float]],
) -> None:
    base, rates, errors, in_force = (list(column) for column in zip(*groups, strict=True))
    base32 = [float(np.float32(min(rate, 1e29))) for rate in base]
    policy = Policy(min_multiplier=0.1, max_multiplier=7.0)
    answer = advise([base32], measured(rates, errors=errors, multipliers=in_force), policy)
    assert np.isfinite(answer.multipliers).all()
    assert (answer.multipliers >= 0.1).all()
    assert (answer.multipliers <= 7.0).all()
    assert len(answer.outcomes) == len(groups)


@given(st.lists(st.floats(2.0**-60, 2.0**60, width=32), min_size=1, max_size=12))
def test_a_rate_equal_to_the_reference_gives_one(rates: list[float]) -> None:
    answer = advise([rates], measured(rates), Policy(min_rate_ratio=0.0))
    assert answer.multipliers == pytest.approx(1.0, rel=1e-12)
    assert set(answer.outcomes) == {Outcome.MATCHED}


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=12), st.floats(0.1, 10))
def test_scaling_all_rates_divides_all_multipliers(rates: list[float], factor: float) -> None:
    base = [[1.0] * len(rates)]
    once = advise(base, measured(rates), Policy(**WIDE_BOUNDS)).multipliers
    scaled = advise(
        base, measured([rate * factor for rate in rates]), Policy(**WIDE_BOUNDS)
    ).multipliers
    assert scaled == pytest.approx(once / factor)


@given(st.permutations(range(6)))
def test_the_order_of_groups_does_not_matter(order: list[int]) -> None:
    names = [f"g{chr(97 + i)}." for i in range(6)]
    rates = [1.0, 0.0, 3.0, 2000.0, 1e-9, 2.0]
    straight = advise([[1.0] * 6], measured(rates), names=names)
    shuffled = advise(
        [[1.0] * 6], measured([rates[i] for i in order]), names=[names[i] for i in order]
    )
    assert shuffled.multipliers.tolist() == [straight.multipliers[i] for i in order]
    assert list(shuffled.outcomes) == [straight.outcomes[i] for i in order]


def test_each_cause_has_its_outcome() -> None:
    policy = Policy(
        max_relative_error=0.5,
        min_multiplier=0.1,
        max_multiplier=10.0,
        max_multiplier_without_prior=20.0,
        unmatched_rule=UnmatchedRule.HOLD,
    )
    answer = advise(
        [[2.0, 1.0, 1.0, 0.0, 1.0, 1.0]],
        measured(
            [1.0, 1e-5, 0.0, 1.0, 1.0, 1.0],
            errors=[0.1, 0.1, 0.1, 0.1, 0.6, 0.1],
            multipliers=[1.0, 1.0, 3.0, 4.0, 5.0, 6.0],
        ),
        policy,
        names=["ga.", "gb.", "gc.", "gd.", "ge.", "stranger"],
    )
    assert list(zip(answer.multipliers, answer.outcomes, strict=True)) == [
        (2.0, Outcome.MATCHED),
        (10.0, Outcome.CLAMPED),
        (3.0, Outcome.HELD_ZERO_RATE),
        (4.0, Outcome.HELD_ZERO_RATE),
        (5.0, Outcome.HELD_LOW_CONFIDENCE),
        (6.0, Outcome.UNMATCHED),
    ]


POLICIES = st.builds(
    Policy,
    unmatched_rule=st.just(UnmatchedRule.HOLD),
    min_multiplier=st.just(0.1),
    max_multiplier=st.just(7.0),
    slew_limit=st.none() | st.floats(1.01, 100),
    max_linearity_error=st.none() | st.floats(0.01, 10),
    min_rate_ratio=st.sampled_from([0.0, 1e-6, 0.1]),
    weigh_by_confidence=st.booleans(),
    first_step_only=st.booleans(),
    freeze_after_step=st.none() | st.integers(0, 20),
    target_relative_error=st.none() | st.floats(0.01, 1),
    averaging_window=st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
)
GROUP = st.tuples(RATES.map(lambda rate: min(rate, 1e29)), RATES, st.floats(0, 1e30), FACTORS)


@given(
    st.lists(GROUP, min_size=1, max_size=8),
    POLICIES,
    st.integers(0, 30),
    st.integers(0, 30),
    st.none() | st.floats(0, 1e9),
    st.integers(0, 64),
)
def test_answers_are_finite_within_bounds_and_reproducible_under_every_policy(
    groups: list[tuple[float, float, float, float]],
    policy: Policy,
    step: int,
    interval: int,
    linearity_error: float | None,
    probes: int,
) -> None:
    base, rates, errors, in_force = (list(column) for column in zip(*groups, strict=True))
    measurement = measured(
        rates,
        step=step,
        errors=errors,
        multipliers=in_force,
        interval_steps=interval,
        linearity_error=linearity_error,
        probes=probes,
    )
    base32 = [float(np.float32(rate)) for rate in base]
    answer = advise([base32], measurement, policy)
    assert ((answer.multipliers >= 0.1) & (answer.multipliers <= 7.0)).all()
    assert np.isfinite(answer.ratios).all()
    assert np.isfinite(answer.depth_factors).all()
    assert 0 <= answer.probes <= policy.max_probes
    assert answer.next_measurement_step > step
    again = advise([base32], measurement, policy)
    assert again.multipliers.tobytes() == answer.multipliers.tobytes()
    assert again.outcomes == answer.outcomes
    assert again.limits.tolist() == answer.limits.tolist()


def test_an_infinite_slew_bound_does_not_limit() -> None:
    """The bound overflows to infinity, which must not cause a NumPy warning."""
    measurement = measured([1.0], multipliers=[1e300], interval_steps=1)
    answer = advise([[1.0]], measurement, Policy(slew_limit=1e300, averaging_window=0.0))
    assert answer.multipliers.tolist() == [1.0]


@given(st.floats(0.02, 50), st.floats(0.5, 2), st.floats(1.01, 4))
def test_each_later_answer_stays_within_the_slew_limit(
    rate: float, in_force: float, limit: float
) -> None:
    policy = Policy(slew_limit=limit, **WIDE_BOUNDS)
    later = measured([rate], multipliers=[in_force], interval_steps=25)
    answer = advise([[1.0]], later, policy)
    factor = answer.multipliers[0] / in_force
    assert 1 / limit * (1 - 1e-12) <= factor <= limit * (1 + 1e-12)
    jumped = not 1 / limit <= 1 / rate / in_force <= limit
    assert bool(answer.limits[0] & Limit.SLEW) == jumped
    assert (answer.outcomes[0] is Outcome.LIMITED) == jumped
    first = measured([rate], multipliers=[in_force])
    assert advise([[1.0]], first, policy).multipliers[0] == pytest.approx(1 / rate)


def test_weighing_by_confidence_applies_large_moves_fully_and_ignores_noise() -> None:
    def moved(ratio: float, error: float) -> float:
        later = measured([1.0], errors=[error], interval_steps=25)
        policy = Policy(multiplier_values_per_octave=0, **WIDE_BOUNDS)
        answer = advise([[ratio]], later, policy)
        return float(np.log(answer.multipliers[0]) / np.log(ratio))

    assert moved(0.05, 0.2) == pytest.approx(1.0, abs=0.01)
    assert moved(np.exp(0.2), 0.2) == pytest.approx(0.5)
    assert moved(1.01, 0.2) < 0.01
    assert moved(1.01, 0.0) == pytest.approx(1.0, abs=1e-5)


def test_weighing_by_confidence_reduces_the_error_from_noisy_measurements() -> None:
    """Over thirty noisy answers to a stationary run, weighed multipliers deviate less."""
    rng = np.random.default_rng(0)
    wandered = {}
    for weigh in (True, False):
        policy = Policy(weigh_by_confidence=weigh, max_relative_error=1.0)
        multipliers = np.ones(200)
        wandered[weigh] = 0.0
        for _ in range(30):
            rates = np.exp(0.2 * rng.standard_normal(200))
            measurement = Measurement(5, rates, np.full(200, 0.2), multipliers, 25)
            multipliers = advise([[1.0] * 200], measurement, policy).multipliers
            wandered[weigh] += float(np.mean(np.square(np.log(multipliers))))
    assert wandered[True] < 0.7 * wandered[False]


def test_increases_are_damped_for_nonlinear_steps_and_decreases_are_not() -> None:
    policy = Policy(max_linearity_error=0.5)
    measurement = measured([0.25, 4.0], linearity_error=1.0)
    answer = advise([[1.0, 1.0]], measurement, policy)
    assert answer.multipliers == pytest.approx([2.0, 0.25])  # half of the way to 4 in log space
    assert answer.limits.tolist() == [Limit.DAMPING, 0]
    calm = advise([[1.0, 1.0]], measured([0.25, 4.0], linearity_error=0.5), policy)
    assert calm.multipliers == pytest.approx([4.0, 0.25])


def test_rates_far_below_the_median_are_held_like_zero_rates() -> None:
    answer = advise([[1.0, 1e-9, 1.0, 1.0, 1.0]], measured([1.0, 3e-9, 1e-8, 1.0, 1.0]))
    assert answer.outcomes == (
        Outcome.MATCHED,
        Outcome.HELD_ZERO_RATE,
        Outcome.HELD_ZERO_RATE,
        Outcome.MATCHED,
        Outcome.MATCHED,
    )
    assert answer.multipliers.tolist() == [1.0] * 5


def test_one_exploding_group_does_not_hold_the_others() -> None:
    answer = advise([[1.0] * 4], measured([1e20, 1.0, 2.0, 4.0]))
    assert answer.multipliers[1:].tolist() == [1.0, 0.5, 0.25]


def test_first_step_only_holds_later_measurements() -> None:
    policy = Policy(first_step_only=True)
    assert advise([[2.0]], measured([1.0]), policy).multipliers[0] == 2.0
    later = advise([[2.0]], measured([0.1], step=25, multipliers=[2.0], interval_steps=25), policy)
    assert later.multipliers[0] == 2.0
    assert later.outcomes == (Outcome.HELD_FROZEN,)
    assert later.next_measurement_step == 25 + policy.max_interval_steps


def test_multipliers_freeze_at_the_step_that_the_policy_names() -> None:
    policy = Policy(freeze_after_step=10)
    assert advise([[2.0]], measured([1.0], step=9), policy).multipliers[0] == 2.0
    assert advise([[2.0]], measured([1.0], step=10), policy).outcomes == (Outcome.HELD_FROZEN,)


@pytest.mark.parametrize(
    ("errors", "probes", "target", "expected"),
    [
        ([0.2] * 10, 4, 0.1, 16),
        ([0.1] * 10, 4, 0.2, 1),
        ([0.1] * 9 + [50.0], 4, 0.1, 4),  # nine of ten
        ([9.0] * 10, 4, 0.1, 64),  # the policy's maximum
        ([0.0] * 10, 4, 0.1, 4),  # errors unknown
        ([0.2] * 10, 0, 0.1, 0),  # probes unknown
        ([0.2] * 10, 4, None, 0),
    ],
)
def test_answers_state_how_many_probes_the_target_error_requires(
    errors: list[float], probes: int, target: float | None, expected: int
) -> None:
    measurement = measured([1.0] * 10, errors=errors, probes=probes)
    answer = advise([[1.0] * 10], measurement, Policy(target_relative_error=target))
    assert answer.probes == expected


def test_an_answer_contains_its_explanation() -> None:
    base = profile_of(["blocks.0.w"], [[8.0]])
    policy = Policy(max_multiplier=2.0)
    mapping = map_layout(
        Layout.of_names(["blocks.0.w", "blocks.1.w"]), base.layout, policy.depth_rule
    )
    answer = recommend(base, Reference(base), mapping, policy, measured([1.0, 4.0]))
    assert answer.references.tolist() == [4.0, 4.0]
    assert answer.depth_factors.tolist() == [0.5, 0.5]
    assert answer.ratios.tolist() == [4.0, 1.0]
    assert answer.limits.tolist() == [Limit.MAX_MULTIPLIER, 0]
    assert answer.outcomes == (Outcome.CLAMPED, Outcome.MATCHED)


def test_alignment_by_progress_compares_the_same_fraction_of_the_training() -> None:
    policy = Policy(alignment=Alignment.PROGRESS)
    base = [[1.0], [2.0], [4.0], [8.0]]  # total_steps = 4
    answer = advise(base, measured([1.0], step=500, total_steps=1000), policy)
    assert answer.references == pytest.approx([4.0])
    with pytest.raises(InvalidValueError, match=r"total_steps: alignment by progress needs"):
        advise(base, measured([1.0], step=500), policy)
    # For equal lengths each step is compared with itself: 29 of 100 is not 28.999999999999996.
    for step in range(100):
        found = advise([[1.0]] * 100, measured([1.0], step=step, total_steps=100), policy)
        assert found.profile_step == step


@pytest.mark.parametrize(
    ("moved", "interval", "expected"),
    [
        (1.0, 50, 100),  # unchanged multipliers: twice as long
        (1.0, 80, 100),  # but not beyond the policy's range
        (1.02, 50, 100),
        (4.0, 50, 25),  # changing multipliers: half as long
        (4.0, 30, 25),
        (np.exp(0.1), 50, 50),
        (4.0, 0, 25),  # the first measurement
    ],
)
def test_the_next_measurement_is_sooner_while_multipliers_change(
    moved: float, interval: int, expected: int
) -> None:
    policy = Policy(min_interval_steps=25, max_interval_steps=100, averaging_window=0.0)
    answer = advise([[moved]], measured([1.0], step=7, interval_steps=interval), policy)
    assert answer.next_measurement_step == pytest.approx(7 + expected, abs=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit_rates": np.array([1.0])}, r"unit_rates: 1 entry, but the layout has 2 groups"),
        ({"unit_rates": np.array([1.0, np.nan])}, r"unit_rates\[1\]: nan is not a finite number"),
        ({"unit_rates": np.array([np.inf, 1.0])}, r"unit_rates\[0\]: inf is not a finite number"),
        ({"unit_rates": np.array([1.0, -2.0])}, r"unit_rates\[1\]: -2\.0 .* of at least 0"),
        ({"relative_errors": np.array([1.0, -1.0])}, r"relative_errors\[1\]: -1\.0"),
        ({"multipliers": np.array([0.0, 1.0])}, r"multipliers\[0\]: 0\.0 .* above 0"),
        ({"step": -1}, r"step: -1 is not in \[0, "),
        ({"step": 2**60}, r"step: \d+ is not in \[0, "),
        ({"probes": -1}, r"probes: -1 is below 0"),
        ({"linearity_error": float("nan")}, r"linearity_error: nan is not a finite number"),
        ({"interval_steps": -1}, r"interval_steps: -1 is not in"),
    ],
)
def test_the_error_for_an_invalid_measurement_names_the_field(
    change: dict[str, object], message: str
) -> None:
    good = measured([1.0, 1.0])
    with pytest.raises(InvalidValueError, match=message):
        advise([[1.0, 1.0]], dataclasses.replace(good, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_multiplier": 0.0}, r"min_multiplier: 0\.0 is not a finite number above 0"),
        ({"max_multiplier": float("inf")}, r"max_multiplier: inf"),
        ({"min_multiplier": 3.0, "max_multiplier": 2.0}, r"max_multiplier: 2\.0 is below"),
        ({"max_relative_error": float("nan")}, r"max_relative_error: nan"),
        ({"reference_smoothing": -1.0}, r"reference_smoothing: -1\.0 is not in \[0, 10\]"),
        ({"slew_limit": 1.0}, r"slew_limit: 1\.0 is not a finite number above 1"),
        ({"max_linearity_error": -1.0}, r"max_linearity_error: -1\.0"),
        ({"min_rate_ratio": 1.0}, r"min_rate_ratio: 1\.0 is not in \[0, 1\)"),
        ({"target_relative_error": 0.0}, r"target_relative_error: 0\.0 is not a finite"),
        ({"max_probes": 0}, r"max_probes: 0 is below 1"),
        ({"averaging_window": 1.5}, r"averaging_window: 1\.5 is not in \[0, 1\]"),
        ({"averaging_window": float("nan")}, r"averaging_window: nan is not in \[0, 1\]"),
        ({"freeze_after_step": -1}, r"freeze_after_step: -1 is below 0"),
        ({"min_interval_steps": 0}, r"min_interval_steps: 0 is below 1"),
        ({"max_interval_steps": 3}, r"max_interval_steps: 3 is below min_interval_steps 25"),
    ],
)
def test_the_error_for_an_invalid_policy_names_the_rule(
    change: dict[str, float], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        Policy(**change)  # type: ignore[arg-type]
