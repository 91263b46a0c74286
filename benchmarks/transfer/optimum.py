"""The optimum of a sweep by a fit: how far it moved, what that costs, and how sure both are.

A sweep maps octaves (the learning rate is ``2 ** octave``) to the losses of its seeds, as in
``figures.py``; octaves need not be integers. Near the best learning rate, the mean loss over seeds
is fitted by a quadratic in the octave. The minimum of the fit is the optimum. A learning rate at
which a seed diverged has an infinite mean and is not fitted.

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
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Losses = Mapping[float, Sequence[float]]
Interval = tuple[float, float]
_Array = NDArray[np.float64]

HALF_WINDOW: Final = 1.0  # octaves to either side of the optimum whose losses are fitted
CONFIDENCE: Final = 0.9
WIDEST_KNOWN: Final = 1.0  # octaves; a shift with a wider interval is not known
NEAR: Final = 1.0  # octaves; the aim for a shift
_RESAMPLES: Final = 1000
_SLACK: Final = 1e-6  # octaves; learning rates are rounded


class Verdict(StrEnum):
    """Whether the optimum moved by at most an octave."""

    WITHIN = "within"
    BEYOND = "beyond"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Transfer:
    """How well a base's best learning rate does on a big model.

    Attributes:
        base_octave: log2 of the base's best learning rate; None if the base diverged everywhere.
        base_interval: 90% interval of it; None with a single seed.
        shift: Octaves from there to the big model's best learning rate; None if the base or the big
            model diverged everywhere.
        shift_interval: 90% interval of the shift; None with a single seed.
        regret: Loss of the big model at the base's best learning rate minus the reference's best
            loss, in nats; None if the big model diverges there.
        regret_interval: 90% interval of the regret; None with a single seed.
        verdict: Whether the shift is at most an octave.
    """

    base_octave: float | None = None
    base_interval: Interval | None = None
    shift: float | None = None
    shift_interval: Interval | None = None
    regret: float | None = None
    regret_interval: Interval | None = None
    verdict: Verdict = Verdict.CANNOT_TELL


def optimum(sweep: Losses) -> float | None:
    """Return the best octave of a sweep by the fit; None if each learning rate diverged.

    Args:
        sweep: The losses.
    """
    curve = _Curve.of(sweep)
    return None if curve is None else curve.optimum


def compare(base: Losses, big: Losses, reference: Losses) -> Transfer:
    """Return how well the base's best learning rate does on a big model.

    Args:
        base: Sweep of the base.
        big: Sweep of the big model with a method, with the seeds of the base's sweep.
        reference: Sweep of the plain big model with the same seeds; its best loss is what a search
            finds.

    Raises:
        ValueError: The sweeps have different numbers of seeds, or none.
    """
    numbers = {len(losses) for each in (base, big, reference) for losses in each.values()}
    if len(numbers) != 1 or 0 in numbers:
        raise ValueError(
            f"the sweeps have {sorted(numbers)} seeds; train all of them with the same seeds"
        )
    (seeds,) = numbers
    weights = _weights(seeds)
    base_curve, big_curve = _Curve.of(base), _Curve.of(big)
    if base_curve is None:
        return Transfer()
    bases = base_curve.resampled(weights).optima
    found = Transfer(float(bases[0]), _interval(bases, seeds, base_curve.resolution))
    if big_curve is None:
        return replace(found, verdict=Verdict.BEYOND)
    fits = big_curve.resampled(weights)
    shifts = fits.optima - bases
    shift = float(shifts[0])
    interval = _interval(shifts, seeds, base_curve.resolution + big_curve.resolution)
    is_bound = base_curve.is_at_edge or big_curve.is_at_edge
    found = replace(
        found,
        shift=shift,
        shift_interval=interval,
        verdict=_verdict(shift, interval, is_bound=is_bound),
    )
    reference_curve = _Curve.of(reference)
    if reference_curve is None or not big_curve.reaches(float(bases[0])):
        return found
    best = reference_curve.resampled(weights)
    regrets = fits.losses_at(bases) - best.losses_at(best.optima)
    return replace(found, regret=float(regrets[0]), regret_interval=_interval(regrets, seeds))


def _verdict(shift: float, interval: Interval | None, *, is_bound: bool) -> Verdict:
    """Return the verdict on a shift.

    A shift with a wide interval is a miss if all of the interval is beyond an octave. A shift that
    is only a bound, since an optimum is at the edge of its sweep, is a miss or not known.
    """
    verdict = Verdict.WITHIN if abs(shift) <= NEAR else Verdict.BEYOND
    if is_bound:
        return Verdict.CANNOT_TELL if verdict is Verdict.WITHIN else verdict
    if interval is not None:
        low, high = interval
        if high - low > WIDEST_KNOWN and low <= NEAR and high >= -NEAR:
            return Verdict.CANNOT_TELL
    return verdict


def _weights(seeds: int) -> _Array:
    """Return the weights of the seeds, shape [resamples, seeds]; the first ones are equal."""
    equal = np.full((1, seeds), 1 / seeds)
    if seeds == 1:
        return equal
    drawn = np.random.default_rng(0).multinomial(seeds, equal[0], _RESAMPLES)
    return np.concatenate([equal, drawn / seeds])


def _interval(values: _Array, seeds: int, resolution: float = 0.0) -> Interval | None:
    """Return the interval around the first value, or None with a single seed.

    Args:
        values: The values of the resamples, after that of equal weights.
        seeds: Number of seeds.
        resolution: Added on either side.
    """
    if seeds == 1:
        return None
    deviation = float(values[1:].std()) * math.sqrt(seeds / (seeds - 1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, seeds - 1)) * deviation + resolution
    return float(values[0]) - half, float(values[0]) + half


@dataclass(frozen=True, slots=True)
class _Curve:
    """The losses of a sweep at the learning rates at which no seed diverged.

    Attributes:
        tried: Octaves of all learning rates, ascending.
        octaves: Octaves of those at which no seed diverged, ascending, shape [points].
        losses: Their losses, shape [seeds, points].
    """

    tried: _Array
    octaves: _Array
    losses: _Array

    @classmethod
    def of(cls, sweep: Losses) -> _Curve | None:
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

    def resampled(self, weights: _Array) -> _Fits:
        """Fit the mean losses with given weights of the seeds, shape [resamples, seeds]."""
        return _Fits(self.octaves, weights @ self.losses)

    def _fit_of_mean(self) -> _Fits:
        return _Fits(self.octaves, self.losses.mean(0, keepdims=True))


class _Fits:
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

    def __init__(self, octaves: _Array, means: _Array) -> None:
        self._octaves, self._means = octaves, means
        self._coefficients = np.zeros((3, len(means)))
        self._middles, self.lows, self.highs = np.zeros((3, len(means)))
        self._fit(means.argmin(1))
        self._fit(np.abs(octaves - self._minima()[:, None]).argmin(1))
        self.optima = self._minima()

    def losses_at(self, octaves: _Array) -> _Array:
        """Return the loss of each resample at its octave, shape [resamples].

        In the window it is the fit's. Elsewhere it lies on a line between the neighbours.
        """
        found = self._values(octaves)
        for i in np.flatnonzero((octaves < self.lows) | (octaves > self.highs)):
            found[i] = np.interp(octaves[i], self._octaves, self._means[i])
        return found

    def _fit(self, centres: NDArray[np.intp]) -> None:
        """Fit each resample in the window around the octave with the given index."""
        for centre in np.unique(centres):
            window = _near(self._octaves, float(self._octaves[centre]))
            inside = self._octaves[window]
            middle, degree = float(inside.mean()), min(2, len(inside) - 1)
            rows = np.flatnonzero(centres == centre)
            inverse = np.linalg.pinv(np.vander(inside - middle, degree + 1))
            self._coefficients[:, rows] = 0.0
            self._coefficients[2 - degree :, rows] = inverse @ self._means[rows][:, window].T
            self._middles[rows], self.lows[rows], self.highs[rows] = middle, inside[0], inside[-1]

    def _minima(self) -> _Array:
        square, slope, _ = self._coefficients
        with np.errstate(divide="ignore", invalid="ignore"):
            vertex = self._middles - slope / (2 * square)
        is_low = self._values(self.lows) <= self._values(self.highs)
        end = np.where(is_low, self.lows, self.highs)
        found: _Array = np.where(square > 0, np.clip(vertex, self.lows, self.highs), end)
        return found

    def _values(self, octaves: _Array) -> _Array:
        square, slope, constant = self._coefficients
        distances = octaves - self._middles
        values: _Array = (square * distances + slope) * distances + constant
        return values


def _near(octaves: _Array, centre: float) -> NDArray[np.bool_]:
    """Return the octaves in the window around a centre; at least the three nearest ones."""
    distances = np.abs(octaves - centre)
    reach = max(HALF_WINDOW, float(np.sort(distances)[:3][-1]))
    near: NDArray[np.bool_] = distances <= reach + _SLACK
    return near
