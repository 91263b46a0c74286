"""Proxies that delay, drop or decrypt the traffic between two parts of a system."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

_PIECE_BYTES = 65_536
_HOST = "127.0.0.1"
_T = TypeVar("_T")


class Proxy:
    """Forwards a Unix socket or a loopback TCP port to another one, in a separate thread.

    Its attributes may be changed at any time from any thread.

    Args:
        listen: Socket path or port to listen on; 0 for a free port.
        target: Socket path or port to forward to.

    Attributes:
        port: The port that it listens on; 0 for a socket.
        delay_s: Delay of each piece of data in both directions, in seconds.
        bytes_per_s: Maximum bytes per second in each direction of a connection; 0 for no limit.
        drops_answers: Whether answers are dropped while requests pass: a request takes effect, but
            the caller gets no answer. Cut the connections afterwards, because parts are missing.
        dropped_bytes: Bytes of answers dropped so far.
    """

    def __init__(self, listen: Path | int, target: Path | int) -> None:
        self.port = listen if isinstance(listen, int) else 0
        self.delay_s = 0.0
        self.bytes_per_s = 0.0
        self.drops_answers = False
        self.dropped_bytes = 0
        self._listen, self._target = listen, target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._passes = asyncio.Event()
        self._passes.set()

    @property
    def address(self) -> str:
        """The address that it listens on: ``host:port``, or the path of the socket."""
        return str(self._listen) if isinstance(self._listen, Path) else f"{_HOST}:{self.port}"

    @property
    def redis_url(self) -> str:
        """The URL for ``--redis-url``."""
        scheme = "unix" if isinstance(self._listen, Path) else "redis"
        return f"{scheme}://{self.address}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(self._start())
        if not isinstance(self._listen, Path):
            self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def hold(self) -> None:
        """Stop forwarding until :meth:`release`, like a broken cable: connections stay open."""
        self._loop.call_soon_threadsafe(self._passes.clear)

    def release(self) -> None:
        """Forward again, starting with the held data."""
        self._loop.call_soon_threadsafe(self._passes.set)

    def cut(self) -> int:
        """Abort all connections, and return the number of ends that were aborted."""
        return self._run(self._cut())

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> asyncio.Server:
        if isinstance(self._listen, Path):
            return await asyncio.start_unix_server(self._accept, self._listen)
        return await asyncio.start_server(self._accept, _HOST, self._listen)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cut(self) -> int:
        cut = list(self._writers)
        for writer in cut:
            writer.transport.abort()
        return len(cut)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await self._connect()
        except OSError:  # nothing listens on the target now
            writer.transport.abort()
            return
        for source, sink, answers in ((reader, back, False), (there, writer, True)):
            self._writers.add(sink)
            task = self._loop.create_task(self._forward(source, sink, answers=answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(_HOST, self._target)

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                while piece := await source.read(_PIECE_BYTES):
                    await asyncio.sleep(self.delay_s)
                    if self.bytes_per_s:
                        await asyncio.sleep(len(piece) / self.bytes_per_s)
                    await self._passes.wait()
                    if answers and self.drops_answers:
                        self.dropped_bytes += len(piece)
                        continue
                    sink.write(piece)
                    await sink.drain()
        finally:
            self._writers.discard(sink)
            sink.close()


class TlsProxy:
    """Terminates TLS in front of a loopback TCP port, as a context manager.

    Args:
        cert: Certificate that it presents.
        key: Key of the certificate.
        ca: Authority of the certificates that callers must present.
        target_port: Port to forward to.

    Attributes:
        port: The port that it listens on, on all loopback addresses.
    """

    def __init__(self, cert: Path, key: Path, ca: Path, target_port: int) -> None:
        self.port = 0
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
        self._context.load_cert_chain(cert, key)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.start_server(self._accept, "0.0.0.0", 0, ssl=self._context)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        for source, sink in ((reader, back), (there, writer)):
            task = self._loop.create_task(_forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(OSError):
            while piece := await source.read(65536):
                sink.write(piece)
                await sink.drain()
    finally:
        sink.close()
