"""Whether the service can do its work: it can while Redis answers."""

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
    """Asks Redis every second and says so under the health service's name ``readiness``.

    The names ``liveness``, the empty one and those of the services say that the process answers,
    whatever Redis does: a restart would not help, and known profiles go on being answered.

    Args:
        redis: The clients; all of them must be answered.
        states: The health service.
        metrics: Where it is shown.
    """

    def __init__(
        self, redis: Sequence[Redis], states: health.aio.HealthServicer, metrics: Metrics
    ) -> None:
        self._redis = redis
        self._states = states
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Say that the service is ready, which it is, and go on asking."""
        await self._say(ready=True)
        self._task = asyncio.create_task(self._run(), name="readiness")

    async def stop(self) -> None:
        """Ask no more."""
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
                now = True
            except StoreUnavailableError as error:
                now = False
                if ready:
                    _log.warning("not ready: Redis cannot be used", cause=str(error))
            except Exception:  # noqa: BLE001 - the loop must go on
                now = False
                if ready:
                    _log.exception("not ready: Redis answers with an error")
            if now != ready:
                ready = now
                await self._say(ready=ready)
                if ready:
                    _log.info("ready again")

    async def _say(self, *, ready: bool) -> None:
        self._metrics.ready.set(ready)
        await self._states.set(READINESS, _SERVING if ready else _NOT_SERVING)
