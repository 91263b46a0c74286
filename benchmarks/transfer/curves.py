"""Sweeps as curves: quadratics through mean losses, resampled over seeds.

Near the best learning rate, the mean loss over seeds is fitted by a quadratic in the octave (the
learning rate is ``2 ** octave``). The minimum of the fit is the optimum. A learning rate at which a
seed diverged has an infinite mean and is not fitted.

Intervals come from a bootstrap over seeds. Each resample draws seeds with replacement and uses the
drawn seeds in all sweeps alike, because trainings of one seed share initial weights and batches.
Each resample also chooses its window again, so that a flat sweep has a wide interval.
The standard deviation of the resamples is too small by a factor of ``sqrt((n - 1) / n)`` for ``n``
seeds and is corrected by it. The half width of an interval is the corrected standard deviation
times Student's t with ``n - 1`` degrees of freedom, as percentiles of few resampled seeds are too
narrow (Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69,
2015, section 4).

All functions are pure, and the bootstrap has a fixed seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Losses = Mapping[float, Sequence[float]]
Interval = tuple[float, float]
Array = NDArray[np.float64]

HALF_WINDOW: Final = 1.0  # octaves to either side of the optimum whose losses are fitted
CONFIDENCE: Final = 0.9
RESAMPLES: Final = 1000
_SLACK: Final = 1e-6  # octaves; learning rates are rounded


def seeds_of(*sweeps: Losses) -> int:
    """Return the number of seeds of sweeps that were trained with the same ones.

    Args:
        sweeps: The sweeps.

    Raises:
        ValueError: The sweeps have different numbers of seeds, or none.
    """
    numbers = {len(losses) for sweep in sweeps for losses in sweep.values()}
    if len(numbers) != 1 or 0 in numbers:
        raise ValueError(
            f"the sweeps have {sorted(numbers)} seeds; train all of them with the same seeds"
        )
    return numbers.pop()


def seed_weights(seeds: int) -> Array:
    """Return the weights of the seeds in each resample, shape [resamples, seeds].

    The first ones are equal. A single seed is not resampled.

    Args:
        seeds: Number of seeds.
    """
    equal = np.full((1, seeds), 1 / seeds)
    if seeds == 1:
        return equal
    drawn = np.random.default_rng(0).multinomial(seeds, equal[0], RESAMPLES)
    return np.concatenate([equal, drawn / seeds])


def deviation_of(values: Array, seeds: int) -> float:
    """Return the standard deviation of a figure over seeds, from its resamples.

    Args:
        values: The values of the resamples, after that of equal weights.
        seeds: Number of seeds, at least 2.
    """
    return float(values[1:].std()) * math.sqrt(seeds / (seeds - 1))


def half_width(deviation: float, degrees_of_freedom: float) -> float:
    """Return half the width of the 90% interval of a figure.

    Args:
        deviation: Its standard deviation.
        degrees_of_freedom: Degrees of freedom of the standard deviation.
    """
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees_of_freedom)) * deviation


def interval_of(values: Array, seeds: int, resolution: float = 0.0) -> Interval | None:
    """Return the 90% interval around the first value, or None with a single seed.

    Args:
        values: The values of the resamples, after that of equal weights.
        seeds: Number of seeds.
        resolution: Added on either side.
    """
    if seeds == 1:
        return None
    half = half_width(deviation_of(values, seeds), seeds - 1) + resolution
    return float(values[0]) - half, float(values[0]) + half


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses of a sweep at the learning rates at which no seed diverged.

    Attributes:
        tried: Octaves of all learning rates, ascending.
        octaves: Octaves of those at which no seed diverged, ascending, shape [points].
        losses: Their losses, shape [seeds, points].
    """

    tried: Array
    octaves: Array
    losses: Array

    @classmethod
    def of(cls, sweep: Losses) -> Curve | None:
        """Return the curve of a sweep, or None if each learning rate diverged."""
        octaves = sorted(o for o, losses in sweep.items() if all(map(math.isfinite, losses)))
        if not octaves:
            return None
        losses = np.array([sweep[octave] for octave in octaves], dtype=np.float64).T
        return cls(np.array(sorted(sweep)), np.array(octaves, dtype=np.float64), losses)

    @property
    def optimum(self) -> float:
        """The optimum of the mean over seeds, as an octave."""
        return float(self._fit_of_mean().optima[0])

    @property
    def resolution(self) -> float:
        """How far the optimum may be beyond the fitted octaves, in octaves.

        If it is at an end of them, it is only known to be before the next octave that was tried.
        """
        fits = self._fit_of_mean()
        optimum = float(fits.optima[0])
        if fits.lows[0] + _SLACK < optimum < fits.highs[0] - _SLACK:
            return 0.0
        distances = np.abs(self.tried - optimum)
        return float(min(distances[distances > _SLACK], default=0.0))

    @property
    def is_at_edge(self) -> bool:
        """Whether the optimum is the highest or lowest octave that was tried."""
        return not self.tried[0] + _SLACK < self.optimum < self.tried[-1] - _SLACK

    def reaches(self, octave: float) -> bool:
        """Return whether an octave is between two at which no seed diverged."""
        return bool(self.octaves[0] - _SLACK <= octave <= self.octaves[-1] + _SLACK)

    def resampled(self, weights: Array) -> Fits:
        """Fit the mean losses with given weights of the seeds, shape [resamples, seeds]."""
        return Fits(self.octaves, weights @ self.losses)

    def seed_losses_at(self, octave: float) -> Array:
        """Return the loss of each seed at an octave, shape [seeds].

        Each seed is fitted in the window of the mean, so that the mean of these losses is the loss
        that the fit of the mean has.

        Args:
            octave: The octave.
        """
        fit = self._fit_of_mean()
        if not fit.lows[0] <= octave <= fit.highs[0]:
            return np.array([np.interp(octave, self.octaves, losses) for losses in self.losses])
        window = (self.octaves >= fit.lows[0]) & (self.octaves <= fit.highs[0])
        distances = self.octaves[window] - octave
        inverse = np.linalg.pinv(np.vander(distances, min(2, len(distances) - 1) + 1))
        at_octave: Array = inverse[-1] @ self.losses[:, window].T
        return at_octave

    def _fit_of_mean(self) -> Fits:
        return Fits(self.octaves, self.losses.mean(0, keepdims=True))


class Fits:
    """Quadratics through the mean losses of each resample, each in a window of its own.

    The window is around the resample's lowest loss first, then around the minimum of the first fit.
    With only two learning rates the fit is a line, and with only one a constant.

    Args:
        octaves: The octaves, ascending, shape [points].
        means: Mean losses, shape [resamples, points].

    Attributes:
        optima: The octave of each fit's minimum, shape [resamples]. A minimum beyond the window is
            not measured; the end of the window stands for it.
        lows: The lowest octave of each window, shape [resamples].
        highs: The highest octave of each window, shape [resamples].
    """

    def __init__(self, octaves: Array, means: Array) -> None:
        self._octaves, self._means = octaves, means
        self._coefficients = np.zeros((3, len(means)))
        self._middles, self.lows, self.highs = np.zeros((3, len(means)))
        self._fit(means.argmin(1))
        self._fit(np.abs(octaves - self._minima()[:, None]).argmin(1))
        self.optima = self._minima()

    def losses_at(self, octaves: Array) -> Array:
        """Return the loss of each resample at its octave, shape [resamples].

        In the window it is the fit's. Elsewhere it lies on a line between the neighbors.
        """
        found = self._values(octaves)
        for i in np.flatnonzero((octaves < self.lows) | (octaves > self.highs)):
            found[i] = np.interp(octaves[i], self._octaves, self._means[i])
        return found

    def _fit(self, centers: NDArray[np.intp]) -> None:
        """Fit each resample in the window around the octave with the given index."""
        for center in np.unique(centers):
            window = _near(self._octaves, float(self._octaves[center]))
            inside = self._octaves[window]
            middle, degree = float(inside.mean()), min(2, len(inside) - 1)
            rows = np.flatnonzero(centers == center)
            inverse = np.linalg.pinv(np.vander(inside - middle, degree + 1))
            self._coefficients[:, rows] = 0.0
            self._coefficients[2 - degree :, rows] = inverse @ self._means[rows][:, window].T
            self._middles[rows], self.lows[rows], self.highs[rows] = middle, inside[0], inside[-1]

    def _minima(self) -> Array:
        square, slope, _ = self._coefficients
        with np.errstate(divide="ignore", invalid="ignore"):
            vertex = self._middles - slope / (2 * square)
        is_low = self._values(self.lows) <= self._values(self.highs)
        end = np.where(is_low, self.lows, self.highs)
        found: Array = np.where(square > 0, np.clip(vertex, self.lows, self.highs), end)
        return found

    def _values(self, octaves: Array) -> Array:
        square, slope, constant = self._coefficients
        distances = octaves - self._middles
        values: Array = (square * distances + slope) * distances + constant
        return values


def _near(octaves: Array, center: float) -> NDArray[np.bool_]:
    """Return the octaves in the window around a center; at least the three nearest ones."""
    distances = np.abs(octaves - center)
    reach = max(HALF_WINDOW, float(np.sort(distances)[:3][-1]))
    near: NDArray[np.bool_] = distances <= reach + _SLACK
    return near
