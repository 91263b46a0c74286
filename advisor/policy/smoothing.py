r"""Smooths the logarithms of unit rates over a training, robust against single spikes.

At each point a line is fitted to the logarithms of its neighbors over :math:`u = \log(s + 1)` of
their steps s, with weights that fall with the distance (tricube), with the relative error and with
the distance from the first fit (bisquare): LOWESS. The window is :math:`|u - u_0| < h`. It grows in
proportion to the step, because rates change fastest at the start. A point without neighbors in the
window keeps its value.

Logarithms that are linear in u are reproduced, whatever the weights. A smoothed logarithm lies
between the smallest and the largest recorded one of its window.

Source: Cleveland, "Robust Locally Weighted Regression and Smoothing Scatterplots", JASA 74, 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy.arrays import Floats

_MAX_NEIGHBORS = 10  # on each side, which bounds the work for profiles of many points
_PASSES = 2
_BISQUARE = 6.0  # residuals of this many standard deviations and more have no weight
_NORMAL = 1.4826  # standard deviation over median absolute deviation, of a normal distribution
_SMALLEST_SCALE = 0.01  # logarithms that differ by this little are not told apart
_FREE = 0.1  # a point with less freedom than this follows from its own value only

# The index of each point's neighbor at one offset, and its kernel weight: 0 outside the window.
_Kernel = tuple[NDArray[np.intp], Floats, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Smoothed:
    """Smoothed logarithms of unit rates.

    Attributes:
        logs: The logarithms, shape [points, groups].
        errors: Their standard errors, shape [points, groups]. They follow from the errors of the
            points in the window, each at least the group's spread. A point that keeps its value
            keeps its error too.
        spreads: Standard deviation of the recorded logarithms around the smoothed ones, without
            spikes; 0 where no window has enough points. Shape [groups].
    """

    logs: Floats
    errors: Floats
    spreads: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Lines:
    """Values of the fitted lines at their points.

    Attributes:
        values: The values, shape [points, groups].
        variances: Their variances.
        freedom: Variance of a point's residual over that of the point, for points of equal
            variance; 0 where a value follows from its own point only.
    """

    values: Floats
    variances: Floats
    freedom: Floats


def smooth(
    steps: Floats,
    logs: Floats,
    recorded: NDArray[np.bool_],
    relative_errors: Floats,
    half_width: float,
) -> Smoothed:
    """Return smoothed logarithms of unit rates.

    Args:
        steps: Steps of the points, rising, at least 0, shape [points].
        logs: Logarithms of the unit rates, shape [points, groups].
        recorded: Which of them count. The others have no weight and keep their values.
        relative_errors: Relative errors of the unit rates, 0 where unknown, shape [points, groups].
        half_width: Half the width h of the window, in logarithms of the step, above 0.
    """
    kernels = _kernels(np.log1p(steps), half_width)
    values = np.where(recorded, logs, 0.0)
    weights = recorded.astype(np.float64)
    variances = np.square(relative_errors)
    lines = _fit(kernels, _medians(kernels, values, recorded), weights, variances)
    spreads = np.zeros(logs.shape[1])
    for _ in range(_PASSES):
        residuals = np.where(recorded, values - lines.values, 0.0)
        robust = _robust_weights(residuals, recorded, lines.freedom)
        freedom = (robust * lines.freedom).sum(axis=0)
        spreads = np.sqrt((robust * np.square(residuals)).sum(axis=0) / np.maximum(freedom, 1e-12))
        spreads = np.where(freedom > _FREE, spreads, 0.0)
        weights = robust / (variances + np.square(spreads) + _SMALLEST_SCALE**2)
        lines = _fit(kernels, values, weights, np.maximum(variances, np.square(spreads)))
    low, high = _range(kernels, values, recorded)
    moved = recorded & (lines.freedom > _FREE)
    return Smoothed(
        np.where(recorded, np.clip(lines.values, low, high), logs),
        np.where(moved, np.sqrt(lines.variances), relative_errors),
        spreads,
    )


def _kernels(places: Floats, half_width: float) -> Sequence[_Kernel]:
    """Return neighbors, kernel weights and distances at each offset, from below to above."""
    count = len(places)
    reach = min(_MAX_NEIGHBORS, count - 1)
    found = []
    for offset in range(-reach, reach + 1):
        neighbors = np.arange(count) + offset
        inside = (neighbors >= 0) & (neighbors < count)
        neighbors = np.clip(neighbors, 0, count - 1)
        distances = places[neighbors] - places
        with np.errstate(over="ignore"):  # of a very small window
            apart = np.minimum(np.abs(distances) / half_width, 1.0)
        near = (1 - apart**3) ** 3 * inside
        if near.any():
            found.append((neighbors, near[:, None], distances[:, None]))
    return found


def _medians(kernels: Sequence[_Kernel], values: Floats, recorded: NDArray[np.bool_]) -> Floats:
    """Return the medians of each value and its two neighbors, if both are in the window."""
    by_offset = {int(n[len(n) // 2]) - len(n) // 2: (n, near) for n, near, _ in kernels}
    if not {-1, 1} <= set(by_offset):
        return values
    (before, near_before), (after, near_after) = by_offset[-1], by_offset[1]
    medians = np.median(np.stack([values[before], values, values[after]]), axis=0)
    all_known = (near_before > 0) & (near_after > 0) & recorded[before] & recorded & recorded[after]
    return np.where(all_known, medians, values)


def _fit(kernels: Sequence[_Kernel], values: Floats, weights: Floats, variances: Floats) -> _Lines:
    """Return the lines fitted around each point."""
    w0, w1, w2, t0, t1 = np.zeros((5, *values.shape))
    for neighbors, near, distances in kernels:
        w = near * weights[neighbors]
        w0 += w
        w1 += w * distances
        w2 += w * np.square(distances)
        t0 += w * values[neighbors]
        t1 += w * distances * values[neighbors]
    determinant = w0 * w2 - np.square(w1)
    is_line = determinant > 1e-9 * w0 * w2  # otherwise there is one point
    scale = np.where(is_line, determinant, np.where(w0 > 0, w0, 1.0))
    fitted = np.where(is_line, w2 * t0 - w1 * t1, t0) / scale
    squares, variance, own = np.zeros((3, *values.shape))
    for neighbors, near, distances in kernels:
        part = near * weights[neighbors] * np.where(is_line, w2 - w1 * distances, 1.0) / scale
        squares += np.square(part)
        variance += np.square(part) * variances[neighbors]
        own += np.where(distances == 0, part, 0.0)
    return _Lines(fitted, variance, np.maximum(1 - 2 * own + squares, 0.0))


def _robust_weights(residuals: Floats, recorded: NDArray[np.bool_], freedom: Floats) -> Floats:
    """Return bisquare weights in [0, 1], of the residuals over the median one of their group."""
    sized = np.abs(residuals) / np.sqrt(np.maximum(freedom, _FREE))
    counted = np.where(recorded & (freedom > _FREE), sized, np.nan)
    some = ~np.isnan(counted).all(axis=0)
    scales = np.full(residuals.shape[1], _SMALLEST_SCALE)
    scales[some] = np.maximum(_NORMAL * np.nanmedian(counted[:, some], axis=0), _SMALLEST_SCALE)
    weights: Floats = np.square(np.maximum(1 - np.square(sized / (_BISQUARE * scales)), 0.0))
    return weights * recorded


def _range(
    kernels: Sequence[_Kernel], values: Floats, recorded: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Return the smallest and the largest recorded value of each window."""
    low, high = np.full(values.shape, np.inf), np.full(values.shape, -np.inf)
    for neighbors, near, _ in kernels:
        inside = (near > 0) & recorded[neighbors]
        np.minimum(low, values[neighbors], out=low, where=inside)
        np.maximum(high, values[neighbors], out=high, where=inside)
    return low, high
