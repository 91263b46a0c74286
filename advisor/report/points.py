"""Measurements of a run, each reduced to what its pictures show: by role and by block."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from advisor.policy.arrays import Floats
from advisor.report.parts import Parts
from advisor.report.run_groups import RunGroups
from advisor.wire import packed
from fslr.advisor.v1 import advisor_service_pb2, layout_pb2, profile_pb2, run_service_pb2

_FLOAT, _DOUBLE = "<f4", "<f8"  # on the wire
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
        role_reference_shares: What ``role_shares`` would be if each group changed the outputs as
            far as its reference, with the correlations between groups that were measured; NaN: no
            group of the role has a reference. None: not known.
        role_multipliers: Geometric mean of the recommended multipliers of each role.
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
    role_reference_shares: Floats | None
    role_multipliers: Floats
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
        layout: The layout of the run's latest opening: the message, or the groups derived from it.
        profile: The content of the profile that the run follows, for the spread between its
            recordings. None: not known.

    Attributes:
        groups: The groups of the layout.
        roles: Their roles.
        blocks: Their blocks.

    Raises:
        InvalidValueError: The layout is not valid.
    """

    def __init__(
        self,
        layout: layout_pb2.Layout | RunGroups,
        profile: profile_pb2.ProfileContent | None = None,
    ) -> None:
        self.groups = layout if isinstance(layout, RunGroups) else RunGroups.of(layout)
        self.roles: Parts = self.groups.roles
        self.blocks: Parts = self.groups.blocks
        self._spread = _ReferenceSpread(profile)

    def fits(self, event: run_service_pb2.RunEvent) -> bool:
        """Return whether an event has as many groups as the layout.

        A run that was restarted with a different layout has earlier events that do not.
        """
        groups = len(self.groups)
        measurement, answer = event.measurement, event.recommendation
        return len(measurement.unit_rates) == len(answer.multipliers) == groups

    def read(self, event: run_service_pb2.RunEvent) -> Point:
        """Return the point of an event that :meth:`fits` the layout."""
        measurement, answer = event.measurement, event.recommendation
        arrays = _Arrays.of(event)
        multipliers, learning_rates = arrays.recommended, arrays.learning_rates
        errors, shares = arrays.relative_errors, arrays.shares
        reference = _reference_total_rate(measurement, arrays)
        low, high = self._spread.around(reference, answer.profile_step)
        median = high_error = 0.0
        if errors is not None:
            median, high_error = np.quantile(errors, (0.5, _HIGH_ERROR)).tolist()
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
            relative_error=median,
            high_relative_error=high_error,
            role_shares=None if shares is None else self.roles.sums(shares),
            block_shares=None if shares is None else self.blocks.sums(shares),
            role_reference_shares=_reference_shares(arrays, self.roles),
            role_multipliers=self.roles.geometric_means(multipliers),
            role_learning_rates=(
                None
                if learning_rates is None
                else self.roles.geometric_means(learning_rates * multipliers)
            ),
            min_multiplier=float(multipliers.min()),
            max_multiplier=float(multipliers.max()),
            outcomes=arrays.outcomes,
            next_step=answer.next_measurement_step,
            examples=measurement.examples,
            measuring_seconds=_optional(measurement, "measuring_seconds"),
            measuring_overhead=_optional(measurement, "measuring_overhead"),
            profile=answer.profile,
            is_stale=answer.stale,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Arrays:
    """The arrays of an event that a point is made of, one number for each group.

    They are read as bytes: 10,000 groups take less than a millisecond, and ten times as long by the
    fields of the contract's messages, which create an object for each number.

    Attributes:
        unit_rates: Measured unit rates.
        references: Unit rates of the profile; 0: no matching group.
        learning_rates: Scheduled learning rates; None: not reported.
        in_force: Multipliers during the measured step; None: not reported.
        recommended: Recommended multipliers.
        relative_errors: Relative errors of the unit rates; None: not reported.
        shares: Signed parts in the squared total rate; None: not reported.
        outcomes: Number of groups with each outcome.
    """

    unit_rates: Floats
    references: Floats
    learning_rates: Floats | None
    in_force: Floats | None
    recommended: Floats
    relative_errors: Floats | None
    shares: Floats | None
    outcomes: Counter[int]

    @classmethod
    def of(cls, event: run_service_pb2.RunEvent) -> _Arrays:
        """Return the arrays of an event."""
        measured = packed.packed_measurement(event.measurement)
        answer = packed.packed_response(event.recommendation)
        codes, counts = np.unique(packed.integers(answer.outcomes), return_counts=True)
        return cls(
            unit_rates=packed.numbers(measured.unit_rates, _FLOAT),
            references=packed.numbers(answer.reference_unit_rates, _FLOAT),
            learning_rates=_numbers(measured.learning_rates, _FLOAT),
            in_force=_numbers(measured.multipliers, _DOUBLE),
            recommended=packed.numbers(answer.multipliers, _DOUBLE),
            relative_errors=_numbers(measured.relative_errors, _FLOAT),
            shares=_numbers(measured.shares, _FLOAT),
            outcomes=Counter(dict(zip(codes.tolist(), counts.tolist(), strict=True))),
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
    return _reference_total_rate(event.measurement, _Arrays.of(event))


def _reference_total_rate(
    measurement: advisor_service_pb2.Measurement, arrays: _Arrays
) -> float | None:
    if not measurement.HasField("total_rate"):
        return None
    measured, references = _squared_rates(arrays)
    squared = float(measured.sum())
    if squared == 0:
        return None
    found = float(measurement.total_rate * np.sqrt(references.sum() / squared))
    return found if np.isfinite(found) else None


def _reference_shares(arrays: _Arrays, parts: Parts) -> Floats | None:
    """Return the share of each part if each group had the rate of its reference; None: not known.

    With the correlations between groups that were measured, as in :func:`reference_total_rate`, a
    share grows as the square of the group's rate. Groups without a reference count as if they were
    as far from it as all others together.
    """
    if arrays.shares is None:
        return None
    measured, references = _squared_rates(arrays)
    matched = measured > 0
    if not matched.any():
        return None
    ratios = np.full(len(measured), references.sum() / measured.sum())
    np.divide(references, measured, out=ratios, where=matched)
    shares = arrays.shares * ratios
    total = float(shares.sum())
    if not 0 < total < np.inf:
        return None
    found = parts.sums(shares / total)
    found[parts.sums(matched.astype(np.float64)) == 0] = np.nan
    return found


def _squared_rates(arrays: _Arrays) -> tuple[Floats, Floats]:
    """Return the squared rates of the groups, measured and of their references.

    Both have the scheduled learning rates; they are 0 for a group that lacks one of the two.
    """
    ones = np.ones(len(arrays.unit_rates))
    scheduled = ones if arrays.learning_rates is None else arrays.learning_rates
    in_force = ones if arrays.in_force is None else arrays.in_force
    measured = arrays.unit_rates * scheduled * in_force
    matched = (measured > 0) & (arrays.references > 0)
    references = arrays.references * scheduled
    return np.where(matched, measured, 0.0) ** 2, np.where(matched, references, 0.0) ** 2


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


def _numbers(data: bytes, dtype: str) -> Floats | None:
    """Return an array of numbers; None if it is absent."""
    return packed.numbers(data, dtype) if data else None


def _largest(learning_rates: Floats) -> float:
    """Return the largest of some learning rates, which are stored in single precision."""
    return float(str(np.float32(learning_rates.max())))
