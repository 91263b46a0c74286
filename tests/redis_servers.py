"""Redis server processes that a test can kill, freeze and restart."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from advisor.runtime.processes import terminate
from advisor.store.redis.embedded import find_program

_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 10.0


def free_port() -> int:
    """Return a loopback TCP port that is free, and that no outgoing connection takes.

    The system gives connections ports from 32768 on, so that a server on one of those may find it
    taken when it starts.
    """
    while True:
        port = random.randrange(15_000, 32_768)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class RedisServer:
    """A server on a loopback port, as a context manager; its data survive :meth:`kill`.

    Args:
        data_dir: Directory of its append-only file; created if missing.
        arguments: Additional arguments of the server.
        port: Port to listen on. Default: a free port.
        client_options: Arguments of ``redis.Redis`` that a client needs to connect.
    """

    def __init__(
        self,
        data_dir: Path,
        *arguments: str,
        port: int = 0,
        client_options: dict[str, Any] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self._arguments: Sequence[str] = arguments
        self._client_options = client_options or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL for ``--redis-url``."""
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        """Return a client of this server; close it after use."""
        return redis.Redis(
            host="127.0.0.1", port=self.port, socket_timeout=5, **self._client_options
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server, and wait until it answers with its data loaded."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except redis.RedisError:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        log = (self.data_dir / "redis.log").read_text("utf-8", "replace")
                        raise AssertionError(f"the Redis server did not start: {log}") from None
                    time.sleep(0.02)
                else:
                    return

    def _command(self) -> list[str]:
        """Return the command line that starts the server."""
        return [
            *(str(find_program()), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self.data_dir), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always"),
            *("--logfile", str(self.data_dir / "redis.log")),
            *self._arguments,
        ]

    def stop(self) -> None:
        """Stop the server gracefully; a frozen server is thawed first."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
            terminate(process, grace_s=_STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Kill the server with SIGKILL; acknowledged writes are on disk."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Suspend the server (SIGSTOP): connections stay open, but get no answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume a frozen server (SIGCONT)."""
        self._signal(signal.SIGCONT)

    @property
    def runs(self) -> bool:
        """Whether the server was started, and not stopped or killed since."""
        return self._process is not None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise AssertionError("the Redis server is not running")
        self._process.send_signal(number)
