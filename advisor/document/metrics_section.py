"""The part of a run's report about its own metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advisor.document import pictures
from advisor.report.metrics import metric_rows
from advisor.report.run_figures import RunFigures
from advisor.report.run_relations import relation_sentences, run_relations
from advisor.report.texts import Texts
from advisor.report.words import METRIC_DIGITS, format_number

_MAX_METRICS = 20


@dataclass(frozen=True, slots=True)
class ReportedMetrics:
    """A run's own metrics, and the one that decides.

    Attributes:
        values: The values of each metric by step; infinite and NaN are gaps.
        chosen: The metric that is compared with the rates; empty: none.
    """

    values: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    chosen: str = ""


def metrics_section(
    figures: RunFigures, metrics: ReportedMetrics, texts: Texts
) -> dict[str, Any] | None:
    """Return the parts of the section; None: the run has no metrics.

    Args:
        figures: The figures of the run.
        metrics: Its metrics.
        texts: The language's texts.
    """
    if not metrics.values:
        return None
    rows = metric_rows(metrics.values)
    chosen = metrics.chosen
    values = metrics.values[chosen] if chosen else {}
    found = run_relations(figures, chosen, values) if chosen and figures.points else []
    return {
        "rows": [
            (row.metric, *(_number(each, texts) for each in (row.last, row.lowest, row.highest)))
            for row in rows[:_MAX_METRICS]
        ],
        "more": max(len(rows) - _MAX_METRICS, 0),
        "chosen": chosen,
        "picture": pictures.metric(chosen, values, texts) if chosen else "",
        "relations": relation_sentences(found, texts),
    }


def _number(value: float | None, texts: Texts) -> str:
    is_known = value is not None and math.isfinite(value)
    if value is None or not is_known:
        return texts("no_value")
    return format_number(value, METRIC_DIGITS)
