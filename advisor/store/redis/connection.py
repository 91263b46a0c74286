"""Connects to Redis, and translates its failures into the service's exceptions."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

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
from advisor.store.redis.refusals import (
    Refusal,
    find_refusal,
    is_passing,
    refusal_of,
    shortened,
)

_WRONG_TYPE = "WRONGTYPE"


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


_NO_LIMIT = 2**31 - 1


def _connection_options(
    address: RedisAddress, credentials: Credentials, timeout_s: float
) -> dict[str, Any]:
    """Return redis-py's arguments for credentials, timeouts and TLS."""
    options: dict[str, Any] = {
        "username": credentials.username,
        "password": credentials.password,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        # redis-py's own limit is 100, and each run that is watched holds a connection. Calls and
        # streams have limits of their own.
        "max_connections": _NO_LIMIT,
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
        ResponseError: A command or script is wrong, which is a bug.
    """
    try:
        yield
    except RedisError as error:
        translated: Exception = _translated(error)
        raise translated from error


def _translated(error: RedisError) -> Exception:
    """Return the service's exception for an error of redis-py.

    Raises:
        ResponseError: The error itself, if a command or script is wrong, which is a bug.
    """
    text = str(error) or type(error).__name__
    if not isinstance(error, ResponseError):  # including connections that are refused
        refusal = find_refusal(text)
        return StoreUnavailableError(text) if refusal is None else refused(refusal, text)
    if text.startswith(ScriptError.REQUEST_REUSED):
        return RequestReusedError()
    if text.startswith((ScriptError.WRONG_TYPE, _WRONG_TYPE)):
        return StoreDamagedError(text.removeprefix(ScriptError.WRONG_TYPE).strip())
    is_audit = text.startswith(ScriptError.AUDIT_FAILED)
    reason = text.removeprefix(ScriptError.AUDIT_FAILED).strip()
    if is_passing(error, reason):
        return StoreUnavailableError(reason)
    if is_audit and find_refusal(reason) is None:
        return AuditUnavailableError(reason)
    return refused(refusal_of(error, reason), reason)


def refused(refusal: Refusal, text: str) -> StoreUnavailableError:
    """Return the exception for a command or connection that Redis refuses.

    Args:
        refusal: Why it refuses.
        text: Its error reply.
    """
    return StoreUnavailableError(
        shortened(text),
        problem=refusal.problem,
        remedy=refusal.remedy,
        is_temporary=refusal.is_temporary,
    )
