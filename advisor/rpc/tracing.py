"""A span for each call, and for each measurement of a stream. Loaded only where traces are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from opentelemetry import context as contexts
from opentelemetry import propagate, trace

_Context = grpc.aio.ServicerContext[Any, Any]
_Handle = Callable[..., Any]

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# Those that are the service's own doing; by OpenTelemetry's convention the others are no errors.
_ERRORS = frozenset({
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
})


class TracingInterceptor(grpc.aio.ServerInterceptor):
    """Makes spans of the calls of our own services, as children of their callers' spans.

    Spans hold method, status and reason: no values, texts or metadata of a call.

    Args:
        tracer: Makes the spans.
    """

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method's handler inside a span."""
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/fslr."):
            return handler  # type: ignore[no-any-return]
        if handler.stream_stream:
            changed = {"stream_stream": self._traced_stream(handler.stream_stream, method)}
        elif handler.unary_stream:
            changed = {"unary_stream": self._traced_watch(handler.unary_stream, method)}
        else:
            changed = {"unary_unary": self._traced_unary(handler.unary_unary, method)}
        return handler._replace(**changed)  # type: ignore[no-any-return]

    def _traced_unary(self, handle: _Handle, method: str) -> _Handle:
        async def traced(request: Any, context: _Context) -> Any:
            with self._call(method, context):
                return await handle(request, context)

        return traced

    def _traced_watch(self, handle: _Handle, method: str) -> _Handle:
        async def traced(request: Any, context: _Context) -> AsyncIterator[Any]:
            with self._call(method, context):
                async for response in handle(request, context):
                    yield response

        return traced

    def _traced_stream(self, handle: _Handle, method: str) -> _Handle:
        async def traced(requests: AsyncIterator[Any], context: _Context) -> None:
            with self._call(method, context) as whole:
                followed = _Followed(context, self._tracer, whole)
                try:
                    await handle(requests, followed)
                finally:
                    followed.end()

        return traced

    @contextmanager
    def _call(self, method: str, context: _Context) -> Iterator[contexts.Context]:
        """Make a span as long as the context lasts; yield what further spans belong to."""
        service, name = method.strip("/").split("/")
        span = self._tracer.start_span(
            f"{service}/{name}",
            _callers(context),
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        code: grpc.StatusCode | None = None
        try:
            yield _enter(span, _callers(context))
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED  # the caller is gone
            raise
        finally:
            if span.is_recording():
                _tell_end(span, context, code or _code(context))
            span.end()


class _Followed:
    """A stream's context that makes a span of each measurement, from its reading to its answer.

    Args:
        context: The stream's own.
        tracer: Makes the spans.
        whole: The span of the stream, which they belong to.
    """

    def __init__(self, context: _Context, tracer: trace.Tracer, whole: contexts.Context) -> None:
        self._context = context
        self._tracer = tracer
        self._whole = whole
        self._measurement: trace.Span = trace.INVALID_SPAN

    def __getattr__(self, name: str) -> Any:
        """Return what the stream's own context has."""
        return getattr(self._context, name)

    async def read(self) -> Any:
        """Return the next request, with its span begun."""
        request = await self._context.read()
        if request is not grpc.aio.EOF:
            # A stream may last for days: each measurement is seen when it is answered.
            self._measurement = self._tracer.start_span("measurement", self._whole)
            _enter(self._measurement, self._whole)
        return request

    async def write(self, response: Any) -> None:
        """Send a response, and end its span."""
        await self._context.write(response)
        self._measurement.end()

    def end(self) -> None:
        """End the span of a measurement that was not answered."""
        if self._measurement.is_recording():
            self._measurement.end()


def _callers(context: _Context) -> contexts.Context:
    """Return the trace that a caller's call belongs to; what cannot be read begins a new one."""
    said = context.invocation_metadata() or ()
    return propagate.extract({key: value for key, value in said if isinstance(value, str)})


def _enter(span: trace.Span, around: contexts.Context) -> contexts.Context:
    """Let what follows in a call belong to a span.

    It is never taken back: gRPC runs each call in a task, and so in a context, of its own, and a
    generator that is thrown away would have to do it in another one.
    """
    entered = trace.set_span_in_context(span, around)
    contexts.attach(entered)
    return entered


def _code(context: _Context) -> grpc.StatusCode:
    said: Any = context.code()
    if isinstance(said, grpc.StatusCode):
        return said
    return _CODES.get(said or 0, grpc.StatusCode.UNKNOWN)


def _tell_end(span: trace.Span, context: _Context, code: grpc.StatusCode) -> None:
    span.set_attribute("rpc.grpc.status_code", code.value[0])
    reason = _reason(context)
    if reason:
        span.set_attribute("error.type", reason)
    if code in _ERRORS:
        span.set_status(trace.StatusCode.ERROR)


def _reason(context: _Context) -> str:
    """Return the reason that the status carries, or nothing."""
    for key, value in context.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""
