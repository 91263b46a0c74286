"""Starts processes by forking one that has imported everything, which saves seconds per process.

A forked process is a real process with its process id, signals, standard streams and environment.
Only interpreter start and imports are skipped; ``tests/e2e/test_serving.py`` covers those.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

SERVICE = "service"
"""The kind of process that runs ``advisor`` with the arguments."""
TRAINING = "training"
"""The kind that runs ``python -W ignore -m`` with the arguments, PyTorch being imported."""
TRAINERS = "trainers"
"""The same kind, with the trainers of ``fslr.integrations`` imported too."""
_TRAINING_IMPORTS = (
    *("torch.distributed.fsdp", "torch.utils.data", "fslr.torch", "advisor.local.in_process"),
    *("benchmarks.char_gpt", "tests.building"),
)
_IMPORTS = {
    TRAINING: _TRAINING_IMPORTS,
    TRAINERS: (
        *_TRAINING_IMPORTS,
        *("fslr.integrations.transformers", "tests.hugging_face"),
        *("fslr.integrations.lightning", "tests.lightning_modules"),
    ),
}
_MAX_REQUEST_BYTES = 2**20


class ForkedProcess(subprocess.Popen[bytes]):
    """A process that a fork server started, with the interface of ``subprocess.Popen``.

    Args:
        kind: Which imports are preloaded, and what the process runs.
        arguments: The arguments of the command.
        stdout: Where standard output goes.
        stderr: Where standard error goes. Default: where standard output goes.
        environment: Environment variables. Default: those of this process.
    """

    def __init__(
        self,
        kind: str,
        arguments: Sequence[str],
        stdout: IO[bytes],
        stderr: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # The base class would start a process; set the attributes that its methods read instead.
        self._child_created = False
        self.args = [kind, *arguments]
        self.returncode: int | None = None
        self.stdout = self.stderr = None
        input_read, input_write = os.pipe()
        status_read, status_write = os.pipe()
        request = {
            "arguments": arguments,
            "environment": dict(os.environ if environment is None else environment),
            "folder": str(Path.cwd()),
        }
        streams = [input_read, stdout.fileno(), (stderr or stdout).fileno()]
        try:
            server = _server(kind)
            socket.send_fds(server, [json.dumps(request).encode()], [*streams, status_write])
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

    def end(self) -> None:
        """Kill the process if it is still running."""
        self.kill()
        self.wait()
        assert self.stdin is not None
        self.stdin.close()

    def _read_status(self) -> None:
        self.returncode = os.waitstatus_to_exitcode(int(self._status.readline()))
        self._status.close()


def start_service(arguments: Sequence[str], output: IO[bytes]) -> ForkedProcess:
    """Start ``advisor`` with the given arguments."""
    return ForkedProcess(SERVICE, arguments, output)


def run_trainings(
    commands: Sequence[Sequence[str]],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    kind: str = TRAINING,
    is_quiet: bool = False,
) -> list[str]:
    """Run modules concurrently, and return the output of each.

    Args:
        commands: Module name and arguments of each process.
        timeout_s: Time limit for all processes together.
        environment: Environment variables. Default: those of this process.
        kind: What the processes have imported: ``TRAINING`` or ``TRAINERS``.
        is_quiet: Whether nothing may be written to standard error.

    Raises:
        AssertionError: A process failed, or is not quiet. The message has the end of its standard
            error.
    """
    running: list[tuple[ForkedProcess, IO[bytes], IO[bytes]]] = []
    with contextlib.ExitStack() as stack:
        for command in commands:
            stdout, stderr = (stack.enter_context(TemporaryFile()) for _ in range(2))
            process = ForkedProcess(kind, command, stdout, stderr, environment)
            stack.callback(process.end)
            running.append((process, stdout, stderr))
        for process, _, errors in running:
            status = process.wait(timeout_s)
            written = _content(errors)[-2000:]
            assert status == 0, written
            assert not (is_quiet and written), written
        return [_content(output) for _, output, _ in running]


def _content(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "replace")


@functools.cache
def _server(kind: str) -> socket.socket:
    """Start the fork server of a kind for this test process, and return its connection."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", kind, str(theirs.fileno())],
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
    """Fork a process per request; return in the forked process, exit when the connection ends."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, _MAX_REQUEST_BYTES, 4)
        if not data:
            sys.exit()
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            os.waitpid(-1, os.WNOHANG)  # reap a keeper process that has ended
            continue
        *streams, status = descriptors
        connection.close()
        if child := os.fork():
            _keep(child, streams, status)
        os.setpgid(0, 0)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        os.closerange(len(streams), max(descriptors) + 1)
        request = json.loads(data)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.argv[1:] = request["arguments"]
        return


def _keep(child: int, streams: Sequence[int], status: int) -> None:
    """Report the process id of a child and, when it ends, its status. Does not return."""
    for descriptor in streams:
        os.close(descriptor)
    os.write(status, f"{child}\n".encode())
    os.write(status, f"{os.waitpid(child, 0)[1]}\n".encode())
    os._exit(0)


def _service() -> Callable[[], None]:
    import typer
    import uvloop  # noqa: F401 - the service imports it when it starts

    import advisor.server.worker  # noqa: F401
    from advisor.cli import app
    from advisor.store.redis.embedded import find_program

    command = typer.main.get_command(app)
    find_program()
    sys.argv[0] = "advisor"
    return command


def _training(imports: Sequence[str]) -> Callable[[], None]:
    import torch

    for name in imports:
        importlib.import_module(name)
    torch.optim.Adam([torch.zeros(1)])  # the first optimizer imports the compiler
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", category=FutureWarning, module="fslr")

    def run() -> None:
        _, module, *arguments = sys.argv
        sys.argv[1:] = arguments
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    return run


def main() -> None:
    """Import what a kind needs and serve requests; in each forked process, run the command."""
    kind, descriptor = sys.argv[1:]
    run = _service() if kind == SERVICE else _training(_IMPORTS[kind])
    gc.collect()
    gc.freeze()  # a garbage collection would write to, and so copy, every shared page
    with socket.socket(fileno=int(descriptor)) as connection:
        _serve(connection)
    run()


if __name__ == "__main__":
    main()
