"""Differences between methods: by seed in a case, and over cases.

All methods of a case use the same base, seeds and batches, so differences of their losses at the
base's best learning rate are taken seed by seed, and what seeds have in common cancels. The regrets
of two methods are relative to the same loss, so the difference of their losses is that of their
regrets. A negative difference is in favor of the first method.

Intervals are 90%. In a case, they come from the bootstrap over seeds of ``curves.py``. Over cases,
:func:`over_cases` has a hierarchical bootstrap in closed form: cases are drawn, then the seeds of
each drawn case. :func:`over_seeds` draws only seeds and takes the cases as given.

All functions are pure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, Self

from benchmarks.transfer.curves import (
    Array,
    Curve,
    Interval,
    Losses,
    deviation_of,
    half_width,
    seed_weights,
    seeds_of,
)

_CACHED_SWEEPS: Final = 1024


class Comparison(StrEnum):
    """Whether a method is better than another one beyond noise."""

    BETTER = "better"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class CaseFigure:
    """A figure of a case with the noise of its seeds, such as the difference of two methods.

    Attributes:
        mean: The figure, in nats. A difference is negative infinity if only the second method
            diverges, and infinity if only the first one does.
        seeds: Number of seeds.
        deviation: Standard deviation of the figure over seeds; None with a single seed, or if the
            figure is infinite.
        by_seed: The figure of each seed, whose mean is ``mean``; empty if not known.
    """

    mean: float
    seeds: int
    deviation: float | None = None
    by_seed: tuple[float, ...] = ()

    @classmethod
    def of_interval(cls, mean: float | None, seeds: int, interval: Sequence[float] | None) -> Self:
        """Return a figure from its 90% interval.

        Args:
            mean: The figure; None if a training diverged, for infinity.
            seeds: Number of seeds.
            interval: The interval; None with a single seed, or if a training diverged.
        """
        if mean is None or interval is None:
            return cls(math.inf if mean is None else mean, seeds)
        return cls(mean, seeds, (interval[1] - interval[0]) / 2 / half_width(1.0, seeds - 1))

    @property
    def negated(self) -> CaseFigure:
        """The difference in the other direction."""
        return CaseFigure(
            -self.mean, self.seeds, self.deviation, tuple(-each for each in self.by_seed)
        )

    @property
    def interval(self) -> Interval | None:
        """90% interval; None with a single seed, or if the figure is infinite."""
        return _around(self.mean, self.deviation, self.seeds - 1)

    @property
    def comparison(self) -> Comparison:
        """Whether the first method is better, if the figure is a difference."""
        return _judged(self.mean, self.interval)


@dataclass(frozen=True, slots=True)
class MeanFigure:
    """The mean of a figure over cases.

    Attributes:
        cases: Number of cases.
        mean: The mean. A difference is negative infinity if only the second method diverges in some
            case, infinity if only the first one does, and NaN if each of them does in some case or
            if there are no cases.
        interval: 90% interval of the mean; None if the mean is not finite, or if the noise of a
            case is not known.
    """

    cases: int
    mean: float
    interval: Interval | None

    @property
    def comparison(self) -> Comparison:
        """Whether the first method is better, if the figure is a difference."""
        return _judged(self.mean, self.interval)


def differences(
    base: Losses, sweeps: Mapping[str, Losses], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], CaseFigure]:
    """Return the differences of methods in a case.

    Pairs are left out if both methods diverge, or if the base does.

    Args:
        base: Sweep of the base.
        sweeps: Sweep of the big model with each method, with the seeds of the base's sweep.
        pairs: Names of two methods each. Those without sweeps are left out.

    Raises:
        ValueError: The sweeps have different numbers of seeds, or none.
    """
    used = {name for pair in pairs for name in pair if name in sweeps}
    seeds = seeds_of(base, *(sweeps[name] for name in used))
    frozen = _frozen(base)
    losses = {name: _at_base_best(frozen, _frozen(sweeps[name])) for name in sorted(used)}
    found = {}
    for pair in pairs:
        if all(name in losses for name in pair):
            one, other = (losses[name] for name in pair)
            if one is not None or other is not None:
                found[pair] = _difference(one, other, seeds)
    return found


def over_cases(found: Sequence[CaseFigure]) -> MeanFigure:
    """Return the mean over cases that stand for others like them.

    The standard error is that of a bootstrap which draws cases with replacement, then seeds of each
    drawn case. Its variance is ``(K - 1) / K * S + W`` for ``K`` cases, where ``S`` is the variance
    of the mean from the spread between cases and ``W`` that from seeds. The expected value of ``S``
    has ``W`` in it already, so the variance here is the larger one of ``S`` and ``W``. Degrees of
    freedom are those of the two parts, ``S - W`` with ``K - 1`` and ``W`` (Satterthwaite, "An
    Approximate Distribution of Estimates of Variance Components", Biometrics Bulletin 2, 1946).
    With a single case, only seeds count.

    Args:
        found: The figures of the cases.
    """
    return _over(found, are_cases_drawn=True)


def over_seeds(found: Sequence[CaseFigure]) -> MeanFigure:
    """Return the mean over these very cases; its interval has only the noise of seeds.

    Args:
        found: The figures of the cases.
    """
    return _over(found, are_cases_drawn=False)


def _over(found: Sequence[CaseFigure], *, are_cases_drawn: bool) -> MeanFigure:
    count = len(found)
    means = [each.mean for each in found]
    if not count or not all(map(math.isfinite, means)):
        return MeanFigure(count, sum(means) if count else math.nan, None)
    mean = statistics.fmean(means)
    of_seeds = [
        (each.deviation**2 / count**2, each.seeds - 1)
        for each in found
        if each.deviation is not None
    ]
    if len(of_seeds) < count:
        return MeanFigure(count, mean, None)
    parts = list(of_seeds)
    if are_cases_drawn and count > 1:
        excess = statistics.variance(means) / count - sum(part for part, _ in of_seeds)
        parts.append((max(0.0, excess), count - 1))
    variance = sum(part for part, _ in parts)
    squares = sum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / squares if squares > 0 else 1.0
    return MeanFigure(count, mean, _around(mean, math.sqrt(variance), freedom))


def _around(mean: float, deviation: float | None, freedom: float) -> Interval | None:
    if deviation is None:
        return None
    half = half_width(deviation, freedom)
    return mean - half, mean + half


def _judged(mean: float, interval: Interval | None) -> Comparison:
    low, high = (mean, mean) if interval is None and math.isinf(mean) else interval or (-1.0, 1.0)
    if high < 0:
        return Comparison.BETTER
    return Comparison.WORSE if low > 0 else Comparison.CANNOT_TELL


_Frozen = tuple[tuple[float, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True)
class _LossesAtBaseBest:
    """Losses at the base's best learning rate: of each resample, and of each seed."""

    resampled: Array
    by_seed: Array


def _difference(
    one: _LossesAtBaseBest | None, other: _LossesAtBaseBest | None, seeds: int
) -> CaseFigure:
    if one is None or other is None:
        return CaseFigure(math.inf if one is None else -math.inf, seeds)
    values = one.resampled - other.resampled
    return CaseFigure(
        float(values[0]),
        seeds,
        None if seeds == 1 else deviation_of(values, seeds),
        tuple((one.by_seed - other.by_seed).tolist()),
    )


def _frozen(sweep: Losses) -> _Frozen:
    return tuple((octave, tuple(sweep[octave])) for octave in sorted(sweep))


@lru_cache(_CACHED_SWEEPS)
def _at_base_best(base: _Frozen, big: _Frozen) -> _LossesAtBaseBest | None:
    """Return the losses of a big model at the base's best learning rate; None if it diverges."""
    bases, curve = _base_optima(base), Curve.of(dict(big))
    if bases is None or curve is None or not curve.reaches(float(bases[0])):
        return None
    weights = seed_weights(len(big[0][1]))
    resampled = curve.resampled(weights).losses_at(bases)
    return _LossesAtBaseBest(resampled, curve.seed_losses_at(float(bases[0])))


@lru_cache(_CACHED_SWEEPS)
def _base_optima(base: _Frozen) -> Array | None:
    curve = Curve.of(dict(base))
    return None if curve is None else curve.resampled(seed_weights(len(base[0][1]))).optima
