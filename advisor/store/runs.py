"""Runs in Redis: a summary and a capped history each.

Openings and events are bytes here: what they mean is the RPC layer's business. Telemetry may be
lost (the design says so), so nothing is retried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

from advisor.errors import RunNotFoundError
from advisor.names import RunName
from advisor.store import keys
from advisor.store.connection import awaited, load_script, store_errors

KEPT_EVENTS = 10_000
KEPT_S = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class EventToStore:
    """One measurement with its answer, on its way to the store.

    Attributes:
        run: The run.
        opening: The run's opening, encoded.
        event: The event, encoded.
        step: The measurement's step.
        time: When the service answered, UTC.
    """

    run: RunName
    opening: bytes
    event: bytes
    step: int
    time: datetime


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
        id: Its position; ids rise.
        event: The event, encoded.
    """

    id: str
    event: bytes


class RunStore:
    """Reads and writes runs.

    Args:
        redis: The client; without retries, or an event could be stored twice.

    Raises:
        StoreUnavailableError: By every method, when Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._record = load_script(redis, "record_event")

    async def record(self, events: Sequence[tuple[EventToStore, int]]) -> None:
        """Store events in order, in one round trip.

        Args:
            events: Pairs of an event and the number of the run's events lost before it.
        """
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for event, lost in events:
                    own = keys.RunKeys(event.run)
                    await self._record(
                        keys=[keys.runs(event.run.project), own.summary, own.events],
                        args=[
                            event.event,
                            event.step,
                            round(event.time.timestamp() * 1000),
                            event.run.run,
                            event.opening,
                            lost,
                            KEPT_EVENTS,
                            KEPT_S,
                        ],
                        client=pipeline,
                    )
                await pipeline.execute()

    async def get(self, name: RunName) -> StoredRun:
        """Read a run's summary.

        Raises:
            RunNotFoundError: There is no such run.
        """
        run = await self._summary(name)
        if run is None:
            raise RunNotFoundError(str(name))
        return run

    async def page(self, project: str, *, after: str, size: int) -> tuple[list[StoredRun], str]:
        """Return a page of runs, the latest begun first, and a cursor if there is more.

        Args:
            project: The project.
            after: The cursor after which the page begins; empty: from the latest.
            size: Most entries, at least 1.
        """
        found: list[StoredRun] = []
        while True:
            with store_errors():
                batch = await awaited(
                    self._redis.zrevrangebylex(
                        keys.runs(project),
                        f"({after}" if after else "+",
                        "-",
                        start=0,
                        num=size + 1,
                    )
                )
            for raw in batch:
                member = raw.decode()
                run = await self._summary(RunName(project, member.partition(":")[2]))
                if run is None:  # its lifetime ended
                    with store_errors():
                        await awaited(self._redis.zrem(keys.runs(project), member))
                    continue
                if len(found) == size:
                    return found, after
                found.append(run)
                after = member
            if len(batch) <= size:
                return found, ""

    async def history(self, name: RunName, *, after: str, size: int) -> list[StoredEvent]:
        """Return up to ``size`` events after the id ``after`` (empty: from the oldest)."""
        with store_errors():
            entries = await awaited(
                self._redis.xrange(
                    keys.RunKeys(name).events, min=f"({after}" if after else "-", count=size
                )
            )
        return _events(entries)

    async def wait_for_events(
        self, name: RunName, *, after: str, size: int, wait_ms: int
    ) -> list[StoredEvent]:
        """Return up to ``size`` events after the id ``after``, waiting for the first of them."""
        with store_errors():
            answer = await awaited(
                self._redis.xread(
                    {keys.RunKeys(name).events: after or "0"}, count=size, block=wait_ms
                )
            )
        streams = (
            list(answer.values()) if isinstance(answer, dict) else [s[1] for s in answer or []]
        )
        return _events(streams[0]) if streams else []

    async def _summary(self, name: RunName) -> StoredRun | None:
        with store_errors():
            fields = await awaited(self._redis.hgetall(keys.RunKeys(name).summary))
        if not fields:
            return None
        return StoredRun(
            name=name,
            opening=fields[b"opening"],
            create_time=datetime.fromtimestamp(int(fields[b"created"]) / 1000, UTC),
            update_time=datetime.fromtimestamp(int(fields[b"updated"]) / 1000, UTC),
            last_step=int(fields[b"step"]),
            measurements=int(fields[b"measurements"]),
            lost=int(fields[b"lost"]),
        )


def _events(entries: Any) -> list[StoredEvent]:
    while len(entries) == 1 and entries and isinstance(entries[0], list):
        entries = entries[0]  # RESP3 nests the entries of each stream once more
    return [StoredEvent(entry[0].decode(), entry[1][b"event"]) for entry in entries]
