"""Stores measurements, answers and ends of jobs in the background.

The queue is bounded, and lost measurements are counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from typing import Protocol

import structlog

from advisor.errors import StoreUnavailableError
from advisor.observability.metrics import Metrics
from advisor.registry.resource_names import RunName
from advisor.registry.runs import EndToStore, EventToStore, RecordResult

_MAX_BATCH = 1_000  # events
_MAX_BATCH_BYTES = 4 * 2**20
_MAX_WAITING_BYTES = 256 * 2**20  # large events fill the memory before the queue is full
# Minimum time between writes. Events that arrive meanwhile are stored together, those of one run in
# one step, which costs far less. The first event after a pause is stored at once.
_MIN_INTERVAL_S = 0.05
_RETRY_S = 0.5
_CONCURRENT_MS = 3_600_000
_MAX_CONCURRENT_RUNS = 10_000
_MAX_LOGGED_RUNS = 3  # in one log line

_log = structlog.get_logger()


class EventStore(Protocol):
    """Where the events of runs are stored."""

    async def record(
        self, runs: Sequence[tuple[Sequence[EventToStore], int]]
    ) -> Sequence[RecordResult]:
        """Store events of several runs, and return for each run what happened to them.

        Args:
            runs: For each run its events in order, at least one, and the number of its events that
                were lost before them.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        ...

    async def end(self, ends: Sequence[EndToStore]) -> None:
        """Store that jobs have ended.

        Args:
            ends: The ends, at least one. The measurements of these jobs were stored before.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        ...


class Telemetry:
    """Queues events and stores them in batches; never delays its caller or raises.

    Events are lost if the queue is full or the store unavailable. The number of a run's lost events
    is stored with its next event; the total is logged once the store is available again. Ends of
    jobs wait in the same queue, and are lost in the same way without being counted.

    Args:
        store: Where events and ends are stored.
        capacity: Maximum number of waiting events and ends.
        metrics: Where losses are counted.
    """

    def __init__(self, store: EventStore, *, capacity: int, metrics: Metrics) -> None:
        self._metric = metrics.telemetry_lost
        self._store = store
        self._capacity = capacity
        self._waiting: deque[EventToStore | EndToStore] = deque()
        self._waiting_bytes = 0
        self._being_stored = 0
        self._next_at = 0.0  # of the event loop's clock
        self._not_empty = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._lost: Counter[RunName] = Counter()
        self._concurrent: dict[RunName, int] = {}  # when it was last seen, in ms
        self._task: asyncio.Task[None] | None = None

    @property
    def lost(self) -> int:
        """Number of lost events that the store does not know of yet."""
        return self._lost.total()

    def is_concurrent(self, run: RunName, now_ms: int) -> bool:
        """Return whether two jobs reported to a run within the last hour.

        Args:
            run: The run.
            now_ms: The time, in milliseconds since 1970.
        """
        seen_ms = self._concurrent.get(run)
        if seen_ms is None:
            return False
        if now_ms - seen_ms > _CONCURRENT_MS:
            del self._concurrent[run]
            return False
        return True

    def offer(self, entry: EventToStore | EndToStore) -> None:
        """Queue an event or an end; if the queue is full it is lost, and an event is counted."""
        if len(self._waiting) >= self._capacity or self._waiting_bytes >= _MAX_WAITING_BYTES:
            self._lose(entry)
            return
        if not self._waiting:
            self._not_empty.set()
            self._empty.clear()
        self._waiting.append(entry)
        self._waiting_bytes += _size(entry)

    def _lose(self, entry: EventToStore | EndToStore) -> None:
        if isinstance(entry, EventToStore):
            self._lost[entry.run] += 1
            self._metric.inc()

    def start(self) -> None:
        """Start storing; must be called in the running event loop."""
        self._task = asyncio.create_task(self._run(), name="telemetry")

    async def stop(self, *, deadline_s: float) -> None:
        """Store waiting events, for at most ``deadline_s`` seconds, and stop."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(deadline_s):
                await self._empty.wait()
        except TimeoutError:
            _log.warning(
                "telemetry lost on shutdown",
                events=len(self._waiting) + self._being_stored + self.lost,
            )
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    def _note_concurrent(self, run: RunName, time_ms: int) -> None:
        if run not in self._concurrent:
            _log.warning("two jobs report measurements to one run", run=str(run))
        while len(self._concurrent) >= _MAX_CONCURRENT_RUNS:
            del self._concurrent[next(iter(self._concurrent))]
        self._concurrent[run] = time_ms

    async def _run(self) -> None:
        unavailable = False
        while True:
            batch = await self._next_batch()
            try:
                await self._store_batch(batch)
            except StoreUnavailableError as error:
                for entry in batch:
                    self._lose(entry)
                if not unavailable:
                    _log.warning("telemetry is being lost", cause=str(error))
                unavailable = True
                await asyncio.sleep(_RETRY_S)
            except Exception:  # noqa: BLE001 - one bad event must not stop the telemetry of all runs
                for entry in batch:
                    self._lose(entry)
                _log.exception("telemetry lost", events=len(batch))
            else:
                if unavailable:
                    _log.info("telemetry is stored again", lost=self.lost)
                unavailable = False
            finally:
                self._being_stored = 0
                if not self._waiting:
                    self._empty.set()

    async def _next_batch(self) -> list[EventToStore | EndToStore]:
        """Wait for an entry, and return it with those queued behind it."""
        await self._not_empty.wait()
        now = asyncio.get_running_loop().time()
        if len(self._waiting) < _MAX_BATCH and now < self._next_at:
            await asyncio.sleep(self._next_at - now)
        self._next_at = max(now, self._next_at) + _MIN_INTERVAL_S
        batch: list[EventToStore | EndToStore] = []
        size = 0
        while self._waiting and len(batch) < _MAX_BATCH and size < _MAX_BATCH_BYTES:
            entry = self._waiting.popleft()
            batch.append(entry)
            size += _size(entry)
        self._waiting_bytes -= size
        if not self._waiting:
            self._not_empty.clear()
        self._being_stored = len(batch)
        return batch

    async def _store_batch(self, batch: list[EventToStore | EndToStore]) -> None:
        """Store the events of a batch, and then its ends: a job ends after its measurements."""
        events = [entry for entry in batch if isinstance(entry, EventToStore)]
        ends = [entry for entry in batch if isinstance(entry, EndToStore)]
        if events:
            await self._store_events(events)
        if ends:
            await self._end(ends)

    async def _end(self, ends: list[EndToStore]) -> None:
        try:
            await self._store.end(ends)
        except StoreUnavailableError as error:  # the events of the batch are stored
            _log.info("ends of jobs were not stored", ends=len(ends), cause=str(error))

    async def _store_events(self, batch: list[EventToStore]) -> None:
        """Store events, with the number of events that each run lost before."""
        runs: dict[RunName, list[EventToStore]] = {}
        for event in batch:
            runs.setdefault(event.run, []).append(event)
        lost = [self._lost[run] for run in runs]
        stored = await self._store.record(list(zip(runs.values(), lost, strict=True)))
        refused: Counter[RunName] = Counter()
        for (run, events), reported, was_stored in zip(runs.items(), lost, stored, strict=True):
            if was_stored:
                self._lost[run] -= reported
                if was_stored == RecordResult.CONCURRENT:
                    self._note_concurrent(run, events[-1].time_ms)
                continue
            for event in events:
                self._lose(event)
            refused[run] += len(events)
        if refused:
            _log.error(
                "telemetry refused by the store",
                events=refused.total(),
                runs=[str(run) for run in sorted(refused, key=str)[:_MAX_LOGGED_RUNS]],
            )
        self._lost += Counter()  # removes zeros


def _size(entry: EventToStore | EndToStore) -> int:
    """Return the size of an entry of the queue in bytes; an end counts as nothing.

    Entries of a stream share their opening, which counts for each: those of single calls do not.
    """
    return len(entry.event) + len(entry.opening) if isinstance(entry, EventToStore) else 0
