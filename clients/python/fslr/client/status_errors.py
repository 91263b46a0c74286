"""From failed gRPC calls to exceptions of this package."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError

from fslr.advisor.v1 import error_pb2
from fslr.client.http_proxies import proxy_note
from fslr.errors import (
    BY_REASON,
    ERROR_DOMAIN,
    AuthenticationError,
    DeadlineExceededError,
    InvalidRequestError,
    MessageTooLargeError,
    NotFoundError,
    PermissionDeniedError,
    ServiceError,
    UnavailableError,
    UnsupportedMethodError,
)

_DETAILS_KEY = "grpc-status-details-bin"

# For errors that gRPC itself reports, which have no reason of ours.
_BY_CODE: dict[grpc.StatusCode, type[ServiceError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: MessageTooLargeError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNIMPLEMENTED: UnsupportedMethodError,
}


def service_error(error: grpc.RpcError, address: str) -> ServiceError:
    """Return the exception to raise for a failed call.

    Args:
        error: The error that gRPC raised.
        address: The address of the advisor, for messages.
    """
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return ServiceError(str(error))
    info = _error_info(error)
    if info is not None:
        kind = BY_REASON.get(info.reason, ServiceError)
        return kind(error.details() or info.reason, info.reason, info.metadata)
    kind = _BY_CODE.get(error.code(), ServiceError)
    if kind is UnavailableError:
        return kind(
            f"no advisor answers at {address} ({error.details()}); start one with `advisor serve`, "
            "or check the address, and whether client and service agree on TLS"
            f"{proxy_note(address)}"
        )
    if kind is DeadlineExceededError:
        return kind(
            f"the advisor at {address} did not answer in time ({error.details()})"
            f"{proxy_note(address)}"
        )
    if kind is UnsupportedMethodError:
        return kind(
            f"the service at {address} does not have this method ({error.details()}): it is older "
            "than this client, or not an advisor; update the service, or check the address"
        )
    return kind(f"{error.code().name}: {error.details()}")


def _error_info(call: grpc.Call | grpc.aio.AioRpcError) -> error_pb2.ErrorInfo | None:
    for key, value in call.trailing_metadata() or ():
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            status = error_pb2.ErrorStatus.FromString(value)
            for detail in status.details:
                if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                    info = error_pb2.ErrorInfo.FromString(detail.value)
                    if info.domain == ERROR_DOMAIN:
                        return info
        except DecodeError:
            return None
    return None
