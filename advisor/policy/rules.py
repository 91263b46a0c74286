"""The rules that a team can choose, with their defaults, and the outcomes they lead to."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from advisor.policy.errors import InvalidValueError
from advisor.policy.ranges import COUNT, POSITIVE, STEP, Range


class DepthRule(enum.Enum):
    """How the rate of a base block is divided among the blocks of a deeper model."""

    SUM = "sum"
    SQRT = "sqrt"
    COPY = "copy"
    MEASURED = "measured"


class Alignment(enum.Enum):
    """Which step of the profile a step of the run is compared with."""

    STEP = "step"
    PROGRESS = "progress"


class UnmatchedRule(enum.Enum):
    """What happens to a group for which the profile has no counterpart."""

    ERROR = "error"
    HOLD = "hold"
    NEAREST_ROLE = "nearest role"


class PriorRule(enum.Enum):
    """Where multipliers start, before and beside what is measured."""

    SHAPES = "shapes"
    NONE = "none"


class WeightDecayRule(enum.Enum):
    """What a multiplier does to a group's weight decay."""

    INDEPENDENT = "independent"
    COUPLED = "coupled"


class Match(enum.Enum):
    """How a group found its counterpart in the profile."""

    NONE = "none"
    NAME = "name"
    ROLE = "role"
    ALIAS = "alias"
    NEAREST_ROLE = "nearest role"


class Outcome(enum.Enum):
    """The reason for a group's multiplier."""

    MATCHED = "matched"
    CLAMPED = "clamped"
    HELD_LOW_CONFIDENCE = "held: low confidence"
    HELD_ZERO_RATE = "held: zero rate"
    UNMATCHED = "unmatched"
    HELD_FROZEN = "held: frozen"
    LIMITED = "limited"
    PRIOR = "prior"  # nothing is measured yet

    @property
    def is_recommended(self) -> bool:
        """Whether the multiplier follows from the measurement, rather than being held."""
        return self in {Outcome.MATCHED, Outcome.CLAMPED, Outcome.LIMITED}


class Limit(enum.IntFlag):
    """The safeguards that changed a multiplier on its way from the ratio to the answer."""

    MIN_MULTIPLIER = 1
    MAX_MULTIPLIER = 2
    SLEW = 4
    DAMPING = 8
    CONFIDENCE = 16
    AVERAGING = 32
    CORRECTION = 64
    RELATIVE_UPDATE = 128
    ROUNDING = 256


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that all runs on a profile share.

    Attributes:
        depth_rule: How references follow from base rates where depth differs.
        alignment: How the steps of run and profile are aligned.
        unmatched_rule: What happens to groups without a counterpart.
        min_multiplier: Smallest multiplier, above 0.
        max_multiplier: Largest multiplier, at least ``min_multiplier``.
        max_relative_error: Largest relative error of the ratio of reference and measured rate at
            which it is used, above 0. Errors of both rates count.
        min_interval_steps: Minimum optimizer steps between measurements, at least 1.
        max_interval_steps: Maximum optimizer steps between measurements.
        slew_limit: Largest factor, up or down, between a multiplier in force and its successor,
            above 1; None: no limit. The first recommendation of a group without a prior is exempt.
        max_linearity_error: Linearity error above which increases are damped, above 0; None: never.
        min_rate_ratio: A rate below this fraction of the model's median rate counts as zero, in
            [0, 1). Rounding alone leaves about 1e-7 of a rate.
        weigh_by_confidence: Whether moves no larger than the relative error are shrunk.
        first_step_only: Whether each group's first recommendation is kept for good.
        freeze_after_step: Step from which multipliers no longer change; None: never.
        target_relative_error: Relative error that measurements should reach, above 0. Each answer
            says how many probes that takes. None: the client chooses the number of probes.
        max_probes: Maximum number of probes to ask for, at least 1.
        averaging_window: Fraction of the training so far over which the logarithms of multipliers
            are averaged, in [0, 1]. With 1 each step since the start has the same weight; with less
            later steps have more; 0 turns averaging off. The first recommendation of a group
            without a prior is exempt.
        prior: Where multipliers start, before and beside what is measured.
        correction_bound: Largest factor by which a group's multiplier may exceed its prior, at
            least 1. Groups without a prior are exempt.
        lower_correction_bound: Largest factor by which it may fall below its prior, at least 1. A
            multiplier that is too low costs less than one that is too high.
        rise_limit: Largest factor by which a multiplier may rise from one recommendation to the
            next, above 1; None: no limit. The first recommendation of a group without a prior is
            exempt.
        max_relative_update: Largest relative update (RMS of the update over RMS of the weights) of
            a group, as a multiple of the base's, above 0; None: no limit. Groups whose RMS is not
            known on both sides are exempt.
        weight_decay: What a multiplier does to a group's weight decay.
        dense_start_steps: While a run is younger than this, it measures again whenever its number
            of steps has doubled.
        reference_smoothing: Half the width of the window over which the logarithms of the profile's
            unit rates are smoothed, in logarithms of the step, in [0, 10]; 0: they are not.
        min_multiplier_without_prior: Smallest multiplier of groups without a prior, above 0.
        max_multiplier_without_prior: Largest one, at least the smallest one.
        multiplier_values_per_octave: Number of values between a multiplier and its double, in
            [0, 1024], to which multipliers are rounded whose relative error is larger than half the
            distance of two values; 0: none is rounded. A step of few distinct learning rates costs
            less.
        recipe: Name of the recipe whose factors on learning rates are the priors, whatever
            ``prior`` says; empty: none.

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
    prior: PriorRule = PriorRule.SHAPES
    correction_bound: float = 2.0
    lower_correction_bound: float = 4.0
    rise_limit: float | None = None
    max_relative_update: float | None = None
    weight_decay: WeightDecayRule = WeightDecayRule.COUPLED
    dense_start_steps: int = 0
    reference_smoothing: float = 0.0
    min_multiplier_without_prior: float = 2.0**-4
    max_multiplier_without_prior: float = 2.0**2
    multiplier_values_per_octave: int = 8
    recipe: str = ""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for field, allowed in _RANGES.items():
            value = getattr(self, field)
            if value is not None:
                allowed.check(field, value)
        if not 0 <= self.min_rate_ratio < 1:
            raise InvalidValueError("min_rate_ratio", f"{self.min_rate_ratio} is not in [0, 1)")
        for low, high in (
            ("min_multiplier", "max_multiplier"),
            ("min_interval_steps", "max_interval_steps"),
            ("min_multiplier_without_prior", "max_multiplier_without_prior"),
        ):
            lowest, highest = getattr(self, low), getattr(self, high)
            if highest < lowest:
                raise InvalidValueError(high, f"{highest} is below {low} {lowest}")


_AT_LEAST_1 = Range("is below 1", low=1)
_ABOVE_1 = Range("is not a finite number above 1", low=1, excludes_low=True)
_FACTOR = Range("is not a finite number of at least 1", low=1)
_RANGES = {
    "min_multiplier": POSITIVE,
    "max_multiplier": POSITIVE,
    "min_multiplier_without_prior": POSITIVE,
    "max_multiplier_without_prior": POSITIVE,
    "max_relative_error": POSITIVE,
    "slew_limit": _ABOVE_1,
    "correction_bound": _FACTOR,
    "lower_correction_bound": _FACTOR,
    "rise_limit": _ABOVE_1,
    "max_relative_update": POSITIVE,
    "dense_start_steps": STEP,
    "reference_smoothing": Range("is not in [0, 10]", low=0, high=10),
    "max_linearity_error": POSITIVE,
    "target_relative_error": POSITIVE,
    "averaging_window": Range("is not in [0, 1]", low=0, high=1),
    "min_interval_steps": _AT_LEAST_1,
    "max_probes": _AT_LEAST_1,
    "freeze_after_step": COUNT,
    "multiplier_values_per_octave": Range("is not in [0, 1024]", low=0, high=1024),
}


def check_bounds_include_one(policy: Policy) -> None:
    """Refuse bounds without 1, the multiplier of groups that have no recommendation yet or ever.

    Stored policies are not checked, so those of earlier versions keep their behavior.

    Raises:
        InvalidValueError: The bounds exclude 1.
    """
    for field, side in (
        ("min_multiplier", "above"),
        ("min_multiplier_without_prior", "above"),
        ("max_multiplier", "below"),
        ("max_multiplier_without_prior", "below"),
    ):
        value: float = getattr(policy, field)
        if (value > 1) if side == "above" else (value < 1):
            raise InvalidValueError(
                field,
                f"{value} is {side} 1, the multiplier of groups without a recommendation; bounds "
                "must include 1: to train all groups faster or slower, change the run's learning "
                "rate",
            )
