"""Whether the regret of one variant is lower than that of another beyond the noise of the seeds.

Trainings with the same seed start from the same weights and see the same batches. Differences are
therefore taken seed by seed, so that what seeds have in common cancels.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

SIGNIFICANCE = 0.05  # p value below which two variants differ significantly

Regrets = Sequence[Sequence[float]]
"""Regrets of a variant by case and seed, in nats; an empty row if the variant diverged there."""


@dataclass(frozen=True, slots=True)
class Gain:
    """How much lower the regret of one variant is than that of another, in nats.

    Attributes:
        mean: Mean over cases and seeds.
        standard_error: Standard error of the mean, from differences of the same case and seed; None
            with a single seed.
        degrees_of_freedom: Degrees of freedom of the standard error (Welch and Satterthwaite, since
            the noise differs between cases).
    """

    mean: float
    standard_error: float | None
    degrees_of_freedom: float = 1.0

    @property
    def p_value(self) -> float:
        """Two-sided probability of so large a difference from the noise of the seeds, in [0, 1]."""
        if self.standard_error is None:
            return 1.0
        if self.standard_error == 0:
            return 1.0 if self.mean == 0 else 0.0
        t = abs(self.mean) / self.standard_error
        return 2 * float(stats.t.sf(t, self.degrees_of_freedom))

    @property
    def is_significant(self) -> bool:
        """Whether the p value is below :data:`SIGNIFICANCE`, in either direction."""
        return self.p_value < SIGNIFICANCE


def gain(one: Regrets, other: Regrets) -> Gain | None:
    """Return how much lower the regret of one variant is than that of another.

    Args:
        one: Regrets of the variant that may gain.
        other: Regrets of the other variant, on the same cases with the same seeds.

    Returns:
        The gain, or None if one of the variants diverged in a case.
    """
    pairs = list(zip(one, other, strict=True))
    if not all(mine and its for mine, its in pairs):
        return None
    return gain_by_seed([[b - a for a, b in zip(mine, its, strict=True)] for mine, its in pairs])


def gain_by_seed(differences: Sequence[Sequence[float]]) -> Gain:
    """Return the gain, given how much lower the regret is in each case with each seed.

    Args:
        differences: Differences by case and seed, in nats.
    """
    mean = statistics.fmean(map(statistics.fmean, differences))
    if any(len(by_seed) < 2 for by_seed in differences):
        return Gain(mean, None)
    squared = [statistics.variance(by_seed) / len(by_seed) for by_seed in differences]
    parts = [s**2 / (len(d) - 1) for s, d in zip(squared, differences, strict=True)]
    freedom = sum(squared) ** 2 / sum(parts) if sum(parts) > 0 else 1.0
    return Gain(mean, math.sqrt(sum(squared)) / len(differences), freedom)
