"""The processes that are measured: the echo server, and what the system reports of a process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from advisor.runtime.processes import terminate

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0


class EchoServer:
    """The echo server in its own process, as a context manager.

    Args:
        answer: Its answer, encoded.

    Attributes:
        address: Address that it listens on.
    """

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self.address = ""

    def __enter__(self) -> Self:
        """Start the server and wait until it listens."""
        self._scratch = tempfile.TemporaryDirectory(prefix="fslr-echo-")
        answer_file, address_file = (Path(self._scratch.name, n) for n in ("answer", "address"))
        answer_file.write_bytes(self._answer)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.rpc.echo", str(answer_file), str(address_file)],
            stdin=subprocess.PIPE,
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not address_file.is_file():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError("the echo server did not start; its output above says why")
            time.sleep(0.02)
        self.address = address_file.read_text("utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    def stop(self) -> None:
        """Stop the server and remove its files."""
        process, self._process = self._process, None
        if process is not None:
            terminate(process, grace_s=_STOP_TIMEOUT_S)
            if process.stdin is not None:
                process.stdin.close()
        if self._scratch is not None:
            self._scratch.cleanup()


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def has_option(option: str) -> bool:
    """Return whether ``advisor serve`` has an option."""
    shown = subprocess.run(
        [sys.executable, "-m", "advisor", "serve", "--help"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
    )
    return option in shown.stdout
