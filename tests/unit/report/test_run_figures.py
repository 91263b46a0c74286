from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import Limit
from advisor.report.contributions import contributions, whole_percents
from advisor.report.parts import Parts
from advisor.report.points import reference_total_rate
from advisor.report.recommendations import recommended_groups
from advisor.report.run_changes import ChangeKind
from advisor.report.run_figures import MeasuringCost, RunFigures
from advisor.report.run_groups import RunGroups
from advisor.report.sentences import (
    change_text,
    contributions_text,
    cost_text,
    decay_text,
    learning_rates_text,
    multipliers_beside_text,
    outcome_text,
    reason,
    recommended_text,
    total_change_text,
)
from advisor.report.texts import Texts
from fslr.advisor.v1 import policy_pb2
from tests.building import content_message, layout_message
from tests.stored_runs import block_names, stored_run

EN, JA = Texts("en"), Texts("ja")


def test_groups_are_divided_by_role_and_by_block() -> None:
    names = [*block_names(2), "stages.1.blocks.3.up.weight", "norm.bias"]
    groups = RunGroups.of(layout_message(names))
    roles, blocks = groups.roles, groups.blocks
    assert roles.names[:3] == ("embed.weight", "blocks.*.attn.weight", "blocks.*.mlp.weight")
    assert blocks.names == ("embed", "blocks.0", "blocks.1", "head", "stages.1", "norm")
    assert blocks.group_counts == (1, 2, 2, 1, 1, 1)
    assert groups.names == tuple(names)
    assert roles.members("blocks.*.mlp.weight") == [2, 4]
    assert roles.members("nothing") == []
    np.testing.assert_allclose(roles.sums(np.arange(8.0))[:3], [0, 1 + 3, 2 + 4])
    means = roles.geometric_means(np.array([0.0, 1, 2, 4, 8, 1, 1, 1]))
    np.testing.assert_allclose(means[:3], [0, 2, 4])


def test_a_point_has_the_total_rate_beside_its_reference() -> None:
    names = block_names(4)
    content = content_message(names, rate=4.0)
    for recorded in content.points:
        recorded.spreads[:] = [0.1] * len(names)
    run, events = stored_run(names, content=content, observe_only=True)
    figures = RunFigures.of(run, events, content)
    for event, point in zip(events, figures.points, strict=True):
        rates = np.array(event.measurement.unit_rates)
        references = np.array(event.recommendation.reference_unit_rates)
        ratio = np.sqrt(np.sum(references**2) / np.sum(rates**2))
        assert point.reference_total_rate == pytest.approx(event.measurement.total_rate * ratio)
        assert point.reference_low == pytest.approx(point.reference_total_rate * np.exp(-0.1))
        assert point.reference_high == pytest.approx(point.reference_total_rate * np.exp(0.1))
    assert RunFigures.of(run, events).points[0].reference_low is None


@given(factor=st.floats(0.01, 100), in_force=st.floats(0.01, 100))
def test_the_reference_is_exact_if_all_rates_change_by_one_factor(
    factor: float, in_force: float
) -> None:
    _, (event,) = stored_run(measurements=1)
    count = len(event.measurement.unit_rates)
    event.measurement.multipliers[:] = [in_force] * count
    event.recommendation.reference_unit_rates[:] = [
        factor * in_force * rate for rate in event.measurement.unit_rates
    ]
    expected = factor * event.measurement.total_rate
    assert reference_total_rate(event) == pytest.approx(expected, rel=1e-5)


def test_without_a_total_rate_or_a_matched_group_there_is_no_reference() -> None:
    _, (event,) = stored_run(measurements=1)
    event.recommendation.reference_unit_rates[:] = [0.0] * len(event.measurement.unit_rates)
    assert reference_total_rate(event) is None
    event.measurement.ClearField("total_rate")
    assert reference_total_rate(event) is None


@given(st.lists(st.floats(-2, 3), min_size=1, max_size=40))
def test_shares_in_whole_percent_have_the_sum_of_the_shares(shares: list[float]) -> None:
    percents = whole_percents(shares)
    assert sum(percents) == round(sum(100 * share for share in shares))
    assert all(abs(p - 100 * s) < 1 for p, s in zip(percents, shares, strict=True))


def test_contributions_sum_to_100_percent_and_small_parts_are_one_row() -> None:
    run, events = stored_run()
    figures = RunFigures.of(run, events)
    for rows in (figures.role_contributions(), figures.block_contributions()):
        assert sum(row.percent for row in rows) == 100
        assert sum(row.share for row in rows) == pytest.approx(1)
        assert sum(row.groups for row in rows) == 10
    parts = Parts.of(figures.reader.groups.names)
    shares = np.array([0.3, 0.01, -0.2, 0.5, 0.02, 0.03, 0.04, 0.1, 0.1, 0.1])
    rows = contributions(parts, [None, shares], most=4)
    assert [row.part for row in rows[:3]] == [parts.names[i] for i in (0, 2, 3)]
    assert (rows[3].part, rows[3].groups, rows[3].percent) == ("", 7, 40)
    assert contributions(parts, [None]) == []


def test_each_group_has_its_learning_rates_and_a_reason() -> None:
    run, events = stored_run(observe_only=True)
    event = events[-1]
    answer, measured = event.recommendation, event.measurement
    figures = RunFigures.of(run, events)
    row = figures.recommended_groups()[2]
    assert (row.group, row.role, row.block) == ("blocks.0.mlp.weight", "blocks.*.mlp.weight",
        "blocks.0")  # fmt: skip
    assert row.effective_learning_rate == pytest.approx(0.01 * answer.multipliers[2])
    assert (row.learning_rate, row.in_force) == (0.01, 1.0)
    assert row.decay_factor == answer.multipliers[2]
    assert row.share == pytest.approx(3 / 55)
    assert reason(row, EN).startswith("Matched: at an equal learning rate it moves the outputs 2.")
    answer.outcomes[2] = policy_pb2.OUTCOME_HELD_LOW_CONFIDENCE
    measured.relative_errors[2], answer.limits[2] = 0.4, 0
    assert reason(figures.recommended_groups()[2], EN) == "Held: measured only to ±40%."
    answer.outcomes[2] = policy_pb2.OUTCOME_LIMITED
    answer.raw_multipliers[2], answer.limits[2] = 0.1, int(Limit.SLEW | Limit.DAMPING)
    assert reason(figures.recommended_groups()[2], EN).endswith(
        "Limited by speed of change, damping."
    )
    assert "変化の速さ、減衰" in reason(figures.recommended_groups()[2], JA)
    answer.outcomes[2] = 99  # type: ignore[call-overload]
    newer = "Outcome 99, which is defined by a newer service."
    assert reason(figures.recommended_groups()[2], EN) == newer
    assert outcome_text(99, EN) == "outcome 99"
    assert outcome_text(policy_pb2.OUTCOME_CLAMPED, JA) == "上下限"


def test_kept_weight_decay_does_not_follow_the_multiplier() -> None:
    run, events = stored_run()
    rule = policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT
    events[-1].recommendation.weight_decay = rule
    assert {row.decay_factor for row in RunFigures.of(run, events).recommended_groups()} == {1.0}


@pytest.mark.parametrize("is_kept", [False, True])
def test_the_weight_decay_of_a_step_is_known_where_the_job_reported_it(is_kept: bool) -> None:
    run, events = stored_run(block_names(2))
    figures = RunFigures.of(run, events)
    assert {row.decay for row in figures.recommended_groups()} == {None}
    assert {row.decay for row in figures.recommended_roles()} == {None}
    measured, answer = events[-1].measurement, events[-1].recommendation
    measured.weight_decays[:] = [0, 1e-3, 1e-3, 3e-3, 1e-3, 1e-3]
    answer.multipliers[:] = [1, 0.5, 2, 0.5, 2, 1]
    if is_kept:
        answer.weight_decay = policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT
    factors = [1, 1] if is_kept else [0.5, 2]
    groups = [row.decay for row in figures.recommended_groups()]
    assert groups[:4] == pytest.approx([0, 1e-3 * factors[0], 1e-3 * factors[1], 3e-3 * factors[0]])
    roles = figures.recommended_roles()
    means = [0, 2e-3 * factors[0], 1e-3 * factors[1], 1e-3]
    assert [row.decay for row in roles] == pytest.approx(means)
    words = [decay_text(row.decay, row.decay_factor, EN) for row in roles]
    changed = ["unchanged", "unchanged"] if is_kept else ["times 0.5", "times 2"]
    assert words == [
        "none",
        f"{2e-3 * factors[0]:g} ({changed[0]})",
        f"{1e-3 * factors[1]:g} ({changed[1]})",
        "0.001 (unchanged)",
    ]
    assert decay_text(None, 0.25, EN) == "times 0.25"
    assert decay_text(0.001, 0.25, JA).startswith("0.001")


def test_a_multiplier_far_from_those_of_its_role_is_an_outlier() -> None:
    run, events = stored_run(block_names(8))
    multipliers = events[-1].recommendation.multipliers
    multipliers[:] = [0.5 + 0.01 * (i % 5) for i in range(len(multipliers))]
    figures = RunFigures.of(run, events)
    assert not any(row.is_outlier for row in figures.recommended_groups())
    multipliers[0] = 0.01  # the only group of its role
    multipliers[3] = 0.1  # blocks.1.attn.weight
    rows = {row.role: row for row in figures.recommended_roles()}
    assert rows["blocks.*.attn.weight"].outliers == ("blocks.1.attn.weight",)
    assert rows["blocks.*.mlp.weight"].outliers == rows["embed.weight"].outliers == ()
    outlier = recommended_groups(figures.reader, events[-1], "blocks.*.attn.weight")[1]
    assert reason(outlier, EN).endswith("Differs from the other groups of its role.")
    attention = rows["blocks.*.attn.weight"]
    assert (attention.groups, attention.min_multiplier) == (8, 0.1)
    assert attention.max_effective == pytest.approx(0.01 * attention.max_multiplier)
    assert attention.outcomes == ((policy_pb2.OUTCOME_MATCHED, 8),)
    assert attention.min_multiplier < attention.typical.multiplier <= attention.max_multiplier


@pytest.mark.parametrize("observe_only", [False, True])
def test_changes_say_what_changed_and_when(observe_only: bool) -> None:
    run, events = stored_run(measurements=7, observe_only=observe_only)
    answers = [event.recommendation for event in events]
    for answer in answers:
        answer.multipliers[:] = [0.5] * 10
    for answer in answers[4:]:
        answer.profile, answer.policy = "projects/p/profiles/gpt@4", "projects/p/policies/team@2"
        answer.multipliers[0] = 0.1
    answers[2].stale = True
    answers[1].warnings.add(message="different <b>warm-up</b>")
    answers[2].warnings.add(message="different <b>warm-up</b>")
    events[6].measurement.step = 50
    changes = RunFigures.of(run, events).changes
    assert [(change.step, change.kind) for change in changes] == [
        (0, ChangeKind.STARTED),
        (25, ChangeKind.WARNING),
        (50, ChangeKind.STALE),
        (75, ChangeKind.FRESH),
        (100, ChangeKind.PROFILE),
        (100, ChangeKind.POLICY),
        (100, ChangeKind.WOULD_HAVE_BEEN if observe_only else ChangeKind.MULTIPLIERS),
        (50, ChangeKind.RESTARTED),
    ]
    assert changes[1].time == events[1].time.ToDatetime(changes[1].time.tzinfo)
    assert [change_text(changes[i], EN) for i in (1, 4, 5, 6, 7)] == [
        "Warning: different <b>warm-up</b>",
        "The profile changed from gpt@3 to gpt@4.",
        "The policy changed from the profile's own rules to team@2.",
        f"The multiplier of embed.weight {'would have ' * observe_only}changed from 0.5 to 0.1.",
        "The training restarted; its last measurement was at step 125.",
    ]


def test_each_figure_has_a_sentence() -> None:
    run, events = stored_run()
    figures = RunFigures.of(run, events)
    roles = figures.role_contributions()
    assert "of the reference 0.0" in total_change_text(figures.points, EN)
    assert contributions_text(roles, 10, EN) == (
        "blocks.*.mlp.weight contributes most: 44%, reference 43% (newest measurements: 10)."
    )
    assert "0 of 10 groups are held" in recommended_text(figures, EN)
    assert cost_text(figures.cost(), EN) == (
        "Measuring took 0.8% of the training's time (measurements: 12, median 0.25 s)."
    )
    assert figures.cost() == MeasuringCost(12, 0.25, 0.008, 64)
    observed = RunFigures.of(*stored_run(observe_only=True))
    assert recommended_text(observed, EN).endswith("nothing was applied.")


def test_each_contribution_stands_beside_that_of_its_reference() -> None:
    names = ["embed.weight", "blocks.0.mlp.weight", "blocks.1.mlp.weight", "head.weight"]
    run, events = stored_run(names, measurements=1, observe_only=True)
    measured, answer = events[0].measurement, events[0].recommendation
    measured.shares[:] = [0.4, 0.1, 0.2, 0.3]
    measured.learning_rates[:] = [0.01, 0.01, 0.01, 0.001]
    answer.reference_unit_rates[:] = measured.unit_rates

    def percents() -> list[int | None]:
        rows = RunFigures.of(run, events).role_contributions()
        return [row.reference_percent for row in rows]

    assert percents() == [40, 30, 30]
    measured.unit_rates[0] *= 2  # twice as far as its reference: a quarter of the share
    assert percents() == [14, 43, 43]
    measured.multipliers[0] = 0.5  # and the advice brings it back
    assert percents() == [40, 30, 30]
    answer.reference_unit_rates[3] = 0
    assert percents() == [40, 30, None]
    rows = RunFigures.of(run, events).role_contributions()
    assert contributions_text(rows, 1, EN) == (
        "embed.weight contributes most: 40%, reference 40% (newest measurements: 1)."
    )
    answer.reference_unit_rates[:] = [0.0] * 4
    assert percents() == [None] * 3
    assert contributions_text(RunFigures.of(run, events).role_contributions(), 1, EN) == (
        "embed.weight contributes most: 40% (newest measurements: 1). There is no reference."
    )


def test_a_run_without_events_or_optional_values_has_figures_too() -> None:
    run, events = stored_run(measurements=1)
    empty = RunFigures.of(run)
    assert (empty.points, empty.changes, empty.recommended_roles()) == ([], [], [])
    assert recommended_text(empty, EN) == ""
    for field in (
        *("loss", "total_rate", "shares", "linearity_error", "learning_rates", "multipliers"),
        *("relative_errors", "measuring_seconds", "measuring_overhead"),
    ):
        events[0].measurement.ClearField(field)
    figures = RunFigures.of(run, events)
    point = figures.points[0]
    assert (point.loss, point.total_rate, point.role_shares, point.learning_rate) == (None,) * 4
    assert point.relative_error == 0
    row = figures.recommended_roles()[0]
    assert (row.learning_rate, row.min_effective) == (None, None)
    assert total_change_text(figures.points, EN).startswith("The job did not report")
    assert contributions_text(figures.role_contributions(), 1, EN).startswith("The job did not")
    assert cost_text(figures.cost(), EN).startswith("The job did not report")


def test_events_of_an_earlier_layout_are_left_out_and_counted() -> None:
    run, events = stored_run(measurements=3)
    _, earlier = stored_run(block_names(2), measurements=2)
    figures = RunFigures.of(run, [*earlier, *events])
    assert (len(figures.points), figures.left_out) == (3, 2)


def test_figures_that_keep_the_last_points_count_all_measurements() -> None:
    run, events = stored_run(measurements=12)
    whole = RunFigures.of(run, events)
    recent = RunFigures(run, whole.reader, max_points=3)
    for event in events:
        recent.add(event)
        assert len(recent.points) < 6
    steps = [point.step for point in whole.points]
    assert [point.step for point in recent.points] == steps[-len(recent.points) :]
    assert len(recent.points) >= 3
    assert (recent.measurements, recent.cost(), recent.changes) == (12, whole.cost(), whole.changes)


def test_rows_of_groups_are_chosen_by_role_and_block() -> None:
    figures = RunFigures.of(*stored_run())
    rows = figures.recommended_groups()
    blocks = {"blocks.1", "head"}
    assert figures.recommended_groups(blocks=blocks) == [r for r in rows if r.block in blocks]
    (row,) = figures.recommended_groups("blocks.*.mlp.weight", {"blocks.1"})
    assert row == rows[4]
    for role in figures.recommended_roles():
        own = [row for row in rows if row.role == role.role]
        assert role.groups == len(own)
        assert role.typical in own
        assert role.max_effective == max(row.effective_learning_rate or 0 for row in own)


def test_learning_rates_are_the_scheduled_ones_times_the_multipliers() -> None:
    run, events = stored_run()
    events[-1].recommendation.multipliers[:] = [0.5, *([1.0] * 8), 2.0]
    assert learning_rates_text(RunFigures.of(run, events), EN) == (
        "Learning rates are 0.005 to 0.02; scheduled: 0.01."
    )
    run.opening.observe_only = True
    japanese = learning_rates_text(RunFigures.of(run, events), JA)
    assert japanese.startswith("学習率は0.005から0.02になったはずです")
    assert "0.01" in japanese
    assert multipliers_beside_text(RunFigures.of(run, events), EN).endswith("learning rate (0.01)")
    events[-1].measurement.learning_rates[0] = 0.001
    assert multipliers_beside_text(RunFigures.of(run, events), EN).endswith("(0.001 to 0.01)")
    del events[-1].measurement.learning_rates[:]
    assert learning_rates_text(RunFigures.of(run, events), EN) == ""
    assert multipliers_beside_text(RunFigures.of(run, events), EN) == (
        "times the scheduled learning rate"
    )
