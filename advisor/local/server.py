"""Runs ``advisor serve`` as a child process, for demos and integration tests."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from advisor.runtime.processes import terminate

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 15.0
_WEB_URL = re.compile(r"\bweb=(https?://\S+)/")


class LocalServerError(Exception):
    """The service did not start or does not run; the message ends with its log."""


class LocalServer:
    """A service on a free loopback port, as a context manager.

    Args:
        data_dir: Data directory of the embedded Redis. Default: a temporary directory.
        arguments: Further arguments of ``advisor serve``.

    Attributes:
        address: Address of the service, ``host:port``; empty before it runs.

    Raises:
        LocalServerError: On entering the context, if the service does not start.
    """

    def __init__(self, data_dir: Path | None = None, *arguments: str) -> None:
        self._data_dir = data_dir
        self._arguments = arguments
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path()
        self.address = ""

    @property
    def pid(self) -> int:
        """The service's process id.

        Raises:
            LocalServerError: The service does not run.
        """
        if self._process is None:
            raise LocalServerError("the local server is not running; enter its context first")
        return self._process.pid

    def log(self) -> str:
        """Return the log of the service so far."""
        return self._log.read_text("utf-8", "replace") if self._log.is_file() else ""

    def web_url(self) -> str:
        """Return the address of the web page, which the service logs once it is serving.

        Raises:
            LocalServerError: The service does not serve the page.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while (found := _WEB_URL.search(self.log())) is None:
            if "--http" not in self._arguments or time.monotonic() > deadline:
                raise LocalServerError("the service serves no web page; start it with --http 0")
            time.sleep(0.02)
        return found[1]

    def __enter__(self) -> Self:
        """Start the service and wait until it answers."""
        self._scratch = tempfile.TemporaryDirectory(prefix="fslr-", ignore_cleanup_errors=True)
        scratch = Path(self._scratch.name)
        address_file = scratch / "address"
        self._log = scratch / "log"
        with self._log.open("wb") as log:
            self._process = self._launch(
                [
                    *("serve", "--port", "0"),
                    *("--data-dir", str(self._data_dir or scratch / "data")),
                    *("--address-file", str(address_file)),
                    "--until-eof",  # if this process dies, the pipe closes and the service stops
                    *self._arguments,
                ],
                log,
            )
        try:
            self._await_address(self._process, address_file)
        except BaseException:
            self.stop()
            raise
        return self

    @staticmethod
    def _launch(arguments: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start ``advisor`` with arguments; its standard input is a pipe from this process."""
        return subprocess.Popen(
            [sys.executable, "-m", "advisor", *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )

    def _await_address(self, process: subprocess.Popen[bytes], address_file: Path) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not address_file.is_file():
            if process.poll() is not None or time.monotonic() > deadline:
                raise LocalServerError(f"the advisor did not start: {self.log().strip()}")
            time.sleep(0.02)
        self.address = address_file.read_text("utf-8")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the service."""
        self.stop()

    def stop(self) -> None:
        """Stop the service as an operator would, and remove its temporary files."""
        process, self._process = self._process, None
        if process is not None:
            terminate(process, grace_s=_STOP_TIMEOUT_S)
            if process.stdin is not None:
                process.stdin.close()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None
