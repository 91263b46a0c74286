"""How many calls are under way, how many may be, and how streams end when the service stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from advisor.errors import StoppingError, TooBusyError


class OpenStream:
    """A stream under way; it can be ended while it waits for its caller.

    Args:
        traffic: Where it is counted.
    """

    def __init__(self, traffic: ConcurrencyLimiter) -> None:
        self._traffic = traffic
        self._task = asyncio.current_task()
        self._waits = False
        self._ended = False

    async def read(self, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Return the caller's next message, or ``grpc.aio.EOF``.

        Args:
            context: The call.

        Raises:
            StoppingError: The service stops.
            CancelledError: The caller is gone.
        """
        self._traffic.check_running()
        self._waits = True
        try:
            return await context.read()
        except asyncio.CancelledError:
            if not self._ended or self._task is None:
                raise
            self._task.uncancel()
            raise StoppingError from None
        finally:
            self._waits = False

    def end_if_idle(self) -> None:
        """End the stream if it waits for its caller; one that is at work ends after its answer."""
        if self._waits and self._task is not None:
            self._ended = True
            self._task.cancel()


class ConcurrencyLimiter:
    """Counts calls, and refuses those for which there is no room.

    Args:
        max_calls: Most calls of one message under way.
        max_streams: Most open streams.
    """

    def __init__(self, *, max_calls: int, max_streams: int) -> None:
        self._max = {False: max_calls, True: max_streams}
        self._open = {False: 0, True: 0}
        self._streams: set[OpenStream] = set()
        self.stopping = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call of one message as long as the context lasts.

        Yields:
            Nothing.

        Raises:
            TooBusyError: There is no room for it.
        """
        with self._counted(is_stream=False):
            yield

    @contextmanager
    def stream(self) -> Iterator[OpenStream]:
        """Count a stream as long as the context lasts.

        Yields:
            The stream.

        Raises:
            TooBusyError: There is no room for it.
        """
        with self._counted(is_stream=True):
            stream = OpenStream(self)
            self._streams.add(stream)
            try:
                yield stream
            finally:
                self._streams.discard(stream)

    def check_running(self) -> None:
        """Raise if the service stops.

        Raises:
            StoppingError: It does.
        """
        if self.stopping:
            raise StoppingError

    def stop(self) -> None:
        """End idle streams now, and each of the others after its answer or, watching, its wait."""
        self.stopping = True
        for stream in list(self._streams):
            stream.end_if_idle()

    @contextmanager
    def _counted(self, *, is_stream: bool) -> Iterator[None]:
        if self._open[is_stream] >= self._max[is_stream]:
            raise TooBusyError(self._max[is_stream], is_stream=is_stream)
        self._open[is_stream] += 1
        try:
            yield
        finally:
            self._open[is_stream] -= 1
