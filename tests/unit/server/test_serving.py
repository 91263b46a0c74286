"""The service process: readiness, failed starts and stopping."""

from __future__ import annotations

import asyncio
import os
import select
import sys
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health, health_pb2
from redis.exceptions import NoPermissionError

from advisor.errors import StoreUnavailableError
from advisor.observability.metrics import Metrics
from advisor.runtime.event_loop import stop_at_eof
from advisor.server import readiness, workers
from advisor.server.listening import ListenError
from advisor.server.readiness import READINESS, Readiness
from advisor.server.settings import Settings
from advisor.server.worker import start_problem


def test_readiness_follows_redis_through_errors_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = []

    async def check(_: Any) -> None:
        if errors:
            raise errors[0]

    monkeypatch.setattr(readiness, "check", check)
    monkeypatch.setattr(readiness, "_PERIOD_S", 0.01)

    async def looked() -> None:
        states = health.aio.HealthServicer()

        async def comes(status: int) -> None:
            async with asyncio.timeout(5):
                while (await states.Check(request, None)).status != status:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        request = health_pb2.HealthCheckRequest(service=READINESS)
        looks = Readiness([None], states, Metrics())  # type: ignore[list-item]
        await looks.start()
        await comes(health_pb2.HealthCheckResponse.SERVING)
        errors.append(NoPermissionError("this user has no permissions to run the 'ping' command"))
        await comes(health_pb2.HealthCheckResponse.NOT_SERVING)
        errors.clear()
        await comes(health_pb2.HealthCheckResponse.SERVING)
        await looks.stop()

    asyncio.run(looked())


def settings(**given: Any) -> Settings:
    return Settings(**given)


def test_a_start_without_redis_fails_with_its_address_and_a_remedy(
    tmp_path: Path,
) -> None:
    error = StoreUnavailableError("no answer in time")
    url = "redis://me:secret@store:6379"
    given = start_problem(error, settings(redis_url=url))
    assert "the Redis at redis://me:***@store:6379 cannot be used: the store does not" in given
    assert "omit --redis-url" in given
    embedded = start_problem(error, settings(data_dir=tmp_path))
    assert "the embedded Redis cannot be used: the store does not answer" in embedded
    assert f"see its log {tmp_path}/redis.log" in embedded
    assert "--redis-url" not in embedded
    assert start_problem(ListenError("taken"), settings()) == "taken"


@pytest.mark.parametrize(("tracing", "needed_s"), [(False, 20), (True, 30)])
def test_workers_are_not_killed_before_the_maximum_stop_time(
    tracing: bool, needed_s: float
) -> None:
    deadlines_s: list[float] = []

    class Worker:
        async def stop(self, deadline_s: float) -> None:
            deadlines_s.append(deadline_s)

    started: list[Any] = [Worker(), Worker()]
    asyncio.run(workers._stop(started, settings(grace_s=10, tracing=tracing, workers=2)))
    assert len(deadlines_s) == 2
    assert min(deadlines_s) > needed_s


def test_the_end_of_standard_input_sets_stop_and_removes_the_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as parent:
        monkeypatch.setattr(sys, "stdin", parent)

        async def waited() -> None:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            loop.add_reader(reading, stop_at_eof, stop)
            os.write(writing, b"still here")
            while select.select([reading], [], [], 0)[0]:  # noqa: ASYNC110 - until it was read
                await asyncio.sleep(0)
            assert not stop.is_set()
            os.close(writing)
            async with asyncio.timeout(5):
                await stop.wait()
            assert not loop.remove_reader(reading)  # already removed

        asyncio.run(waited())
