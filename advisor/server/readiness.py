"""Readiness of the service: it is ready while Redis answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from grpc_health.v1 import health, health_pb2
from redis.asyncio import Redis

from advisor.errors import StoreUnavailableError
from advisor.observability.metrics import Metrics
from advisor.store.redis.connection import check

READINESS = "readiness"
LIVENESS = "liveness"
_PERIOD_S = 1.0

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_log = structlog.get_logger()


class Readiness:
    """Checks Redis every second and sets the status of ``readiness`` in the health service.

    The names ``liveness``, the empty one and those of the services report that the process answers,
    whatever the state of Redis: a restart would not help, and runs on cached profiles still get
    answers.

    Args:
        redis: The clients; all of them must get an answer.
        health_servicer: The health service.
        metrics: Has the gauge of readiness.
    """

    def __init__(
        self, redis: Sequence[Redis], health_servicer: health.aio.HealthServicer, metrics: Metrics
    ) -> None:
        self._redis = redis
        self._health_servicer = health_servicer
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Report that the service is ready, and start to check; Redis has just answered."""
        await self._report(ready=True)
        self._task = asyncio.create_task(self._run(), name="readiness")

    async def stop(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        ready = True
        while True:
            await asyncio.sleep(_PERIOD_S)
            try:
                for client in self._redis:
                    await check(client)
                is_ready = True
            except StoreUnavailableError as error:
                is_ready = False
                if ready:
                    _log.warning("not ready: Redis cannot be used", cause=str(error))
            except Exception:  # noqa: BLE001 - the loop must continue
                is_ready = False
                if ready:
                    _log.exception("not ready: Redis answered with an error")
            if is_ready != ready:
                ready = is_ready
                await self._report(ready=ready)
                if ready:
                    _log.info("ready again")

    async def _report(self, *, ready: bool) -> None:
        self._metrics.ready.set(ready)
        await self._health_servicer.set(READINESS, _SERVING if ready else _NOT_SERVING)
