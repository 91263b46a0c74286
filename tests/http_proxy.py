"""An HTTP proxy that connects every request to one port, and records what passes."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self

_PIECE_BYTES = 65_536


class HttpProxy:
    """A proxy for CONNECT requests, as a context manager that runs in a separate thread.

    Args:
        target_port: The loopback port that it connects every request to.
        status: The status that it answers with; requests are refused unless it is 200.

    Attributes:
        requests: The request lines that it received.
        headers: The requests with their headers.
        sent: All bytes that clients sent through it.
    """

    def __init__(self, target_port: int, status: str = "200 OK") -> None:
        self.requests: list[str] = []
        self.headers: list[str] = []
        self.sent = b""
        self._target_port, self._status = target_port, status
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http-proxy")
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL for ``http_proxy``."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError):  # a connection without a request
            writer.close()
            return
        self.headers.append(head)
        self.requests.append(head.split("\r\n")[0])
        writer.write(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
        if not self._status.startswith("200"):
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        for source, sink in ((reader, back), (there, writer)):
            task = self._loop.create_task(self._forward(source, sink, records=sink is back))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, records: bool
    ) -> None:
        try:
            while piece := await source.read(_PIECE_BYTES):
                if records:
                    self.sent += piece
                sink.write(piece)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()
