"""A profile's unit rates at any moment: interpolated in log space, held at the ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy.errors import InvalidValueError
from advisor.policy.layout import Layout
from advisor.policy.rules import Policy

MAX_POINTS = 100_000
MAX_STEP = 2**53  # beyond it steps are not exact as floating-point numbers
MAX_RATE = 1e30  # references are sums of rates, and travel as float32


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Unit rates of a base model over its training.

    Attributes:
        layout: The base model's groups.
        steps: Step of each recorded point, strictly rising, shape [points], int64.
        unit_rates: Recorded unit rates, finite, at least 0, shape [points, groups], float32.
        relative_errors: Relative errors of the unit rates, of the same shape; 0 where unknown.
        base_learning_rate: The learning rate that is transferred, above 0.
        total_steps: Planned optimizer steps of the recorded training, above the last point's step.
        policy: The rules for runs on this profile.

    Raises:
        InvalidValueError: A value is out of its range or of the wrong shape.
    """

    layout: Layout
    steps: NDArray[np.int64]
    unit_rates: NDArray[np.float32]
    relative_errors: NDArray[np.float32]
    base_learning_rate: float
    total_steps: int
    policy: Policy

    def __post_init__(self) -> None:
        """Check ranges and shapes."""
        if not 1 <= len(self.steps) <= MAX_POINTS:
            raise InvalidValueError(
                "points", f"{len(self.steps)} points, but 1 to {MAX_POINTS} are needed"
            )
        outside = np.flatnonzero((self.steps < 0) | (self.steps > MAX_STEP))
        if outside.size:
            i = int(outside[0])
            raise InvalidValueError(
                f"points[{i}].step", f"{self.steps[i]} is not in [0, {MAX_STEP}]"
            )
        falling = np.flatnonzero(self.steps[1:] <= self.steps[:-1])
        if falling.size:
            i = int(falling[0]) + 1
            raise InvalidValueError(
                f"points[{i}].step",
                f"{self.steps[i]} does not rise above {self.steps[i - 1]} of the point before",
            )
        for field, values in (
            ("unit_rates", self.unit_rates),
            ("relative_errors", self.relative_errors),
        ):
            bad = np.argwhere(~((values >= 0) & (values <= MAX_RATE)))
            if bad.size:
                point, group = (int(v) for v in bad[0])
                raise InvalidValueError(
                    f"points[{point}].{field}[{group}]",
                    f"{values[point, group]} of group {self.layout.groups[group].name!r} is not a "
                    f"number in [0, {MAX_RATE:g}]",
                )
        if not (math.isfinite(self.base_learning_rate) and self.base_learning_rate > 0):
            raise InvalidValueError(
                "base_learning_rate", f"{self.base_learning_rate} is not a finite number above 0"
            )
        if not self.steps[-1] < self.total_steps <= MAX_STEP + 1:
            raise InvalidValueError(
                "total_steps",
                f"{self.total_steps} is not above the last point's step {self.steps[-1]}, "
                f"or above {MAX_STEP + 1}",
            )


class Reference:
    """Reads a profile's unit rates at any step.

    A zero among positive rates of a group counts as not recorded (a logarithm has no place for it)
    and is filled by interpolation; a group with zeros alone has the rate 0.

    Args:
        profile: The profile.
    """

    def __init__(self, profile: Profile) -> None:
        self._steps = profile.steps.astype(np.float64)
        rates = profile.unit_rates.astype(np.float64)
        self._zero = ~(rates > 0).any(axis=0)
        with np.errstate(divide="ignore"):
            logs = np.log(rates)
        for group in np.flatnonzero((rates == 0).any(axis=0) & ~self._zero):
            some = rates[:, group] > 0
            logs[:, group] = np.interp(self._steps, self._steps[some], logs[some, group])
        self._logs = logs
        self._rates = np.where(rates > 0, rates, np.where(self._zero, 0.0, np.exp(logs)))

    def at(self, step: float) -> NDArray[np.float64]:
        """Return the unit rates at a step of the profile's training, shape [groups], each >= 0."""
        right = int(np.searchsorted(self._steps, step, side="right"))
        left = max(right - 1, 0)
        if right in (0, len(self._steps)) or step == self._steps[left]:
            held: NDArray[np.float64] = self._rates[left].copy()
            return held
        t = (step - self._steps[left]) / (self._steps[right] - self._steps[left])
        with np.errstate(invalid="ignore"):  # groups of zeros alone, replaced in the next line
            logs = (1 - t) * self._logs[left] + t * self._logs[right]
        return np.where(self._zero, 0.0, np.exp(logs))
