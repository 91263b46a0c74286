"""The charts of the pages, ready for the scripts that draw them.

What a chart shows is part of the page, in its reader's language. Its axes ``y`` and ``z`` have a
``label`` with the unit, and perhaps a ``unit`` behind each value, ``log``, or values ``within``
which the axis always spans. Each of its ``series`` has a label, the number of a color, the width
and ``dash`` of its line, and its ``axis``; ``is_edge`` marks the edge of a band, whose two series
are in ``bands``. Without ``series``, there is one for each of the data's ``names``, an empty name
is that of the rest, and ``line`` is what they have in common. Values are written with ``digits``
significant digits.

Its data are ``steps`` and ``values``: a list for each series; ``null`` is a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from advisor.policy.arrays import Floats
from advisor.report.run_columns import RunColumns, aligned_extremes, bucket_means
from advisor.report.texts import Texts
from advisor.report.words import METRIC_DIGITS
from advisor.web.numbers import rounded

Spec = dict[str, Any]
"""What a chart shows."""

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "total": ("total_rate", "reference_total_rate", "reference_high", "reference_low"),
    "shares": ("role_shares",),
    "blocks": ("block_shares",),
    "multipliers": ("role_multipliers",),
    "effective": ("role_learning_rates",),
    "errors": ("relative_error", "high_relative_error", "linearity_error"),
    "loss": ("loss", "learning_rate"),
}
_DIGITS = {"loss": 6}  # which changes little at the end
_IN_PERCENT = {"shares", "blocks", "errors"}
_PIXELS_PER_MEAN = {"shares": 3.0, "blocks": 4.0}  # others have extremes, so that no peak is lost
# A curve of a role among a dozen needs half the points of one that stands alone.
_PIXELS_PER_BUCKET = {"multipliers": 4.0, "effective": 4.0}
_MAX_BUCKETS = 400
_TALL_PX, _LOW_PX = 300, 200
_WIDE = 2  # pixels of a line that is looked at first
_THIN = 0.5
_DASHED = [6, 4]


def run_charts(texts: Texts) -> dict[str, Spec]:
    """Return what the charts of a run show, by name.

    Args:
        texts: The language's texts.
    """
    band = {"label": texts("reference.band"), "color": 1, "width": _THIN, "is_edge": True}
    rate = {"label": texts("learning_rate"), "color": 1, "dash": _DASHED, "axis": "z"}
    return {
        "total": {
            "y": {"label": texts("total_rate.axis")},
            "series": [
                {"label": texts("total_rate"), "color": 0, "width": _WIDE},
                {"label": texts("reference"), "color": 1, "dash": _DASHED},
                {**band, "label": f"{band['label']} +"},
                {**band, "label": f"{band['label']} \N{MINUS SIGN}"},
            ],
            "bands": [[2, 3]],
        },
        "shares": {
            "y": {"label": texts("share.axis"), "unit": "%", "within": [0, 100]},
            "line": {"width": _THIN},
            "is_stacked": True,
            "height": _TALL_PX,
        },
        "blocks": {"y": {"label": texts("share.axis"), "unit": "%"}},
        "multipliers": {"y": {"label": texts("multiplier.axis"), "log": True}, "height": _TALL_PX},
        "effective": {
            "y": {"label": texts("page.effective.axis"), "log": True},
            "height": _TALL_PX,
        },
        "errors": {
            "y": {"label": texts("page.error.axis"), "unit": "%"},
            "series": [
                {"label": texts("relative_error"), "color": 0, "width": _WIDE},
                {"label": texts("page.high_error"), "color": 0, "width": _THIN},
                {"label": texts("linearity_error"), "color": 1, "dash": _DASHED},
            ],
            "bands": [[1, 0]],
        },
        "loss": {
            "y": {"label": texts("page.loss.axis")},
            "z": {"label": texts("learning_rate.axis")},
            "series": [{"label": texts("loss"), "color": 0, "width": _WIDE}, rate],
        },
    }


def run_curves(columns: RunColumns, pixels: int) -> dict[str, dict[str, Any]]:
    """Return the data of the charts of a run, with as many points as a chart has pixels.

    Args:
        columns: The measurements.
        pixels: Width of a chart.
    """
    steps = columns.column("step")
    found = {}
    for chart, names in _COLUMNS.items():
        values = np.column_stack([columns.column(name) for name in names])
        if chart in _PIXELS_PER_MEAN:
            kept, reduced = bucket_means(steps, values, int(pixels / _PIXELS_PER_MEAN[chart]))
        else:
            buckets = int(pixels / _PIXELS_PER_BUCKET.get(chart, 2.0))
            kept, reduced = aligned_extremes(steps, values, min(max(buckets, 1), _MAX_BUCKETS))
        found[chart] = curve_data(kept, _in_unit(chart, reduced), _DIGITS.get(chart, 4))
    for chart in ("shares", "multipliers", "effective"):
        found[chart]["names"] = columns.roles
    found["blocks"]["names"] = columns.blocks
    return found


def added_values(row: Mapping[str, Floats]) -> dict[str, list[Any]]:
    """Return what a measurement adds to each chart of a run: a value for each series.

    Args:
        row: The measurement, by the name of the column.
    """
    return {
        chart: rounded(
            _in_unit(chart, np.concatenate([row[name] for name in names])), _DIGITS.get(chart, 4)
        )
        for chart, names in _COLUMNS.items()
    }


def metric_chart(metric: str, texts: Texts) -> Spec:
    """Return what the chart of a metric shows.

    Args:
        metric: Its name.
        texts: The language's texts.
    """
    return {
        "y": {"label": texts("page.metric.axis")},
        "digits": METRIC_DIGITS,
        "series": [{"label": metric, "color": 0, "width": _WIDE}],
        "height": _LOW_PX,
    }


def profile_charts(roles: Sequence[str], *, has_bands: bool, texts: Texts) -> dict[str, Spec]:
    """Return what the charts of a profile show, by name.

    Args:
        roles: The roles that have a curve.
        has_bands: Whether there is a band around each.
        texts: The language's texts.
    """
    lines = [{"label": role, "color": i} for i, role in enumerate(roles)]
    edges = [
        {**line, "label": f"{line['label']} {sign}", "width": 0.3, "is_edge": True}
        for sign in "\N{MINUS SIGN}+"
        for line in lines
    ]
    count = len(roles)
    return {
        "unit_rates": {
            "y": {"label": texts("page.unit_rate.axis"), "log": True},
            "series": [*lines, *edges] if has_bands else lines,
            "bands": [[2 * count + i, count + i] for i in range(count)] if has_bands else [],
            "height": 320,
        },
        "schedule": {
            "y": {"label": texts("learning_rate.axis")},
            "series": [{"label": texts("learning_rate"), "color": 0, "width": _WIDE}],
        },
    }


def compared_chart(names: Sequence[str], axis: str, texts: Texts, *, is_log: bool) -> Spec:
    """Return what a chart of two runs or profiles shows.

    Args:
        names: Their names.
        axis: The axis, as a key of the texts.
        texts: The language's texts.
        is_log: Whether the axis is logarithmic.
    """
    return {
        "y": {"label": texts(axis), "log": is_log},
        "series": [
            {"label": name, "color": i, "width": _WIDE, "dash": [7, 4] if i else []}
            for i, name in enumerate(names)
        ],
    }


def curve_data(steps: Floats, values: Floats, digits: int = 4) -> dict[str, Any]:
    """Return the data of a chart.

    Args:
        steps: The steps.
        values: The values, of shape [steps, series]; NaN: a gap.
        digits: Number of significant digits.
    """
    return {"steps": steps.astype(np.int64).tolist(), "values": rounded(values.T, digits)}


def _in_unit(chart: str, values: Floats) -> Floats:
    return 100 * values if chart in _IN_PERCENT else values
