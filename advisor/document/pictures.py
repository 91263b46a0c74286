"""The pictures of a run's report, from its figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from markupsafe import Markup

from advisor.document import svg
from advisor.document.charts import (
    WIDTH,
    Axes,
    Band,
    Bar,
    Line,
    ValueRange,
    bar_chart,
    line_chart,
    range_charts,
    stacked_chart,
)
from advisor.report.contributions import ContributionRow, contributions, role_shares_of
from advisor.report.downsampling import kept_points
from advisor.report.points import Point
from advisor.report.recommendations import RecommendedRoleRow
from advisor.report.run_figures import RunFigures
from advisor.report.texts import Texts

_BUCKETS = 300
_UNIT = 120  # pixels that the unit of an axis takes at most
_MIN_POINTS = 2  # of a picture over steps
_MAX_ROLES = len(svg.COLORS)  # the rest, if there is one, takes the place of a role


def total_change(figures: RunFigures, texts: Texts) -> Markup:
    """Return the total rate beside its reference; empty if it was not reported twice."""
    points = figures.points
    if _are_few(point.total_rate for point in points):
        return Markup("")
    kept = _kept(points, [point.total_rate for point in points])
    band = None
    if any(point.reference_low is not None for point in kept):
        band = Band([p.reference_low for p in kept], [p.reference_high for p in kept])
    axes = Axes(texts("step"), texts("total_rate.axis"), texts("document.total_change.description"))
    lines = [
        Line([p.reference_total_rate for p in kept], svg.COLORS[5], "6 4"),
        Line([p.total_rate for p in kept], svg.COLORS[0]),
    ]
    return line_chart([p.step for p in kept], lines, axes, band=band)


def learning_rate(figures: RunFigures, texts: Texts) -> Markup:
    """Return the scheduled learning rate; empty if it was not reported twice."""
    values = [point.learning_rate for point in figures.points]
    return _single(
        figures.points, values, texts("learning_rate.axis"), texts("learning_rate"), texts
    )


def loss(figures: RunFigures, texts: Texts) -> Markup:
    """Return the loss; empty if it was not reported twice."""
    values = [point.loss for point in figures.points]
    description = texts("document.loss.description")
    return _single(figures.points, values, texts("page.loss.axis"), description, texts)


def metric(name: str, values: Mapping[int, float], texts: Texts) -> Markup:
    """Return a metric's values by step; empty if it has fewer than two.

    Args:
        name: The metric's name.
        values: Its values by step; those that are not finite are gaps.
        texts: The language's texts.
    """
    known = [value if math.isfinite(value) else None for value in values.values()]
    if _are_few(known):
        return Markup("")
    steps = list(values)
    found = kept_points(steps, [_numbers(known)], _BUCKETS).tolist()
    line = Line([known[i] for i in found], svg.COLORS[3])
    axes = Axes(
        texts("step"),
        texts("metrics.axis", metric=svg.shortened(name, WIDTH - _UNIT)),
        texts("metrics.description", metric=name),
        is_signed=True,
    )
    return line_chart([steps[i] for i in found], [line], axes, height=170)


def _single(
    points: Sequence[Point],
    values: Sequence[float | None],
    label: str,
    description: str,
    texts: Texts,
) -> Markup:
    """Return one series by step; empty if it has fewer than two values."""
    if _are_few(values):
        return Markup("")
    found = kept_points([p.step for p in points], [_numbers(values)], _BUCKETS).tolist()
    line = Line([values[i] for i in found], svg.COLORS[2])
    axes = Axes(texts("step"), label, description)
    return line_chart([points[i].step for i in found], [line], axes, height=170)


def shown_roles(figures: RunFigures) -> list[ContributionRow]:
    """Return the roles that have a color of their own, and the rest."""
    return contributions(figures.reader.roles, *role_shares_of(figures.points), most=_MAX_ROLES)


def role_colors(rows: Sequence[ContributionRow]) -> list[str]:
    """Return the color of each row of :func:`shown_roles`."""
    return [svg.COLORS[i] if row.part else svg.REST for i, row in enumerate(rows)]


def shares(figures: RunFigures, texts: Texts) -> Markup:
    """Return the shares of the roles by step; empty if they were not reported twice."""
    rows = shown_roles(figures)
    if not rows:
        return Markup("")
    points = [point for point in figures.points if point.role_shares is not None]
    if len(points) < _MIN_POINTS:
        return Markup("")
    roles = figures.reader.roles
    kept = [roles.names.index(row.part) for row in rows if row.part]
    table = np.array([point.role_shares for point in points])
    named = table[:, kept]
    rest = table.sum(axis=1, keepdims=True) - named.sum(axis=1, keepdims=True)
    table = named if all(row.part for row in rows) else np.hstack([named, rest])
    found = kept_points([p.step for p in points], list(table.T), _BUCKETS // len(rows))
    axes = Axes(texts("step"), texts("share.axis"), texts("document.contributions.description"))
    steps = [points[i].step for i in found]
    return stacked_chart(steps, table[found].tolist(), role_colors(rows), axes)


def blocks(rows: Sequence[ContributionRow], texts: Texts) -> Markup:
    """Return the mean shares of the blocks."""
    bars = [
        Bar(row.part or f"{texts('rest')} ({row.groups} {texts('groups')})", 100 * row.share,
            f"{row.percent}%")
        for row in rows
    ]  # fmt: skip
    return bar_chart(bars, Axes(texts("share.axis"), "", texts("document.blocks.description")))


def multipliers(
    rows: Sequence[RecommendedRoleRow], figures: RunFigures, texts: Texts
) -> list[Markup]:
    """Return the range of the multipliers of each role, in pictures that each fit on a page."""
    outliers = {row.group: row.multiplier for row in figures.recommended_groups() if row.is_outlier}
    ranges = []
    for row in rows:
        marks = [outliers[group] for group in row.outliers]
        ranges.append(
            ValueRange(row.role, row.min_multiplier, row.multiplier, row.max_multiplier, marks)
        )
    observes = figures.observes_only
    axes = Axes(
        texts("would_have_been.multiplier.axis" if observes else "multiplier.axis"),
        "",
        texts(
            "page.would_have_been_multipliers" if observes else "document.multipliers.description"
        ),
    )
    return range_charts(ranges, axes)


def _kept(points: Sequence[Point], values: Sequence[float | None]) -> list[Point]:
    """Return the points to draw."""
    found = kept_points([point.step for point in points], [_numbers(values)], _BUCKETS)
    return [points[i] for i in found]


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _are_few(values: Iterable[float | None]) -> bool:
    """Return whether there are too few values for a picture over steps."""
    return sum(value is not None for value in values) < _MIN_POINTS
