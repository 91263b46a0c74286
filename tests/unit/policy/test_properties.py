"""Properties that hold for every policy, profile, depth, measurement and current multiplier."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from advisor.policy import (
    DepthRule,
    Layout,
    Measurement,
    Outcome,
    Policy,
    Profile,
    Recommendation,
    Reference,
    UnmatchedRule,
    map_layout,
    recommend,
)

_HELD = {Outcome.HELD_ZERO_RATE, Outcome.HELD_LOW_CONFIDENCE, Outcome.HELD_FROZEN}


def _names(depth: int) -> list[str]:
    return ["embed.w", *(f"blocks.{i}.{p}.w" for i in range(depth) for p in "ab"), "head.w"]


def _rates(low: float = 2.0**-40, high: float = 2.0**40) -> st.SearchStrategy[float]:
    return st.one_of(st.just(0.0), st.floats(low, high, width=32))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    return Policy(
        depth_rule=draw(st.sampled_from(DepthRule)),
        unmatched_rule=draw(st.sampled_from(UnmatchedRule)),
        min_multiplier=draw(st.floats(1e-3, 1)),
        max_multiplier=draw(st.floats(1, 1e3)),
        max_relative_error=draw(st.floats(0.1, 2)),
        slew_limit=draw(st.none() | st.floats(1.01, 100)),
        max_linearity_error=draw(st.none() | st.floats(0.01, 10)),
        min_rate_ratio=draw(st.sampled_from([0.0, 1e-6, 0.1])),
        weigh_by_confidence=draw(st.booleans()),
        first_step_only=draw(st.booleans()),
        freeze_after_step=draw(st.none() | st.integers(0, 20)),
        target_relative_error=draw(st.none() | st.floats(0.01, 1)),
        averaging_window=draw(st.sampled_from([0.0, 0.25, 1.0]) | st.floats(0, 1)),
    )


@st.composite
def profiles(draw: st.DrawFn, policy: Policy, *, zeros: bool = True) -> Profile:
    depth, points = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    layout = Layout.of_names(_names(depth))
    rate = _rates() if zeros else st.floats(2.0**-10, 2.0**10, width=32)

    def table(element: st.SearchStrategy[float], columns: int) -> np.ndarray[Any, Any]:
        row = st.lists(element, min_size=columns, max_size=columns)
        rows = draw(st.lists(row, min_size=points, max_size=points))
        return np.array(rows, dtype=np.float32)

    return Profile(
        layout=layout,
        steps=np.arange(points, dtype=np.int64) * 10,
        unit_rates=table(rate, len(layout)),
        relative_errors=table(st.floats(0, 0.125, width=32), len(layout)),
        base_learning_rate=0.01,
        total_steps=40,
        policy=policy,
        coherences=table(st.floats(-1, 1, width=32), len(layout.roles)),
    )


@st.composite
def measurements(draw: st.DrawFn, groups: int, *, zeros: bool = True) -> Measurement:
    def row(element: st.SearchStrategy[Any]) -> np.ndarray[Any, Any]:
        return np.array(draw(st.lists(element, min_size=groups, max_size=groups)))

    rate = _rates() if zeros else st.floats(2.0**-10, 2.0**10)
    return Measurement(
        step=draw(st.integers(0, 30)),
        unit_rates=row(rate),
        relative_errors=row(st.floats(0, 1)),
        multipliers=row(st.floats(1e-2, 1e2)),
        interval_steps=draw(st.integers(0, 30)),
        linearity_error=draw(st.none() | st.floats(0, 20)),
        probes=draw(st.integers(0, 8)),
        advised=draw(st.none() | st.just(row(st.booleans()))),
    )


Case = tuple[Profile, Layout, Measurement]


@st.composite
def cases(draw: st.DrawFn, *, zeros: bool = True) -> Case:
    profile = draw(profiles(draw(policies()), zeros=zeros))
    layout = Layout.of_names(_names(draw(st.integers(1, 6))))
    return profile, layout, draw(measurements(len(layout), zeros=zeros))


def advised(case: Case) -> Recommendation:
    profile, layout, measurement = case
    policy = profile.policy
    mapping = map_layout(
        layout, profile.layout, policy.depth_rule, unmatched_rule=policy.unmatched_rule
    )
    return recommend(profile, Reference(profile), mapping, policy, measurement)


@given(cases())
def test_answers_are_finite_and_inside_the_bounds(case: Case) -> None:
    answer, policy = advised(case), case[0].policy
    assert (answer.multipliers >= policy.min_multiplier).all()
    assert (answer.multipliers <= policy.max_multiplier).all()
    for values in (answer.references, answer.depth_factors, answer.ratios):
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    step = case[2].step
    assert step < answer.next_measurement_step <= step + policy.max_interval_steps
    assert 0 <= answer.probes <= policy.max_probes


@given(cases(zeros=False))
def test_rates_equal_to_the_reference_have_a_ratio_of_one_and_keep_a_multiplier_of_one(
    case: Case,
) -> None:
    profile, layout, measurement = case
    same = dataclasses.replace(measurement, unit_rates=advised(case).references)
    answer = advised((profile, layout, same))
    assert answer.ratios.tolist() == [1.0] * len(layout)
    plain = dataclasses.replace(same, multipliers=np.ones(len(layout)))
    assert advised((profile, layout, plain)).multipliers.tolist() == [1.0] * len(layout)


@given(cases(zeros=False), st.floats(2.0**-8, 2.0**8))
def test_scaling_rates_divides_ratios_and_every_unlimited_multiplier(
    case: Case, factor: float
) -> None:
    profile, layout, measurement = case
    scaled = dataclasses.replace(measurement, unit_rates=measurement.unit_rates * factor)
    once, again = advised(case), advised((profile, layout, scaled))
    np.testing.assert_allclose(again.ratios, once.ratios / factor, rtol=1e-12)
    untouched = (once.limits == 0) & (again.limits == 0)
    untouched &= np.array([
        not ({one, other} & _HELD) for one, other in zip(once.outcomes, again.outcomes, strict=True)
    ])
    np.testing.assert_allclose(
        again.multipliers[untouched], once.multipliers[untouched] / factor, rtol=1e-9
    )


@given(cases(), st.data())
def test_results_are_bit_identical_in_any_order_of_groups(case: Case, data: st.DataObject) -> None:
    profile, layout, measurement = case
    order = data.draw(st.permutations(range(len(layout))))
    shuffled = Layout.of_names([layout.groups[i].name for i in order])
    arrays = {
        name: getattr(measurement, name)[order]
        for name in ("unit_rates", "relative_errors", "multipliers", "advised")
        if getattr(measurement, name) is not None
    }
    once = advised(case)
    again = advised((profile, shuffled, dataclasses.replace(measurement, **arrays)))
    for name in ("multipliers", "references", "depth_factors", "ratios", "limits"):
        assert getattr(again, name).tolist() == getattr(once, name)[order].tolist()
    assert list(again.outcomes) == [once.outcomes[i] for i in order]
    assert again.probes == once.probes


@given(cases(), st.integers(1, 6))
def test_splitting_each_block_preserves_the_quantity_of_the_depth_rule(
    case: Case, times: int
) -> None:
    """Each block is split into equal parts; the rule preserves the sum, squares or rates."""
    profile, _, measurement = case
    policy = profile.policy
    base_depth = sum(group.name.endswith(".a.w") for group in profile.layout.groups)
    layout = Layout.of_names(_names(base_depth * times))
    assume(policy.depth_rule is not DepthRule.MEASURED)
    mapping = map_layout(layout, profile.layout, policy.depth_rule)
    rates = Reference(profile).at(float(measurement.step))
    references = mapping.references(rates)
    for part in "ab":
        own = [i for i, g in enumerate(layout.groups) if g.name.endswith(f".{part}.w")]
        base = [i for i, g in enumerate(profile.layout.groups) if g.name.endswith(f".{part}.w")]
        powers = {DepthRule.SUM: 1, DepthRule.SQRT: 2}
        if power := powers.get(policy.depth_rule):
            np.testing.assert_allclose(
                np.power(references[own], power).sum(),
                np.power(rates[base], power).sum(),
                rtol=1e-9,
            )
        else:
            assert references[own].tolist() == np.repeat(rates[base], times).tolist()
