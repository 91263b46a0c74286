"""A large run in Redis, stored as the service does, without training it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from advisor.local.in_process import InProcessAdvisor
from advisor.registry.resource_names import RunName
from advisor.registry.runs import EventToStore
from advisor.store.redis.connection import connect
from advisor.store.runs import RunStore
from advisor.wire.packed import packed_event, packed_measurement, packed_response
from benchmarks.rpc.payload import PROJECT, measurements, opening, profile

_INTERVAL_STEPS = 100
_EVENTS_AT_ONCE = 8


async def store_run(redis_url: str, name: str, groups: int, points: int) -> None:
    """Store a run.

    Args:
        redis_url: The Redis.
        name: The run's id.
        groups: Number of groups.
        points: Number of measurements.
    """
    run = RunName(PROJECT, name)
    opened = opening(name, groups)
    opened.total_steps = _INTERVAL_STEPS * points
    for group in opened.layout.groups:
        group.parameter_count = 1
    measured = measurements(groups)
    session = InProcessAdvisor(profile(groups)).open_run(opened)
    pairs = [
        (packed_measurement(each), packed_response(session.recommend(each))) for each in measured
    ]
    encoded = opened.SerializeToString()
    async with connect(redis_url, timeout_s=60, retries=0) as redis:
        store = RunStore(redis)
        for first in range(0, points, _EVENTS_AT_ONCE):
            numbers = range(first, min(first + _EVENTS_AT_ONCE, points))
            events = [_event(run, encoded, *pairs[i % len(pairs)], i) for i in numbers]
            await store.record([(events, 0)])


def _event(run: RunName, opened: bytes, measured: Any, answer: Any, number: int) -> EventToStore:
    step, next_step = _INTERVAL_STEPS * number, _INTERVAL_STEPS * (number + 1)
    measured.step = answer.step = step
    answer.next_measurement_step = next_step
    time = datetime.now(UTC)  # as its id, by which the page finds events over the run
    return EventToStore(
        run,
        opened,
        packed_event(time, measured.SerializeToString(), answer.SerializeToString()),
        step,
        round(time.timestamp() * 1000),
        loss=2.5,
        next_step=next_step,
    )
