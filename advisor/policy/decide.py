"""From one measurement to multipliers: a short pipeline of stages, each of one function shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy.errors import InvalidValueError
from advisor.policy.mapping import LayoutMapping
from advisor.policy.reference import MAX_STEP, Profile, Reference
from advisor.policy.rules import Alignment, Outcome, Policy

Floats = NDArray[np.float64]

# A move of multipliers below this (RMS of the logarithms) is rest: measure half as often; above
# twice this it is motion: measure twice as often.
_REST = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """Unit rates of one step, in layout order.

    Attributes:
        step: Optimizer steps completed before the measured step, >= 0.
        unit_rates: In output units per learning rate, finite, >= 0, shape [groups].
        relative_errors: Ratios, finite, >= 0, shape [groups].
        multipliers: In force during the measured step, finite, > 0, shape [groups].
        interval_steps: Steps since the measurement before; 0: there was none.
        total_steps: Planned steps of the run; 0: unknown.
    """

    step: int
    unit_rates: Floats
    relative_errors: Floats
    multipliers: Floats
    interval_steps: int = 0
    total_steps: int = 0

    def check(self, groups: int) -> None:
        """Check lengths and ranges.

        Args:
            groups: Number of groups of the layout.

        Raises:
            InvalidValueError: An array has another length, or a value is out of its range.
        """
        for field in ("step", "interval_steps"):
            if not 0 <= getattr(self, field) <= MAX_STEP:
                raise InvalidValueError(field, f"{getattr(self, field)} is not in [0, {MAX_STEP}]")
        for field, positive in (
            ("unit_rates", False),
            ("relative_errors", False),
            ("multipliers", True),
        ):
            values = getattr(self, field)
            if len(values) != groups:
                raise InvalidValueError(
                    field,
                    f"{len(values)} entries, but the layout has {groups} groups; "
                    "send one entry for each group in layout order",
                )
            good = np.isfinite(values) & ((values > 0) if positive else (values >= 0))
            if not good.all():
                i = int(np.argmin(good))
                wanted = "above 0" if positive else "of at least 0"
                raise InvalidValueError(
                    f"{field}[{i}]", f"{values[i]} is not a finite number {wanted}"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Recommendation:
    """The answer to one measurement, in layout order.

    Attributes:
        multipliers: Finite and inside the policy's bounds, shape [groups].
        outcomes: Why each is what it is.
        references: Reference unit rates after depth, 0 where unmatched, shape [groups].
        next_measurement_step: The step at which to measure next.
    """

    multipliers: Floats
    outcomes: tuple[Outcome, ...]
    references: Floats
    next_measurement_step: int


@dataclass(slots=True, eq=False)
class _Draft:
    """What the stages work on: multipliers so far, and for settled groups the outcome's reason."""

    measurement: Measurement
    matched: NDArray[np.bool_]
    references: Floats
    multipliers: Floats
    outcomes: NDArray[np.object_]

    def hold(self, where: NDArray[np.bool_], outcome: Outcome) -> None:
        """Keep the multipliers in force where ``where`` holds and nothing was settled before."""
        where = where & (self.outcomes == Outcome.MATCHED)
        self.multipliers[where] = self.measurement.multipliers[where]
        self.outcomes[where] = outcome


_Stage = Callable[[_Draft, Policy], None]


def _hold_unmatched(draft: _Draft, _policy: Policy) -> None:
    draft.hold(~draft.matched, Outcome.UNMATCHED)


def _hold_zero_rates(draft: _Draft, _policy: Policy) -> None:
    zero = (draft.measurement.unit_rates == 0) | (draft.references == 0)
    draft.hold(zero, Outcome.HELD_ZERO_RATE)


def _hold_low_confidence(draft: _Draft, policy: Policy) -> None:
    unsure = draft.measurement.relative_errors > policy.max_relative_error
    draft.hold(unsure, Outcome.HELD_LOW_CONFIDENCE)


def _bound(draft: _Draft, policy: Policy) -> None:
    bounded = np.clip(draft.multipliers, policy.min_multiplier, policy.max_multiplier)
    clamped = (bounded != draft.multipliers) & (draft.outcomes == Outcome.MATCHED)
    draft.outcomes[clamped] = Outcome.CLAMPED
    draft.multipliers[:] = bounded


_STAGES: tuple[_Stage, ...] = (_hold_unmatched, _hold_zero_rates, _hold_low_confidence, _bound)


def recommend(
    profile: Profile,
    reference: Reference,
    mapping: LayoutMapping,
    policy: Policy,
    measurement: Measurement,
) -> Recommendation:
    """Return the multipliers for one measurement.

    Args:
        profile: The profile.
        reference: ``Reference(profile)``, built once.
        mapping: The run's layout mapped onto the profile's, built once.
        policy: The rules, the profile's own or the run's.
        measurement: What the run measured.

    Raises:
        InvalidValueError: The measurement is out of range, or alignment by progress lacks the run's
            planned steps.
    """
    measurement.check(len(mapping.matched))
    references = mapping.references(reference.at(_profile_step(profile, policy, measurement)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = references / measurement.unit_rates
    draft = _Draft(
        measurement,
        mapping.matched,
        references,
        ratios,
        np.full(len(ratios), Outcome.MATCHED, dtype=np.object_),
    )
    for stage in _STAGES:
        stage(draft, policy)
    return Recommendation(
        draft.multipliers,
        tuple(draft.outcomes),
        references,
        measurement.step + _interval(policy, measurement, draft.multipliers),
    )


def _profile_step(profile: Profile, policy: Policy, measurement: Measurement) -> float:
    """Return the step of the profile's training that the measured step is compared with."""
    if policy.alignment is Alignment.STEP:
        return float(measurement.step)
    if measurement.total_steps < 1:
        raise InvalidValueError(
            "total_steps",
            "alignment by progress needs the run's planned number of steps; give total_steps",
        )
    return measurement.step / measurement.total_steps * profile.total_steps


def _interval(policy: Policy, measurement: Measurement, multipliers: Floats) -> int:
    """Return after how many steps to measure next: sooner while multipliers move."""
    if measurement.interval_steps == 0:
        return policy.min_interval_steps
    moves = np.log(multipliers / measurement.multipliers)
    move = float(np.sqrt(np.mean(np.square(moves))))
    factor = min(max(_REST / move, 0.5), 2.0) if move > 0 else 2.0
    wanted = round(measurement.interval_steps * factor)
    return min(max(wanted, policy.min_interval_steps), policy.max_interval_steps)
