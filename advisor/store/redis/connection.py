"""Connects to Redis, and translates its failures into the service's exceptions."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from advisor.errors import (
    AuditUnavailableError,
    RequestReusedError,
    StoreDamagedError,
    StoreUnavailableError,
)
from advisor.observability.observers import CommandObserver
from advisor.store.redis.addresses import Credentials, RedisAddress, Topology, parse_address
from advisor.store.redis.clients import (
    Client,
    ClusterClient,
    CommandRunner,
    LatestEpochSentinel,
    ServerClient,
)
from advisor.store.redis.commands import ScriptError

# Temporary errors: a failover, a full disk or memory, a replica catching up, moving slots.
_TEMPORARY = (AskError, ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
_ACL_REFUSED_IN_SCRIPT = "ACL failure in script"
_WRONG_TYPE = "WRONGTYPE"
_TEMPORARY_PREFIXES = (
    *("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF"),
    *("NOREPLICAS", "OOM", "READONLY", "TRYAGAIN"),
)


def connect(
    url: str,
    *,
    timeout_s: float,
    retries: int,
    wait_replicas: int = 0,
    observe: CommandObserver | None = None,
) -> Redis:
    """Return a client for the Redis at ``url``; it connects at its first command.

    Args:
        url: A URL in one of the forms of :mod:`advisor.store.redis.addresses`.
        timeout_s: Maximum wait for a connection and for a reply, in seconds. A command with all its
            retries takes at most twice as long.
        retries: Number of further attempts after a connection breaks. Above 0 only for commands
            that are safe to execute twice.
        wait_replicas: Number of replicas that must have a write before it is acknowledged.
        observe: Called after each command; a pipeline counts as one command named ``pipeline``.

    Raises:
        AddressError: The URL is not valid.
    """
    address = parse_address(url)
    runner = CommandRunner(timeout_s, retries, wait_replicas, observe)
    if address.topology is Topology.CLUSTER:
        cluster = ClusterClient(
            startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
            require_full_coverage=False,
            retry=Retry(NoBackoff(), 0),  # the client has its own retries
            **_connection_options(address, address.credentials, timeout_s),
        )
        cluster.runner = runner
        return cast("Redis", cluster)  # a different class with the same commands
    options = {
        **_connection_options(address, address.credentials, timeout_s),
        "db": address.database,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), retries),
        "retry_on_error": [RedisConnectionError],
    }
    if address.topology is Topology.SENTINEL:
        # Half the timeout, so that a silent Sentinel leaves time for the primary itself.
        to_sentinels = _connection_options(address, address.sentinel_credentials, timeout_s / 2)
        to_sentinels["retry"] = Retry(NoBackoff(), 0)
        make: Any = LatestEpochSentinel
        sentinel = make(address.hosts, sentinel_kwargs=to_sentinels)
        primary = sentinel.master_for(address.service, redis_class=ServerClient, **options)
        server = cast("ServerClient", primary)
        server.sentinels = sentinel.sentinels
    elif address.socket is not None:
        server = ServerClient(unix_socket_path=address.socket, **options)
    else:
        (host, port), *_ = address.hosts
        server = ServerClient(host=host, port=port, **options)
    server.runner = runner
    return server


def _connection_options(
    address: RedisAddress, credentials: Credentials, timeout_s: float
) -> dict[str, Any]:
    """Return redis-py's arguments for credentials, timeouts and TLS."""
    options: dict[str, Any] = {
        "username": credentials.username,
        "password": credentials.password,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
    }
    if address.tls is not None:
        options |= {"ssl": True, **address.tls}
    return options


async def check(redis: Redis) -> None:
    """Check that Redis can serve commands: the server answers, or the Cluster is serving.

    Raises:
        StoreUnavailableError: Redis cannot serve commands.
    """
    with store_errors():
        await cast("Client", redis).check()


async def awaited(result: Any) -> Any:
    """Await a command's result, which redis-py types as either a value or an awaitable."""
    return await cast("Awaitable[Any]", result)


@contextmanager
def store_errors() -> Iterator[None]:
    """Translate redis-py's errors into the service's exceptions.

    Raises:
        StoreUnavailableError: Redis does not answer, or refuses the command.
        StoreDamagedError: A key holds a value of the wrong type.
        RequestReusedError: The write's request id belongs to a different request.
        AuditUnavailableError: The write's audit record cannot be stored.
        ResponseError: Redis does not understand a command or script, which is a bug.
    """
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError, SlotNotCoveredError) as error:
        raise StoreUnavailableError(str(error) or type(error).__name__) from error
    except ResponseError as error:
        translated = _translated(error)
        if translated is None:
            raise
        raise translated from error
    except RedisError as error:
        raise StoreUnavailableError(str(error) or type(error).__name__) from error


def _translated(error: ResponseError) -> Exception | None:
    """Return the service's exception for an error reply, or None for a command that is invalid."""
    text = str(error)
    if text.startswith(ScriptError.REQUEST_REUSED):
        return RequestReusedError()
    if text.startswith((ScriptError.WRONG_TYPE, _WRONG_TYPE)):
        return StoreDamagedError(text.removeprefix(ScriptError.WRONG_TYPE).strip())
    is_audit = text.startswith(ScriptError.AUDIT_FAILED)
    reason = text.removeprefix(ScriptError.AUDIT_FAILED).strip()
    if isinstance(error, _TEMPORARY) or reason.startswith(_TEMPORARY_PREFIXES):
        return StoreUnavailableError(reason)
    is_acl_error = reason.removeprefix("ERR ").startswith(_ACL_REFUSED_IN_SCRIPT)
    if isinstance(error, NoPermissionError) or is_acl_error:
        return StoreUnavailableError(reason, is_refused=True)
    return AuditUnavailableError(reason) if is_audit else None
