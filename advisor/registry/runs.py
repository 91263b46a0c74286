"""What is kept of a run: its summary and events, both encoded by the transport, and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import NamedTuple

from advisor.registry.resource_names import RunName


class EventToStore(NamedTuple):
    """A measurement with its answer, before it is stored.

    Attributes:
        run: The run.
        opening: The run's opening, encoded.
        event: The event, encoded.
        step: The measurement's step.
        time_ms: When the service answered, in milliseconds since 1970.
        session: Identifies the job; empty: not known.
        loss: Training loss; None: not reported.
        learning_rates: Scheduled learning rates of the groups, as float32 numbers; empty: not
            reported.
        next_step: Step of the next measurement.
    """

    run: RunName
    opening: bytes
    event: bytes
    step: int
    time_ms: int
    session: str = ""
    loss: float | None = None
    learning_rates: bytes = b""
    next_step: int = 0


class EndToStore(NamedTuple):
    """The end of a job, as the job reported it.

    Attributes:
        run: The run.
        session: Identifies the job; not empty.
        time_ms: When the service received it, in milliseconds since 1970.
    """

    run: RunName
    session: str
    time_ms: int


class RecordResult(IntEnum):
    """What happened to the events of one run; false if they were not stored."""

    REFUSED = 0
    STORED = 1
    CONCURRENT = 2
    """They were stored, and another job reports measurements to the same run."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run's summary.

    Attributes:
        name: The run.
        opening: Its last opening, encoded.
        create_time: Time of the first stored measurement, UTC.
        update_time: Time of the last stored measurement, UTC.
        last_step: Step of the last stored measurement.
        measurements: Number of stored measurements.
        lost: Number of measurements that were answered but not stored.
        loss: Training loss of the last stored measurement; None: not reported.
        learning_rate: Largest scheduled learning rate of the last stored measurement; None: not
            reported.
        next_step: Step of the next measurement; 0: unknown.
        concurrent_time: When measurements of two jobs last arrived in turns, UTC; None: never.
        end_time: When the job that reported last said that it had ended, UTC; None: it did not.
    """

    name: RunName
    opening: bytes
    create_time: datetime
    update_time: datetime
    last_step: int
    measurements: int
    lost: int
    loss: float | None = None
    learning_rate: float | None = None
    next_step: int = 0
    concurrent_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of a run's history.

    Attributes:
        id: Its position; ids increase.
        event: The event, encoded.
    """

    id: str
    event: bytes


class MetricReport(NamedTuple):
    """Values of a run's own metrics at one step, before they are stored.

    Attributes:
        step: Optimizer steps completed before the values were measured.
        values: Name and value of each metric; values may be infinite or NaN.
    """

    step: int
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class StoredMetricReport:
    """Values of a run's own metrics at one step.

    Attributes:
        id: Its position; ids increase.
        time: When it was stored, UTC.
        step: Optimizer steps completed before the values were measured.
        values: The values by the metric's name; they may be infinite or NaN.
    """

    id: str
    time: datetime
    step: int
    values: Mapping[str, float]
