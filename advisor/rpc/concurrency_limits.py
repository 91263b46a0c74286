"""Limits on concurrent calls and open streams, and how streams end when the service stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from advisor.errors import StoppingError, TooBusyError


class OpenStream:
    """An open stream, which can be ended while it waits for its caller.

    Args:
        limiter: The limiter that counts the stream.
    """

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self._limiter = limiter
        self._task = asyncio.current_task()
        self._is_waiting = False
        self._is_ended = False

    async def read(self, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Return the caller's next message, or ``grpc.aio.EOF``.

        Args:
            context: The call.

        Raises:
            StoppingError: The service is being stopped.
            CancelledError: The caller is gone.
        """
        self._limiter.check_running()
        self._is_waiting = True
        try:
            return await context.read()
        except asyncio.CancelledError:
            if not self._is_ended or self._task is None:
                raise
            self._task.uncancel()
            raise StoppingError from None
        finally:
            self._is_waiting = False

    def end_if_idle(self) -> None:
        """End the stream if it waits for its caller; otherwise it ends after its current answer."""
        if self._is_waiting and self._task is not None:
            self._is_ended = True
            self._task.cancel()


class ConcurrencyLimiter:
    """Counts concurrent calls and streams, and refuses those above their limits.

    Args:
        max_calls: Maximum number of concurrent unary calls.
        max_streams: Maximum number of open streams.

    Attributes:
        stopping: Whether the service is being stopped.
    """

    def __init__(self, *, max_calls: int, max_streams: int) -> None:
        self._max = {False: max_calls, True: max_streams}
        self._open = {False: 0, True: 0}
        self._streams: set[OpenStream] = set()
        self.stopping = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a unary call while the context lasts.

        Yields:
            Nothing.

        Raises:
            TooBusyError: The maximum number of calls is reached.
        """
        with self._counted(is_stream=False):
            yield

    @contextmanager
    def stream(self) -> Iterator[OpenStream]:
        """Count a stream while the context lasts.

        Yields:
            The stream.

        Raises:
            TooBusyError: The maximum number of streams is reached.
        """
        with self._counted(is_stream=True):
            stream = OpenStream(self)
            self._streams.add(stream)
            try:
                yield stream
            finally:
                self._streams.discard(stream)

    def check_running(self) -> None:
        """Raise an error if the service is being stopped.

        Raises:
            StoppingError: The service is being stopped.
        """
        if self.stopping:
            raise StoppingError

    def stop(self) -> None:
        """End idle streams now, and the others after their current answer or wait for events."""
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
