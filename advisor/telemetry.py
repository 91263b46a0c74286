"""The way of measurements and answers to the store: in the background, bounded, losses counted."""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from advisor.errors import StoreUnavailableError
from advisor.metrics import Metrics
from advisor.names import RunName
from advisor.store.runs import EventToStore, RunStore

_BATCH = 100
_RETRY_S = 0.5
_NAMED = 3  # runs in one line of the log

_log = structlog.get_logger()


class Telemetry:
    """Queues events and stores them in batches; never delays or fails its caller.

    A full queue, or a store that is away, loses events. The count of a run's lost events is stored
    with its next event; the total is logged when the store is back.

    Args:
        store: The store.
        capacity: Most events that wait.
        metrics: Where losses are counted.
    """

    def __init__(self, store: RunStore, *, capacity: int, metrics: Metrics) -> None:
        self._metric = metrics.telemetry_lost
        self._store = store
        self._queue: asyncio.Queue[EventToStore] = asyncio.Queue(capacity)
        self._lost: Counter[RunName] = Counter()
        self._task: asyncio.Task[None] | None = None

    @property
    def lost(self) -> int:
        """Number of events lost whose count is not stored yet."""
        return self._lost.total()

    def offer(self, event: EventToStore) -> None:
        """Queue an event, or count it as lost if the queue is full."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._lose(event)

    def _lose(self, event: EventToStore) -> None:
        self._lost[event.run] += 1
        self._metric.inc()

    def start(self) -> None:
        """Begin to store; call it inside the running event loop."""
        self._task = asyncio.create_task(self._run(), name="telemetry")

    async def stop(self, *, deadline_s: float) -> None:
        """Store what waits, for at most ``deadline_s`` seconds, and end."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(deadline_s):
                await self._queue.join()
        except TimeoutError:
            _log.warning("telemetry lost at the end", events=self._queue.qsize() + self.lost)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _run(self) -> None:
        away = False
        while True:
            batch = await self._next_batch()
            try:
                await self._store_batch(batch)
            except StoreUnavailableError as error:
                for event in batch:
                    self._lose(event)
                if not away:
                    _log.warning("telemetry is being lost", cause=str(error))
                away = True
                await asyncio.sleep(_RETRY_S)
            except Exception:  # noqa: BLE001 - see above
                # One event that the store refuses must not end the telemetry of all.
                for event in batch:
                    self._lose(event)
                _log.exception("telemetry lost", events=len(batch))
            else:
                if away:
                    _log.info("telemetry is stored again", lost=self.lost)
                away = False
            finally:
                for _ in batch:
                    self._queue.task_done()

    async def _next_batch(self) -> list[EventToStore]:
        """Wait for an event, and return it with those that wait behind it."""
        batch = [await self._queue.get()]
        while len(batch) < _BATCH and not self._queue.empty():
            batch.append(self._queue.get_nowait())
        return batch

    async def _store_batch(self, batch: list[EventToStore]) -> None:
        """Store a batch, each run's count of lost events with its first event of the batch."""
        counts = Counter({event.run: self._lost[event.run] for event in reversed(batch)})
        untold = dict(counts)
        stored = await self._store.record([(event, untold.pop(event.run, 0)) for event in batch])
        told = set()
        refused: Counter[RunName] = Counter()
        for event, was_stored in zip(batch, stored, strict=True):
            first = event.run not in told
            told.add(event.run)
            if not was_stored:
                self._lose(event)
                refused[event.run] += 1
            elif first:
                self._lost[event.run] -= counts[event.run]
        if refused:
            _log.error(
                "telemetry refused by the store",
                events=refused.total(),
                runs=[str(run) for run in sorted(refused, key=str)[:_NAMED]],
            )
        self._lost += Counter()  # drops the zeros
