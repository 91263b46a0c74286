"""Clients of redis-py for one server, Sentinels and a Cluster, extended for the service.

Each client bounds how long a command takes, reports its duration, and can send a list of commands
in one round trip per server.

The clients use parts of redis-py that its documentation does not promise. All of them are listed in
``tests/unit/store/test_redis_internals.py``, which fails when a release of redis-py changes one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias, TypeVar

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from advisor.observability.observers import CommandObserver
from advisor.runtime.event_loop import retrieve_exception

Command: TypeAlias = tuple[Any, ...]

_T = TypeVar("_T")
_abandoned: set[asyncio.Task[Any]] = set()  # the event loop holds only weak references to tasks

_MAX_REDIRECTS = 3
_CONNECTION_ERRORS = (RedisConnectionError, RedisTimeoutError, ClusterDownError)


async def _with_closed_as_connection_error(work: Awaitable[_T]) -> _T:
    """Await redis-py; report a connection that is lost in a way that redis-py does not handle.

    If a server dies or another task closes the connection, redis-py's own code may fail: it has set
    the connection's writer to None, or uvloop's transport reports that it is closed.

    Raises:
        ConnectionError: The connection is lost (redis-py's class of that name).
        AttributeError: redis-py fails for a different reason, as it does with RuntimeError.
        RuntimeError: As above.
    """
    try:
        return await work
    except (AttributeError, RuntimeError) as error:
        if getattr(error, "obj", error) is None or "closed" in str(error):
            raise RedisConnectionError("the connection was closed meanwhile") from error
        raise
    except (OSError, EOFError) as error:
        raise RedisConnectionError(str(error) or type(error).__name__) from error


@dataclass(frozen=True, slots=True)
class CommandRunner:
    """Runs the commands of one client with a time limit, and reports their durations.

    Attributes:
        timeout_s: Maximum wait for a connection and for a reply, in seconds. A command with all its
            retries and redirections takes at most twice as long.
        retries: Number of further attempts after a connection breaks.
        wait_replicas: Number of replicas that must have a write before it is acknowledged.
        observe: Called after each command.
    """

    timeout_s: float
    retries: int
    wait_replicas: int = 0
    observe: CommandObserver | None = None

    async def run(self, command: str, work: Awaitable[_T]) -> _T:
        """Await a command for at most twice the timeout.

        Args:
            command: The command's name, for the observer.
            work: The coroutine that runs the command.

        Raises:
            ConnectionError: The connection is lost (redis-py's class of that name).
            TimeoutError: The command takes too long (redis-py's class of that name).
        """
        begun, limit_s = time.perf_counter(), 2 * self.timeout_s
        failed = True
        # A separate task, abandoned when its time is up: redis-py may outlive a cancellation
        # (asyncio.wait_for of Python 3.11 sometimes swallows it).
        task = asyncio.create_task(_with_closed_as_connection_error(work))
        try:
            await asyncio.wait((task,), timeout=limit_s)
            if not task.done():
                raise RedisTimeoutError(f"no answer within {limit_s:g} s")
            reply = task.result()
            failed = False
        finally:
            if task.done():
                retrieve_exception(task)  # it may finish just as its caller is cancelled
            else:
                task.cancel()
                _abandoned.add(task)
                task.add_done_callback(_abandoned.discard)
                task.add_done_callback(retrieve_exception)
            if self.observe is not None:
                self.observe(command, time.perf_counter() - begun, failed=failed)
        return reply


class Client(Protocol):
    """What scripts and batches need from a client, whatever topology it talks to."""

    runner: CommandRunner

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command."""

    async def group_by_node(self, keys: Sequence[str]) -> list[list[int]]:
        """Return the positions of the keys, grouped by the node that holds them."""

    async def execute_pipeline(self, key: str, commands: Sequence[Command], /) -> list[Any]:
        """Run commands in order on the node that holds a key; return replies and errors."""

    async def follow_redirect(self, error: RedisError, command: Command, /) -> Any:
        """Run a command of a pipeline that was refused because its slot is moving."""

    async def check(self) -> None:
        """Raise an error unless Redis can serve commands."""


class ServerClient(Redis):
    """A client of one server, or of the primary that Sentinels name."""

    runner: CommandRunner
    sentinels: Sequence[Redis] = ()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command."""
        execute: Any = super().execute_command
        return await self.runner.run(str(args[0]), execute(*args, **options))

    async def group_by_node(self, keys: Sequence[str]) -> list[list[int]]:
        """Return one group with all positions."""
        return [list(range(len(keys)))] if keys else []

    async def execute_pipeline(self, _key: str, commands: Sequence[Command]) -> list[Any]:
        """Run commands in order over one connection; return replies and errors.

        Raises:
            RedisConnectionError: The connection broke; some commands may have been executed.
            RedisTimeoutError: No reply came in time; some commands may have been executed.
        """
        async with self.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute(raise_on_error=False))

    async def follow_redirect(self, error: RedisError, _command: Command) -> Any:
        """Raise the error: a single server never redirects."""
        raise error

    async def check(self) -> None:
        """Raise an error unless the server answers; disconnect from a demoted primary.

        A primary that the Sentinels wrongly declared down keeps serving stale data until they
        reconfigure it.
        """
        pool: Any = self.connection_pool
        if self.sentinels:
            # The pool closes its connections if the primary has changed.
            await self.runner.run("SENTINEL", pool.get_master_address())
        await self.execute_command("PING")

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections, including those to the Sentinels."""
        await super().aclose(close_connection_pool)
        for sentinel in self.sentinels:
            await sentinel.aclose()


class LatestEpochSentinel(Sentinel):
    """Finds the primary according to the Sentinels that know the latest failover.

    redis-py trusts the first Sentinel that answers. After a failover the other Sentinels learn of
    it with a delay, and until then they still report a former primary that has come back.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the primary.

        Raises:
            MasterNotFoundError: No Sentinel answers, or those with the latest configuration report
                that the primary is down.
        """
        requests = (sentinel.sentinel_masters() for sentinel in self.sentinels)
        answers: list[Any] = await asyncio.gather(*requests, return_exceptions=True)
        states = [a[service_name] for a in answers if isinstance(a, dict) and service_name in a]
        latest = max((state["config-epoch"] for state in states), default=None)
        for state in states:
            if state["config-epoch"] == latest and self.check_master_state(state, service_name):
                return state["ip"], state["port"]
        errors = "; ".join(str(a) for a in answers if isinstance(a, Exception))
        raise MasterNotFoundError(
            f"no Sentinel knows a primary of {service_name!r} that is up "
            f"({errors or 'all of them answered'})"
        )


class _KnownCommandKeys:
    """Finds the keys of the commands that the service sends, without a request to Redis.

    redis-py asks one node for a table of all commands after each change of the slots, and asks
    again for each XREAD. If that node were down, every command would fail.
    """

    async def initialize(self, _node: object = None) -> None:
        """Do nothing; redis-py would ask the node here."""

    async def get_keys(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """Return the keys: the first argument, or for XREAD those after STREAMS."""
        if name.upper() != "XREAD":
            return arguments[:1]
        behind = arguments[arguments.index(b"STREAMS") + 1 :]  # the bytes that redis-py sends
        return behind[: len(behind) // 2]


class ClusterClient(RedisCluster):
    """A client of a Cluster.

    It has its own retries. Those of redis-py would close the connections of all other commands, and
    would repeat commands that were already executed.
    """

    runner: CommandRunner
    _failed_node: str | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands_parser: Any = _KnownCommandKeys()

    async def initialize(self, *args: Any, **options: Any) -> Self:
        """Learn which node holds which slots; ask the node that failed last only at the end."""
        if options.get("last_failed_node_name") is None:
            options["last_failed_node_name"] = self._failed_node
        try:
            await super().initialize(*args, **options)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from error
        return self

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command on the node that holds its key."""
        work = self._with_retries(
            lambda: super(ClusterClient, self).execute_command(*args, **options)
        )
        return await self.runner.run(str(args[0]), work)

    async def _with_retries(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        left = self.runner.retries
        while True:
            try:
                return await _with_closed_as_connection_error(attempt())
            except _CONNECTION_ERRORS as error:
                self._failed_node = getattr(error, "last_failed_node_name", self._failed_node)
                if left == 0:
                    raise
                left -= 1
                await asyncio.sleep(random.uniform(0.01, 0.05))  # noqa: S311 - spreads callers

    async def group_by_node(self, keys: Sequence[str]) -> list[list[int]]:
        """Return the positions of the keys, grouped by the node that holds them."""
        if self._initialize:
            await self.runner.run("CLUSTER SLOTS", self.initialize())
        found: dict[str, list[int]] = {}
        for position, key in enumerate(keys):
            found.setdefault(self._node_of(key).name, []).append(position)
        return list(found.values())

    def _node_of(self, key: str) -> ClusterNode:
        node = self.get_node_from_key(key)
        if node is None:
            raise RedisConnectionError("no node holds the key's slot")
        return node

    async def execute_pipeline(self, key: str, commands: Sequence[Command]) -> list[Any]:
        """Run commands in order over one connection to the node that holds a key.

        Args:
            key: One of the keys; all of them are on the same node.
            commands: The commands. If all of them were refused because their slots moved, all of
                them are sent again to the new node.

        Returns:
            A reply or an error for each command.

        Raises:
            RedisConnectionError: The connection broke; some commands may have been executed.
            RedisTimeoutError: No reply came in time; some commands may have been executed.
        """
        return list(await self._with_retries(lambda: self._execute_pipeline(key, commands)))

    async def _execute_pipeline(self, key: str, commands: Sequence[Command]) -> list[Any]:
        replies: list[Any] = []
        for _ in range(_MAX_REDIRECTS):
            await self.initialize()
            node = self._node_of(key)
            replies = await self._execute_on(node, commands)
            moved = [reply for reply in replies if type(reply) is MovedError]
            for error in moved:
                await self.nodes_manager.move_slot(error)
            if not moved or len(moved) < sum(command[0] != "WAIT" for command in commands):
                break
        return replies

    async def _execute_on(self, node: ClusterNode, commands: Sequence[Command]) -> list[Any]:
        """Run commands on a node; raise an error if its connection fails for any of them."""
        pipeline = self.pipeline()
        for command in commands:
            pipeline.execute_command(*command, target_nodes=[node])
        try:
            replies = await pipeline.execute(raise_on_error=False, allow_redirections=False)
        except _CONNECTION_ERRORS:
            self._mark_failed(node)
            raise
        for reply in replies:
            if isinstance(reply, _CONNECTION_ERRORS):
                self._mark_failed(node)
                raise reply
        return replies

    async def follow_redirect(self, error: RedisError, command: Command) -> Any:
        """Run one command of a pipeline where its slot is now, or is moving to.

        Args:
            error: The error with which the command was refused.
            command: The command.
        """
        if type(error) is not AskError:
            return await self.execute_command(*command)
        node = self.get_node(error.host, error.port)
        if node is None:
            raise error
        # redis-py sometimes sends ASKING and the command itself over different connections.
        pipeline = self.pipeline()
        for part in (("ASKING",), command):
            pipeline.execute_command(*part, target_nodes=[node])
        work = pipeline.execute(raise_on_error=False, allow_redirections=False)
        _, reply = await self.runner.run(str(command[0]), work)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _mark_failed(self, node: ClusterNode) -> None:
        """Have the next command learn the slots again, because the node may have been replaced."""
        self._failed_node = node.name
        self._initialize = True

    async def check(self) -> None:
        """Raise an error unless some primary reports that the Cluster is serving.

        One such primary suffices: while some slots are unavailable, the others keep working.
        """
        await self.runner.run("CLUSTER INFO", self._check())

    async def _check(self) -> None:
        await self.initialize()
        primaries = self.get_primaries()
        random.shuffle(primaries)
        last: Exception = RedisConnectionError("the Cluster has no primary")
        for node in primaries:
            try:
                info: Mapping[str, str] = await _with_closed_as_connection_error(
                    super().execute_command("CLUSTER INFO", target_nodes=[node])
                )
            except _CONNECTION_ERRORS as error:
                self._failed_node, last = node.name, error
                continue
            if info["cluster_state"] == "ok":
                return
            last = RedisConnectionError("the Cluster reports that it is down (cluster_state:fail)")
        raise last

    async def __aenter__(self) -> Self:
        """Return the client, which connects at its first command like the other clients."""
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """Close all connections, including those left over after a failure."""
        await self.aclose()
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")
