"""Rank correlation of two time series at several lags, with intervals that hold for time series.

Two series that change slowly look related even if they have nothing in common: their points are not
independent, and both may just follow time (Yule 1926). So there are two correlations, one of the
series themselves (levels) and one of what neither trend nor past of a series predicts (changes).

**Correlation.** Spearman's: Pearson's correlation of midranks. It needs no unit and no scale.

**Changes.** Each series is replaced by its ranks and regressed on a polynomial of time and on its
own last p values, where p has the least corrected AIC (Hurvich and Tsai 1989). The residuals are
its changes. For a random walk they are about its differences. If two series are independent, the
correlations of their changes at different lags are asymptotically independent with variance 1/n,
whatever the autocorrelation of the series (Haugh 1976; Box and Jenkins call it prewhitening).

**Interval.** Pairs of points are drawn in moving blocks of n^(1/3) points (Künsch 1989). The
largest deviation over all lags in Fisher's z is recorded, so that the interval allows for choosing
the best lag. It is never narrower than that of as many independent points, with the variance
1.06 / (n - 3) (Fieller, Hartley and Pearson 1957) and Šidák's correction for the lags. The number
of independent points is Bartlett's (1935), smaller by the fitted parameters, and smaller where both
series vary most at the same time (White 1980).

All functions take arrays of shape [..., n], and treat each row on its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CONFIDENCE = 0.95
"""Probability with which an interval should contain the true correlation at every lag."""
RESAMPLES = 1_000
"""Number of bootstrap resamples."""
MAX_ORDER = 4
"""Largest number of own past values that predict a series."""
TREND_DEGREE = 5
"""Degree of the polynomial of time that is each series' trend."""

_SPEARMAN_VARIANCE = 1.06
_LARGEST = math.tanh(6.0)
_RIDGE = 1e-10  # relative; a constant column must not make the equations singular


@dataclass(frozen=True, slots=True)
class LaggedCorrelations:
    """Correlations of one series with a later value of another one.

    Attributes:
        values: The correlations, of shape [..., lags].
        half_widths: Half the width of the interval in Fisher's z, at every lag, of shape [...].
        points: Number of pairs.
        z_of_independent_points: The half width if all points were independent.
    """

    values: Array
    half_widths: Array
    points: int
    z_of_independent_points: float

    @property
    def best(self) -> NDArray[np.intp]:
        """The lag with the largest absolute correlation, of shape [...]."""
        best: NDArray[np.intp] = np.abs(self.values).argmax(-1)
        return best

    @property
    def lows(self) -> Array:
        """Lower ends of the intervals, of shape [..., lags]."""
        return np.tanh(fisher(self.values) - self.half_widths[..., None])

    @property
    def highs(self) -> Array:
        """Upper ends of the intervals, of shape [..., lags]."""
        return np.tanh(fisher(self.values) + self.half_widths[..., None])


def ranks(series: Array) -> Array:
    """Return midranks, centered and divided by n; equal values have equal ranks."""
    flat = series.reshape(-1, series.shape[-1])
    found = np.empty(flat.shape)
    for row, values in zip(found, flat, strict=True):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        ends = np.cumsum(count)
        row[:] = (ends - (count - 1) / 2)[place]
    n = series.shape[-1]
    centered: Array = ((found - (n + 1) / 2) / n).reshape(series.shape)
    return centered


def changes(series: Array, max_order: int = MAX_ORDER) -> Array:
    """Return what neither time nor its own past predicts of each series.

    Args:
        series: The series, of shape [..., n].
        max_order: Largest number of past values, at least 0 and below n / 4.

    Returns:
        The residuals, of shape [..., n - max_order].
    """
    ranked = ranks(series)
    n = series.shape[-1]
    rows = n - max_order
    target = ranked[..., max_order:]
    time = np.linspace(-1, 1, rows)
    columns = [np.broadcast_to(time**power, target.shape) for power in range(TREND_DEGREE + 1)]
    columns += [ranked[..., max_order - p : n - p] for p in range(1, max_order + 1)]
    residuals, criteria = [], []
    for order in range(max_order + 1):
        design = np.stack(columns[: TREND_DEGREE + 1 + order], axis=-1)
        rest = _residuals(design, target)
        parameters = TREND_DEGREE + 2 + order  # with the variance
        fit = rows * np.log(np.square(rest).mean(-1) + 1e-300)
        residuals.append(rest)
        criteria.append(fit + 2 * parameters * rows / (rows - parameters - 1))
    best = np.argmin(criteria, axis=0)
    chosen: Array = np.take_along_axis(np.stack(residuals), best[None, ..., None], axis=0)[0]
    return chosen


def _residuals(design: Array, target: Array) -> Array:
    """Return the residuals of least squares, for each row."""
    transposed = np.swapaxes(design, -1, -2)
    gram = transposed @ design
    scale = np.trace(gram, axis1=-2, axis2=-1)[..., None, None]
    gram = gram + _RIDGE * scale * np.eye(gram.shape[-1])
    weights = np.linalg.solve(gram, transposed @ target[..., None])
    return target - (design @ weights)[..., 0]


def lagged_correlations(
    first: Array,
    second: Array,
    lags: int,
    *,
    seed: int = 0,
    tests: int = 1,
    fitted: int = 0,
    resamples: int = RESAMPLES,
) -> LaggedCorrelations:
    """Return the rank correlations of a series with a second one 0 to ``lags`` points later.

    Args:
        first: The series that may move first, of shape [..., n].
        second: The series that may follow, of the same shape.
        lags: The largest lag, at least 0 and below n / 4. All lags use the same n - lags points of
            ``first``.
        seed: Seed of the resamples.
        tests: Number of pairs of series that are looked at together; the intervals hold for all of
            them.
        fitted: Number of parameters that were fitted to each series before.
        resamples: Number of resamples.
    """
    points = first.shape[-1] - lags
    leading = ranks(first[..., :points])
    following = ranks(
        np.stack([second[..., lag : lag + points] for lag in range(lags + 1)], axis=-2)
    )
    values = _correlations(leading[..., None, :], following, np.ones((1, points)))[..., 0]
    weights = _block_weights(points, resamples, np.random.default_rng(seed))
    drawn = _correlations(leading[..., None, :], following, weights)
    deviations = np.abs(fisher(drawn) - fisher(values)[..., None]).max(-2)
    level = 1 - (1 - CONFIDENCE) / tests
    plain = _quantile(lags + 1, tests) * math.sqrt(_SPEARMAN_VARIANCE)
    independent = _independent_points(leading, following)
    floors = plain / np.sqrt(np.maximum(independent - 3 - fitted, 1.0))
    return LaggedCorrelations(
        values,
        np.maximum(np.quantile(deviations, level, axis=-1), floors),
        points,
        plain / math.sqrt(max(points - 3, 1)),
    )


def _quantile(lags: int, tests: int) -> float:
    """Return the quantile of the normal distribution that the largest of all values stays below."""
    return NormalDist().inv_cdf(1 - (1 - CONFIDENCE ** (1 / (lags * tests))) / 2)


def fisher(correlations: Array) -> Array:
    """Return Fisher's z of correlations, at most 6 in size."""
    return np.arctanh(np.clip(correlations, -_LARGEST, _LARGEST))


def _block_weights(points: int, resamples: int, random: np.random.Generator) -> Array:
    """Return how often each point is drawn in moving blocks, of shape [resamples, points]."""
    length = math.ceil(points ** (1 / 3))
    blocks = math.ceil(points / length)
    starts = random.integers(0, points - length + 1, (resamples, blocks))
    drawn = (starts[..., None] + np.arange(length)).reshape(resamples, -1)[:, :points]
    drawn += np.arange(resamples)[:, None] * points
    counts = np.bincount(drawn.ravel(), minlength=resamples * points)
    return counts.reshape(resamples, points).astype(np.float64)


def _correlations(first: Array, second: Array, weights: Array) -> Array:
    """Return Pearson's correlation under each row of weights, of shape [..., resamples].

    Args:
        first: A series, of shape [..., 1, points].
        second: One series for each lag, of shape [..., lags, points].
        weights: How often each point counts, of shape [resamples, points]; all rows sum to
            ``points``.
    """
    share = weights.T / weights.shape[1]
    x, y = first @ share, second @ share
    xx, yy = np.square(first) @ share, np.square(second) @ share
    covariance = (first * second) @ share - x * y
    product = np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0)
    found = np.divide(
        covariance,
        np.sqrt(product),
        out=np.zeros_like(covariance),
        where=product > 1e-18,  # a resample of equal points has no correlation
    )
    clipped: Array = np.clip(found, -1, 1)
    return clipped


def _independent_points(first: Array, second: Array) -> Array:
    """Return how many independent points have the same variance of the correlation.

    Args:
        first: A series, of shape [..., points].
        second: One series for each lag, of shape [..., lags, points].
    """
    points = first.shape[-1]
    own, other = _autocorrelations(first), _autocorrelations(second[..., 0, :])
    later = np.arange(1, own.shape[-1] + 1)
    inflation = 1 + 2 * ((1 - later / points) * own * other).sum(-1)
    squares, others = np.square(first)[..., None, :], np.square(second)
    apart = np.maximum(squares.mean(-1) * others.mean(-1), 1e-300)
    together = ((squares * others).mean(-1) / apart).mean(-1)
    independent: Array = points / (np.maximum(inflation, 1.0) * np.maximum(together, 1.0))
    return independent


def _autocorrelations(series: Array) -> Array:
    """Return the autocorrelations at lags 1 to a quarter of the points."""
    points = series.shape[-1]
    centered = series - series.mean(-1, keepdims=True)
    size = 2 ** math.ceil(math.log2(2 * points))
    power = np.square(np.abs(np.fft.rfft(centered, size)))
    raw = np.fft.irfft(power, size)[..., : points // 4 + 1]
    return raw[..., 1:] / np.maximum(raw[..., :1], 1e-300)
