"""A run's own metrics on its page: their curves, and what moves with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from advisor.policy.arrays import Floats
from advisor.report.metrics import MetricRow, metric_rows, metric_series
from advisor.report.run_columns import RunColumns, aligned_extremes
from advisor.report.run_relations import column_relations, relation_sentences
from advisor.report.texts import Texts
from advisor.report.words import METRIC_DIGITS
from advisor.web.charts import Spec, curve_data, metric_chart
from advisor.web.context import Context
from advisor.web.rendering import language_of

MAX_METRICS = 12
"""Maximum number of metrics on a page; the first ones by name are shown."""
_BUCKETS = 250
_SHARED_S = 30.0

Series = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A metric with what moves with it.

    Attributes:
        row: The metric.
        sentences: How rates move with it.
        chart: What its chart shows.
        data: The chart's data; empty: it has no finite value.
    """

    row: MetricRow
    sentences: Sequence[str]
    chart: Spec
    data: Mapping[str, Any]


async def metrics(context: Context, request: Request) -> Response:
    """Return the part of the page with the metrics; without content: the run has none."""
    feed = await context.feed(request)
    texts = Texts(language_of(request))
    key = f"metrics {texts.language}"
    # The tests of relations take a moment, so that all pages of a run share their results.
    async with feed.computing:
        now = round(time.monotonic() / _SHARED_S)
        cached = feed.fragments.get(key)
        if cached is None or cached[0] != now:
            series, left_out = await _series(context, request)
            shown = await asyncio.to_thread(_shown, feed.history.columns, series, texts)
            text = context.renderer.render(
                "_metrics.html", texts.language, shown=shown, left_out=left_out
            )
            cached = feed.fragments[key] = (now, text)
    return HTMLResponse(cached[1])


async def _series(context: Context, request: Request) -> tuple[Series, int]:
    """Return the shown metrics, and the number of the others."""
    viewer, _ = await context.signed_in(request)
    project, run = request.path_params["project"], request.path_params["run"]
    found = metric_series(await context.backend.metrics(viewer, project, run))
    kept = list(found)[:MAX_METRICS]
    return {name: found[name] for name in kept}, len(found) - len(kept)


def _curve(values: Mapping[int, float]) -> dict[str, Any]:
    steps = np.array(list(values), np.float64)
    numbers: Floats = np.array(list(values.values()), np.float64)
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    if np.isnan(numbers).all():
        return {}
    steps, kept = aligned_extremes(steps, numbers[:, None], _BUCKETS)
    return curve_data(steps, kept, METRIC_DIGITS)


def _shown(columns: RunColumns, series: Series, texts: Texts) -> list[_Shown]:
    rows = zip(metric_rows(series), series.values(), strict=True)
    return [
        _Shown(
            row,
            relation_sentences(column_relations(columns, row.metric, values), texts),
            metric_chart(row.metric, texts),
            _curve(values),
        )
        for row, values in rows
    ]
