"""The clients of redis-py, with what the service needs beyond them.

Whatever stands behind an address, a client here waits for a bounded time, tells how long its
commands take, and carries out lists of commands in one round trip a server.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
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
_left: set[asyncio.Task[Any]] = set()  # the event loop itself keeps no task alive

_REDIRECTS = 3
_AWAY = (RedisConnectionError, RedisTimeoutError, ClusterDownError)


@dataclass(frozen=True, slots=True)
class Conduct:
    """How a client behaves.

    Attributes:
        timeout_s: Longest wait for a connection and for an answer, in seconds; a command with its
            repetitions and redirections takes twice that at most.
        retries: Further tries of a command whose connection broke.
        wait_replicas: Replicas that must have a write before it is acknowledged.
        observe: Is told of each command.
    """

    timeout_s: float
    retries: int
    wait_replicas: int = 0
    observe: CommandObserver | None = None

    async def carry_out(self, command: str, work: Coroutine[Any, Any, _T]) -> _T:
        """Await a command's work, bounded and timed.

        Args:
            command: Its name.
            work: What carries it out.

        Raises:
            TimeoutError: That of redis-py: it takes too long.
        """
        begun, limit_s = time.perf_counter(), 2 * self.timeout_s
        failed = True
        # A task of its own, which is left to itself when its time is over: what redis-py does may
        # outlive a cancellation (asyncio.wait_for of Python 3.11 swallows it at times).
        task = asyncio.create_task(work)
        try:
            await asyncio.wait((task,), timeout=limit_s)
            if not task.done():
                raise RedisTimeoutError(f"no answer within {limit_s:g} s")
            reply = task.result()
            failed = False
        finally:
            if task.done():
                retrieve_exception(task)  # it may end in the very moment in which its caller leaves
            else:
                task.cancel()
                _left.add(task)
                task.add_done_callback(_left.discard)
                task.add_done_callback(retrieve_exception)
            if self.observe is not None:
                self.observe(command, time.perf_counter() - begun, failed=failed)
        return reply


async def _carried(work: Awaitable[_T]) -> _T:
    """Await what redis-py does; a connection that another task closes meanwhile is a broken one."""
    try:
        return await work
    except (AttributeError, RuntimeError) as error:
        # Redis-py takes its writer away, and uvloop's transport says that it is closed.
        if getattr(error, "obj", error) is None or "closed" in str(error):
            raise RedisConnectionError("the connection was closed meanwhile") from error
        raise


class Client(Protocol):
    """What lists of commands and writes need of a client, whatever stands behind it."""

    conduct: Conduct

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Carry out a command."""

    async def parts(self, keys: Sequence[str]) -> list[list[int]]:
        """Return which of the keys lie together, as lists of their positions."""

    async def carry_out_together(self, key: str, commands: Sequence[Command], /) -> list[Any]:
        """Carry out commands, in order, on the server that has a key; return replies and errors."""

    async def follow(self, error: RedisError, command: Command, /) -> Any:
        """Carry out one command of a list that was refused because its slot moves."""

    async def check(self) -> None:
        """Raise unless Redis can do its work."""


class Server(Redis):
    """A client of one server, or of the one that Sentinels name."""

    conduct: Conduct
    sentinels: Sequence[Redis] = ()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Carry out a command."""
        execute: Any = super().execute_command
        work = _carried(execute(*args, **options))
        return await self.conduct.carry_out(str(args[0]), work)

    async def parts(self, keys: Sequence[str]) -> list[list[int]]:
        """Return one part: all keys lie together."""
        return [list(range(len(keys)))] if keys else []

    async def carry_out_together(self, _key: str, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands, in order, over one connection; return replies and errors.

        Raises:
            RedisConnectionError: The connection broke; some may have been carried out.
            RedisTimeoutError: There was no answer in time; likewise.
        """
        async with self.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return await _carried(pipeline.execute(raise_on_error=False))

    async def follow(self, error: RedisError, _command: Command) -> Any:
        """Raise the error: one server has all slots."""
        raise error

    async def check(self) -> None:
        """Raise unless the server answers; leave one that is primary no more.

        One that was taken for dead and lives answers from the past until Sentinels get to it.
        """
        pool: Any = self.connection_pool
        if self.sentinels:
            # Where the primary is another one, the pool closes its connections.
            await self.conduct.carry_out("SENTINEL", pool.get_master_address())
        await self.execute_command("PING")

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections, those to the Sentinels included."""
        await super().aclose(close_connection_pool)
        for sentinel in self.sentinels:
            await sentinel.aclose()


class Sentinels(Sentinel):
    """Finds the primary that the Sentinels know which saw the latest failover.

    Redis-py believes the first that answers. After a failover the others take a while to hear of
    it, and a former primary that comes back meanwhile is one to them.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the primary.

        Raises:
            MasterNotFoundError: No Sentinel answers, or to those that know best it is down.
        """
        asked = (sentinel.sentinel_masters() for sentinel in self.sentinels)
        answers: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
        states = [a[service_name] for a in answers if isinstance(a, dict) and service_name in a]
        newest = max((state["config-epoch"] for state in states), default=None)
        for state in states:
            if state["config-epoch"] == newest and self.check_master_state(state, service_name):
                return state["ip"], state["port"]
        told = "; ".join(str(a) for a in answers if isinstance(a, Exception))
        raise MasterNotFoundError(
            f"no Sentinel knows a primary of {service_name!r} that is up ({told or 'all answer'})"
        )


class _KeysOfOurCommands:
    """Finds the keys of the commands that we send, without asking.

    Redis-py asks one node for a table of all commands, each time that slots moved, and again for
    each XREAD: were that one node away, all of them would be.
    """

    async def initialize(self, _node: object = None) -> None:
        """Ask nobody."""

    async def get_keys(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """Return the keys: the first argument, but for XREAD what follows STREAMS."""
        if name.upper() != "XREAD":
            return arguments[:1]
        behind = arguments[arguments.index(b"STREAMS") + 1 :]  # as redis-py spells it
        return behind[: len(behind) // 2]


class Cluster(RedisCluster):
    """A client of a Cluster.

    It repeats commands itself: redis-py's own way would close the connections of all other
    commands, and repeat those that were carried out.
    """

    conduct: Conduct
    _failed_node: str | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands_parser: Any = _KeysOfOurCommands()

    async def initialize(self, *args: Any, **options: Any) -> Self:
        """Learn which node has which slots, from the node that failed last of all."""
        if options.get("last_failed_node_name") is None:
            options["last_failed_node_name"] = self._failed_node
        try:
            await super().initialize(*args, **options)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from error
        return self

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Carry out a command on the node that has its key."""
        work = self._repeated(lambda: super(Cluster, self).execute_command(*args, **options))
        return await self.conduct.carry_out(str(args[0]), work)

    async def _repeated(self, do: Any) -> Any:
        left = self.conduct.retries
        while True:
            try:
                return await _carried(do())
            except _AWAY as error:
                self._failed_node = getattr(error, "last_failed_node_name", self._failed_node)
                if left == 0:
                    raise
                left -= 1
                await asyncio.sleep(random.uniform(0.01, 0.05))  # noqa: S311 - spreads callers

    async def parts(self, keys: Sequence[str]) -> list[list[int]]:
        """Return the keys by the nodes that have them."""
        if self._initialize:
            await self.conduct.carry_out("CLUSTER SLOTS", self.initialize())
        found: dict[str, list[int]] = {}
        for position, key in enumerate(keys):
            found.setdefault(self._node_of(key).name, []).append(position)
        return list(found.values())

    def _node_of(self, key: str) -> ClusterNode:
        node = self.get_node_from_key(key)
        if node is None:
            raise RedisConnectionError("no node has the key's slot")
        return node

    async def carry_out_together(self, key: str, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands, in order, over one connection to the node that has a key.

        Args:
            key: One of the keys, all of which lie on one node.
            commands: The commands. A slot that moved is followed, by all of them.

        Returns:
            Replies, and the errors of single commands.

        Raises:
            RedisConnectionError: The node went away; some may have been carried out.
            RedisTimeoutError: There was no answer in time; likewise.
        """
        return list(await self._repeated(lambda: self._together(key, commands)))

    async def _together(self, key: str, commands: Sequence[Command]) -> list[Any]:
        replies: list[Any] = []
        for _ in range(_REDIRECTS):
            await self.initialize()
            node = self._node_of(key)
            pipeline = self.pipeline()
            for command in commands:
                pipeline.execute_command(*command, target_nodes=[node])
            try:
                replies = await pipeline.execute(raise_on_error=False, allow_redirections=False)
            except _AWAY:
                self._lost(node)
                raise
            for reply in replies:
                if isinstance(reply, _AWAY):
                    self._lost(node)
                    raise reply
            moved = [reply for reply in replies if type(reply) is MovedError]
            for error in moved:
                await self.nodes_manager.move_slot(error)
            if not moved or len(moved) < sum(command[0] != "WAIT" for command in commands):
                break
        return replies

    async def follow(self, error: RedisError, command: Command) -> Any:
        """Carry out one command of a list where its slot is now, or is about to be.

        Args:
            error: How it was refused.
            command: The command.
        """
        if type(error) is not AskError:
            return await self.execute_command(*command)
        node = self.get_node(error.host, error.port)
        if node is None:
            raise error
        # Redis-py asks over one connection and sends the command over another one at times.
        pipeline = self.pipeline()
        for part in (("ASKING",), command):
            pipeline.execute_command(*part, target_nodes=[node])
        work = pipeline.execute(raise_on_error=False, allow_redirections=False)
        _, reply = await self.conduct.carry_out(str(command[0]), work)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _lost(self, node: ClusterNode) -> None:
        """Learn anew who has which slots before the next command: the node may have a successor."""
        self._failed_node = node.name
        self._initialize = True

    async def check(self) -> None:
        """Raise unless some primary answers that the Cluster serves.

        One that does is enough: where a part of the slots is away, the rest goes on.
        """
        await self.conduct.carry_out("CLUSTER INFO", self._check())

    async def _check(self) -> None:
        await self.initialize()
        primaries = self.get_primaries()
        random.shuffle(primaries)
        last: Exception = RedisConnectionError("the Cluster has no primary")
        for node in primaries:
            try:
                info: Mapping[str, str] = await super().execute_command(
                    "CLUSTER INFO", target_nodes=[node]
                )
            except _AWAY as error:
                self._failed_node, last = node.name, error
                continue
            if info["cluster_state"] == "ok":
                return
            last = RedisConnectionError("the Cluster says that it is down (cluster_state:fail)")
        raise last

    async def __aenter__(self) -> Self:
        """Connect at the first command, as the other clients do."""
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """Close all connections, those after a failure included."""
        await self.aclose()
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")
