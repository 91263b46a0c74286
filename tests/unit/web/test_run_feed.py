"""A run that pages follow: bounded memory, outages, and what a page is sent after a pause."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator, AsyncIterator

import numpy as np
import pytest
from starlette.requests import Request

from advisor.report.points import PointReader
from advisor.web import history as history_module
from advisor.web import history_reading, run_feed
from advisor.web.backend import Backend, Viewer
from advisor.web.event_ids import is_after
from advisor.web.fragments import Fragments
from advisor.web.history import History
from advisor.web.history_reading import HistoryReader
from advisor.web.run_feed import RunFeed, Update
from advisor.web.shared_groups import SharedGroups
from fslr.advisor.v1 import profile_service_pb2, run_service_pb2
from fslr.errors import NotFoundError, UnavailableError
from tests.stored_runs import block_names, stored_run

_PAGE = 5


class _Stored(HistoryReader):
    """Reads from a list of events, unless it is told to be unavailable."""

    def __init__(self, run: run_service_pb2.Run, events: list[run_service_pb2.RunEvent]) -> None:
        self.run, self.events = run, events
        self.is_available = True
        self.pages = 0
        self.changed = asyncio.Event()

    async def summary(self) -> run_service_pb2.Run:
        return self.run

    async def new_history(self, run: run_service_pb2.Run) -> History:
        return History(run, PointReader(run.opening.layout))

    def seconds_of(self, run: run_service_pb2.Run) -> float:  # noqa: ARG002 - as in the base class
        return 0.0

    async def page(
        self,
        history: History,  # noqa: ARG002 - as in the base class
        after_id: str,
    ) -> tuple[list[run_service_pb2.RunEvent], bool]:
        self._check()
        self.pages += 1
        left = self.events[self._position(after_id) :]
        return left[:_PAGE], len(left) > _PAGE

    async def watch(self, after_id: str) -> AsyncGenerator[run_service_pb2.RunEvent, None]:
        position = self._position(after_id)
        while True:
            self._check()
            for event in self.events[position:]:
                yield event
            position = len(self.events)
            await self.changed.wait()
            self.changed.clear()

    def _position(self, after_id: str) -> int:
        return [event.id for event in self.events].index(after_id) + 1 if after_id else 0

    def _check(self) -> None:
        if not self.is_available:
            raise UnavailableError("Redis does not answer")


async def _steps(updates: AsyncIterator[Update], count: int) -> list[float]:
    """Return the steps of the next measurements."""
    found: list[float] = []
    async for update in updates:
        assert not update.must_reload
        found += [row["step"][0] for _, row in update.rows]
        if len(found) >= count:
            return found
    raise AssertionError("the feed was closed")


def test_a_page_misses_nothing_while_the_service_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_feed, "_BATCH_S", 0.01)
    monkeypatch.setattr(run_feed, "_MIN_RETRY_S", 0.01)
    run, events = stored_run(measurements=20)
    steps = [event.measurement.step for event in events]

    async def follow() -> None:
        reader = _Stored(run, events[:6])
        feed = RunFeed(reader)
        await feed.begin()
        await feed.opened()
        updates = feed.updates_after(events[1].id)
        assert await _steps(updates, 4) == steps[2:6]
        reader.is_available = False
        reader.changed.set()
        while "Redis does not answer" not in feed.problem:
            await anext(updates)
        reader.events = events[:18]
        reader.is_available = True
        assert await _steps(updates, 12) == steps[6:18]
        while feed.problem:
            await anext(updates)
        reader.events = events
        reader.changed.set()
        assert await _steps(updates, 2) == steps[18:]
        assert feed.is_behind("9999999999999-0")
        await feed.close()

    asyncio.run(asyncio.wait_for(follow(), 20))


def test_a_page_that_missed_too_much_loads_its_curves_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_feed, "MAX_MISSED", 4)
    run, events = stored_run(measurements=12)

    async def follow() -> None:
        feed = RunFeed(_Stored(run, events))
        await feed.begin()
        await feed.opened()
        assert (await anext(feed.updates_after(events[6].id))).must_reload
        update = await anext(feed.updates_after(events[7].id))
        assert [event_id for event_id, _ in update.rows] == [event.id for event in events[8:]]
        await feed.close()

    asyncio.run(asyncio.wait_for(follow(), 20))


class _Service(Backend):
    """Answers from a list of events."""

    def __init__(self, run: run_service_pb2.Run, events: list[run_service_pb2.RunEvent]) -> None:
        self._run, self._events = run, events
        self.profiles_read = 0

    async def run(self, *_: object) -> run_service_pb2.Run:
        return self._run

    async def history(
        self, *_: object, after_id: str, size: int
    ) -> run_service_pb2.GetRunHistoryResponse:
        found = [event for event in self._events if is_after(event.id, after_id)]
        return run_service_pb2.GetRunHistoryResponse(events=found[:size], more=len(found) > size)

    async def profile(self, *_: object) -> profile_service_pb2.GetProfileResponse:
        self.profiles_read += 1
        raise NotFoundError("no such profile")

    async def watch(
        self, *_: object, after_id: str
    ) -> AsyncGenerator[run_service_pb2.RunEvent, None]:
        assert after_id == self._events[-1].id
        await asyncio.Event().wait()
        yield self._events[-1]


def test_a_long_history_is_an_outline_without_the_profile_until_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history_reading, "_EVENT_S", 1.0)
    monkeypatch.setattr(run_feed, "_FIRST_PAGES_S", 0.05)
    monkeypatch.setattr(run_feed, "_BATCH_S", 0.01)
    run, events = stored_run(measurements=40)
    for event in events:
        event.id = f"{event.time.ToMilliseconds()}-0"  # the first one starts the run

    async def follow() -> None:
        service = _Service(run, events)
        feed = RunFeed(HistoryReader(service, SharedGroups(), Viewer(""), "default", "night"))
        await feed.begin()
        await feed.opened()
        steps = feed.history.columns.column("step").tolist()
        assert (steps[0], steps[-1], len(steps)) == (0, 975, 8)
        assert np.ptp(np.diff(steps)) <= 25
        assert (feed.complete, service.profiles_read) == (False, 0)
        async for update in feed.updates_after(""):
            if update.rows:
                break
        assert feed.history.columns.column("step").tolist() == [25 * i for i in range(40)]
        assert (feed.complete, service.profiles_read) == (True, 1)
        await feed.close()

    asyncio.run(asyncio.wait_for(follow(), 20))


def test_a_history_keeps_the_newest_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MAX_MEASUREMENTS", 10)
    monkeypatch.setattr(history_module, "_SURPLUS", 3)
    monkeypatch.setattr(history_module, "_MAX_POINTS", 4)
    run, events = stored_run(measurements=30)
    history = History(run, PointReader(run.opening.layout))
    for event in events:
        assert history.add(event)
        assert len(history.columns) < 13
        assert len(history.figures.points) < 8
    kept = events[-len(history.columns) :]
    assert history.columns.column("step").tolist() == [e.measurement.step for e in kept]
    assert history.figures.cost().measurements == 30
    # A page that has the newest measurement that was dropped can go on; an earlier one cannot.
    rows = history.rows_after(events[-len(kept) - 1].id, most=100)
    assert rows is not None
    assert [event_id for event_id, _ in rows] == [event.id for event in kept]
    assert history.rows_after(events[-len(kept) - 2].id, most=100) is None
    assert history.rows_after(events[-1].id, most=100) == []


def test_groups_are_derived_once_and_kept_while_there_is_room() -> None:
    small, large = (stored_run(block_names(n), measurements=1)[0].opening.layout for n in (2, 6))

    async def derive() -> None:
        shared = SharedGroups(max_groups=10)
        first, same = await asyncio.gather(shared.get(small), shared.get(small))
        assert first is same is await shared.get(small)
        assert first.roles.names[1] == "blocks.*.attn.weight"
        assert await shared.get(large) is not await shared.get(large)
        assert await shared.get(small) is first

    asyncio.run(derive())


def test_a_part_of_a_page_is_made_once_in_a_while_and_never_older_than_the_request() -> None:
    made: list[int] = []
    version = 0

    def make() -> bytes:
        made.append(version)
        return b"figures %d " % version * 200

    async def ask(parts: Fragments, encoding: str = "") -> bytes:
        request = Request({"type": "http", "headers": [(b"accept-encoding", encoding.encode())]})
        answer = await parts.answer(request, "en", lambda: version, make, "text/html", period_s=0.2)
        is_packed = answer.headers.get("content-encoding") == "gzip"
        assert is_packed == (encoding == "gzip")
        return gzip.decompress(answer.body) if is_packed else bytes(answer.body)

    async def look() -> None:
        nonlocal version
        parts = Fragments()
        assert b"figures 0" in await ask(parts)
        version = 1
        waiting = [asyncio.create_task(ask(parts, "gzip")) for _ in range(5)]
        await asyncio.sleep(0.05)
        version = 2  # a measurement arrives while they wait
        assert all(b"figures 2" in found for found in await asyncio.gather(*waiting))
        assert b"figures 2" in await ask(parts)

    asyncio.run(asyncio.wait_for(look(), 20))
    assert made == [0, 2]
