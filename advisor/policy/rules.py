"""The rules that a team can choose, with their defaults, and the outcomes they lead to."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from advisor.policy.errors import InvalidValueError


class DepthRule(enum.Enum):
    """How a block's reference rate is shared out over a stretch of a deeper model."""

    SUM = "sum"
    SQRT = "sqrt"
    COPY = "copy"


class Alignment(enum.Enum):
    """Which moment of the profile a moment of the run is compared with."""

    STEP = "step"
    PROGRESS = "progress"


class UnmatchedRule(enum.Enum):
    """What happens to a group for which the profile has no counterpart."""

    ERROR = "error"
    HOLD = "hold"


class Outcome(enum.Enum):
    """Why a group's multiplier is what it is."""

    MATCHED = "matched"
    CLAMPED = "clamped"
    HELD_LOW_CONFIDENCE = "held: low confidence"
    HELD_ZERO_RATE = "held: zero rate"
    UNMATCHED = "unmatched"


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that all runs on a profile share.

    Attributes:
        depth_rule: How depth differences are bridged.
        alignment: How moments of run and profile are aligned.
        unmatched_rule: What happens to groups without a counterpart.
        min_multiplier: Smallest multiplier, above 0.
        max_multiplier: Largest multiplier, at least ``min_multiplier``.
        max_relative_error: Largest relative error with which a measurement is used, above 0.
        min_interval_steps: Fewest optimizer steps between measurements, at least 1.
        max_interval_steps: Most optimizer steps between measurements.

    Raises:
        InvalidValueError: A rule is out of its range.
    """

    depth_rule: DepthRule = DepthRule.SUM
    alignment: Alignment = Alignment.STEP
    unmatched_rule: UnmatchedRule = UnmatchedRule.ERROR
    min_multiplier: float = 2.0**-10
    max_multiplier: float = 2.0**10
    max_relative_error: float = 0.5
    min_interval_steps: int = 25
    max_interval_steps: int = 100

    def __post_init__(self) -> None:
        """Check the ranges."""
        for field in ("min_multiplier", "max_multiplier", "max_relative_error"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise InvalidValueError(field, f"{value} is not a finite number above 0")
        if self.max_multiplier < self.min_multiplier:
            raise InvalidValueError(
                "max_multiplier",
                f"{self.max_multiplier} is below min_multiplier {self.min_multiplier}",
            )
        if self.min_interval_steps < 1:
            raise InvalidValueError("min_interval_steps", f"{self.min_interval_steps} is below 1")
        if self.max_interval_steps < self.min_interval_steps:
            raise InvalidValueError(
                "max_interval_steps",
                f"{self.max_interval_steps} is below min_interval_steps {self.min_interval_steps}",
            )
