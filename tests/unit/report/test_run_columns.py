"""The history of a run in columns, and its curves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from advisor.policy.arrays import Floats
from advisor.report.points import PointReader
from advisor.report.relation import Verdict
from advisor.report.run_columns import (
    MAX_BLOCKS,
    MAX_ROLES,
    RunColumns,
    aligned_extremes,
    bucket_means,
)
from advisor.report.run_figures import RunFigures
from advisor.report.run_relations import column_relations, run_relations
from tests.building import layout_message
from tests.stored_runs import stored_run

_SERIES = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 60), st.integers(1, 3)),
    elements=st.one_of(st.floats(-1e6, 1e6), st.just(np.nan)),
)


@given(_SERIES, st.integers(1, 12))
def test_curves_keep_every_peak_and_the_ends(values: Floats, buckets: int) -> None:
    steps = np.linspace(0.0, 10.0 * (len(values) - 1), len(values))
    found_steps, found = aligned_extremes(steps, values, buckets)
    assert len(found_steps) == len(found) == min(len(values), 2 * buckets)
    assert (found_steps[0], found_steps[-1]) == (steps[0], steps[-1])
    for before, after in zip(values.T, found.T, strict=True):
        known = before[~np.isnan(before)]
        if known.size:
            assert np.nanmin(after) == known.min()
            assert np.nanmax(after) == known.max()
        else:
            assert np.isnan(after).all()


def test_a_peak_stays_where_it_is_up_to_a_bucket() -> None:
    steps = np.arange(10_000.0)
    values = np.sin(steps / 500)[:, None]
    values[7_123] = 9.0
    found_steps, found = aligned_extremes(steps, values, 200)
    assert found_steps.size == 400
    assert abs(found_steps[np.argmax(found)] - 7_123) <= 50


@given(st.integers(1, 200), st.integers(1, 20))
def test_mean_shares_still_add_up(count: int, buckets: int) -> None:
    shares = np.random.default_rng(count).dirichlet(np.ones(4), count)
    steps, means = bucket_means(np.arange(count, dtype=float), shares, buckets)
    assert len(steps) == len(means) == min(count, buckets)
    assert means.sum(axis=1) == pytest.approx(1)


def test_columns_hold_what_the_points_say() -> None:
    run, events = stored_run(measurements=70)  # more than the first allocation
    reader = PointReader(run.opening.layout)
    columns = RunColumns(reader)
    points = [reader.read(event) for event in events]
    for point in points:
        columns.append(point)
    assert columns.last_id == events[-1].id
    assert columns.roles == reader.roles.names
    rates = [point.total_rate for point in points]
    assert columns.column("total_rate") == pytest.approx(rates, rel=1e-6)
    assert columns.column("role_multipliers")[-1] == pytest.approx(points[-1].role_multipliers)
    assert columns.column("block_shares").sum(axis=1) == pytest.approx(1)
    columns.drop(60)
    assert columns.column("step").tolist() == [point.step for point in points[60:]]
    assert columns.row(3)["step"] == columns.column("step")[3] == points[63].step
    assert columns.row(3)["role_shares"] == pytest.approx(points[63].role_shares)


def test_a_model_of_many_roles_and_blocks_keeps_few_of_them() -> None:
    names = [f"blocks.{i}.w.weight" for i in range(200)] + [f"m{i}.weight" for i in range(40)]
    run, events = stored_run(names, measurements=1)
    layout = layout_message(names)
    for i, group in enumerate(layout.groups):
        group.parameter_count = i + 1
    run.opening.layout.CopyFrom(layout)
    reader = PointReader(layout)
    columns = RunColumns(reader)
    columns.append(reader.read(events[0]))
    assert len(columns.roles) == MAX_ROLES
    assert columns.roles[-1] == ""
    assert columns.roles[0] == "blocks.*.w.weight"
    assert len(columns.blocks) <= MAX_BLOCKS
    assert columns.column("role_shares").sum() == pytest.approx(1)
    assert columns.column("block_shares").sum() == pytest.approx(1)
    members = [columns.members_of_block(block) for block in columns.blocks]
    assert sum(map(len, members)) == 240
    assert columns.members_of_block("nothing") == frozenset()


def test_relations_are_the_same_from_columns_and_from_points() -> None:
    run, events = stored_run(measurements=40)
    rng = np.random.default_rng(0)
    values = {}
    for event in events:
        event.measurement.total_rate = rng.uniform(0.5, 1.5)
        event.measurement.shares[:] = rng.dirichlet(np.ones(10))
        values[event.measurement.step] = event.measurement.total_rate + rng.normal(0, 0.1)
    events[5].measurement.ClearField("shares")
    events[6].measurement.ClearField("total_rate")
    figures = RunFigures.of(run, events)
    columns = RunColumns(figures.reader)
    for point in figures.points:
        columns.append(point)
    expected = run_relations(figures, "accuracy", values)
    found = column_relations(columns, "accuracy", values)
    assert len(found) == 5
    for one, other in zip(found, expected, strict=True):
        assert (one.series, one.verdict, one.points) == (other.series, other.verdict, other.points)
    assert found[0].verdict is Verdict.RELATION
    assert [row.points for row in found] == [39] * 5
