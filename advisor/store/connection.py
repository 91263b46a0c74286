"""The connection to Redis, and what its failures are called here."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any, Protocol, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from advisor.errors import (
    AuditUnavailableError,
    RequestReusedError,
    StoreDamagedError,
    StoreUnavailableError,
)

# Refusals that pass: a failover, a full disk or memory, a replica that catches up.
_PASSING = (OutOfMemoryError, ReadOnlyError)
# What our own scripts reply.
_AUDIT_FAILED, _REQUEST_REUSED, _MISFIT = "AUDITFAILED", "REQUESTREUSED", "MISFIT"
_WRONG_KIND = "WRONGTYPE"  # of Redis itself, outside of our scripts' checks
_PASSING_PREFIXES = (
    *("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF"),
    *("NOREPLICAS", "OOM", "READONLY", "TRYAGAIN"),
)


class Observer(Protocol):
    """Is told of each command."""

    def __call__(self, command: str, seconds: float, *, failed: bool) -> None:
        """Note a command: its name, how long it took, whether it raised."""


class _ObservedRedis(Redis):
    """A client that tells somebody how long its commands take."""

    observe: Observer | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Carry out a command."""
        execute: Any = super().execute_command
        if self.observe is None:
            return await execute(*args, **options)
        begun = time.perf_counter()
        failed = True
        try:
            reply = await execute(*args, **options)
            failed = False
        finally:
            self.observe(str(args[0]), time.perf_counter() - begun, failed=failed)
        return reply


def connect(url: str, *, timeout_s: float, retries: int, observe: Observer | None = None) -> Redis:
    """Return a client for the Redis at ``url``; it connects at its first command.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://`` URL.
        timeout_s: Longest wait for a connection and for an answer, in seconds.
        retries: Further tries of a command whose connection broke. Above 0 only for commands that
            do no harm when they run twice.
        observe: Is told of each command.
    """
    redis = cast(
        "_ObservedRedis",
        _ObservedRedis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), retries),
            retry_on_error=[RedisConnectionError],
        ),
    )
    redis.observe = observe
    return redis


def load_script(redis: Redis, *names: str) -> AsyncScript:
    """Return the Lua script of the given file names, without ``.lua``, one after the other."""
    folder = resources.files("advisor.store").joinpath("scripts")
    texts = [folder.joinpath(f"{name}.lua").read_text("utf-8") for name in names]
    return redis.register_script("\n".join(texts))


async def awaited(result: Any) -> Any:
    """Await a command; redis-py types asynchronous results as either kind."""
    return await cast("Awaitable[Any]", result)


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn Redis's own failures into :class:`StoreUnavailableError`."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise StoreUnavailableError(str(error) or type(error).__name__) from error
    except ResponseError as error:
        if str(error).startswith(_REQUEST_REUSED):
            raise RequestReusedError from error
        if str(error).startswith((_MISFIT, _WRONG_KIND)):
            raise StoreDamagedError(str(error).removeprefix(_MISFIT).strip()) from error
        audit = str(error).startswith(_AUDIT_FAILED)
        reason = str(error).removeprefix(_AUDIT_FAILED).strip()
        if isinstance(error, _PASSING) or reason.startswith(_PASSING_PREFIXES):
            raise StoreUnavailableError(reason) from error
        if audit:
            raise AuditUnavailableError(reason) from error
        raise  # a defect of ours: a command or script that Redis does not understand
    except RedisError as error:
        raise StoreUnavailableError(str(error) or type(error).__name__) from error
