"""What bounds a measured multiplier: its prior, the relative update, and how fast it may rise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import (
    InvalidValueError,
    Layout,
    Limit,
    Outcome,
    Policy,
    PriorRule,
    Recommendation,
    Reference,
    map_layout,
    recommend,
)
from tests.building import profile_of
from tests.unit.policy.test_recommend import WIDE_BOUNDS, measured


def advise(
    base: float,
    rate: float,
    policy: Policy | None = None,
    *,
    prior: float = 0.0,
    in_force: float = 1.0,
    advised: bool = False,
    relative_updates: tuple[float, float] | None = None,
    step: int = 0,
) -> Recommendation:
    """Advise a run of one group.

    Args:
        base: The base's unit rate.
        rate: The run's.
        policy: The rules.
        prior: The group's prior; 0: none.
        in_force: The multiplier in force.
        advised: Whether it was recommended.
        relative_updates: RMS of update over RMS of weights, of the base and of the run.
        step: The measured step.
    """
    profile = profile_of(["a."], [[base]], policy=policy)
    measurement = measured([rate], multipliers=[in_force], step=step)
    measurement = dataclasses.replace(measurement, advised=np.array([advised]))
    if relative_updates is not None:
        of_base, of_run = relative_updates
        ones = np.ones((1, 1), dtype=np.float32)
        profile = dataclasses.replace(profile, weight_rms=ones, update_rms=ones * of_base)
        measurement = dataclasses.replace(
            measurement, weight_rms=np.array([2.0]), update_rms=np.array([2.0 * of_run])
        )
    layout = Layout.of_names(["a."])
    policy = policy or Policy()
    mapping = map_layout(layout, profile.layout, policy.depth_rule)
    return recommend(
        profile, Reference(profile), mapping, policy, measurement, priors=np.array([prior])
    )


@pytest.mark.parametrize(
    ("rate", "multiplier", "limits"),
    [(4.0, 0.25, 0), (3.0, 1 / 3, 0), (100.0, 0.125, 64), (0.01, 0.5, 64)],
)
def test_what_is_measured_moves_a_multiplier_within_the_correction_bound(
    rate: float, multiplier: float, limits: int
) -> None:
    policy = Policy(correction_bound=2.0, lower_correction_bound=2.0, averaging_window=0.0)
    answer = advise(1.0, rate, policy, prior=0.25)
    assert answer.multipliers == pytest.approx([multiplier])
    assert answer.limits.tolist() == [limits]
    assert answer.outcomes == (Outcome.LIMITED if limits else Outcome.MATCHED,)
    assert answer.priors.tolist() == [0.25]


def test_a_correction_bound_of_one_is_the_prior() -> None:
    answer = advise(
        1.0, 100.0, Policy(correction_bound=1.0, lower_correction_bound=1.0), prior=0.25
    )
    assert answer.multipliers.tolist() == [0.25]


@pytest.mark.parametrize("policy", [Policy(), Policy(prior=PriorRule.NONE)])
def test_without_a_prior_only_the_bounds_hold(policy: Policy) -> None:
    prior = 0.0 if policy.prior is PriorRule.SHAPES else 0.25
    answer = advise(1.0, 8.0, policy, prior=prior)
    assert answer.multipliers == pytest.approx([1 / 8])
    assert advise(1.0, 1e6, policy, prior=prior).multipliers.tolist() == [
        policy.min_multiplier_without_prior
    ]
    assert answer.priors.tolist() == [0.0]


def test_a_group_that_was_never_advised_is_held_at_its_prior() -> None:
    answer = advise(1.0, 0.0, prior=0.25, in_force=1.0)
    assert answer.outcomes == (Outcome.HELD_ZERO_RATE,)
    assert answer.multipliers.tolist() == [0.25]
    later = advise(1.0, 0.0, prior=0.25, in_force=0.4, advised=True)
    assert later.multipliers.tolist() == [0.4]


@pytest.mark.parametrize(("own", "multiplier"), [(1.0, 2.0), (0.5, 4.0), (0.1, 5.0)])
def test_a_relative_update_stays_below_a_multiple_of_the_base(
    own: float, multiplier: float
) -> None:
    policy = Policy(max_relative_update=2.0, **WIDE_BOUNDS)
    answer = advise(5.0, 1.0, policy, relative_updates=(1.0, own))
    assert answer.multipliers == pytest.approx([multiplier])
    limited = multiplier < 5.0
    assert answer.limits.tolist() == [Limit.RELATIVE_UPDATE if limited else 0]


@pytest.mark.parametrize("relative_updates", [None, (0.0, 1.0), (1.0, 0.0)])
def test_an_unknown_relative_update_limits_nothing(
    relative_updates: tuple[float, float] | None,
) -> None:
    policy = Policy(max_relative_update=2.0, **WIDE_BOUNDS)
    answer = advise(5.0, 1.0, policy, relative_updates=relative_updates)
    assert answer.multipliers == pytest.approx([5.0])


def test_a_first_measurement_moves_a_prior_only_a_little() -> None:
    answer = advise(1.0, 1 / 16, Policy(correction_bound=2.0), prior=0.25)
    assert answer.multipliers == pytest.approx([0.25 * 2 ** (1 / 25)])
    assert answer.limits.tolist() == [Limit.CORRECTION | Limit.AVERAGING]


@pytest.mark.parametrize(("in_force", "kept"), [(1024.0, 0.5), (1e-6, 0.0625), (0.3, 0.3)])
def test_a_held_group_is_brought_back_to_its_prior(in_force: float, kept: float) -> None:
    answer = advise(1.0, 0.0, prior=0.25, in_force=in_force, advised=True)
    assert answer.multipliers == pytest.approx([kept])


def test_a_multiplier_rises_slowly_and_falls_freely() -> None:
    policy = Policy(rise_limit=1.5, averaging_window=0.0, **WIDE_BOUNDS)
    up = advise(1.0, 1 / 16, policy, in_force=2.0, advised=True)
    assert up.multipliers == pytest.approx([3.0])
    assert up.limits.tolist() == [Limit.SLEW]
    down = advise(1.0, 16.0, policy, in_force=2.0, advised=True)
    assert down.multipliers == pytest.approx([1 / 16])


def test_a_first_recommendation_rises_slowly_from_its_prior() -> None:
    policy = Policy(rise_limit=1.5, correction_bound=100.0, averaging_window=0.0, **WIDE_BOUNDS)
    assert advise(1.0, 1 / 16, policy, prior=0.25).multipliers == pytest.approx([0.375])
    assert advise(1.0, 1 / 16, policy).multipliers == pytest.approx([16.0])


@given(
    st.floats(1e-6, 1e6),
    st.floats(1e-6, 1e6),
    st.floats(1e-3, 1e3),
    st.floats(1.0, 100.0),
)
def test_a_multiplier_stays_near_its_prior_whatever_is_measured(
    base: float, rate: float, prior: float, bound: float
) -> None:
    policy = Policy(
        correction_bound=bound,
        lower_correction_bound=2 * bound,
        min_multiplier=1e-9,
        max_multiplier=1e9,
    )
    multiplier = float(advise(base, rate, policy, prior=prior).multipliers[0])
    assert prior / (2 * bound) * (1 - 1e-12) <= multiplier <= prior * bound * (1 + 1e-12)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("correction_bound", 0.5, "0.5 is not a finite number of at least 1"),
        ("lower_correction_bound", 0.5, "0.5 is not a finite number of at least 1"),
        ("rise_limit", 1.0, "1.0 is not a finite number above 1"),
        ("max_relative_update", 0.0, "0.0 is not a finite number above 0"),
        ("dense_start_steps", -1, "-1 is not in"),
    ],
)
def test_rules_out_of_range_are_refused(field: str, value: float, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        Policy(**{field: value})  # type: ignore[arg-type]


def test_a_dense_start_measures_whenever_the_number_of_steps_has_doubled() -> None:
    policy = Policy(dense_start_steps=16)
    steps = [0]
    while steps[-1] < 16:
        steps.append(advise(1.0, 1.0, policy, step=steps[-1]).next_measurement_step)
    assert steps == [0, 1, 2, 4, 8, 16]
    assert advise(1.0, 1.0, policy, step=16).next_measurement_step == 16 + policy.min_interval_steps


def test_a_group_without_a_rate_is_measured_soon_after_it_moves() -> None:
    waiting = [
        advise(1.0, 0.0, step=step).next_measurement_step for step in (0, 1, 2, 4, 8, 16, 32)
    ]
    assert waiting == [1, 2, 4, 8, 16, 32, 32 + Policy().min_interval_steps]
    known = advise(1.0, 0.0, step=8, in_force=2.0, advised=True)
    assert known.next_measurement_step == 8 + Policy().min_interval_steps
