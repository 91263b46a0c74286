"""How the total rate and the shares of a run move with one of its own metrics.

A relation says that two series move together beyond trend and chance. It never says that one causes
the other: both may follow the learning rate, the data or the batch size. The statistics are in
:mod:`advisor.report.rank_correlation`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from advisor.report.rank_correlation import (
    MAX_ORDER,
    RESAMPLES,
    TREND_DEGREE,
    Array,
    LaggedCorrelations,
    changes,
    fisher,
    lagged_correlations,
)
from advisor.report.texts import Texts

_ENGLISH = Texts("en")

TOTAL_RATE, SHARE_OF = "total rate", "share of "
"""The name of the total rate's series, and the start of those of shares."""
MIN_POINTS = 20
"""Fewer pairs of points say nothing: the interval would reach from about -0.9 to 0.9."""
MAX_POINTS = 500
"""More pairs are averaged to this many, so that the work stays small."""
MAX_LAG = 5
"""Largest lag, in points; also at most a tenth of the points."""


class Verdict(enum.Enum):
    """What can be said about two series."""

    RELATION = "relation"
    """They move together, also apart from trend and past."""
    NO_RELATION = "no relation"
    """Nothing beyond chance was found."""
    ONLY_TIME = "only time"
    """They look related, but only because both follow time."""
    CONSTANT = "constant"
    """One of them does not change."""
    TOO_FEW_POINTS = "too few points"


@dataclass(frozen=True, slots=True)
class Interval:
    """A correlation with its 95% interval, in [-1, 1].

    Attributes:
        value: Spearman's rank correlation.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RelationRow:
    """How one series moves with a metric.

    Attributes:
        series: What moves with the metric, such as ``total rate`` or a role.
        metric: The metric's name.
        verdict: What can be said.
        points: Number of pairs of points.
        lag_steps: How many steps later the metric follows; 0 without an interval.
        levels: Correlation of the series themselves; None: too few points, or one is constant.
        changes: Correlation of what neither trend nor past of each series predicts; None as
            ``levels``.
    """

    series: str
    metric: str
    verdict: Verdict
    points: int
    lag_steps: int = 0
    levels: Interval | None = None
    changes: Interval | None = None


def relation_rows(
    metric: str, values: Mapping[int, float], series: Mapping[str, Mapping[int, float]]
) -> list[RelationRow]:
    """Return how several series move with a metric.

    The first series is tested by itself. The intervals of the others hold for all of them together,
    so that among many roles none is called related by chance.

    Args:
        metric: The metric's name.
        values: Its values by step; those that are not finite are left out.
        series: The values of each series by step, likewise; the total rate first.
    """
    others = max(len(series) - 1, 1)
    return [
        _relation(name, metric, _pairs(points, values), tests=others if place else 1)
        for place, (name, points) in enumerate(series.items())
    ]


def relation_sentence(row: RelationRow, texts: Texts = _ENGLISH) -> str:
    """Return what a row says, in a sentence for people. It never says that one is the cause.

    Args:
        row: The row.
        texts: The language's texts.
    """
    names = {"series": _series_text(row.series, texts), "metric": row.metric}
    if row.verdict is Verdict.TOO_FEW_POINTS:
        return texts("relation.few", **names, points=row.points, least=MIN_POINTS)
    if row.verdict is Verdict.CONSTANT or row.changes is None or row.levels is None:
        return texts("relation.constant", **names)
    interval = f"{row.changes.value:+.2f} [{row.changes.low:+.2f}, {row.changes.high:+.2f}]"
    found = {**names, "interval": interval, "points": row.points}
    if row.verdict is Verdict.RELATION:
        later = texts("relation.later", steps=row.lag_steps) if row.lag_steps else ""
        key = "relation.same" if row.changes.value > 0 else "relation.opposite"
        return texts(key, **found, later=later)
    if row.verdict is Verdict.ONLY_TIME:
        return texts("relation.time", **found, level=f"{row.levels.value:+.2f}")
    return texts("relation.none", **found)


def _series_text(series: str, texts: Texts) -> str:
    """Return the name of a series in a language."""
    if series == TOTAL_RATE:
        return texts("total_rate")
    if series.startswith(SHARE_OF):
        return texts("share_of", role=series.removeprefix(SHARE_OF))
    return series


def _relation(
    series: str, metric: str, pairs: tuple[Array, Array, Array], *, tests: int
) -> RelationRow:
    steps, first, second = pairs
    points = len(steps)
    if points < MIN_POINTS:
        return RelationRow(series, metric, Verdict.TOO_FEW_POINTS, points)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return RelationRow(series, metric, Verdict.CONSTANT, points)
    levels = lagged_correlations(first, second, _max_lag(points), tests=tests)
    moved = correlations_of_changes(first, second, tests=tests)
    lag = int(moved.best)
    changed, level = _interval(moved, lag), _interval(levels, lag)
    looks_related = abs(fisher(np.array(level.value))) > levels.z_of_independent_points
    if changed.low > 0 or changed.high < 0:
        verdict = Verdict.RELATION
    else:
        verdict = Verdict.ONLY_TIME if looks_related else Verdict.NO_RELATION
    apart = float(np.median(np.diff(steps)))
    return RelationRow(series, metric, verdict, points, round(lag * apart), level, changed)


def correlations_of_changes(
    first: Array, second: Array, *, tests: int = 1, resamples: int = RESAMPLES
) -> LaggedCorrelations:
    """Return the correlations of what neither trend nor past of two series predicts.

    Args:
        first: The series that may move first, of shape [..., n].
        second: The series that may follow, of the same shape.
        tests: Number of pairs of series that are looked at together.
        resamples: Number of resamples.
    """
    points = first.shape[-1]
    order = min(MAX_ORDER, points // 10)
    return lagged_correlations(
        changes(first, order),
        changes(second, order),
        _max_lag(points),
        tests=tests,
        fitted=TREND_DEGREE + order,
        resamples=resamples,
    )


def _max_lag(points: int) -> int:
    return min(MAX_LAG, points // 10)


def _interval(found: LaggedCorrelations, lag: int) -> Interval:
    return Interval(float(found.values[lag]), float(found.lows[lag]), float(found.highs[lag]))


def _pairs(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[Array, Array, Array]:
    """Return steps and values of two series at the steps of the sparser one.

    A value of the denser series is its mean since the step before. Steps at which one of the two
    has no value are left out.
    """
    x_steps, x = _sorted(first)
    y_steps, y = _sorted(second)
    if not len(x_steps) or not len(y_steps):
        return x_steps[:0], x[:0], y[:0]
    steps = _thinned(x_steps if len(x_steps) <= len(y_steps) else y_steps)
    x, y = _means(x_steps, x, steps), _means(y_steps, y, steps)
    both = np.isfinite(x) & np.isfinite(y)
    return steps[both], x[both], y[both]


def _sorted(values: Mapping[int, float]) -> tuple[Array, Array]:
    steps = np.array(sorted(values), dtype=np.float64)
    found = np.array([values[int(step)] for step in steps], dtype=np.float64)
    finite = np.isfinite(found)
    return steps[finite], found[finite]


def _thinned(steps: Array) -> Array:
    """Return at most as many steps as are allowed, the last one among them."""
    every = -(-len(steps) // MAX_POINTS)
    return steps[::-1][::every][::-1]


def _means(steps: Array, values: Array, ends: Array) -> Array:
    """Return the mean of the values after each end up to the next one; NaN where there are none."""
    place = np.searchsorted(ends, steps)
    inside = place < len(ends)
    counts = np.bincount(place[inside], minlength=len(ends))
    sums = np.bincount(place[inside], weights=values[inside], minlength=len(ends))
    means: Array = np.divide(sums, counts, out=np.full(len(ends), np.nan), where=counts > 0)
    return means
