"""A run's own metrics: one row for each, their values by step, and how rates move with them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from advisor.report.relation import SHARE_OF, TOTAL_RATE, RelationRow, relation_rows
from advisor.wire import layout_from_proto
from fslr.advisor.v1 import run_service_pb2

MAX_ROLES = 10
"""Maximum number of roles that are compared with a metric: the intervals hold for all of them."""


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric of a run.

    Attributes:
        metric: Its name.
        points: Number of steps with a finite value.
        gaps: Number of steps whose value is not finite.
        last_step: The last step with a finite value; None: there is none.
        last: The value there, in the user's unit.
        lowest: The least finite value.
        highest: The largest finite value.
    """

    metric: str
    points: int
    gaps: int
    last_step: int | None
    last: float | None
    lowest: float | None
    highest: float | None


def metric_series(
    reports: Iterable[run_service_pb2.MetricReport],
) -> dict[str, dict[int, float]]:
    """Return the values of each metric by step, sorted by name and step.

    Values may be infinite or NaN; charts show those as gaps.

    Args:
        reports: The reports in the order in which they arrived. Of two values of a metric at one
            step the later one counts.
    """
    found: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for report in reports:
        for metric, value in report.values.items():
            found[metric][report.step] = value
    return {metric: dict(sorted(found[metric].items())) for metric in sorted(found)}


def metric_rows(series: Mapping[str, Mapping[int, float]]) -> list[MetricRow]:
    """Return a row for each metric.

    Args:
        series: The values, from :func:`metric_series`.
    """
    return [_row(metric, values) for metric, values in series.items()]


def _row(metric: str, values: Mapping[int, float]) -> MetricRow:
    finite = {step: value for step, value in values.items() if math.isfinite(value)}
    gaps = len(values) - len(finite)
    if not finite:
        return MetricRow(metric, 0, gaps, None, None, None, None)
    last = max(finite)
    found = finite.values()
    return MetricRow(metric, len(finite), gaps, last, finite[last], min(found), max(found))


def relations(
    run: run_service_pb2.Run,
    events: Sequence[run_service_pb2.RunEvent],
    series: Mapping[str, Mapping[int, float]],
    metric: str,
) -> list[RelationRow]:
    """Return how the total rate and the shares of the largest roles move with a metric.

    Args:
        run: The run, with its layout.
        events: Its measurements.
        series: The values of its metrics, from :func:`metric_series`.
        metric: The metric.

    Raises:
        ValueError: The run has no such metric.
    """
    if metric not in series:
        known = ", ".join(map(repr, series)) or "none"
        raise ValueError(f"the run has no metric {metric!r}; its metrics: {known}")
    total = {
        event.measurement.step: event.measurement.total_rate
        for event in events
        if event.measurement.HasField("total_rate")
    }
    return relation_rows(metric, series[metric], {TOTAL_RATE: total, **role_shares(run, events)})


def role_shares(
    run: run_service_pb2.Run, events: Sequence[run_service_pb2.RunEvent]
) -> dict[str, dict[int, float]]:
    """Return the share of each of the largest roles by step, the largest role first.

    Args:
        run: The run, with its layout.
        events: Its measurements; those without shares, or of another layout, are left out.
    """
    groups = layout_from_proto(run.opening.layout).groups
    roles = list(dict.fromkeys(group.role for group in groups))
    place = np.array([roles.index(group.role) for group in groups])
    found = {
        event.measurement.step: np.bincount(
            place, weights=np.asarray(event.measurement.shares), minlength=len(roles)
        )
        for event in events
        if len(event.measurement.shares) == len(groups)
    }
    if not found:
        return {}
    sizes = np.mean(np.abs(list(found.values())), axis=0)
    largest = np.argsort(-sizes, kind="stable")[:MAX_ROLES]
    return {
        f"{SHARE_OF}{roles[role]}": {step: float(shares[role]) for step, shares in found.items()}
        for role in largest
    }
