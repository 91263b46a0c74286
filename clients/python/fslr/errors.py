"""Everything that this package raises.

::

    FslrError
    |- AttachError              the training job cannot be attached; said before the first step
    |- MeasurementError         the model cannot be measured
    |- ProfileFileError         a profile file cannot be read
    |- CertificateError         TLS files cannot be used
    |- TokenError               a token cannot be read
    `- ServiceError             the advisor refused, or could not answer
       |- InvalidRequestError   a value is out of its range
       |- NotFoundError
       |  |- ProfileNotFoundError
       |  |- VersionNotFoundError
       |  |- RunNotFoundError
       |  `- PolicyNotFoundError
       |- LayoutMismatchError   groups have no counterpart in the profile
       |- AliasMovedError       somebody else moved the alias
       |- PolicyMovedError      somebody else changed the policy
       |- VersionInUseError     an alias names the version
       |- MessageTooLargeError
       |- AuthenticationError   no token, or none that is in force
       |- PermissionDeniedError the token's role or project does not allow it
       |- UnavailableError      the advisor or its store does not answer
       |  |- TooBusyError       the advisor, or one token, has as many calls as it may
       |  `- DeadlineExceededError
       `- InternalServiceError  a defect or damaged data on the other side
"""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.protobuf.message import DecodeError

from fslr.advisor.v1 import error_pb2

ERROR_DOMAIN = "fslr.advisor"
_DETAILS_KEY = "grpc-status-details-bin"


class FslrError(Exception):
    """Base of this package's errors."""


class AttachError(FslrError):
    """The training job cannot be attached; said before the first step."""


class MeasurementError(FslrError):
    """The model cannot be measured."""


class ProfileFileError(FslrError):
    """A profile file cannot be read."""


class CertificateError(FslrError):
    """TLS files cannot be used."""


class TokenError(FslrError):
    """A token cannot be read."""


class ServiceError(FslrError):
    """The advisor refused, or could not answer.

    Attributes:
        reason: Stable UPPER_SNAKE reason; empty where the advisor could not be reached.
        metadata: Facts for programs, by key.
    """

    def __init__(
        self, message: str, reason: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = dict(metadata or {})


class InvalidRequestError(ServiceError):
    """A value is out of its range."""


class NotFoundError(ServiceError):
    """There is no such resource."""


class ProfileNotFoundError(NotFoundError):
    """There is no such profile."""


class VersionNotFoundError(NotFoundError):
    """The profile has no such version or alias."""


class RunNotFoundError(NotFoundError):
    """There is no such run."""


class LayoutMismatchError(ServiceError):
    """Groups have no counterpart in the profile."""


class AliasMovedError(ServiceError):
    """Somebody else moved the alias."""


class PolicyNotFoundError(NotFoundError):
    """There is no such policy, or not that version of it."""


class PolicyMovedError(ServiceError):
    """Somebody else changed the policy."""


class VersionInUseError(ServiceError):
    """An alias names the version."""


class MessageTooLargeError(ServiceError):
    """The message is larger than the advisor accepts."""


class AuthenticationError(ServiceError):
    """The caller shows no token, or none that is in force."""


class PermissionDeniedError(ServiceError):
    """The token's role or project does not allow the call."""


class UnavailableError(ServiceError):
    """The advisor or its store does not answer."""


class TooBusyError(UnavailableError):
    """The advisor, or one token, has as many calls as it may."""


class DeadlineExceededError(UnavailableError):
    """The advisor did not answer in time."""


class InternalServiceError(ServiceError):
    """A defect or damaged data on the other side."""


BY_REASON: dict[str, type[ServiceError]] = {
    "INVALID_VALUE": InvalidRequestError,
    "OPENING_MISSING": InvalidRequestError,
    "OPENING_REPEATED": InvalidRequestError,
    "MESSAGE_UNREADABLE": InvalidRequestError,
    "MESSAGE_TOO_LARGE": MessageTooLargeError,
    "TOO_MANY_GROUPS": MessageTooLargeError,
    "UNAUTHENTICATED": AuthenticationError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "QUOTA_EXCEEDED": TooBusyError,
    "LAYOUT_MISMATCH": LayoutMismatchError,
    "PROFILE_NOT_FOUND": ProfileNotFoundError,
    "VERSION_NOT_FOUND": VersionNotFoundError,
    "RUN_NOT_FOUND": RunNotFoundError,
    "POLICY_NOT_FOUND": PolicyNotFoundError,
    "POLICY_MOVED": PolicyMovedError,
    "ALIAS_MOVED": AliasMovedError,
    "VERSION_IN_USE": VersionInUseError,
    "REQUEST_REUSED": InvalidRequestError,
    "AUDIT_UNAVAILABLE": UnavailableError,
    "STORE_UNAVAILABLE": UnavailableError,
    "PROFILE_DAMAGED": InternalServiceError,
    "PROFILE_TOO_NEW": InternalServiceError,
    "TOO_BUSY": TooBusyError,
    "STOPPING": UnavailableError,
    "STORE_DAMAGED": InternalServiceError,
    "INTERNAL": InternalServiceError,
}

# For errors that gRPC itself makes, without a reason of ours.
_BY_CODE: dict[grpc.StatusCode, type[ServiceError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: MessageTooLargeError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
}


def service_error(error: grpc.RpcError, address: str) -> ServiceError:
    """Return the exception that a failed call stands for.

    Args:
        error: What gRPC raised.
        address: Where the advisor was looked for.
    """
    if not isinstance(error, grpc.Call):
        return ServiceError(str(error))
    info = _error_info(error)
    if info is not None:
        kind = BY_REASON.get(info.reason, ServiceError)
        return kind(error.details() or info.reason, info.reason, info.metadata)
    kind = _BY_CODE.get(error.code(), ServiceError)
    if kind is UnavailableError:
        return kind(
            f"no advisor answers at {address} ({error.details()}); start one with `advisor serve`, "
            "or check the address, and whether both sides use TLS"
        )
    if kind is DeadlineExceededError:
        return kind(f"the advisor at {address} did not answer in time ({error.details()})")
    return kind(f"{error.code().name}: {error.details()}")


def _error_info(call: grpc.Call) -> error_pb2.ErrorInfo | None:
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
