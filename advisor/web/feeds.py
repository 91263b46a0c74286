"""Runs that pages look at: each history is read once and then followed, for all its pages together.

A feed belongs to one run and one viewer, so it shows only what that viewer may read. It
keeps the history in columns, and the last measurements for pages that reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import deque
from collections.abc import AsyncIterator

import structlog

from advisor.report.points import Point, PointReader
from advisor.report.run_columns import RunColumns
from advisor.report.run_figures import RunFigures
from advisor.web.backend import Backend, Viewer
from fslr.advisor.v1 import profile_pb2, run_service_pb2
from fslr.errors import NotFoundError, PermissionDeniedError, ServiceError

_PAGE_BYTES = 4 * 2**20  # of one answer with events
_GROUP_BYTES = 48  # of one group in an event, about
_MAX_PAGE_EVENTS = 250
_FIRST_VIEW_S = 0.3  # a history that takes longer to read is shown as an outline first
_BREATH_EVENTS = 20  # between two chances of other requests
_MIN_OUTLINE, _MAX_OUTLINE = 8, 32  # events of an outline, evenly over the time of the run
_NEWEST_MS = 1_000  # the last event of an outline is the first one within this time of the end
_EVENT_S, _GROUP_S = 1e-3, 2.5e-6  # about how long an event takes to read, and each of its groups
_KEPT_POINTS = 512
_MAX_FEEDS = 64
_IDLE_S = 60.0
_SUMMARY_S = 10.0
_JANITOR_PERIOD_S = 5.0
_MIN_RETRY_S, _MAX_RETRY_S = 0.2, 5.0
_REST_S = 0.01  # between pages of a long history, so that other requests are answered

_log = structlog.get_logger()


def is_after(event_id: str, other: str) -> bool:
    """Return whether an event's id comes after another one's; empty: before all."""
    return order_of(event_id) > order_of(other)


def order_of(event_id: str) -> tuple[int, ...]:
    """Return the parts of an event's id as numbers; empty for the empty id."""
    return tuple(int(part) for part in event_id.split("-")) if event_id else ()


class History:
    """What was read of a run.

    Args:
        run: The run.
        reader: Reduces its events to points.

    Attributes:
        figures: The figures of the run.
        columns: Its points in columns.
    """

    def __init__(self, run: run_service_pb2.Run, reader: PointReader) -> None:
        self.figures = RunFigures(run, reader)
        self.columns = RunColumns(reader)
        names = "\n".join((*self.columns.roles, "", *self.columns.blocks))
        self.shape = hashlib.sha256(names.encode()).hexdigest()[:16]
        """Identifies the roles and blocks of the columns."""

    def add(self, event: run_service_pb2.RunEvent) -> Point | None:
        """Add an event, and return its point; None: it has another layout."""
        point = self.figures.add(event)
        if point is not None:
            self.columns.append(point)
        return point


class RunFeed:
    """One run as one viewer may see it.

    Args:
        backend: The service.
        viewer: The viewer.
        project: The run's project.
        run: The run's id.

    Attributes:
        history: The run's history; an outline until ``complete``.
        complete: Whether the whole stored history has been read.
        version: Increases with each change.
        computing: Held while a part of a page is computed that takes long.
        fragments: Parts of pages by what they are, each with its version.
        problem: Why the service cannot be reached now; empty: it can.
        closed: Whether nothing more will come.
    """

    history: History

    def __init__(self, backend: Backend, viewer: Viewer, project: str, run: str) -> None:
        self._backend = backend
        self._viewer = viewer
        self._project, self._run = project, run
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._cursor = ""  # the last event that was read in order
        self._kept: deque[tuple[str, Point]] = deque()
        self._kept_after = ""  # every event between this one and the cursor is kept
        self._readers = 0
        self._used = self._summary_read = time.monotonic()
        self.complete = False
        self.version = 0
        self.computing = asyncio.Lock()
        self.fragments: dict[str, tuple[int, str]] = {}
        self.problem = ""
        self.closed = False

    @property
    def idle_s(self) -> float:
        """Time since the feed was last used, in seconds."""
        return 0.0 if self._readers else time.monotonic() - self._used

    def touch(self) -> None:
        """Note that the feed is used."""
        self._used = time.monotonic()

    async def open(self) -> None:
        """Read the run, and as much of its history as takes a moment; go on in the background.

        Raises:
            ServiceError: The run cannot be read.
        """
        reading = self.history = await self._new_history()
        run = reading.figures.run
        if run.measurements * self._event_s < _FIRST_VIEW_S:
            started = time.monotonic()
            while not self.complete and time.monotonic() - started < _FIRST_VIEW_S:
                self.complete = not await self._read_page(reading)
        if not self.complete:
            self.history = await self._outline()
        self._task = asyncio.create_task(self._follow(reading), name="run feed")

    async def refresh_summary(self) -> None:
        """Read the run again if that was long ago: its end comes without a measurement.

        Raises:
            ServiceError: The run cannot be read.
        """
        if time.monotonic() - self._summary_read < _SUMMARY_S:
            return
        self._summary_read = time.monotonic()
        run = await self._backend.run(self._viewer, self._project, self._run)
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

    async def points_after(self, after_id: str) -> AsyncIterator[tuple[str, Point] | None]:
        """Yield each measurement after an event, with its id, as it arrives.

        Args:
            after_id: The id; empty: from the oldest one.

        Yields:
            The id and the measurement; None when something else has changed, or nothing has for
            a few seconds.
        """
        self._readers += 1
        try:
            while not self.closed:
                changed = self._changed
                if self.complete and is_after(self._kept_after, after_id):
                    async for found in self._stored_after(after_id):
                        after_id = found[0]
                        yield found
                    after_id = max(after_id, self._kept_after, key=order_of)
                elif self.complete:
                    for found in [k for k in self._kept if is_after(k[0], after_id)]:
                        after_id = found[0]
                        yield found
                    after_id = max(after_id, self._cursor, key=order_of)
                yield None
                if not changed.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), _JANITOR_PERIOD_S)
        finally:
            self._readers -= 1
            self.touch()

    def is_behind(self, after_id: str) -> bool:
        """Return whether an id is later than all events, as after a loss of data."""
        return self.complete and is_after(after_id, self._cursor)

    async def _stored_after(self, after_id: str) -> AsyncIterator[tuple[str, Point]]:
        """Yield what follows an event and is no longer kept, from the service."""
        while is_after(self._kept_after, after_id):
            answer = await self._backend.history(
                self._viewer, self._project, self._run, after_id=after_id, size=self._page_size
            )
            for event in answer.events:
                after_id = event.id
                if is_after(after_id, self._kept_after):
                    return
                reader = self.history.figures.reader
                if reader.fits(event):
                    yield event.id, reader.read(event)
            if not answer.more:
                return

    @property
    def _page_size(self) -> int:
        groups = len(self.history.figures.reader.layout)
        return max(1, min(_MAX_PAGE_EVENTS, _PAGE_BYTES // (groups * _GROUP_BYTES)))

    @property
    def _event_s(self) -> float:
        """About how long it takes to read an event, in seconds."""
        return _EVENT_S + _GROUP_S * len(self.history.figures.reader.layout)

    async def _new_history(self) -> History:
        """Read the run and its profile, and return an empty history."""
        run = await self._backend.run(self._viewer, self._project, self._run)
        profile = await self._read_profile(run.opening.profile)
        # Deriving the roles of thousands of groups takes a moment, in which others are answered.
        return History(run, await asyncio.to_thread(PointReader, run.opening.layout, profile))

    async def _read_profile(self, name: str) -> profile_pb2.ProfileContent | None:
        try:
            answer = await self._backend.profile(self._viewer, self._project, name)
        except (NotFoundError, PermissionDeniedError):
            return None
        return answer.profile.content

    async def _outline(self) -> History:
        """Read single events, evenly over the time of the run."""
        run = self.history.figures.run
        outline = History(run, self.history.figures.reader)
        start, end = run.create_time.ToMilliseconds(), run.update_time.ToMilliseconds()
        latest = ""
        count = min(max(int(_FIRST_VIEW_S / self._event_s), _MIN_OUTLINE), _MAX_OUTLINE)
        for i in range(count):
            at = start + max(end - start - _NEWEST_MS, 0) * i // (count - 1)
            answer = await self._backend.history(
                self._viewer,
                self._project,
                self._run,
                after_id=max(f"{at}-0", latest, key=order_of),
                size=1,
            )
            for event in answer.events:
                outline.add(event)
                latest = event.id
            if not answer.more:
                break
        return outline

    async def _read_page(self, reading: History) -> bool:
        """Read the next page of events, and return whether more follow."""
        answer = await self._backend.history(
            self._viewer, self._project, self._run, after_id=self._cursor, size=self._page_size
        )
        for i, event in enumerate(answer.events):
            reading.add(event)
            self._cursor = self._kept_after = event.id
            if i % _BREATH_EVENTS == 0:
                await asyncio.sleep(0)
        return answer.more

    async def _follow(self, reading: History) -> None:
        """Read the rest of the history, then each event as it arrives."""
        delay_s = _MIN_RETRY_S
        while not self.closed:
            try:
                while not self.complete:
                    if not await self._read_page(reading):
                        self.history, self.complete = reading, True
                        self._notify()
                    await asyncio.sleep(_REST_S)
                events = self._backend.watch(
                    self._viewer, self._project, self._run, after_id=self._cursor
                )
                async with contextlib.aclosing(events):
                    async for event in events:
                        delay_s = _MIN_RETRY_S
                        self.problem = ""
                        await self._arrived(event)
            except (NotFoundError, PermissionDeniedError) as error:
                self.problem, self.closed = str(error), True
            except ServiceError as error:
                self.problem = str(error)
            except Exception:  # noqa: BLE001 - logged below
                # Its pages would wait for ever; they open the run again instead.
                _log.exception("a run can no longer be followed", run=self._run)
                self.closed = True
            self._notify()
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _MAX_RETRY_S)

    async def _arrived(self, event: run_service_pb2.RunEvent) -> None:
        if not self.history.figures.reader.fits(event):  # restarted with a different layout
            earlier = self.history.figures
            self.history = await self._new_history()
            self.history.figures.left_out = earlier.left_out + len(earlier.points)
            self._kept.clear()
            self._kept_after = self._cursor
        self._cursor = event.id
        point = self.history.add(event)
        if point is not None:
            self._kept.append((event.id, point))
            if len(self._kept) > _KEPT_POINTS:
                self._kept_after, _ = self._kept.popleft()
            _update(self.history.figures.run, event)
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


class RunFeeds:
    """The feeds of a process; idle ones are closed.

    Args:
        backend: The service.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._feeds: dict[tuple[str, str, str], RunFeed] = {}
        self._opening: dict[tuple[str, str, str], asyncio.Task[RunFeed]] = {}
        self._janitor: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return the number of open feeds."""
        return len(self._feeds)

    def start(self) -> None:
        """Start to close idle feeds."""
        self._janitor = asyncio.create_task(self._run(), name="idle feeds")

    async def stop(self) -> None:
        """Close all feeds, which ends their live pages."""
        if self._janitor is not None:
            self._janitor.cancel()
        opening = [*self._opening.values()]
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        feeds, self._feeds = [*self._feeds.values()], {}
        await asyncio.gather(*(feed.close() for feed in feeds))

    async def get(self, viewer: Viewer, project: str, run: str) -> RunFeed:
        """Return the feed of a run for a viewer; requests for the same one open it once.

        Raises:
            ServiceError: The run cannot be read.
        """
        key = (viewer.key, project, run)
        feed = self._feeds.get(key)
        if feed is None or feed.closed:
            task = self._opening.get(key)
            if task is None:
                task = asyncio.create_task(self._open(viewer, project, run))
                self._opening[key] = task
                task.add_done_callback(lambda _: self._opening.pop(key, None))
            feed = await asyncio.shield(task)
        feed.touch()
        return feed

    async def _open(self, viewer: Viewer, project: str, run: str) -> RunFeed:
        feed = RunFeed(self._backend, viewer, project, run)
        await feed.open()
        self._feeds[viewer.key, project, run] = feed
        return feed

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_JANITOR_PERIOD_S)
            by_age = sorted(self._feeds, key=lambda key: -self._feeds[key].idle_s)
            surplus = len(by_age) - _MAX_FEEDS
            for i, key in enumerate(by_age):
                idle_s = self._feeds[key].idle_s
                if idle_s > _IDLE_S or (i < surplus and idle_s > 0):
                    await self._feeds.pop(key).close()
