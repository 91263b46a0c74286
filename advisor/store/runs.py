"""Runs in Redis: for each run a summary and a capped history.

Openings and events are opaque bytes here. Telemetry may be lost, so nothing is retried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from redis.asyncio import Redis

from advisor.errors import RunNotFoundError
from advisor.registry.resource_names import RunName
from advisor.registry.runs import EndToStore, EventToStore, RecordResult, StoredEvent, StoredRun
from advisor.store import keys
from advisor.store.lua import load_script
from advisor.store.redis.commands import Call, batch
from advisor.store.redis.connection import awaited, store_errors
from advisor.store.times import from_ms

MAX_EVENTS = 10_000
LIFETIME_S = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class RunCursor:
    """A position in the list of a project's runs: after one of the runs.

    Attributes:
        created_ms: Creation time of that run, in milliseconds since 1970.
        run: The id of that run.
    """

    created_ms: int
    run: str


class RunStore:
    """Reads and writes runs.

    Args:
        redis: The client. It must not retry, because that could store an event twice.

    Raises:
        StoreUnavailableError: From every method, if Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._record = load_script(redis, "record_events")
        self._end = load_script(redis, "end_run")

    async def record(
        self, runs: Sequence[tuple[Sequence[EventToStore], int]]
    ) -> list[RecordResult]:
        """Store events of several runs, in one round trip per server.

        The events of one run are stored atomically.

        Args:
            runs: For each run its events in order, at least one, and the number of its events that
                were lost before them.

        Returns:
            For each run what happened to its events.
        """
        with store_errors():
            results = await batch(self._redis, [self._call(*pair) for pair in runs])
        return [
            RecordResult.REFUSED if isinstance(result, Exception) else RecordResult(result[0])
            for result in results
        ]

    def _call(self, events: Sequence[EventToStore], lost: int) -> Call:
        first, last = events[0], events[-1]
        own = keys.RunKeys(last.run)
        sessions = [session for session, _ in groupby(event.session for event in events)]
        return self._record.call(
            keys=[
                *(keys.runs(last.run.project), own.summary, own.events),
                *(own.metrics, own.metric_names),
            ],
            args=[
                *(last.run.run, last.opening, lost, MAX_EVENTS, LIFETIME_S),
                *(first.time_ms, last.time_ms, last.step),
                *("" if last.loss is None else repr(last.loss), _largest(last.learning_rates)),
                *(last.next_step, len(sessions), *sessions),
                *(event.event for event in events),
            ],
        )

    async def end(self, ends: Sequence[EndToStore]) -> None:
        """Store that jobs have ended; an end counts until a different job reports to the run.

        Args:
            ends: The ends.
        """
        calls = [
            self._end.call(keys=[keys.RunKeys(end.run).summary], args=[end.session, end.time_ms])
            for end in ends
        ]
        with store_errors():
            await batch(self._redis, calls)

    async def get(self, name: RunName) -> StoredRun:
        """Read a run's summary.

        Raises:
            RunNotFoundError: The run does not exist.
        """
        run = await self._summary(name)
        if run is None:
            raise RunNotFoundError(str(name))
        return run

    async def check_exists(self, name: RunName) -> None:
        """Check that a run exists, without reading its opening.

        Raises:
            RunNotFoundError: It does not exist.
        """
        with store_errors():
            if not await awaited(self._redis.hexists(keys.RunKeys(name).summary, "created")):
                raise RunNotFoundError(str(name))

    async def has_ended(self, name: RunName) -> bool:
        """Return whether the job of a run has reported that it ended; False for an unknown run."""
        fields = ("ended", "ended_session", "session")
        with store_errors():
            ended, of, latest = await awaited(
                self._redis.hmget(keys.RunKeys(name).summary, *fields)
            )
        return ended is not None and of == latest

    async def page(
        self, project: str, *, after: RunCursor | None, size: int
    ) -> tuple[list[StoredRun], RunCursor | None]:
        """Return a page of runs, the newest first, and a cursor if there are more.

        Args:
            project: The project.
            after: The cursor of the previous page; None: from the newest.
            size: Maximum number of entries, at least 1.
        """
        found: list[StoredRun] = []
        key = keys.runs(project)
        while True:
            with store_errors():
                start = await self._rank_after(key, after) if after else 0
                listed = await awaited(
                    self._redis.zrevrange(key, start, start + size, withscores=True)
                )
            for raw, score in listed:
                run = await self._summary(RunName(project, raw.decode()))
                if run is None:  # it has expired
                    with store_errors():
                        await awaited(self._redis.zrem(key, raw))
                    continue
                if len(found) == size:
                    return found, after
                found.append(run)
                after = RunCursor(int(score), run.name.run)
            if len(listed) <= size:
                return found, None

    async def _rank_after(self, key: str, cursor: RunCursor) -> int:
        """Return the rank after a cursor, even if its run has expired meanwhile."""
        rank = await awaited(self._redis.zrevrank(key, cursor.run))
        if rank is not None:
            return int(rank) + 1
        return int(await awaited(self._redis.zcount(key, f"({cursor.created_ms}", "+inf")))

    async def history(self, name: RunName, *, after: str, size: int) -> list[StoredEvent]:
        """Return up to ``size`` events after the event ``after``; empty: from the oldest."""
        with store_errors():
            entries = await awaited(
                self._redis.xrange(
                    keys.RunKeys(name).events, min=f"({after}" if after else "-", count=size
                )
            )
        return stored_events(entries)

    async def wait_for_events(
        self, name: RunName, *, after: str, size: int, wait_ms: int
    ) -> list[StoredEvent]:
        """Return up to ``size`` events after the event ``after``; wait if there are none yet."""
        (entries,) = await read_streams(
            self._redis, {keys.RunKeys(name).events: after}, size=size, wait_ms=wait_ms
        )
        return stored_events(entries)

    async def _summary(self, name: RunName) -> StoredRun | None:
        with store_errors():
            fields = await awaited(self._redis.hgetall(keys.RunKeys(name).summary))
        if not fields:
            return None
        concurrent = fields.get(b"concurrent")
        has_ended = b"ended" in fields and fields[b"ended_session"] == fields.get(b"session")
        return StoredRun(
            name=name,
            opening=fields[b"opening"],
            create_time=from_ms(int(fields[b"created"])),
            update_time=from_ms(int(fields[b"updated"])),
            last_step=int(fields[b"step"]),
            measurements=int(fields[b"measurements"]),
            lost=int(fields[b"lost"]),
            loss=_number(fields.get(b"loss")),
            learning_rate=_number(fields.get(b"learning_rate")),
            next_step=int(fields.get(b"next", 0)),
            concurrent_time=from_ms(int(concurrent)) if concurrent else None,
            end_time=from_ms(int(fields[b"ended"])) if has_ended else None,
        )


def _largest(learning_rates: bytes) -> str:
    """Return the largest of encoded learning rates, or nothing if there are none."""
    # In the fewest digits that single precision needs: 0.01, not 0.009999999776.
    return str(np.frombuffer(learning_rates, "<f4").max()) if learning_rates else ""


def _number(stored: bytes | None) -> float | None:
    return float(stored) if stored else None


async def read_streams(
    redis: Redis, after: Mapping[str, str], *, size: int, wait_ms: int
) -> list[list[Any]]:
    """Return the entries of several streams of one run; wait if there are none yet.

    Args:
        redis: The client.
        after: For each stream the id after which to read; empty: from the oldest.
        size: Maximum number of entries of each stream.
        wait_ms: Maximum time to wait, in milliseconds.
    """
    with store_errors():
        answer = await awaited(
            redis.xread({key: start or "0" for key, start in after.items()}, size, wait_ms)
        )
    found = dict(answer or [])
    return [_unwrapped(found.get(key.encode(), [])) for key in after]


def _unwrapped(entries: Any) -> Any:
    while len(entries) == 1 and entries and isinstance(entries[0], list):
        entries = entries[0]  # RESP3 wraps the entries of each stream in another list
    return entries


def stored_events(entries: Any) -> list[StoredEvent]:
    """Return the events of stream entries."""
    return [StoredEvent(entry[0].decode(), entry[1][b"event"]) for entry in entries]
