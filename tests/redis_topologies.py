"""Redis topologies: a primary with replicas and Sentinels, and a Cluster."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.crc import key_slot

from advisor.store.redis.embedded import find_program
from tests.redis_servers import RedisServer, free_port
from tests.waiting import eventually

SERVICE = "advisor"
_SLOTS = 16384


class ConfiguredServer(RedisServer):
    """A server with a configuration file, where Sentinels record which primary it follows."""

    def _command(self) -> list[str]:
        config = self.data_dir / "redis.conf"
        program, *arguments = super()._command()
        if not config.exists():
            lines: list[str] = []
            for argument in arguments:
                if argument.startswith("--"):
                    lines.append(argument.removeprefix("--"))
                else:
                    lines[-1] += f" {argument}" if argument else ' ""'
            config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [program, str(config)]


class SentinelServer(RedisServer):
    """A Sentinel that watches a primary; two Sentinels must agree that it is down.

    Args:
        data_dir: Directory of its configuration, to which it adds its state.
        primary_port: Port of the primary.
        lines: Additional lines of its configuration.
        down_after_ms: How long the primary must be silent to count as down.
    """

    def __init__(
        self, data_dir: Path, primary_port: int, *lines: str, down_after_ms: int = 500
    ) -> None:
        super().__init__(data_dir)
        self._lines = (
            f"port {self.port}",
            "bind 127.0.0.1",
            f'dir "{data_dir}"',
            f'logfile "{data_dir / "redis.log"}"',
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary_port} 2",
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}",
            f"sentinel failover-timeout {SERVICE} {4 * down_after_ms}",
            *lines,
        )

    def _command(self) -> list[str]:
        config = self.data_dir / "sentinel.conf"
        if not config.exists():  # a Sentinel adds its state to the file
            config.write_text("\n".join(self._lines) + "\n", encoding="utf-8")
        return [str(find_program()), str(config), "--sentinel"]


class _Members(ABC):
    """Servers that start and stop together."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            self._start(starting)
            self._stack = starting.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @abstractmethod
    def _start(self, stack: contextlib.ExitStack) -> None:
        """Start all servers, and register their stops on the stack."""


class SentinelTrio(_Members):
    """A primary, replicas, and three Sentinels with a quorum of two, as a context manager.

    Args:
        data_dir: Where all members keep their data.
        replicas: Number of replicas.
        arguments: Additional arguments of the primary and its replicas.
        down_after_ms: How long a primary must be silent to count as down. On a busy machine, a
            healthy primary can be silent for half a second.

    Attributes:
        servers: The initial primary and its replicas.
        sentinels: The Sentinels.
    """

    def __init__(
        self, data_dir: Path, *arguments: str, replicas: int = 1, down_after_ms: int = 500
    ) -> None:
        super().__init__()
        first = ConfiguredServer(data_dir / "server-0", *_LIVELY, *arguments)
        follow = ("--replicaof", f"127.0.0.1 {first.port}")
        self.servers = [
            first,
            *(
                ConfiguredServer(data_dir / f"server-{i + 1}", *_LIVELY, *follow, *arguments)
                for i in range(replicas)
            ),
        ]
        self.sentinels = [
            SentinelServer(data_dir / f"sentinel-{i}", first.port, down_after_ms=down_after_ms)
            for i in range(3)
        ]

    @property
    def url(self) -> str:
        """The URL for ``--redis-url``."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    def _start(self, stack: contextlib.ExitStack) -> None:
        for server in self.servers:
            stack.enter_context(server)
        eventually(lambda: self._in_sync(self.servers[0]) == len(self.servers) - 1)
        for sentinel in self.sentinels:
            stack.enter_context(sentinel)
        eventually(lambda: all(self._knows_all(sentinel) for sentinel in self.sentinels))

    def await_in_sync(self, *, within_s: float = 20.0) -> None:
        """Wait until all replicas follow the primary."""

        def in_sync() -> bool:
            with contextlib.suppress(redis.RedisError):
                return self._in_sync(self.primary) == len(self.servers) - 1
            return False

        eventually(in_sync, within_s=within_s)

    def _in_sync(self, primary: RedisServer) -> int:
        info = _info(primary)
        return sum(
            info.get(f"slave{i}", {}).get("state") == "online" for i in range(len(self.servers))
        )

    def _knows_all(self, sentinel: RedisServer) -> bool:
        with sentinel.client() as client:
            known: dict[str, Any] = client.sentinel_master(SERVICE)
        others, replicas = known["num-other-sentinels"], known["num-slaves"]
        return (others, replicas) == (len(self.sentinels) - 1, len(self.servers) - 1)

    @property
    def primary(self) -> RedisServer:
        """The server that the first running Sentinel reports as the primary."""
        for sentinel in self.sentinels:
            if sentinel.runs:
                with sentinel.client() as client:
                    port = client.sentinel_master(SERVICE)["port"]
                return next(server for server in self.servers if server.port == port)
        raise AssertionError("no Sentinel is running")

    @property
    def replicas(self) -> list[RedisServer]:
        """All servers except the primary."""
        primary = self.primary
        return [server for server in self.servers if server is not primary]

    def await_failover(self, old: RedisServer, *, within_s: float = 15.0) -> RedisServer:
        """Wait until a server other than ``old`` is primary and reports that role; return it."""

        def successor() -> RedisServer | None:
            with contextlib.suppress(redis.RedisError):
                new = self.primary
                if new is not old and _info(new)["role"] == "master":
                    return new
            return None

        found = eventually(successor, within_s=within_s)
        assert found is not None
        return found


class RedisCluster(_Members):
    """A Cluster of primaries, each with the given number of replicas, as a context manager.

    If some slots are unavailable, the others still work (``cluster-require-full-coverage no``).

    Args:
        data_dir: Where all members keep their data.
        primaries: Number of primaries.
        replicas: Number of replicas of each primary.
        arguments: Additional arguments of all members.

    Attributes:
        servers: The initial primaries in the order of their slots, then their replicas: one of each
            primary in turn.
    """

    def __init__(
        self, data_dir: Path, *arguments: str, primaries: int = 3, replicas: int = 0
    ) -> None:
        super().__init__()
        self._primaries = primaries
        self._bus_ports = [free_port() for _ in range(primaries * (1 + replicas))]
        self.servers = [
            RedisServer(
                data_dir / f"node-{i}",
                *_LIVELY,
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
                *("--cluster-port", str(bus_port), "--cluster-require-full-coverage", "no"),
                *("--cluster-replica-validity-factor", "0"),
                *arguments,
            )
            for i, bus_port in enumerate(self._bus_ports)
        ]

    @property
    def url(self) -> str:
        """The URL for ``--redis-url``."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{s.port}' for s in self.servers)}"

    def _start(self, stack: contextlib.ExitStack) -> None:
        for server in self.servers:
            stack.enter_context(server)
        first, count = self.servers[0], self._primaries
        for i, server in enumerate(self.servers[:count]):
            begin, end = i * _SLOTS // count, (i + 1) * _SLOTS // count - 1
            _ask(server, "CLUSTER ADDSLOTSRANGE", begin, end)
            _ask(server, "CLUSTER SET-CONFIG-EPOCH", i + 1)
        for server, bus_port in zip(self.servers[1:], self._bus_ports[1:], strict=True):
            _ask(first, "CLUSTER MEET", "127.0.0.1", server.port, bus_port)
        eventually(lambda: all(self._knows(server) for server in self.servers))
        for i, server in enumerate(self.servers[count:]):
            primary = _ask(self.servers[i % count], "CLUSTER MYID").decode()
            _ask(server, "CLUSTER REPLICATE", primary)
        replicas = len(self.servers) // count - 1
        eventually(
            lambda: all(_info(s)["connected_slaves"] == replicas for s in self.servers[:count])
        )
        self.await_all_slots()

    def _knows(self, server: RedisServer) -> bool:
        info = _ask(server, "CLUSTER INFO")
        return int(info["cluster_known_nodes"]) == len(self.servers)

    def await_all_slots(self, *, within_s: float = 15.0) -> None:
        """Wait until all running members report that all slots are served."""

        def all_served() -> bool:
            with contextlib.suppress(redis.RedisError):
                states = [_ask(server, "CLUSTER INFO") for server in self.servers if server.runs]
                return all(
                    state["cluster_state"] == "ok"
                    and int(state["cluster_slots_ok"]) == _SLOTS
                    and int(state["cluster_slots_fail"]) == 0
                    for state in states
                )
            return False

        eventually(all_served, within_s=within_s)

    def move_slot(self, project: str, source: RedisServer, target: RedisServer) -> Iterator[int]:
        """Move a project's slot from one primary to another, key by key; yield between the steps.

        Yields:
            1, 2, 3 and so on, while the slot is in both places.
        """
        slot = key_slot(project.encode())
        ids = [_ask(server, "CLUSTER MYID").decode() for server in (source, target)]
        _ask(target, "CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
        _ask(source, "CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
        step = 1
        yield step
        while names := _ask(source, "CLUSTER GETKEYSINSLOT", slot, 1):
            _ask(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *names)
            step += 1
            yield step
        for server in (target, source, *self.servers):
            _ask(server, "CLUSTER SETSLOT", slot, "NODE", ids[1])

    def primary_of(self, project: str) -> RedisServer:
        """Return the initial primary that holds the keys of a project."""
        slot = key_slot(project.encode())
        return self.servers[slot * self._primaries // _SLOTS]

    def projects(self, prefix: str = "p") -> list[str]:
        """Return one project for each initial primary, in their order."""
        found: dict[int, str] = {}
        number = 0
        while len(found) < self._primaries:
            project = f"{prefix}-{number}"
            found.setdefault(self.servers.index(self.primary_of(project)), project)
            number += 1
        return [found[i] for i in range(self._primaries)]


# Replicas detect a lost link quickly, and acknowledge often enough for min-replicas-max-lag.
_LIVELY = ("--repl-ping-replica-period", "1", "--repl-diskless-sync-delay", "0")


def _info(server: RedisServer) -> dict[str, Any]:
    with server.client() as client:
        return dict(client.info("replication"))


def _ask(server: RedisServer, *command: Any) -> Any:
    with server.client() as client:
        return client.execute_command(*command)
