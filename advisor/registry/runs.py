"""What is kept of a run: its summary and its events, both encoded by the transport."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
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
    """

    run: RunName
    opening: bytes
    event: bytes
    step: int
    time_ms: int


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
    """

    name: RunName
    opening: bytes
    create_time: datetime
    update_time: datetime
    last_step: int
    measurements: int
    lost: int


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of a run's history.

    Attributes:
        id: Its position; ids increase.
        event: The event, encoded.
    """

    id: str
    event: bytes
