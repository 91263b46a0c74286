"""Runs: the list of runs, and the history of one run."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from advisor.report.words import outcome_word, short_name
from fslr.advisor.v1 import run_service_pb2

_SILENT = timedelta(minutes=15)
_CONCURRENT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in a list.

    Attributes:
        run: The run's short name.
        profile: The short name of the profile that it follows.
        last_step: Step of the last stored measurement.
        measurements: Number of stored measurements.
        lost_measurements: Number of measurements that were answered but not stored.
        create_time: Time of the first measurement, UTC.
        update_time: Time of the last measurement, UTC.
        state: The run's state in a word or two, see :func:`run_state`.
        loss: Training loss of the last measurement, in the user's unit; None: not reported.
        learning_rate: Largest scheduled learning rate of the last measurement; None: not reported.
    """

    run: str
    profile: str
    last_step: int
    measurements: int
    lost_measurements: int
    create_time: datetime
    update_time: datetime
    state: str
    loss: float | None
    learning_rate: float | None

    @classmethod
    def of(cls, run: run_service_pb2.Run, now: datetime) -> RunRow:
        """Return the row of a run.

        Args:
            run: The run.
            now: The time, UTC.
        """
        return cls(
            short_name(run.name),
            short_name(run.opening.profile),
            run.last_step,
            run.measurements,
            run.lost_measurements,
            run.create_time.ToDatetime(UTC),
            run.update_time.ToDatetime(UTC),
            run_state(run, now),
            run.loss if run.HasField("loss") else None,
            run.learning_rate if run.HasField("learning_rate") else None,
        )


def has_finished(run: run_service_pb2.Run, next_step: int) -> bool:
    """Return whether a run needs no further measurement.

    Args:
        run: The run.
        next_step: Step of its next measurement.
    """
    return 0 < run.opening.total_steps <= next_step


def run_state(run: run_service_pb2.Run, now: datetime) -> str:
    """Return a run's state: ``finished``, ``two jobs``, ``ended``, ``silent`` or ``training``.

    A run has ended if its job reported so, and no other job has reported a measurement since. It is
    silent if no measurement has arrived for a quarter of an hour and for three times its mean
    interval; nothing says whether it still trains.

    Args:
        run: The run.
        now: The time, UTC.
    """
    if has_finished(run, run.next_measurement_step):
        return "finished"
    created, updated = run.create_time.ToDatetime(UTC), run.update_time.ToDatetime(UTC)
    concurrent = run.concurrent_time.ToDatetime(UTC)
    if run.HasField("concurrent_time") and updated - concurrent < _CONCURRENT:
        return "two jobs"
    if run.HasField("end_time"):
        return "ended"
    interval = (updated - created) / (run.measurements - 1) if run.measurements > 1 else timedelta()
    return "silent" if now - updated > max(_SILENT, 3 * interval) else "training"


@dataclass(frozen=True, slots=True)
class MeasurementRow:
    """One measurement of a run with its answer.

    Attributes:
        step: Optimizer steps completed before the measured step.
        loss: Training loss, in the user's unit; None: not reported.
        total_rate: RMS change of the outputs by all groups together, in output units; None: not
            reported.
        linearity_error: Distance of the real change from the first-order one, a ratio; None: not
            reported.
        min_multiplier: Smallest recommended multiplier.
        median_multiplier: Median recommended multiplier.
        max_multiplier: Largest recommended multiplier.
        next_step: Step of the next measurement.
        outcomes: Outcomes in words with the number of groups, the most frequent first.
        is_stale: Whether the profile was answered from a cache while the store was unavailable.
    """

    step: int
    loss: float | None
    total_rate: float | None
    linearity_error: float | None
    min_multiplier: float
    median_multiplier: float
    max_multiplier: float
    next_step: int
    outcomes: tuple[tuple[str, int], ...]
    is_stale: bool

    @classmethod
    def of(cls, event: run_service_pb2.RunEvent) -> MeasurementRow:
        """Return the row of an event of a run's history."""
        measurement, answer = event.measurement, event.recommendation
        counts = Counter(outcome_word(outcome) for outcome in answer.outcomes)
        return cls(
            measurement.step,
            measurement.loss if measurement.HasField("loss") else None,
            measurement.total_rate if measurement.HasField("total_rate") else None,
            measurement.linearity_error if measurement.HasField("linearity_error") else None,
            min(answer.multipliers),
            statistics.median(answer.multipliers),
            max(answer.multipliers),
            answer.next_measurement_step,
            tuple(counts.most_common()),
            answer.stale,
        )
