"""The order of the safeguards and their inputs, with one example of each possible mistake."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from advisor.policy import (
    Alignment,
    DepthRule,
    Layout,
    Limit,
    Match,
    Outcome,
    Policy,
    Reference,
    UnmatchedRule,
    map_layout,
    recommend,
)
from advisor.policy.nearest_roles import nearest_roles
from advisor.policy.parameter_names import parse_name
from tests.building import profile_of
from tests.unit.policy.test_recommend import advise, measured


def test_a_move_is_weighed_then_averaged_then_damped_then_slew_limited() -> None:
    """The move and its error are log 16: half of it is log 4; damped by 1/2: 2; slew limited: 1.5.

    Averaging over an interval of a third of the window comes before damping: a third of the way.
    """
    error = float(np.log(16.0))
    measurement = measured(
        [1.0], errors=[error], multipliers=[1.0], interval_steps=25, linearity_error=1.0
    )
    policy = Policy(max_relative_error=9.0, max_linearity_error=0.5, multiplier_values_per_octave=0)
    answer = advise([[16.0]], measurement, policy)
    assert answer.multipliers == pytest.approx([2.0])
    assert answer.limits.tolist() == [Limit.CONFIDENCE | Limit.DAMPING]
    slewed = advise([[16.0]], measurement, dataclasses.replace(policy, slew_limit=1.5))
    assert slewed.multipliers == pytest.approx([1.5])
    loose = advise([[16.0]], measurement, dataclasses.replace(policy, slew_limit=3.0))
    assert loose.multipliers == pytest.approx([2.0])  # it would be less if slew limiting came first
    later = dataclasses.replace(measurement, step=100)
    averaged = advise([[16.0]], later, policy)
    assert averaged.multipliers == pytest.approx([2.0 ** (1 / 3)])  # less if averaged first
    assert averaged.limits.tolist() == [Limit.CONFIDENCE | Limit.AVERAGING | Limit.DAMPING]


def test_damping_applies_to_increases_relative_to_the_current_multiplier() -> None:
    policy = Policy(max_linearity_error=0.5, weigh_by_confidence=False)
    measurement = measured([1.0, 1.0], multipliers=[8.0, 1 / 8], linearity_error=1.0)
    answer = advise([[2.0, 1 / 2]], measurement, policy)
    assert answer.multipliers == pytest.approx([
        2.0,
        0.25,
    ])  # a decrease to 2 is not damped, an increase to 1/2 is


def test_an_unmatched_group_is_reported_as_unmatched_even_after_freezing() -> None:
    policy = Policy(freeze_after_step=0, unmatched_rule=UnmatchedRule.HOLD)
    answer = advise([[1.0, 1.0]], measured([1.0, 1.0]), policy, names=["ga.", "stranger"])
    assert answer.outcomes == (Outcome.HELD_FROZEN, Outcome.UNMATCHED)


def test_a_zero_rate_is_reported_as_zero_even_with_a_large_error() -> None:
    answer = advise([[1.0]], measured([0.0], errors=[0.9]))
    assert answer.outcomes == (Outcome.HELD_ZERO_RATE,)


def test_a_rate_is_compared_with_the_median_of_the_positive_rates() -> None:
    answer = advise([[1.0] * 5], measured([0.0, 0.0, 0.0, 1e-8, 1.0]))
    assert answer.outcomes[3] is Outcome.HELD_ZERO_RATE


def test_groups_with_a_zero_rate_do_not_increase_the_number_of_probes() -> None:
    policy = Policy(target_relative_error=0.1)
    errors = [9.0] * 5 + [0.1] * 5
    measurement = measured([0.0] * 5 + [1.0] * 5, errors=errors, probes=4)
    assert advise([[1.0] * 10], measurement, policy).probes == 4


def test_a_bound_takes_precedence_over_a_limit_in_the_outcome() -> None:
    policy = Policy(slew_limit=2.0, max_multiplier=1.5)
    later = measured([0.01], multipliers=[1.0], interval_steps=25)
    answer = advise([[1.0]], later, policy)
    assert answer.outcomes == (Outcome.CLAMPED,)
    assert answer.limits.tolist() == [Limit.SLEW | Limit.MAX_MULTIPLIER]


def test_one_moving_group_of_many_does_not_shorten_the_interval() -> None:
    rates = [np.exp(-0.3)] + [1.0] * 99  # RMS of the moves 0.03, the largest 0.3
    later = measured(rates, step=0, interval_steps=40)
    policy = Policy(min_interval_steps=10, max_interval_steps=100)
    assert advise([[1.0] * 100], later, policy).next_measurement_step == 80


def test_a_reference_with_a_large_error_is_not_followed() -> None:
    base = dataclasses.replace(
        profile_of(["a", "b"], [[1.0, 1.0]]),
        relative_errors=np.array([[0.1, 5.0]], dtype=np.float32),
    )
    mapping = map_layout(base.layout, base.layout, DepthRule.SUM)
    measurement = measured([0.5, 0.5], errors=[0.1, 0.1])
    answer = recommend(base, Reference(base), mapping, Policy(), measurement)
    assert answer.outcomes == (Outcome.MATCHED, Outcome.HELD_LOW_CONFIDENCE)


def test_first_step_only_waits_for_groups_that_were_held() -> None:
    """A layer before a zero-initialized one has no rate at step 0; it is recommended later."""
    policy = Policy(first_step_only=True, slew_limit=1.1)
    first = measured([0.0, 1.0])
    answer = advise([[1.0, 2.0]], first, policy)
    assert answer.outcomes == (Outcome.HELD_ZERO_RATE, Outcome.MATCHED)
    second = dataclasses.replace(
        measured([0.25, 1.0], multipliers=[1.0, 2.0], interval_steps=25),
        advised=np.array([False, True]),
    )
    answer = advise([[1.0, 8.0]], second, policy)
    assert answer.outcomes == (Outcome.MATCHED, Outcome.HELD_FROZEN)
    assert answer.multipliers.tolist() == [4.0, 2.0]  # the first recommendation has no slew limit
    assert answer.next_measurement_step < second.step + policy.max_interval_steps


def test_a_first_point_with_a_learning_rate_of_zero_is_ignored() -> None:
    base = dataclasses.replace(
        profile_of(["a", "b"], [[0.0, 0.0], [2.0, 0.0], [2.0, 3.0]], steps=[0, 10, 20]),
        learning_rates=np.array([0.0, 0.005, 0.01]),
    )
    assert Reference(base).at(0).tolist() == [2.0, 0.0]  # b's zero at step 10 is kept
    assert Reference(base).at(15).tolist() == [2.0, 0.0]
    assert Reference(base).at(20).tolist() == [2.0, 3.0]


def test_progress_is_relative_to_the_planned_steps_and_not_to_the_last_point() -> None:
    base = dataclasses.replace(profile_of(["a"], [[1.0], [4.0]], steps=[0, 100]), total_steps=200)
    mapping = map_layout(base.layout, base.layout, DepthRule.SUM)
    policy = Policy(alignment=Alignment.PROGRESS)
    answer = recommend(
        base, Reference(base), mapping, policy, measured([1.0], step=25, total_steps=100)
    )
    assert answer.profile_step == 50
    assert answer.references == pytest.approx([2.0])


def test_the_measured_rule_has_a_factor_for_each_role() -> None:
    base = Layout.of_names([f"blocks.{i}.{part}.w" for i in range(2) for part in "ab"])
    run = Layout.of_names([f"blocks.{i}.{part}.w" for i in range(4) for part in "ab"])
    mapping = map_layout(run, base, DepthRule.MEASURED)
    references = mapping.references(np.ones(4), np.array([1.0, 0.0]))
    assert references.tolist() == pytest.approx([0.5, 2**-0.5] * 4)


def test_templates_of_a_run_take_precedence_over_those_of_its_profile() -> None:
    from advisor.policy import Group

    base = Layout.of([Group("s0.u0.w"), Group("s0.u1.w")], ["s*.u*"])
    run = Layout.of([Group("s0.u0.w"), Group("s0.u1.w")], ["other*"])
    assert map_layout(run, base, DepthRule.SUM).matches == (Match.NONE, Match.NONE)


@pytest.mark.parametrize(
    "word",
    ["h", "cell", "cells", "unit", "units", "level", "levels", "resblock", "attentions",
     "transformers", "resnets", "encoderlayer", "experts"],
)  # fmt: skip
def test_an_index_after_these_words_is_a_block_index(word: str) -> None:
    assert parse_name(f"model.x.{word}.3.w").numbers == (3,)
    assert parse_name(f"0.a.{word}.3.m.w").numbers == (0, 3)


def test_the_nearest_role_shares_more_than_half_of_its_words_and_the_kind() -> None:
    base = ["blocks.*.attn.qkv.weight", "blocks.*.attn.out.bias", "blocks.*.q_norm.weight"]
    assert nearest_roles(["blocks.*.attn.q.weight"], base) == {"blocks.*.attn.q.weight": base[0]}
    assert nearest_roles(["x.*.attn.y.weight"], base) == {"x.*.attn.y.weight": base[0]}  # 0.6
    assert nearest_roles(["x.*.y.z.weight"], base) == {}  # 0.4
    assert nearest_roles(["blocks.*.attn.qkv.bias"], base) == {"blocks.*.attn.qkv.bias": base[1]}
    assert nearest_roles(["blocks.*.attn.q_norm.weight"], base[:2]) == {}  # no norm among them
