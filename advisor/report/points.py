"""Measurements of a run, each reduced to what its pictures show: by role and by block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from advisor.policy import Layout
from advisor.policy.arrays import Floats
from advisor.report.parts import Parts, by_block, by_role
from advisor.wire.layouts import layout_from_proto
from fslr.advisor.v1 import advisor_service_pb2, layout_pb2, profile_pb2, run_service_pb2

_HIGH_ERROR = 0.9  # the quantile of relative errors that stands for the large ones


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One measurement of a run with its answer.

    Attributes:
        id: Position in the run's history.
        time: When the service answered, UTC.
        step: Optimizer steps completed before the measured step.
        loss: Training loss, in the user's unit; None: not reported.
        learning_rate: Largest scheduled learning rate; None: not reported.
        total_rate: RMS change of the outputs by all groups together, in output units; None: not
            reported.
        reference_total_rate: What ``total_rate`` would be if each group changed the outputs as far
            as its reference, with the correlations between groups that were measured, in output
            units; None: not known.
        reference_low: The lower end of the range that recordings of the profile with different
            seeds span, in output units; None: the profile has one recording.
        reference_high: The upper end.
        linearity_error: Distance of the real change from the first-order one, a ratio; None: not
            reported.
        relative_error: Median relative error of the unit rates, a ratio.
        high_relative_error: The relative error that one group of ten exceeds, a ratio.
        role_shares: Part of each role in the squared total rate, signed ratios that sum to 1; None:
            not reported.
        block_shares: Part of each block, likewise.
        role_multipliers: Geometric mean of the recommended multipliers of each role.
        block_multipliers: Geometric mean of those of each block.
        role_learning_rates: Geometric mean of the scheduled learning rates of each role, each times
            its recommended multiplier; None: not reported.
        min_multiplier: Smallest recommended multiplier.
        max_multiplier: Largest recommended multiplier.
        outcomes: Number of groups with each outcome, by the outcome's number.
        next_step: Step of the next measurement.
        examples: Number of examples that were measured; 0: not reported.
        measuring_seconds: How long the measurement took, in seconds; None: not reported.
        measuring_overhead: Time of all earlier measurements of the job per time that it trained, a
            ratio; None: not reported.
        profile: The profile version that the answer follows.
        is_stale: Whether the profile was answered from a cache while the store was unavailable.
    """

    id: str
    time: datetime
    step: int
    loss: float | None
    learning_rate: float | None
    total_rate: float | None
    reference_total_rate: float | None
    reference_low: float | None
    reference_high: float | None
    linearity_error: float | None
    relative_error: float
    high_relative_error: float
    role_shares: Floats | None
    block_shares: Floats | None
    role_multipliers: Floats
    block_multipliers: Floats
    role_learning_rates: Floats | None
    min_multiplier: float
    max_multiplier: float
    outcomes: Counter[int]
    next_step: int
    examples: int
    measuring_seconds: float | None
    measuring_overhead: float | None
    profile: str
    is_stale: bool


class PointReader:
    """Reduces the events of a run to points, one at a time, so that memory stays small.

    Args:
        layout: The layout of the run's latest opening.
        profile: The content of the profile that the run follows, for the spread between its
            recordings. None: not known.

    Attributes:
        layout: The layout, with roles.
        roles: Its roles.
        blocks: Its blocks.

    Raises:
        InvalidValueError: The layout is not valid.
    """

    def __init__(
        self, layout: layout_pb2.Layout, profile: profile_pb2.ProfileContent | None = None
    ) -> None:
        self.layout: Layout = layout_from_proto(layout)
        self.roles: Parts = by_role(self.layout)
        self.blocks: Parts = by_block(self.layout)
        self._spread = _ReferenceSpread(profile)

    def fits(self, event: run_service_pb2.RunEvent) -> bool:
        """Return whether an event has as many groups as the layout.

        A run that was restarted with a different layout has earlier events that do not.
        """
        groups = len(self.layout)
        measurement, answer = event.measurement, event.recommendation
        return len(measurement.unit_rates) == len(answer.multipliers) == groups

    def read(self, event: run_service_pb2.RunEvent) -> Point:
        """Return the point of an event that :meth:`fits` the layout."""
        measurement, answer = event.measurement, event.recommendation
        multipliers = np.array(answer.multipliers)
        learning_rates = _array(measurement.learning_rates)
        shares = _array(measurement.shares)
        errors = _array(measurement.relative_errors)
        reference = reference_total_rate(event)
        low, high = self._spread.around(reference, answer.profile_step)
        return Point(
            id=event.id,
            time=event.time.ToDatetime(UTC),
            step=measurement.step,
            loss=_optional(measurement, "loss"),
            learning_rate=None if learning_rates is None else _largest(learning_rates),
            total_rate=_optional(measurement, "total_rate"),
            reference_total_rate=reference,
            reference_low=low,
            reference_high=high,
            linearity_error=_optional(measurement, "linearity_error"),
            relative_error=0.0 if errors is None else float(np.median(errors)),
            high_relative_error=0.0 if errors is None else float(np.quantile(errors, _HIGH_ERROR)),
            role_shares=None if shares is None else self.roles.sums(shares),
            block_shares=None if shares is None else self.blocks.sums(shares),
            role_multipliers=self.roles.geometric_means(multipliers),
            block_multipliers=self.blocks.geometric_means(multipliers),
            role_learning_rates=(
                None
                if learning_rates is None
                else self.roles.geometric_means(learning_rates * multipliers)
            ),
            min_multiplier=float(multipliers.min()),
            max_multiplier=float(multipliers.max()),
            outcomes=Counter(answer.outcomes),
            next_step=answer.next_measurement_step,
            examples=measurement.examples,
            measuring_seconds=_optional(measurement, "measuring_seconds"),
            measuring_overhead=_optional(measurement, "measuring_overhead"),
            profile=answer.profile,
            is_stale=answer.stale,
        )


def reference_total_rate(event: run_service_pb2.RunEvent) -> float | None:
    """Return what the total rate would be if each group had the rate of its reference.

    A profile has rates of groups, and no total rate of a model of this width and depth. The
    correlations between groups are taken from the measurement: they make the total rate
    ``sqrt(c * sum of squared rates)`` with a factor ``c`` that is the same for both. It is exact if
    all rates change by the same factor.

    Args:
        event: The measurement and its answer.

    Returns:
        The total rate, in output units; None: the measurement has none, or no group has both rates.
    """
    measurement, answer = event.measurement, event.recommendation
    if not measurement.HasField("total_rate"):
        return None
    unit_rates = np.array(measurement.unit_rates, np.float64)
    references = np.array(answer.reference_unit_rates, np.float64)
    ones = np.ones(len(unit_rates))
    learning_rates = _array(measurement.learning_rates)
    in_force = _array(measurement.multipliers)
    scheduled = ones if learning_rates is None else learning_rates
    measured = unit_rates * scheduled * (ones if in_force is None else in_force)
    matched = (measured > 0) & (references > 0)
    squared = float(np.sum(measured[matched] ** 2))
    if squared == 0:
        return None
    ratio = np.sum((references[matched] * scheduled[matched]) ** 2) / squared
    found = float(measurement.total_rate * np.sqrt(ratio))
    return found if np.isfinite(found) else None


class _ReferenceSpread:
    """How far the rates of a profile's recordings differ between seeds, by step.

    Args:
        profile: The profile; None: not known.
    """

    def __init__(self, profile: profile_pb2.ProfileContent | None) -> None:
        points = [] if profile is None else [p for p in profile.points if p.spreads]
        self._steps = [point.step for point in points]
        self._spreads = [_total_spread(point) for point in points]

    def around(
        self, total_rate: float | None, profile_step: float
    ) -> tuple[float, float] | tuple[None, None]:
        """Return the range of one standard deviation around a total rate; None: not known.

        Args:
            total_rate: The total rate, in output units; None: not known.
            profile_step: The step of the profile's training.
        """
        if not self._steps or total_rate is None:
            return None, None
        factor = float(np.exp(np.interp(profile_step, self._steps, self._spreads)))
        return total_rate / factor, total_rate * factor


def _total_spread(point: profile_pb2.ProfilePoint) -> float:
    """Return the spread of the root of the sum of squared rates.

    Groups count as their squared rates. Their deviations are taken to agree, which gives the widest
    range: recordings do not say how much they do.
    """
    squares = np.array(point.unit_rates, np.float64) ** 2
    spreads = np.array(point.spreads, np.float64)
    total = float(squares.sum())
    return float(spreads @ squares) / total if total > 0 else float(spreads.mean())


def _optional(measurement: advisor_service_pb2.Measurement, field: str) -> float | None:
    """Return a number of a measurement; None: it is absent."""
    return float(getattr(measurement, field)) if measurement.HasField(field) else None  # type: ignore[arg-type]


def _array(values: Sequence[float]) -> Floats | None:
    """Return a repeated field as an array; None if it is absent."""
    return np.array(values, np.float64) if len(values) else None


def _largest(learning_rates: Floats) -> float:
    """Return the largest of some learning rates, which are stored in single precision."""
    return float(str(np.float32(learning_rates.max())))
