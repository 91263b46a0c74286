"""Spans for calls, and for the measurements of a stream. Loaded only if tracing is enabled."""

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
# Errors of the service itself; by OpenTelemetry's convention the other codes are not errors.
_ERRORS = frozenset({
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
})


class TracingInterceptor(grpc.aio.ServerInterceptor):
    """Creates spans for calls of the service's own methods, as children of the callers' spans.

    A span holds method, status and reason, and no values, texts or metadata of the call.

    Args:
        tracer: Creates the spans.
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
        """Return the method's handler, wrapped in a span."""
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
            with self._call(method, context) as stream_context:
                traced_context = _TracedStreamContext(context, self._tracer, stream_context)
                try:
                    await handle(requests, traced_context)
                finally:
                    traced_context.end()

        return traced

    @contextmanager
    def _call(self, method: str, context: _Context) -> Iterator[contexts.Context]:
        """Create a span that lasts as long as the context; yield the context of its child spans."""
        service, name = method.strip("/").split("/")
        span = self._tracer.start_span(
            f"{service}/{name}",
            _caller_context(context),
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        code: grpc.StatusCode | None = None
        try:
            yield _make_current(span, _caller_context(context))
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED  # the caller is gone
            raise
        finally:
            if span.is_recording():
                _record_end(span, context, code or _code(context))
            span.end()


class _TracedStreamContext:
    """A stream's context that creates a span for each measurement, from its reading to its answer.

    Args:
        context: The stream's gRPC context.
        tracer: Creates the spans.
        stream_context: The tracing context of the stream's own span, their parent.
    """

    def __init__(
        self, context: _Context, tracer: trace.Tracer, stream_context: contexts.Context
    ) -> None:
        self._context = context
        self._tracer = tracer
        self._stream_context = stream_context
        self._measurement: trace.Span = trace.INVALID_SPAN

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the stream's gRPC context."""
        return getattr(self._context, name)

    async def read(self) -> Any:
        """Return the next request, and start its span."""
        request = await self._context.read()
        if request is not grpc.aio.EOF:
            # A stream may last for days; the span of a measurement is exported once it is answered.
            self._measurement = self._tracer.start_span("measurement", self._stream_context)
            _make_current(self._measurement, self._stream_context)
        return request

    async def write(self, response: Any) -> None:
        """Send a response, and end its span."""
        await self._context.write(response)
        self._measurement.end()

    def end(self) -> None:
        """End the span of a measurement that was not answered."""
        if self._measurement.is_recording():
            self._measurement.end()


def _caller_context(context: _Context) -> contexts.Context:
    """Return the trace context in a call's metadata; invalid metadata starts a new trace."""
    metadata = context.invocation_metadata() or ()
    return propagate.extract({key: value for key, value in metadata if isinstance(value, str)})


def _make_current(span: trace.Span, parent: contexts.Context) -> contexts.Context:
    """Make a span the parent of the call's further spans, and return its context.

    The context is never detached. gRPC runs each call in a task with its own context, and a
    generator that is closed early would have to detach in a different one.
    """
    context = trace.set_span_in_context(span, parent)
    contexts.attach(context)
    return context


def _code(context: _Context) -> grpc.StatusCode:
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return _CODES.get(code or 0, grpc.StatusCode.UNKNOWN)


def _record_end(span: trace.Span, context: _Context, code: grpc.StatusCode) -> None:
    span.set_attribute("rpc.grpc.status_code", code.value[0])
    reason = _reason(context)
    if reason:
        span.set_attribute("error.type", reason)
    if code in _ERRORS:
        span.set_status(trace.StatusCode.ERROR)


def _reason(context: _Context) -> str:
    """Return the reason in the status details; empty if there is none."""
    for key, value in context.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""
