"""Starts ``advisor`` processes by forking one that has imported everything: a second less each.

The forked process is a real one: own process id, signals, standard streams and environment. Only
the interpreter's start and the imports are missing, which ``tests/e2e/test_serving.py`` covers.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

_MAX_REQUEST_BYTES = 2**20
_OWN_DESCRIPTORS = 3  # standard input, output and error


class ForkedProcess(subprocess.Popen[bytes]):
    """A process that the fork server started, with the interface of ``subprocess.Popen``.

    Args:
        arguments: The arguments of ``advisor``.
        output: Where standard output and standard error go.
    """

    def __init__(self, arguments: Sequence[str], output: IO[bytes]) -> None:
        # The base class would start a process itself; these are the attributes it reads later.
        self._child_created = False
        self.args = ["advisor", *arguments]
        self.returncode: int | None = None
        self.stdout = self.stderr = None
        input_read, input_write = os.pipe()
        status_read, status_write = os.pipe()
        request = {
            "arguments": arguments,
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
        }
        try:
            socket.send_fds(
                _server(),
                [json.dumps(request).encode()],
                [input_read, output.fileno(), output.fileno(), status_write],
            )
        finally:
            os.close(input_read)
            os.close(status_write)
        self.stdin = os.fdopen(input_write, "wb", buffering=0)
        self._status = os.fdopen(status_read, "rb", buffering=0)
        self.pid = int(self._status.readline())

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._read_status()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process to end, and return its exit status."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self._read_status()
        assert self.returncode is not None
        return self.returncode

    def _read_status(self) -> None:
        self.returncode = os.waitstatus_to_exitcode(int(self._status.readline()))
        self._status.close()


@functools.cache
def _server() -> socket.socket:
    """Start this test process's fork server, and return the connection to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            process_group=0,
        )

    def stop() -> None:
        ours.close()
        server.wait()

    atexit.register(stop)
    return ours


def _serve(connection: socket.socket) -> None:
    """Fork a process for each request; return in the forked process, exit when no more can come."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, _MAX_REQUEST_BYTES, 4)
        if not data:
            sys.exit()
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            os.waitpid(-1, os.WNOHANG)  # a keeper that ended
            continue
        *streams, status = descriptors
        connection.close()
        if child := os.fork():
            _keep(child, streams, status)
        os.setpgid(0, 0)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        os.closerange(_OWN_DESCRIPTORS, max(descriptors) + 1)
        request = json.loads(data)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.argv = ["advisor", *request["arguments"]]
        return


def _keep(child: int, streams: Sequence[int], status: int) -> None:
    """Report the process id of a child and, when it ends, its status. Does not return."""
    for descriptor in streams:
        os.close(descriptor)
    os.write(status, f"{child}\n".encode())
    os.write(status, f"{os.waitpid(child, 0)[1]}\n".encode())
    os._exit(0)


def main() -> None:
    """Import the service and serve requests; in each forked process, run the command line."""
    import typer
    import uvloop  # noqa: F401 - the service imports it when it starts

    import advisor.server.worker  # noqa: F401
    from advisor.cli import app
    from advisor.store.redis.embedded import find_program

    command = typer.main.get_command(app)
    find_program()
    gc.collect()
    gc.freeze()  # a collection would touch, and so copy, every shared page
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        _serve(connection)
    command()


if __name__ == "__main__":
    main()
