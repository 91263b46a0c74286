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
    MEASURED = "measured"


class Alignment(enum.Enum):
    """Which moment of the profile a moment of the run is compared with."""

    STEP = "step"
    PROGRESS = "progress"


class UnmatchedRule(enum.Enum):
    """What happens to a group for which the profile has no counterpart."""

    ERROR = "error"
    HOLD = "hold"
    NEAREST_ROLE = "nearest role"


class Match(enum.Enum):
    """How a group found its counterpart in the profile."""

    NONE = "none"
    NAME = "name"
    ROLE = "role"
    ALIAS = "alias"
    NEAREST_ROLE = "nearest role"


class Outcome(enum.Enum):
    """Why a group's multiplier is what it is."""

    MATCHED = "matched"
    CLAMPED = "clamped"
    HELD_LOW_CONFIDENCE = "held: low confidence"
    HELD_ZERO_RATE = "held: zero rate"
    UNMATCHED = "unmatched"
    HELD_FROZEN = "held: frozen"
    LIMITED = "limited"

    @property
    def is_recommended(self) -> bool:
        """Whether the multiplier follows from the measurement, and is not only held."""
        return self in {Outcome.MATCHED, Outcome.CLAMPED, Outcome.LIMITED}


class Limit(enum.IntFlag):
    """The safeguards that changed a multiplier on its way from the ratio to the answer."""

    MIN_MULTIPLIER = 1
    MAX_MULTIPLIER = 2
    SLEW = 4
    DAMPING = 8
    CONFIDENCE = 16
    AVERAGING = 32


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that all runs on a profile share.

    Attributes:
        depth_rule: How depth differences are bridged.
        alignment: How moments of run and profile are aligned.
        unmatched_rule: What happens to groups without a counterpart.
        min_multiplier: Smallest multiplier, above 0.
        max_multiplier: Largest multiplier, at least ``min_multiplier``.
        max_relative_error: Largest relative error of reference over measured rate (of both
            together) with which it is used, above 0.
        min_interval_steps: Fewest optimizer steps between measurements, at least 1.
        max_interval_steps: Most optimizer steps between measurements.
        slew_limit: Largest factor, up or down, between a multiplier in force and its successor;
            above 1; None: no limit. A group's first recommendation is free of it.
        max_linearity_error: Linearity error above which raises are damped, above 0; None: never.
        min_rate_ratio: A rate below this part of the model's median rate counts as zero, in [0, 1);
            rounding alone leaves about 1e-7 of a rate.
        weigh_by_confidence: Whether moves no larger than the relative error are shrunk.
        first_step_only: Whether each group's first recommendation stays for good.
        freeze_after_step: Step from which on multipliers stay as they are; None: never.
        target_relative_error: Relative error that measurements are to have, above 0; the number of
            probes that it takes is part of every answer. None: as the client likes.
        max_probes: Most probes that are asked for, at least 1.
        averaging_window: Over which part of the training so far multipliers are averaged (their
            logarithms), in [0, 1]: 1 gives each moment since the start the same weight, less gives
            later ones more; 0: no averaging. A group's first recommendation is free of it.

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
    slew_limit: float | None = None
    max_linearity_error: float | None = None
    min_rate_ratio: float = 1e-6
    weigh_by_confidence: bool = True
    first_step_only: bool = False
    freeze_after_step: int | None = None
    target_relative_error: float | None = None
    max_probes: int = 64
    averaging_window: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        for field, above in (
            ("min_multiplier", 0),
            ("max_multiplier", 0),
            ("max_relative_error", 0),
            ("slew_limit", 1),
            ("max_linearity_error", 0),
            ("target_relative_error", 0),
        ):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value > above):
                raise InvalidValueError(field, f"{value} is not a finite number above {above}")
        if self.max_multiplier < self.min_multiplier:
            raise InvalidValueError(
                "max_multiplier",
                f"{self.max_multiplier} is below min_multiplier {self.min_multiplier}",
            )
        if not 0 <= self.min_rate_ratio < 1:
            raise InvalidValueError("min_rate_ratio", f"{self.min_rate_ratio} is not in [0, 1)")
        if not 0 <= self.averaging_window <= 1:
            raise InvalidValueError("averaging_window", f"{self.averaging_window} is not in [0, 1]")
        for field in ("min_interval_steps", "max_probes"):
            if getattr(self, field) < 1:
                raise InvalidValueError(field, f"{getattr(self, field)} is below 1")
        if self.max_interval_steps < self.min_interval_steps:
            raise InvalidValueError(
                "max_interval_steps",
                f"{self.max_interval_steps} is below min_interval_steps {self.min_interval_steps}",
            )
        if self.freeze_after_step is not None and self.freeze_after_step < 0:
            raise InvalidValueError("freeze_after_step", f"{self.freeze_after_step} is below 0")
