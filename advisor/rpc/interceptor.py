"""Around every method: the gate, bad messages refused, exceptions as statuses, all counted."""

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
)
from advisor.observability.metrics import Metrics
from advisor.rpc.authorization import Authorizer
from advisor.rpc.concurrency_limits import ConcurrencyLimiter
from advisor.rpc.method_metrics import Method
from advisor.rpc.status import status_of

_Context = grpc.aio.ServicerContext[Any, Any]
_Handle = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands where a message would: a deserializer cannot answer with a status of its own."""

    error: MessageError


class BoundaryInterceptor(grpc.aio.ServerInterceptor):
    """Guards all methods of our own services.

    Args:
        max_message_bytes: Largest request that is accepted.
        traffic: How much there is, and may be.
        gate: Who is let in.
        metrics: Where it is counted.
    """

    def __init__(
        self,
        max_message_bytes: int,
        traffic: ConcurrencyLimiter,
        gate: Authorizer,
        metrics: Metrics,
    ) -> None:
        self._max_message_bytes = max_message_bytes
        self._traffic = traffic
        self._gate = gate
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method's handler inside the guard."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/fslr."):
            return handler  # type: ignore[no-any-return]
        method = Method.of(handler_call_details.method, handler, self._metrics)
        inside = _Inside(method, self._traffic, self._gate)
        changed = {"request_deserializer": self._guarded(handler.request_deserializer)}
        if handler.stream_stream:
            changed["stream_stream"] = inside.stream(handler.stream_stream)
        elif handler.unary_stream:
            changed["unary_stream"] = inside.watch(handler.unary_stream)
        else:
            changed["unary_unary"] = inside.unary(handler.unary_unary)
        return handler._replace(**changed)  # type: ignore[no-any-return]

    def _guarded(self, deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        message_name = getattr(deserialize, "__self__", None) or "message of the contract"
        name = getattr(message_name, "__name__", str(message_name))

        def guarded(data: bytes) -> Any:
            if len(data) > self._max_message_bytes:
                return _Refused(MessageTooLargeError(len(data), self._max_message_bytes))
            try:
                return deserialize(data)
            except DecodeError:
                return _Refused(MessageUnreadableError(name))

        return guarded


def _accepted(request: Any) -> Any:
    if isinstance(request, _Refused):
        raise request.error
    return request


@asynccontextmanager
async def _boundary(
    method: Method, context: _Context, *, timed: bool = True
) -> AsyncIterator[None]:
    """Count a call, and end it with the status that its exception stands for."""
    with method.call(timed=timed) as ended:
        try:
            yield
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: all become statuses
            ended(error)
            await context.abort_with_status(rpc_status.to_status(status_of(error)))


@dataclass(frozen=True, slots=True)
class _Inside:
    """Puts the handlers of one method inside the guard."""

    method: Method
    traffic: ConcurrencyLimiter
    gate: Authorizer

    def unary(self, handle: _Handle) -> _Handle:
        async def guarded(request: Any, context: _Context) -> Any:
            async with _boundary(self.method, context):
                with self.traffic.call():
                    caller = await self.gate.caller(self.gate.credentials(context))
                    response = await handle(self._let_in(request, caller), context)
                self.method.sent.inc()
                return response

        return guarded

    def watch(self, handle: _Handle) -> _Handle:
        """Guard a method that answers one message with many.

        The handler yields None now and then while there is nothing to send: whoever waits is looked
        at again then.
        """

        async def guarded(request: Any, context: _Context) -> AsyncIterator[Any]:
            async with _boundary(self.method, context):
                with self.traffic.stream():
                    shown = self.gate.credentials(context)
                    caller = await self.gate.caller(shown)
                    with self.gate.stream(caller):
                        async for response in handle(self._let_in(request, caller), context):
                            self.traffic.check_running()
                            await self.gate.caller(shown)  # it may have been revoked
                            if response is not None:
                                yield response
                                self.method.sent.inc()

        return guarded

    def stream(self, handle: _Handle) -> _Handle:
        """Guard a method that answers each of many messages.

        It reads and writes itself, as gRPC allows: iterators on the way take longer than they look.
        """

        async def guarded(_: AsyncIterator[Any], context: _Context) -> None:
            async with _boundary(self.method, context, timed=False):
                with self.traffic.stream() as stream:
                    shown = self.gate.credentials(context)
                    begun = 0.0

                    async def received() -> AsyncIterator[Any]:
                        nonlocal begun
                        while (request := await stream.read(context)) is not grpc.aio.EOF:
                            begun = time.perf_counter()
                            # Each time, for it may have been revoked.
                            caller = await self.gate.caller(shown)
                            yield self._let_in(request, caller)

                    with self.gate.stream(await self.gate.caller(shown)):
                        async for response in handle(received(), context):
                            await context.write(response)
                            self.method.sent.inc()
                            self.method.seconds.observe(time.perf_counter() - begun)

        return guarded

    def _let_in(self, request: Any, caller: Grant | None) -> Any:
        """Return a request that the caller may send."""
        self.method.received.inc()
        accepted = _accepted(request)
        self.gate.check(self.method.path, caller, accepted)
        return accepted
