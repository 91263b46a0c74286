"""Whether one variant's regret is lower than another's beyond the noise of seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

SIGNIFICANCE = 0.05  # chance above which variants are not told apart


@dataclass(frozen=True, slots=True)
class Gain:
    """How much lower the regret of one variant is than that of another, in nats.

    Attributes:
        mean: Over cases and seeds.
        standard_error: Of that, from differences of the same case and seed; None: one seed.
        degrees_of_freedom: Of the standard error (Welch and Satterthwaite: cases differ in noise).
    """

    mean: float
    standard_error: float | None
    degrees_of_freedom: float = 1.0

    @property
    def chance(self) -> float:
        """How likely so large a difference is by the seeds' noise alone, two-sided, in [0, 1]."""
        if self.standard_error is None:
            return 1.0
        if self.standard_error == 0:
            return 1.0 if self.mean == 0 else 0.0
        t = abs(self.mean) / self.standard_error
        return 2 * float(stats.t.sf(t, self.degrees_of_freedom))

    @property
    def is_beyond_noise(self) -> bool:
        """Whether chance alone makes it in less than one of twenty, in either direction."""
        return self.chance < SIGNIFICANCE


def gain_by_seed(differences: Sequence[Sequence[float]]) -> Gain:
    """Return what the differences of a lower regret, a row of seeds for each case, come to.

    Args:
        differences: By case and seed, in nats.
    """
    mean = statistics.fmean(map(statistics.fmean, differences))
    if any(len(by_seed) < 2 for by_seed in differences):
        return Gain(mean, None)
    squared = [statistics.variance(by_seed) / len(by_seed) for by_seed in differences]
    parts = [s**2 / (len(d) - 1) for s, d in zip(squared, differences, strict=True)]
    freedom = sum(squared) ** 2 / sum(parts) if sum(parts) > 0 else 1.0
    return Gain(mean, math.sqrt(sum(squared)) / len(differences), freedom)
