"""Metrics of each method, under the names that are common for gRPC servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor

from advisor.errors import QuotaExceededError, TooBusyError
from advisor.observability.metrics import Metrics
from advisor.wire.errors import error_mapping_of

_log = structlog.get_logger()

# The status codes that alerts watch.
_DEFECTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)


def create_method_metrics(services: Iterable[ServiceDescriptor], metrics: Metrics) -> None:
    """Create the counters of all methods, at 0, before the first call.

    Args:
        services: The services.
        metrics: Holds the counters.
    """
    for service in services:
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            kind = _kind(method.client_streaming, method.server_streaming)
            metrics.methods[path] = MethodMetrics(kind, path, metrics)


def _kind(request_streams: bool, response_streams: bool) -> str:
    if request_streams:
        return "bidi_stream"
    return "server_stream" if response_streams else "unary"


class MethodMetrics:
    """The counters of one method.

    Attributes:
        path: ``/package.Service/Method``.
        received: Messages received.
        sent: Messages sent.
        seconds: Duration of a call, or of one message of a stream.
    """

    def __init__(self, kind: str, path: str, metrics: Metrics) -> None:
        service, name = path.strip("/").split("/")
        self.path = path
        self._labels = (kind, service, name)
        self._metrics = metrics
        self._is_stream = kind != "unary"
        self.received = metrics.received.labels(*self._labels)
        self.sent = metrics.sent.labels(*self._labels)
        self.seconds = metrics.handling_seconds.labels(*self._labels)
        self._started = metrics.started.labels(*self._labels)
        self._open_calls = metrics.open_calls.labels(kind)
        self._handled_ok = metrics.handled.labels(*self._labels, grpc.StatusCode.OK.name)
        # They start at 0: Prometheus sees no increase in a series that starts at 1.
        for code in _DEFECTS:
            metrics.handled.labels(*self._labels, code.name)
        metrics.refused.labels(kind)

    @classmethod
    def of(
        cls, path: str, handler: grpc.RpcMethodHandler[Any, Any], metrics: Metrics
    ) -> MethodMetrics:
        """Return the counters of a handler's method.

        Args:
            path: ``/package.Service/Method``.
            handler: The method's handler.
            metrics: Holds the counters.
        """
        found = metrics.methods.get(path)
        if found is None:
            streams: Any = handler
            kind = _kind(streams.request_streaming, streams.response_streaming)
            found = metrics.methods[path] = cls(kind, path, metrics)
        return found

    @contextmanager
    def call(self, *, timed: bool = True) -> Iterator[Callable[[Exception], None]]:
        """Count a call while the context lasts, and the status code that it ends with.

        Args:
            timed: Whether to observe the duration of the whole call.

        Yields:
            A function to call with the error that ends the call.

        Raises:
            CancelledError: The caller is gone.
            GeneratorExit: The caller left while it was being answered.
        """
        code = grpc.StatusCode.OK
        started_s = time.perf_counter()
        kind = self._labels[0]

        def record_error(error: Exception) -> None:
            nonlocal code
            code = error_mapping_of(error).code
            if isinstance(error, (TooBusyError, QuotaExceededError)):
                self._metrics.refused.labels(kind).inc()

        self._started.inc()
        self._open_calls.inc()
        try:
            yield record_error
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED  # the caller is gone
            raise
        finally:
            self._open_calls.dec()
            seconds = time.perf_counter() - started_s
            if timed:
                self.seconds.observe(seconds)
            if code is grpc.StatusCode.OK:
                self._handled_ok.inc()
            else:
                self._metrics.handled.labels(*self._labels, code.name).inc()
            if self._is_stream:
                _log.info(
                    "stream ended",
                    method=self._labels[2],
                    code=code.name,
                    seconds=round(seconds, 3),
                )
