"""Around every method: bad messages are refused, exceptions become statuses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from advisor.errors import MessageError, MessageTooLargeError, MessageUnreadableError
from advisor.rpc.status import status_of

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands where a message would: a deserializer cannot answer with a status of its own."""

    error: MessageError


class BoundaryInterceptor(grpc.aio.ServerInterceptor):
    """Guards all methods of our own services.

    Args:
        max_message_bytes: Largest request that is accepted.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes

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
        changed = {"request_deserializer": self._guarded(handler.request_deserializer)}
        if handler.stream_stream:
            changed["stream_stream"] = _guarded_stream(handler.stream_stream, _checked)
        elif handler.unary_stream:
            changed["unary_stream"] = _guarded_stream(handler.unary_stream, _accepted)
        else:
            changed["unary_unary"] = _guarded_unary(handler.unary_unary)
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


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _accepted(request)


async def _abort(context: _Context, error: Exception) -> None:
    status = rpc_status.to_status(status_of(error))
    await context.abort_with_status(status)


def _guarded_unary(method: Callable[..., Any]) -> Callable[..., Any]:
    async def guarded(request: Any, context: _Context) -> Any:
        try:
            return await method(_accepted(request), context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: all become statuses
            await _abort(context, error)

    return guarded


def _guarded_stream(method: Callable[..., Any], accept: Callable[[Any], Any]) -> Callable[..., Any]:
    async def guarded(request: Any, context: _Context) -> AsyncIterator[Any]:
        try:
            async for response in method(accept(request), context):
                yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: all become statuses
            await _abort(context, error)

    return guarded
