"""The one table from exceptions to status codes and reasons, and the facts that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from advisor import errors
from advisor.policy import InvalidValueError, LayoutMismatchError
from fslr.advisor.v1 import error_pb2

_REASON_PREFIX = "ERROR_REASON_"
_LISTED_BYTES = 1_024  # of a list in the metadata; gRPC allows all of an error about 8 KiB


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an exception is told to a caller."""

    code: grpc.StatusCode
    reason_number: error_pb2.ErrorReason.ValueType

    @property
    def reason(self) -> str:
        """The reason's stable UPPER_SNAKE name."""
        return error_pb2.ErrorReason.Name(self.reason_number).removeprefix(_REASON_PREFIX)


_C = grpc.StatusCode
_R = error_pb2

TABLE: dict[type[Exception], Verdict] = {
    InvalidValueError: Verdict(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_VALUE),
    LayoutMismatchError: Verdict(_C.FAILED_PRECONDITION, _R.ERROR_REASON_LAYOUT_MISMATCH),
    errors.OpeningMissingError: Verdict(_C.INVALID_ARGUMENT, _R.ERROR_REASON_OPENING_MISSING),
    errors.OpeningRepeatedError: Verdict(_C.INVALID_ARGUMENT, _R.ERROR_REASON_OPENING_REPEATED),
    errors.MessageUnreadableError: Verdict(_C.INVALID_ARGUMENT, _R.ERROR_REASON_MESSAGE_UNREADABLE),
    errors.MessageTooLargeError: Verdict(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_MESSAGE_TOO_LARGE),
    errors.TooManyGroupsError: Verdict(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_TOO_MANY_GROUPS),
    errors.ProfileNotFoundError: Verdict(_C.NOT_FOUND, _R.ERROR_REASON_PROFILE_NOT_FOUND),
    errors.VersionNotFoundError: Verdict(_C.NOT_FOUND, _R.ERROR_REASON_VERSION_NOT_FOUND),
    errors.RunNotFoundError: Verdict(_C.NOT_FOUND, _R.ERROR_REASON_RUN_NOT_FOUND),
    errors.PolicyNotFoundError: Verdict(_C.NOT_FOUND, _R.ERROR_REASON_POLICY_NOT_FOUND),
    errors.PolicyMovedError: Verdict(_C.ABORTED, _R.ERROR_REASON_POLICY_MOVED),
    errors.AliasMovedError: Verdict(_C.ABORTED, _R.ERROR_REASON_ALIAS_MOVED),
    errors.VersionInUseError: Verdict(_C.FAILED_PRECONDITION, _R.ERROR_REASON_VERSION_IN_USE),
    errors.RequestReusedError: Verdict(_C.INVALID_ARGUMENT, _R.ERROR_REASON_REQUEST_REUSED),
    errors.AuditUnavailableError: Verdict(_C.UNAVAILABLE, _R.ERROR_REASON_AUDIT_UNAVAILABLE),
    errors.StoreUnavailableError: Verdict(_C.UNAVAILABLE, _R.ERROR_REASON_STORE_UNAVAILABLE),
    errors.UnauthenticatedError: Verdict(_C.UNAUTHENTICATED, _R.ERROR_REASON_UNAUTHENTICATED),
    errors.PermissionDeniedError: Verdict(_C.PERMISSION_DENIED, _R.ERROR_REASON_PERMISSION_DENIED),
    errors.QuotaExceededError: Verdict(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_QUOTA_EXCEEDED),
    errors.TooBusyError: Verdict(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_TOO_BUSY),
    errors.StoppingError: Verdict(_C.UNAVAILABLE, _R.ERROR_REASON_STOPPING),
    errors.ProfileDamagedError: Verdict(_C.DATA_LOSS, _R.ERROR_REASON_PROFILE_DAMAGED),
    errors.StoreDamagedError: Verdict(_C.DATA_LOSS, _R.ERROR_REASON_STORE_DAMAGED),
    errors.ProfileTooNewError: Verdict(_C.FAILED_PRECONDITION, _R.ERROR_REASON_PROFILE_TOO_NEW),
}
DEFECT = Verdict(_C.INTERNAL, _R.ERROR_REASON_INTERNAL)


def verdict_of(error: Exception) -> Verdict:
    """Return how an exception is told; what is not in the table is a defect of the service."""
    return TABLE.get(type(error), DEFECT)


def metadata_of(error: Exception) -> dict[str, str]:
    """Return the facts for programs that go with an exception."""
    match error:
        case LayoutMismatchError():
            return {
                "unmatched": _joined(error.unmatched),
                "unmatched_count": str(len(error.unmatched)),
            }
        case errors.ProfileNotFoundError() | errors.PolicyNotFoundError():
            return {"nearest": _joined(error.nearest)}
        case _:
            return {}


def _joined(names: Sequence[str]) -> str:
    """Return as many of the names as fit, one a line."""
    lines: list[str] = []
    left = _LISTED_BYTES
    for name in names:
        left -= len(name.encode()) + 1
        if left < 0:
            break
        lines.append(name)
    return "\n".join(lines)
