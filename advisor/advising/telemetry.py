"""The way of measurements and answers to the store: in the background, bounded, losses counted."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from typing import Protocol

import structlog

from advisor.errors import StoreUnavailableError
from advisor.observability.metrics import Metrics
from advisor.registry.resource_names import RunName
from advisor.registry.runs import EventToStore

_BATCH = 1_000
_BATCH_BYTES = 4 * 2**20
_MOST_BYTES = 256 * 2**20  # that wait: events of large layouts fill the memory before the queue
# The store is asked this seldom: events that come meanwhile go together, those of one run in one
# step, which costs it, and us, a fraction of as many steps. The first after a rest goes at once.
_PAUSE_S = 0.05
_RETRY_S = 0.5
_NAMED = 3  # runs in one line of the log

_log = structlog.get_logger()


class EventStore(Protocol):
    """Where the events of runs are stored."""

    async def record(self, runs: Sequence[tuple[Sequence[EventToStore], int]]) -> list[bool]:
        """Store events of several runs, and return for each run whether they were stored.

        Args:
            runs: For each run its events in order, at least one, and the number of its events that
                were lost before them.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        ...


class Telemetry:
    """Queues events and stores them in batches; never delays or fails its caller.

    A full queue, or a store that is away, loses events. The count of a run's lost events is stored
    with its next event; the total is logged when the store is back.

    Args:
        store: The store.
        capacity: Most events that wait.
        metrics: Where losses are counted.
    """

    def __init__(self, store: EventStore, *, capacity: int, metrics: Metrics) -> None:
        self._metric = metrics.telemetry_lost
        self._store = store
        self._capacity = capacity
        self._waiting: deque[EventToStore] = deque()
        self._waiting_bytes = 0
        self._under_way = 0
        self._next_at = 0.0  # of the event loop's clock
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()
        self._lost: Counter[RunName] = Counter()
        self._task: asyncio.Task[None] | None = None

    @property
    def lost(self) -> int:
        """Number of events lost whose count is not stored yet."""
        return self._lost.total()

    def offer(self, event: EventToStore) -> None:
        """Queue an event, or count it as lost if the queue is full."""
        if len(self._waiting) >= self._capacity or self._waiting_bytes >= _MOST_BYTES:
            self._lose(event)
            return
        if not self._waiting:
            self._some.set()
            self._none.clear()
        self._waiting.append(event)
        self._waiting_bytes += len(event.event)

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
                await self._none.wait()
        except TimeoutError:
            _log.warning(
                "telemetry lost at the end", events=len(self._waiting) + self._under_way + self.lost
            )
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
                self._under_way = 0
                if not self._waiting:
                    self._none.set()

    async def _next_batch(self) -> list[EventToStore]:
        """Wait for an event, and return it with those that wait behind it."""
        await self._some.wait()
        now = asyncio.get_running_loop().time()
        if len(self._waiting) < _BATCH and now < self._next_at:
            await asyncio.sleep(self._next_at - now)
        self._next_at = max(now, self._next_at) + _PAUSE_S
        batch: list[EventToStore] = []
        size = 0
        while self._waiting and len(batch) < _BATCH and size < _BATCH_BYTES:
            event = self._waiting.popleft()
            batch.append(event)
            size += len(event.event)
        self._waiting_bytes -= size
        if not self._waiting:
            self._some.clear()
        self._under_way = len(batch)
        return batch

    async def _store_batch(self, batch: list[EventToStore]) -> None:
        """Store a batch run by run, with the count of the run's events that were lost before."""
        runs: dict[RunName, list[EventToStore]] = {}
        for event in batch:
            runs.setdefault(event.run, []).append(event)
        lost = [self._lost[run] for run in runs]
        stored = await self._store.record(list(zip(runs.values(), lost, strict=True)))
        refused: Counter[RunName] = Counter()
        for (run, events), told, was_stored in zip(runs.items(), lost, stored, strict=True):
            if was_stored:
                self._lost[run] -= told
                continue
            for event in events:
                self._lose(event)
            refused[run] += len(events)
        if refused:
            _log.error(
                "telemetry refused by the store",
                events=refused.total(),
                runs=[str(run) for run in sorted(refused, key=str)[:_NAMED]],
            )
        self._lost += Counter()  # drops the zeros
