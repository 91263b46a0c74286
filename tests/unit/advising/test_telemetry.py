"""The queue of telemetry: its limits, its batches and its losses."""

from __future__ import annotations

import asyncio
from typing import Any

from advisor.advising.telemetry import Telemetry
from advisor.errors import StoreUnavailableError
from advisor.observability.metrics import Metrics
from advisor.registry.resource_names import RunName
from advisor.registry.runs import EndToStore, EventToStore, RecordResult


def test_telemetry_is_limited_in_bytes_and_stores_the_events_of_a_run_at_once() -> None:
    class Runs:
        """Replaces Redis: keeps the events that it gets."""

        def __init__(self) -> None:
            self.given: list[tuple[str, int, int]] = []

        async def record(self, runs: Any) -> list[RecordResult]:
            self.given += [(events[0].run.run, len(events), lost) for events, lost in runs]
            return [RecordResult.STORED] * len(runs)

        async def end(self, ends: Any) -> None:
            raise AssertionError(ends)

    async def offered() -> None:
        runs = Runs()
        telemetry = Telemetry(runs, capacity=1_000, metrics=Metrics())
        large = bytes(32 * 2**20)
        half = large[: 16 * 2**20]
        for i in range(12):  # of 256 MiB, eight fit: openings count
            parts = (b"", large) if i % 2 else (half, half)
            telemetry.offer(EventToStore(RunName("bench", "large"), *parts, i, 0))
        assert telemetry.lost == 4
        telemetry.start()
        await telemetry.stop(deadline_s=5)
        assert sum(count for _, count, _ in runs.given) == 8
        assert sum(lost for _, _, lost in runs.given) == 4
        assert telemetry.lost == 0
        runs.given.clear()
        for i in range(30):
            name = RunName("bench", "even" if i % 2 == 0 else "odd")
            telemetry.offer(EventToStore(name, b"", b"event", i, 0))
        telemetry.start()
        await telemetry.stop(deadline_s=5)
        assert runs.given == [("even", 15, 0), ("odd", 15, 0)]

    asyncio.run(offered())


def test_ends_are_stored_after_the_events_of_their_batch_and_are_not_counted_if_lost() -> None:
    night = RunName("bench", "night")
    event, end = EventToStore(night, b"", b"event", 1, 0), EndToStore(night, "job", 0)

    class Runs:
        """Replaces Redis: keeps what it gets, and may be unavailable for ends."""

        def __init__(self, *, is_available: bool = True) -> None:
            self.given: list[str] = []
            self.is_available = is_available

        async def record(self, runs: Any) -> list[RecordResult]:
            self.given += ["event" for events, _ in runs for _ in events]
            return [RecordResult.STORED] * len(runs)

        async def end(self, ends: Any) -> None:
            if not self.is_available:
                raise StoreUnavailableError("the connection was lost")
            self.given += [end.session for end in ends]

    async def offered(runs: Runs, *entries: EventToStore | EndToStore, capacity: int = 9) -> int:
        telemetry = Telemetry(runs, capacity=capacity, metrics=Metrics())
        for entry in entries:
            telemetry.offer(entry)
        telemetry.start()
        await telemetry.stop(deadline_s=5)
        return telemetry.lost

    runs = Runs()
    assert asyncio.run(offered(runs, end, event)) == 0
    assert asyncio.run(offered(runs, end)) == 0
    assert runs.given == ["event", "job", "job"]
    assert asyncio.run(offered(runs, event, end, capacity=1)) == 0  # the queue was full
    assert runs.given[3:] == ["event"]
    assert asyncio.run(offered(runs, end, event, capacity=1)) == 1
    assert asyncio.run(offered(Runs(is_available=False), event, end)) == 0
