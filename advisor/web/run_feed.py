"""One run that pages look at: its history is read once and then followed, for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import structlog
from cachetools import LRUCache

from advisor.web.event_ids import is_after, latest
from advisor.web.fragments import Fragments
from advisor.web.history import History, Row
from advisor.web.history_reading import HistoryReader, Turns
from fslr.advisor.v1 import run_service_pb2
from fslr.errors import NotFoundError, PermissionDeniedError, ServiceError

MAX_MISSED = 500
"""Maximum number of measurements that a page is sent one by one; else it loads its curves again."""
_FIRST_VIEW_S = 0.3  # a history that takes longer to read is shown as an outline first
_FIRST_PAGES_S = 1.0  # for first views to be answered before a long history is read
_REST_S = 0.01  # between pages of a long history, so that other requests are answered
_SUMMARY_S = 10.0
_QUIET_S = 5.0  # then a page is told that the connection is still there
_BATCH_S = 1.0  # between two messages to a page: measurements of this time are sent together
_MIN_RETRY_S, _MAX_RETRY_S = 0.2, 2.0
_MAX_ENCODED = 64

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Update:
    """What is new for a page.

    Attributes:
        rows: The measurements after those that it has, oldest first; empty: something else has
            changed, or nothing has for a few seconds.
        must_reload: Whether there are too many, so that the page loads its curves again.
    """

    rows: list[Row]
    must_reload: bool = False


class RunFeed:
    """One run as one viewer may see it.

    Args:
        reader: Reads the run.

    Attributes:
        history: The run's history; an outline until ``complete``.
        complete: Whether the whole stored history has been read.
        version: Increases with each change.
        computing: Held while a part of a page is computed that takes long.
        parts: Parts of its pages that change with each measurement.
        fragments: Parts that take long to compute, by what they are, each with its period.
        encoded: The newest measurements as they are sent to pages, by their ids.
        problem: Why the service cannot be reached now; empty: it can.
        closed: Whether nothing more will come.
    """

    history: History

    def __init__(self, reader: HistoryReader) -> None:
        self._reader = reader
        self._opening: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._cursor = ""  # the last event that was read in order
        self._pages = 0
        self._used = self._summary_read = time.monotonic()
        self.complete = False
        self.version = 0
        self.computing = asyncio.Lock()
        self.parts = Fragments()
        self.fragments: dict[str, tuple[int, str]] = {}
        self.encoded: LRUCache[str, bytes] = LRUCache(_MAX_ENCODED)
        self._newest: tuple[tuple[str, int], list[Row] | None] = (("", -1), None)
        self.problem = ""
        self.closed = False

    @property
    def idle_s(self) -> float:
        """Time since the feed was last used, in seconds."""
        return 0.0 if self._pages else time.monotonic() - self._used

    def touch(self) -> None:
        """Note that the feed is used."""
        self._used = time.monotonic()

    async def begin(self) -> None:
        """Read the run, and start to read its history.

        Raises:
            ServiceError: The run cannot be read.
        """
        run = await self._reader.summary()
        self._task = self._opening = asyncio.create_task(self._open(run), name="open a run")
        # A page that was left before then never asks how it ended.
        self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def opened(self) -> None:
        """Wait until as much of the history is read as takes a moment.

        Raises:
            ServiceError: It cannot be read.
        """
        assert self._opening is not None  # noqa: S101 - it has begun
        await asyncio.shield(self._opening)

    async def _open(self, run: run_service_pb2.Run) -> None:
        """Read as much of the history as takes a moment; go on in the background."""
        try:
            reading = await self._read_first(run)
        except BaseException:
            self.closed = True  # the next request opens the run again
            raise
        self._task = asyncio.create_task(self._follow(reading), name="run feed")

    async def _read_first(self, run: run_service_pb2.Run) -> History | None:
        """Read a short history, or an outline of a long one.

        Returns:
            The history to go on with; None: an outline was read.
        """
        if self._reader.seconds_of(run) < _FIRST_VIEW_S:
            reading = self.history = await self._reader.new_history(run)
            started = time.monotonic()
            while not self.complete and time.monotonic() - started < _FIRST_VIEW_S:
                self.complete = not await self._read_page(reading)
            return reading
        self.history = await self._reader.outline(run)
        return None

    async def refresh_summary(self) -> None:
        """Read the run again if that was long ago: its end comes without a measurement.

        Raises:
            ServiceError: The run cannot be read.
        """
        if time.monotonic() - self._summary_read < _SUMMARY_S:
            return
        self._summary_read = time.monotonic()
        run = await self._reader.summary()
        known = self.history.figures.run
        if run.opening.layout == known.opening.layout:
            known.CopyFrom(run)
            self.version += 1

    async def close(self) -> None:
        """Stop following the run."""
        self.closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._notify()

    async def updates_after(self, after_id: str) -> AsyncIterator[Update]:
        """Yield what is new after an event, as it arrives.

        Args:
            after_id: The event's id; empty: before the oldest one.

        Yields:
            The updates.
        """
        self._pages += 1
        try:
            while not self.closed:
                changed, started = self._changed, time.monotonic()
                found: list[Row] | None = []
                if self.complete:
                    found = self._rows_after(after_id)
                    after_id = latest(after_id, self._cursor)
                yield Update(found or [], must_reload=found is None)
                if not changed.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), _QUIET_S)
                await asyncio.sleep(max(started + _BATCH_S - time.monotonic(), 0.0))
        finally:
            self._pages -= 1
            self.touch()

    def _rows_after(self, after_id: str) -> list[Row] | None:
        """Return the measurements after an event; pages that have the same ones share them."""
        wanted = (after_id, self.version)
        if self._newest[0] != wanted:
            self._newest = (wanted, self.history.rows_after(after_id, MAX_MISSED))
        return self._newest[1]

    def is_behind(self, after_id: str) -> bool:
        """Return whether an id is later than all events, as after a loss of data."""
        return self.complete and is_after(after_id, self._cursor)

    async def _read_page(self, reading: History) -> bool:
        """Read the next page of events, and return whether more follow."""
        events, more = await self._reader.page(reading, self._cursor)
        turns = Turns()
        for event in events:
            reading.add(event)
            self._cursor = event.id
            await turns.next()
        return more

    async def _follow(self, reading: History | None) -> None:
        """Read the rest of the history, then each event as it arrives.

        Args:
            reading: The history to go on with; None: it is to be read from the start.
        """
        delay_s = _MIN_RETRY_S
        if not self.complete:
            await asyncio.sleep(_FIRST_PAGES_S)
        while not self.closed:
            try:
                if reading is None:
                    reading = await self._reader.new_history(self.history.figures.run)
                await self._read_rest(reading)
                if await self._follow_events():
                    delay_s = _MIN_RETRY_S
                    continue
            except (NotFoundError, PermissionDeniedError) as error:
                self.problem, self.closed = str(error), True
            except ServiceError as error:
                self.problem = str(error)
            except Exception:  # noqa: BLE001 - logged below
                # Its pages would wait for ever; they open the run again instead.
                _log.exception("a run can no longer be followed")
                self.closed = True
            self._notify()
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _MAX_RETRY_S)

    async def _read_rest(self, reading: History) -> None:
        """Read the rest of the history, or what was stored while the service was unavailable."""
        while not self.complete:
            if not await self._read_page(reading):
                self.history, self.complete = reading, True
                self._notify()
            await asyncio.sleep(_REST_S)
        if self.problem:
            await self._read_new()
            self.problem = ""
            self._notify()

    async def _follow_events(self) -> bool:
        """Wait for events, each of which arrives without a delay, until they come often.

        A run that reports several times a second is then read once a second, which takes less time
        than a message for each event.

        Returns:
            Whether events came often, until there were no more.
        """
        latest_s = -math.inf
        comes_often = False
        async with contextlib.aclosing(self._reader.watch(self._cursor)) as events:
            async for event in events:
                await self._arrived([event])
                before_s, latest_s = latest_s, time.monotonic()
                comes_often = latest_s - before_s < _BATCH_S
                if comes_often:
                    break
        more = comes_often
        while more:
            await asyncio.sleep(_BATCH_S)
            more = await self._read_new()
        return comes_often

    async def _read_new(self) -> bool:
        """Read the events after the last one, and return whether there are any."""
        count, more = 0, True
        while more:
            events, more = await self._reader.page(self.history, self._cursor)
            await self._arrived(events)
            count += len(events)
        return count > 0

    async def _arrived(self, events: Sequence[run_service_pb2.RunEvent]) -> None:
        turns = Turns()
        for event in events:
            if not self.history.figures.reader.fits(event):  # restarted with a different layout
                earlier = self.history.figures
                self.history = await self._reader.new_history(await self._reader.summary())
                self.history.figures.left_out = earlier.left_out + earlier.measurements
            self._cursor = event.id
            if self.history.add(event):
                _update(self.history.figures.run, event)
            await turns.next()
        if events:
            self._notify()

    def _notify(self) -> None:
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _update(run: run_service_pb2.Run, event: run_service_pb2.RunEvent) -> None:
    """Bring a run's summary up to date with an event that has arrived."""
    run.last_step = event.measurement.step
    run.measurements += 1
    run.update_time.CopyFrom(event.time)
    run.next_measurement_step = event.recommendation.next_measurement_step
    if event.measurement.HasField("loss"):
        run.loss = event.measurement.loss
    if event.measurement.learning_rates:
        run.learning_rate = max(event.measurement.learning_rates)
