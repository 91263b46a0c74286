"""A few figures of a training for the log of its trainer."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from fslr.training.estimate import RateEstimate

PREFIX = "fslr/"
LOG_FIGURES = frozenset(
    PREFIX + name
    for name in (
        *("multiplier_min", "multiplier_median", "multiplier_max"),
        *("total_rate", "linearity_error"),
    )
)
"""The names that :func:`log_figures` gives."""


def log_figures(
    estimate: RateEstimate | None, multipliers: Sequence[float] = (), *, prefix: str = PREFIX
) -> dict[str, float]:
    """Return a few figures of a training, by their names; those that are not known are left out.

    They are the smallest, the median and the largest multiplier, and of the newest measurement the
    total rate and the linearity error.

    Args:
        estimate: The newest measurement, or None.
        multipliers: The multipliers in force; empty for a recording.
        prefix: What the names begin with.
    """
    found: dict[str, float | None] = {}
    if multipliers:
        found["multiplier_min"] = min(multipliers)
        found["multiplier_median"] = median(multipliers)
        found["multiplier_max"] = max(multipliers)
    if estimate is not None:
        found["total_rate"] = estimate.total_rate
        found["linearity_error"] = estimate.linearity_error
    return {prefix + name: float(value) for name, value in found.items() if value is not None}
