"""The queue of telemetry: its limits, its batches and its losses."""

from __future__ import annotations

import asyncio
from typing import Any

from advisor.advising.telemetry import Telemetry
from advisor.observability.metrics import Metrics
from advisor.registry.resource_names import RunName
from advisor.registry.runs import EventToStore, RecordResult


def test_telemetry_is_limited_in_bytes_and_stores_the_events_of_a_run_at_once() -> None:
    class Runs:
        """Replaces Redis: keeps the events that it gets."""

        def __init__(self) -> None:
            self.given: list[tuple[str, int, int]] = []

        async def record(self, runs: Any) -> list[RecordResult]:
            self.given += [(events[0].run.run, len(events), lost) for events, lost in runs]
            return [RecordResult.STORED] * len(runs)

    async def offered() -> None:
        runs = Runs()
        telemetry = Telemetry(runs, capacity=1_000, metrics=Metrics())
        large = bytes(32 * 2**20)
        for i in range(12):  # of 256 MiB, eight fit
            telemetry.offer(EventToStore(RunName("bench", "large"), b"", large, i, 0))
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
