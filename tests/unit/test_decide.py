from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import (
    Alignment,
    InvalidValueError,
    Layout,
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


def measured(
    rates: list[float],
    *,
    step: int = 0,
    errors: list[float] | None = None,
    multipliers: list[float] | None = None,
    interval_steps: int = 0,
    total_steps: int = 0,
) -> Measurement:
    return Measurement(
        step,
        np.array(rates),
        np.array(errors if errors is not None else [0.0] * len(rates)),
        np.array(multipliers if multipliers is not None else [1.0] * len(rates)),
        interval_steps,
        total_steps,
    )


def advise(
    base: list[list[float]],
    measurement: Measurement,
    policy: Policy | None = None,
    *,
    names: list[str] | None = None,
) -> Recommendation:
    base_names = [f"g{i}." for i in range(len(base[0]))]
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
    answer = advise([rates], measured(rates))
    assert answer.multipliers == pytest.approx(1.0, rel=1e-12)
    assert set(answer.outcomes) == {Outcome.MATCHED}


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=12), st.floats(0.1, 10))
def test_scaling_all_rates_divides_all_multipliers(rates: list[float], factor: float) -> None:
    base = [[1.0] * len(rates)]
    once = advise(base, measured(rates)).multipliers
    scaled = advise(base, measured([rate * factor for rate in rates])).multipliers
    assert scaled == pytest.approx(once / factor)


@given(st.permutations(range(6)))
def test_the_order_of_groups_does_not_matter(order: list[int]) -> None:
    names = [f"g{i}." for i in range(6)]
    rates = [1.0, 0.0, 3.0, 2000.0, 1e-9, 2.0]
    straight = advise([[1.0] * 6], measured(rates), names=names)
    shuffled = advise(
        [[1.0] * 6], measured([rates[i] for i in order]), names=[names[i] for i in order]
    )
    assert shuffled.multipliers.tolist() == [straight.multipliers[i] for i in order]
    assert list(shuffled.outcomes) == [straight.outcomes[i] for i in order]


def test_every_outcome_says_why() -> None:
    policy = Policy(
        max_relative_error=0.5,
        min_multiplier=0.1,
        max_multiplier=10.0,
        unmatched_rule=UnmatchedRule.HOLD,
    )
    answer = advise(
        [[2.0, 1.0, 1.0, 0.0, 1.0, 1.0]],
        measured(
            [1.0, 1e-9, 0.0, 1.0, 1.0, 1.0],
            errors=[0.1, 0.1, 0.1, 0.1, 0.6, 0.1],
            multipliers=[1.0, 1.0, 3.0, 4.0, 5.0, 6.0],
        ),
        policy,
        names=["g0.", "g1.", "g2.", "g3.", "g4.", "stranger"],
    )
    assert list(zip(answer.multipliers, answer.outcomes, strict=True)) == [
        (2.0, Outcome.MATCHED),
        (10.0, Outcome.CLAMPED),
        (3.0, Outcome.HELD_ZERO_RATE),
        (4.0, Outcome.HELD_ZERO_RATE),
        (5.0, Outcome.HELD_LOW_CONFIDENCE),
        (6.0, Outcome.UNMATCHED),
    ]


def test_alignment_by_progress_compares_the_same_fraction_of_the_training() -> None:
    policy = Policy(alignment=Alignment.PROGRESS)
    base = [[1.0], [2.0], [4.0], [8.0]]  # total_steps = 4
    answer = advise(base, measured([1.0], step=500, total_steps=1000), policy)
    assert answer.references == pytest.approx([4.0])
    with pytest.raises(InvalidValueError, match=r"total_steps: alignment by progress needs"):
        advise(base, measured([1.0], step=500), policy)


@pytest.mark.parametrize(
    ("moved", "interval", "expected"),
    [
        (1.0, 50, 100),  # at rest: twice as long
        (1.0, 80, 100),  # but not beyond the policy's range
        (1.02, 50, 100),
        (4.0, 50, 25),  # in motion: half as long
        (4.0, 30, 25),
        (np.exp(0.1), 50, 50),
        (4.0, 0, 25),  # the first measurement
    ],
)
def test_it_measures_sooner_while_multipliers_move(
    moved: float, interval: int, expected: int
) -> None:
    policy = Policy(min_interval_steps=25, max_interval_steps=100)
    answer = advise([[moved]], measured([1.0], step=7, interval_steps=interval), policy)
    assert answer.next_measurement_step == pytest.approx(7 + expected, abs=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit_rates": np.array([1.0])}, r"unit_rates: 1 entries, but the layout has 2 groups"),
        ({"unit_rates": np.array([1.0, np.nan])}, r"unit_rates\[1\]: nan is not a finite number"),
        ({"unit_rates": np.array([np.inf, 1.0])}, r"unit_rates\[0\]: inf is not a finite number"),
        ({"unit_rates": np.array([1.0, -2.0])}, r"unit_rates\[1\]: -2\.0 .* of at least 0"),
        ({"relative_errors": np.array([1.0, -1.0])}, r"relative_errors\[1\]: -1\.0"),
        ({"multipliers": np.array([0.0, 1.0])}, r"multipliers\[0\]: 0\.0 .* above 0"),
        ({"step": -1}, r"step: -1 is not in \[0, "),
        ({"step": 2**60}, r"step: \d+ is not in \[0, "),
        ({"interval_steps": -1}, r"interval_steps: -1 is not in"),
    ],
)
def test_a_bad_measurement_is_refused_with_the_field(
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
        ({"min_interval_steps": 0}, r"min_interval_steps: 0 is below 1"),
        ({"max_interval_steps": 3}, r"max_interval_steps: 3 is below min_interval_steps 25"),
    ],
)
def test_a_bad_policy_is_refused_with_the_rule(change: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        Policy(**change)  # type: ignore[arg-type]
