"""Two runs, or two versions of a profile, side by side."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from advisor.policy.arrays import Floats
from advisor.report.metrics import metric_rows, metric_series
from advisor.report.profile_curves import ProfileCurves
from advisor.report.run_columns import aligned_extremes
from advisor.report.runs import RunRow
from advisor.report.texts import Texts
from advisor.report.words import short_name
from advisor.web.charts import compared_chart, curve_data
from advisor.web.context import Context
from advisor.web.rendering import language_of
from advisor.web.run_feed import RunFeed
from advisor.web.script_texts import script_texts

_BUCKETS = 250
_MAX_METRICS, _MAX_ROLES = 12, 40
_FIGURES = (
    *(("loss", "loss"), ("total_rate", "total_rate"), ("learning_rate", "learning_rate")),
    *(("page.min_multiplier", "min_multiplier"), ("page.max_multiplier", "max_multiplier")),
)
"""Label and name of the figures that are compared."""


class Quantity(enum.Enum):
    """What is compared."""

    FIGURE = "figure"
    METRIC = "metric"
    SHARE = "share"
    UNIT_RATE = "unit rate"


@dataclass(frozen=True, slots=True)
class ComparedCurve:
    """A curve of both sides.

    Attributes:
        name: The column of a run, or the name of the curve.
        title: Title of its chart, as a key of the texts.
        axis: Its axis, likewise.
        is_log: Whether the axis is logarithmic.
    """

    name: str
    title: str
    axis: str
    is_log: bool = False


_RUN_CURVES = (
    ComparedCurve("total_rate", "total_change", "total_rate.axis"),
    ComparedCurve("loss", "loss", "page.loss.axis"),
    ComparedCurve("max_multiplier", "page.max_multiplier", "multiplier.axis", is_log=True),
)
_PROFILE_CURVES = (
    ComparedCurve("unit_rate", "page.compare.unit_rates", "page.unit_rate.axis", is_log=True),
)


@dataclass(frozen=True, slots=True)
class Compared:
    """A number of both sides.

    Attributes:
        quantity: What it is.
        label: The key of a text for a figure, a role, or a metric's name.
        left: The number of the first side; None: not reported.
        right: That of the second side.
    """

    quantity: Quantity
    label: str
    left: float | None
    right: float | None

    @property
    def difference(self) -> float | None:
        """The second number minus the first one; None: one of them is not reported."""
        return None if self.left is None or self.right is None else self.right - self.left

    @property
    def ratio(self) -> float | None:
        """The second number divided by the first one; None: not known."""
        return self.right / self.left if self.left and self.right is not None else None


async def compare_page(context: Context, request: Request) -> Response:
    """Return the page; without names it only asks for them."""
    viewer, caller = await context.signed_in(request)
    project = request.path_params["project"]
    left, right, kind = _asked(request)
    rows: list[Compared] = []
    facts: list[dict[str, Any]] = []
    charts: list[dict[str, Any]] = []
    step: int | None = None
    texts = Texts(language_of(request))
    if left and right and kind == "run":
        feeds = [await context.feeds.get(viewer, project, name) for name in (left, right)]
        series = [
            metric_series(await context.backend.metrics(viewer, project, name))
            for name in (left, right)
        ]
        step = _common_step(feeds)
        rows = [*_figure_rows(feeds, step), *_metric_rows(series), *_share_rows(feeds)]
        facts = [_run_facts(feed) for feed in feeds]
        charts = _charts((left, right), list(map(_run_curves, feeds)), _RUN_CURVES, texts)
    elif left and right:
        answers = [await context.backend.profile(viewer, project, n) for n in (left, right)]
        curves = [ProfileCurves.of(answer.profile.content) for answer in answers]
        rows = _profile_rows(curves[0], curves[1])
        facts = [{"name": short_name(a.profile.name)} for a in answers]
        charts = _charts((left, right), list(map(_profile_curves, curves)), _PROFILE_CURVES, texts)
    runs = await context.backend.runs(viewer, project)
    profiles = await context.backend.profiles(viewer, project)
    return context.renderer.page(
        request,
        "compare.html",
        caller=caller,
        project=project,
        left=left,
        right=right,
        kind=kind,
        rows=rows,
        facts=facts,
        step=step,
        names=[short_name(item.name) for item in (runs if kind == "run" else profiles)],
        charts=charts,
        script_texts=script_texts(texts),
    )


def _charts(
    names: Sequence[str],
    sides: Sequence[tuple[Floats, Floats]],
    compared: Sequence[ComparedCurve],
    texts: Texts,
) -> list[dict[str, Any]]:
    """Return a chart for each curve of both sides, over the steps of either.

    Args:
        names: The names of the two sides.
        sides: Steps and curves of each side, of shape [steps, curves].
        compared: The curves.
        texts: The language's texts.
    """
    steps = np.unique(np.concatenate([own for own, _ in sides]))
    both = np.stack([between_points(own, values, steps) for own, values in sides], axis=1)
    return [
        {
            "name": curve.name,
            "title": texts(curve.title),
            "spec": compared_chart(names, curve.axis, texts, is_log=curve.is_log),
            "data": curve_data(steps, both[:, :, i]),
        }
        for i, curve in enumerate(compared)
    ]


def between_points(own: Floats, values: Floats, steps: Floats) -> Floats:
    """Return curves at some steps, on straight lines between their own points.

    Args:
        own: The steps of the points; of a step that occurs twice, the later point counts.
        values: The curves there, of shape [points, curves]; NaN: a gap.
        steps: The steps, increasing.

    Returns:
        The curves of shape [steps, curves]; NaN in gaps, and before and after all points.
    """
    if not len(own):
        return np.full((len(steps), values.shape[1]), np.nan)
    own, places = np.unique(own[::-1], return_index=True)
    curves = values[::-1][places].T
    found: Floats = np.stack(
        [np.interp(steps, own, curve, left=np.nan, right=np.nan) for curve in curves], axis=1
    )
    return found


def _asked(request: Request) -> tuple[str, str, str]:
    query = request.query_params
    kind = "profile" if query.get("kind") == "profile" else "run"
    return query.get("a", "").strip(), query.get("b", "").strip(), kind


def _run_curves(feed: RunFeed) -> tuple[Floats, Floats]:
    columns = feed.history.columns
    values = np.stack([columns.column(curve.name) for curve in _RUN_CURVES], axis=1)
    return aligned_extremes(columns.column("step"), values, _BUCKETS)


def _profile_curves(found: ProfileCurves) -> tuple[Floats, Floats]:
    totals = np.sqrt((found.unit_rates**2).mean(axis=1))
    return aligned_extremes(found.steps, totals[:, None], _BUCKETS)


def _run_facts(feed: RunFeed) -> dict[str, Any]:
    figures = feed.history.figures
    row = RunRow.of(figures.run, datetime.now(UTC))
    return {
        "name": row.run,
        "state": row.state,
        "profile": row.profile,
        "observes_only": figures.observes_only,
        "last_step": row.last_step,
    }


def _common_step(feeds: Sequence[RunFeed]) -> int | None:
    """Return the last step that both runs have; None: one has no measurement."""
    points = [feed.history.figures.points for feed in feeds]
    return min(each[-1].step for each in points) if all(points) else None


def _figure_rows(feeds: Sequence[RunFeed], step: int | None) -> list[Compared]:
    """Return the figures of two runs at a step that both have."""
    if step is None:
        return []
    found = []
    for feed in feeds:
        columns = feed.history.columns
        values = np.stack([columns.column(name) for _, name in _FIGURES], axis=1)
        found.append(between_points(columns.column("step"), values, np.array([step]))[0])
    return [
        Compared(Quantity.FIGURE, label, _known(found[0][i]), _known(found[1][i]))
        for i, (label, _) in enumerate(_FIGURES)
    ]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _metric_rows(series: Sequence[Mapping[str, Mapping[int, float]]]) -> list[Compared]:
    """Return the last values of the metrics of two runs."""
    last = [{row.metric: row.last for row in metric_rows(each)} for each in series]
    names = sorted(last[0].keys() | last[1].keys())
    # Those of both sides are what is compared.
    names.sort(key=lambda name: not (name in last[0] and name in last[1]))
    return [
        Compared(Quantity.METRIC, name, *(each.get(name) for each in last))
        for name in names[:_MAX_METRICS]
    ]


def _share_rows(feeds: Sequence[RunFeed]) -> list[Compared]:
    """Return the shares of the roles of two runs, the largest first."""
    shares = [feed.history.figures.role_shares() for feed in feeds]
    roles = sorted(
        dict.fromkeys([*shares[0], *shares[1]]),
        key=lambda role: -max(abs(each.get(role, 0.0)) for each in shares),
    )
    return [
        Compared(Quantity.SHARE, role, *(each.get(role) for each in shares))
        for role in roles[:_MAX_ROLES]
    ]


def _profile_rows(left: ProfileCurves, right: ProfileCurves) -> list[Compared]:
    """Return the last unit rates of two profiles by role."""
    last = [dict(zip(c.roles, c.unit_rates[-1].tolist(), strict=True)) for c in (left, right)]
    roles = dict.fromkeys([*last[0], *last[1]])
    return [
        Compared(Quantity.UNIT_RATE, role, *(each.get(role) for each in last)) for role in roles
    ]
