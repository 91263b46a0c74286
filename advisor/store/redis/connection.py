"""The connection to Redis, and what its failures are called here."""

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
from advisor.store.redis.clients import Client, Cluster, Conduct, Sentinels, Server

# Refusals that pass: a failover, a full disk or memory, a replica that catches up, slots that move.
_PASSING = (AskError, ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
# What our own scripts reply.
_AUDIT_FAILED, _REQUEST_REUSED, _MISFIT = "AUDITFAILED", "REQUESTREUSED", "MISFIT"
_REFUSED = "ACL failure in script"  # a right is missing: of Redis itself, in our scripts
_WRONG_KIND = "WRONGTYPE"  # of Redis itself, outside of our scripts' checks
_PASSING_PREFIXES = (
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
        url: One of the forms of :mod:`advisor.store.redis.addresses`.
        timeout_s: Longest wait for a connection and for an answer, in seconds; a command with its
            repetitions takes twice that at most.
        retries: Further tries of a command whose connection broke. Above 0 only for commands that
            do no harm when they run twice.
        wait_replicas: Replicas that must have a write before it is acknowledged.
        observe: Is told of each command; of a list of commands as ``pipeline``.

    Raises:
        AddressError: The URL cannot be used.
    """
    address = parse_address(url)
    conduct = Conduct(timeout_s, retries, wait_replicas, observe)
    if address.topology is Topology.CLUSTER:
        cluster = Cluster(
            startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
            require_full_coverage=False,
            retry=Retry(NoBackoff(), 0),  # it repeats commands itself
            **_let_in(address, address.credentials, timeout_s),
        )
        cluster.conduct = conduct
        return cast("Redis", cluster)  # the same commands, of another class
    options = {
        **_let_in(address, address.credentials, timeout_s),
        "db": address.database,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), retries),
        "retry_on_error": [RedisConnectionError],
    }
    if address.topology is Topology.SENTINEL:
        # One that is silent must leave time for the primary itself.
        asked = _let_in(address, address.sentinel_credentials, timeout_s / 2)
        asked["retry"] = Retry(NoBackoff(), 0)
        make: Any = Sentinels
        sentinel = make(address.hosts, sentinel_kwargs=asked)
        server = cast("Server", sentinel.master_for(address.service, redis_class=Server, **options))
        server.sentinels = sentinel.sentinels
    elif address.socket is not None:
        server = Server(unix_socket_path=address.socket, **options)
    else:
        (host, port), *_ = address.hosts
        server = Server(host=host, port=port, **options)
    server.conduct = conduct
    return server


def _let_in(address: RedisAddress, credentials: Credentials, timeout_s: float) -> dict[str, Any]:
    """Return the arguments of redis-py that say who we are and how long we wait."""
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
    """Find out whether Redis can do its work: a server answers, or a Cluster serves.

    Raises:
        StoreUnavailableError: It cannot.
    """
    with store_errors():
        await cast("Client", redis).check()


async def awaited(result: Any) -> Any:
    """Await a command; redis-py types asynchronous results as either kind."""
    return await cast("Awaitable[Any]", result)


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn Redis's own failures into :class:`StoreUnavailableError`."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError, SlotNotCoveredError) as error:
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
        if isinstance(error, NoPermissionError) or reason.removeprefix("ERR ").startswith(_REFUSED):
            raise StoreUnavailableError(reason, is_refused=True) from error
        if audit:
            raise AuditUnavailableError(reason) from error
        raise  # a defect of ours: a command or script that Redis does not understand
    except RedisError as error:
        raise StoreUnavailableError(str(error) or type(error).__name__) from error
