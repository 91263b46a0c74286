"""The boundary of every method: authorization, limits, bad messages, error statuses, metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from advisor.auth.roles import Grant
from advisor.errors import (
    MessageError,
    MessageTooLargeError,
    MessageUnreadableError,
    PermissionDeniedError,
)
from advisor.observability.metrics import Metrics
from advisor.rpc.authorization import Authorizer
from advisor.rpc.concurrency_limits import ConcurrencyLimiter
from advisor.rpc.method_metrics import MethodMetrics
from advisor.rpc.status import status_of

_Context = grpc.aio.ServicerContext[Any, Any]
_Handle = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _InvalidMessage:
    """Stands in for a request that was not accepted: a deserializer cannot set a status."""

    error: MessageError


class BoundaryInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of the service's own methods.

    Args:
        max_message_bytes: Maximum size of a request, in bytes.
        limiter: Limits concurrent calls and streams.
        authorizer: Authenticates callers and checks requests.
        metrics: Counts calls and messages.
    """

    def __init__(
        self,
        max_message_bytes: int,
        limiter: ConcurrencyLimiter,
        authorizer: Authorizer,
        metrics: Metrics,
    ) -> None:
        self._max_message_bytes = max_message_bytes
        self._limiter = limiter
        self._authorizer = authorizer
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method's handler, wrapped."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/fslr."):
            return handler  # type: ignore[no-any-return]
        method = MethodMetrics.of(handler_call_details.method, handler, self._metrics)
        wrapper = _HandlerWrapper(method, self._limiter, self._authorizer)
        changed = {"request_deserializer": self._checked(handler.request_deserializer)}
        if handler.stream_stream:
            changed["stream_stream"] = wrapper.stream(handler.stream_stream)
        elif handler.unary_stream:
            changed["unary_stream"] = wrapper.watch(handler.unary_stream)
        else:
            changed["unary_unary"] = wrapper.unary(handler.unary_unary)
        return handler._replace(**changed)  # type: ignore[no-any-return]

    def _checked(self, deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        message_class = getattr(deserialize, "__self__", None)
        name = getattr(message_class, "__name__", "message of the contract")

        def checked(data: bytes) -> Any:
            if len(data) > self._max_message_bytes:
                return _InvalidMessage(MessageTooLargeError(len(data), self._max_message_bytes))
            try:
                return deserialize(data)
            except DecodeError:
                return _InvalidMessage(MessageUnreadableError(name))

        return checked


def _accepted(request: Any) -> Any:
    if isinstance(request, _InvalidMessage):
        raise request.error
    return request


@asynccontextmanager
async def _boundary(
    method: MethodMetrics, context: _Context, *, timed: bool = True
) -> AsyncIterator[None]:
    """Count a call, and turn its exception into the status that ends it."""
    with method.call(timed=timed) as record_error:
        try:
            yield
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - every exception becomes a status
            record_error(error)
            await context.abort_with_status(rpc_status.to_status(status_of(error)))


def _check_moved(opened: Grant | None, now: Grant | None) -> None:
    """Refuse a message of a stream whose caller has been granted a different project since.

    Only the first message of a stream names its project.

    Raises:
        PermissionDeniedError: The project is not that of the start.
    """
    if opened is not None and now is not None and now.project != opened.project:
        raise PermissionDeniedError(
            f"{now} is for project {now.project!r} now, and this stream is of {opened.project!r}; "
            "open a new one"
        )


@dataclass(frozen=True, slots=True)
class _HandlerWrapper:
    """Wraps the handlers of one method."""

    method: MethodMetrics
    limiter: ConcurrencyLimiter
    authorizer: Authorizer

    def unary(self, handle: _Handle) -> _Handle:
        async def wrapped(request: Any, context: _Context) -> Any:
            async with _boundary(self.method, context):
                with self.limiter.call():
                    caller = await self.authorizer.authenticate(
                        self.authorizer.credentials(context)
                    )
                    response = await handle(self._authorized(request, caller), context)
                self.method.sent.inc()
                return response

        return wrapped

    def watch(self, handle: _Handle) -> _Handle:
        """Wrap a method that answers one message with many.

        While there is nothing to send, the handler yields None from time to time, so that the
        caller is authenticated again.
        """

        async def wrapped(request: Any, context: _Context) -> AsyncIterator[Any]:
            async with _boundary(self.method, context):
                with self.limiter.stream():
                    credentials = self.authorizer.credentials(context)
                    caller = await self.authorizer.authenticate(credentials)
                    with self.authorizer.stream(caller):
                        accepted = self._authorized(request, caller)
                        async for response in handle(accepted, context):
                            self.limiter.check_running()
                            # The credentials may have been revoked, or grant something else now.
                            caller = await self.authorizer.authenticate(credentials)
                            self.authorizer.check(self.method.path, caller, accepted)
                            if response is not None:
                                yield response
                                self.method.sent.inc()

        return wrapped

    def stream(self, handle: _Handle) -> _Handle:
        """Wrap a method that answers each message of a stream.

        The wrapper reads and writes messages itself, which is faster than gRPC's own iteration.
        """

        async def wrapped(_: AsyncIterator[Any], context: _Context) -> None:
            async with _boundary(self.method, context, timed=False):
                with self.limiter.stream() as stream:
                    credentials = self.authorizer.credentials(context)
                    opened = await self.authorizer.authenticate(credentials)
                    started_s = 0.0

                    async def received() -> AsyncIterator[Any]:
                        nonlocal started_s
                        while (request := await stream.read(context)) is not grpc.aio.EOF:
                            started_s = time.perf_counter()
                            # For every message: the credentials may have been revoked.
                            caller = await self.authorizer.authenticate(credentials)
                            _check_moved(opened, caller)
                            yield self._authorized(request, caller)

                    with self.authorizer.stream(opened):
                        async for response in handle(received(), context):
                            await context.write(response)
                            self.method.sent.inc()
                            self.method.seconds.observe(time.perf_counter() - started_s)

        return wrapped

    def _authorized(self, request: Any, caller: Grant | None) -> Any:
        """Return a request after checking that it is valid and that the caller may send it."""
        self.method.received.inc()
        accepted = _accepted(request)
        self.authorizer.check(self.method.path, caller, accepted)
        return accepted
