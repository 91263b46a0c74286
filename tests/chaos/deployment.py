"""The deployment under test: Redis, and replicas of the service behind proxies."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from advisor.local.server import LocalServer, LocalServerError
from tests.chaos.faults import (
    LINK_FAULTS,
    REDIS_FAULTS,
    SERVICE_FAULTS,
    Fault,
    FollowerKilled,
    PrimaryKilled,
    RedisKilled,
)
from tests.proxy import Proxy
from tests.redis_servers import RedisServer, free_port
from tests.redis_topologies import RedisCluster, SentinelTrio

REPLICAS = 2
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_DEFECTS = ("Traceback", "defect")


class Store(Protocol):
    """A Redis of any topology, as a context manager.

    Attributes:
        arguments: Arguments of the service in addition to the URL.
    """

    arguments: Sequence[str]

    def urls(self) -> Sequence[str]:
        """Return the URL that each replica of the service uses."""

    def faults(self) -> Sequence[Fault]:
        """Return its faults."""

    def restart(self) -> None:
        """Kill all of its servers, and start them again with the data on disk."""

    def __enter__(self) -> Self:
        """Start it."""

    def __exit__(self, *_: object) -> None:
        """Stop it."""


class Standalone:
    """One server; each replica of the service has its own link to it.

    Args:
        data_dir: The folder for its data.
        arguments: Further arguments of the server.
    """

    arguments: Sequence[str] = ()

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self._server = RedisServer(data_dir, *arguments)
        self._links = [Proxy(0, self._server.port) for _ in range(REPLICAS)]
        self._open = contextlib.ExitStack()

    def urls(self) -> Sequence[str]:
        """Return the URL that each replica uses."""
        return [link.redis_url for link in self._links]

    def faults(self) -> Sequence[Fault]:
        """Return the faults of the server and of the links to it."""
        links = [
            fault(f"service-{i} to redis", link)
            for i, link in enumerate(self._links)
            for fault in LINK_FAULTS
        ]
        return [*links, *(fault("redis", self._server) for fault in REDIS_FAULTS)]

    def restart(self) -> None:
        """Kill the server and start it again."""
        self._server.kill()
        self._server.start()

    def __enter__(self) -> Self:
        """Start the server and the links."""
        self._open.enter_context(self._server)
        for link in self._links:
            self._open.enter_context(link)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        self._open.close()


class Sentinels:
    """A primary with two replicas, one of which must confirm each write, and three Sentinels.

    A primary that is alive but considered down can answer stale reads until it is demoted or the
    service leaves it. This is not tested here, so the Sentinels wait longer than a primary pauses.

    Args:
        data_dir: The folder for their data.
    """

    arguments: Sequence[str] = ("--redis-wait-replicas", "1")

    def __init__(self, data_dir: Path) -> None:
        self._trio = SentinelTrio(data_dir, replicas=2, down_after_ms=1500)

    def urls(self) -> Sequence[str]:
        """Return the URL that each replica of the service uses."""
        return [self._trio.url] * REPLICAS

    def faults(self) -> Sequence[Fault]:
        """Return the faults of its members."""
        sentinels = (RedisKilled(f"sentinel-{i}", s) for i, s in enumerate(self._trio.sentinels))
        return [PrimaryKilled(self._trio), FollowerKilled(self._trio), *sentinels]

    def restart(self) -> None:
        """Kill all servers and start them again; their files state which is the primary."""
        for server in self._trio.servers:
            server.kill()
        for server in self._trio.servers:
            server.start()

    def __enter__(self) -> Self:
        """Start all members."""
        self._trio.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        self._trio.__exit__(None, None, None)


class ClusterOfThree:
    """Three primaries; all keys of a project are on one of them.

    Args:
        data_dir: The folder for their data.
    """

    arguments: Sequence[str] = ()

    def __init__(self, data_dir: Path) -> None:
        self._cluster = RedisCluster(data_dir)

    def urls(self) -> Sequence[str]:
        """Return the URL that each replica of the service uses."""
        return [self._cluster.url] * REPLICAS

    def faults(self) -> Sequence[Fault]:
        """Return the faults of its nodes, half of them for the node of the project `default`."""
        nodes = dict(enumerate(self._cluster.servers))
        others = [fault(f"node-{i}", node) for i, node in nodes.items() for fault in REDIS_FAULTS]
        ours = self._cluster.primary_of("default")
        return [*others, *(fault("the default project's node", ours) for fault in REDIS_FAULTS)]

    def restart(self) -> None:
        """Kill all nodes and start them again."""
        for server in self._cluster.servers:
            server.kill()
        for server in self._cluster.servers:
            server.start()
        self._cluster.await_all_slots()

    def __enter__(self) -> Self:
        """Start all nodes."""
        self._cluster.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        self._cluster.__exit__(None, None, None)


class Replica:
    """One process of the service, which always starts on the same port.

    Args:
        number: Number of the replica.
        arguments: Its arguments, including the URL of Redis.
        log: The file to which its log is appended when it ends.
    """

    def __init__(self, number: int, arguments: Sequence[str], log: Path) -> None:
        self.number = number
        self.port = free_port()
        self._arguments = arguments
        self._log = log
        self._server: LocalServer | None = None
        self._pid = 0

    @property
    def address(self) -> str:
        """Its address without a proxy."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, again and again until it answers: it exits while Redis is unavailable."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            place = ("--port", str(self.port), "--grace-s", "1")
            server = LocalServer(None, *place, *self._arguments)
            try:
                server.__enter__()
            except LocalServerError:
                if time.monotonic() > deadline:
                    raise
            else:
                self._server, self._pid = server, server.pid
                return

    def kill(self) -> None:
        """End it by SIGKILL."""
        os.kill(self._pid, signal.SIGKILL)
        self._ended()

    def terminate(self) -> None:
        """End it by SIGTERM."""
        os.kill(self._pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT  # the status is left for its parent to read
        while os.waitid(os.P_PID, self._pid, look) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        self._ended()

    def freeze(self) -> None:
        """Pause it (SIGSTOP)."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume it (SIGCONT)."""
        os.kill(self._pid, signal.SIGCONT)

    def stop(self) -> None:
        """Stop it if it runs."""
        if self._server is not None:
            self.terminate()

    def _ended(self) -> None:
        """Wait until it has ended, and keep its log."""
        server, self._server = self._server, None
        if server is not None:
            log = server.log()  # deleted with the server
            server.stop()
            with self._log.open("a", encoding="utf-8") as kept:
                kept.write(log)


class Services:
    """The replicas, each behind a proxy, as a context manager.

    Args:
        store: Their Redis.
        folder: The folder for their logs.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._folder = folder
        self.replicas = [
            Replica(i, ("--redis-url", url, *store.arguments), folder / f"service-{i}.log")
            for i, url in enumerate(store.urls())
        ]
        self._links = [Proxy(0, replica.port) for replica in self.replicas]
        self._open = contextlib.ExitStack()

    @property
    def address(self) -> str:
        """The address with which clients reach all replicas."""
        return "ipv4:" + ",".join(link.address for link in self._links)

    def faults(self) -> Sequence[Fault]:
        """Return the faults of the replicas and of the links to them."""
        return [
            *(
                fault(f"service-{replica.number}", replica)
                for replica in self.replicas
                for fault in SERVICE_FAULTS
            ),
            *(
                fault(f"clients to service-{i}", link)
                for i, link in enumerate(self._links)
                for fault in LINK_FAULTS
            ),
        ]

    def defects(self) -> list[str]:
        """Return the log lines that report defects; complete once the replicas are stopped."""
        return [
            line
            for log in sorted(self._folder.glob("service-*.log"))
            for line in log.read_text("utf-8", "replace").splitlines()
            if any(word in line for word in _DEFECTS)
        ]

    def __enter__(self) -> Self:
        """Start them."""
        with contextlib.ExitStack() as started:
            for link in self._links:
                started.enter_context(link)
            for replica in self.replicas:
                started.callback(replica.stop)
                replica.start()
            self._open = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        self._open.close()
