"""Open pages of runs, without a browser: the requests of a page, and its live connection.

As a program (``python -m benchmarks.web.open_pages URL COUNT RUN...``) it opens pages until its
standard input ends. Browsers run on other machines, so it has a low priority. It prints ``ready``
once all are open, and the number of measurements that they have received after each line of input.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import uvloop

from benchmarks.rpc.payload import PROJECT

_OPENING = 20  # pages that load at the same time
_OPEN_S = 120.0
_FIGURES_S = 5.0  # between two requests for the figures, as in the page's script
_PIXELS = 1_300


class PagesError(Exception):
    """A page could not be opened, or lost its connection."""


class _Connection:
    """A connection that asks for one path after the other.

    Args:
        host: Host and port of the page.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        """Return the connection; it connects when it is used."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        if self._streams is not None:
            self._streams[1].close()

    async def _ask(self, path: str) -> tuple[asyncio.StreamReader, dict[str, str]]:
        if self._streams is None or self._streams[0].at_eof():  # an idle one was closed
            name, _, port = self._host.rpartition(":")
            self._streams = await asyncio.open_connection(name, int(port))
        reader, writer = self._streams
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nAccept-Encoding: gzip\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        if " 200 " not in head[0]:
            raise PagesError(f"{path} answered {head[0]!r}")
        pairs = (line.partition(": ") for line in head[1:])
        return reader, {name.lower(): value for name, _, value in pairs}

    async def get(self, path: str) -> bytes:
        """Return the body of an answer."""
        reader, headers = await self._ask(path)
        if headers.get("transfer-encoding") == "chunked":  # a page whose history is read meanwhile
            body = b"".join([chunk async for chunk in _chunks(reader)])
        else:
            body = await reader.readexactly(int(headers["content-length"]))
        return gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body

    async def lines(self, path: str) -> AsyncIterator[bytes]:
        """Yield the lines of an answer that does not end."""
        reader, _ = await self._ask(path)
        while line := await reader.readline():
            yield line
        raise PagesError(f"{path} ended")


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the chunks of a body whose length was not known when it began."""
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        await reader.readline()
    await reader.readline()


class _Page:
    """One page of a run.

    Args:
        host: Host and port of the service's page.
        run: The run's id.
    """

    def __init__(self, host: str, run: str) -> None:
        self._host = host
        self._base = f"/projects/{PROJECT}/runs/{run}"
        self.is_open = asyncio.Event()
        self.received = 0

    async def follow(self, opening: asyncio.Semaphore) -> None:
        """Load the page, and follow its run."""
        async with _Connection(self._host) as connection:
            async with opening:
                await connection.get(self._base)
            while True:
                async with opening:
                    data = await connection.get(f"{self._base}/curves.json?pixels={_PIXELS}")
                await self._receive(json.loads(data), connection)

    async def _receive(self, curves: dict[str, Any], connection: _Connection) -> None:
        """Receive measurements until the curves must be loaded again."""
        complete = "1" if curves["complete"] else "0"
        query = urlencode({
            "after": curves["last_id"],
            "shape": curves["shape"],
            "complete": complete,
        })
        loop = asyncio.get_running_loop()
        asked = 0.0
        async with _Connection(self._host) as live:
            async for line in live.lines(f"{self._base}/events?{query}"):
                self.is_open.set()
                if line == b"event: reload\n":
                    return
                if line.startswith(b"id: "):
                    self.received += 1
                    if loop.time() - asked > _FIGURES_S:
                        asked = loop.time()
                        await connection.get(f"{self._base}/figures")


async def _hold_open(url: str, count: int, runs: Sequence[str]) -> None:
    """Open pages until standard input ends."""
    host = urlsplit(url).netloc
    pages = [_Page(host, runs[i % len(runs)]) for i in range(count)]
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    opening = asyncio.Semaphore(_OPENING)

    async def answer() -> None:
        async with asyncio.timeout(_OPEN_S):
            await asyncio.gather(*(page.is_open.wait() for page in pages))
        print("ready", flush=True)  # noqa: T201 - the program's answer
        while await lines.readline():
            print(sum(page.received for page in pages), flush=True)  # noqa: T201

    async with asyncio.TaskGroup() as group:
        following = [group.create_task(page.follow(opening)) for page in pages]
        await group.create_task(answer())
        for task in following:
            task.cancel()


class OpenPages:
    """Pages of runs in a process of their own, as a context manager.

    Args:
        url: Address of the service's page.
        runs: The ids of the runs; pages are divided evenly among them.
        count: Number of pages.

    Raises:
        PagesError: A page could not be opened, or lost its connection.
    """

    def __init__(self, url: str, runs: Sequence[str], count: int) -> None:
        self._command = [sys.executable, "-m", "benchmarks.web.open_pages", url, str(count), *runs]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Open the pages."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._read() != "ready":
            raise PagesError("the pages did not open; see the messages above")
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pages."""
        assert self._process is not None  # noqa: S101 - it was entered
        with contextlib.suppress(OSError):
            self._process.communicate(timeout=10)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def received(self) -> int:
        """Return how many measurements the pages have received."""
        assert self._process is not None  # noqa: S101 - it was entered
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        with contextlib.suppress(OSError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        found = self._read()
        if not found:
            raise PagesError("a page lost its connection; see the messages above")
        return int(found)

    def _read(self) -> str:
        assert self._process is not None  # noqa: S101 - it was entered
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        return self._process.stdout.readline().strip()


if __name__ == "__main__":
    os.nice(5)
    uvloop.run(_hold_open(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
