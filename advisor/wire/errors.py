"""The one table from exceptions to status codes and reasons, and the metadata of errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from advisor import errors
from advisor.policy import InvalidValueError, LayoutMismatchError
from fslr.advisor.v1 import error_pb2

_REASON_PREFIX = "ERROR_REASON_"
_MAX_LIST_BYTES = 1_024  # of a list in the metadata; gRPC allows about 8 KiB for a whole error


@dataclass(frozen=True, slots=True)
class ErrorMapping:
    """The status code and reason that report an exception to a caller."""

    code: grpc.StatusCode
    reason_number: error_pb2.ErrorReason.ValueType

    @property
    def reason(self) -> str:
        """The reason's stable UPPER_SNAKE name."""
        return error_pb2.ErrorReason.Name(self.reason_number).removeprefix(_REASON_PREFIX)


_C = grpc.StatusCode
_R = error_pb2

TABLE: dict[type[Exception], ErrorMapping] = {
    InvalidValueError: ErrorMapping(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_VALUE),
    LayoutMismatchError: ErrorMapping(_C.FAILED_PRECONDITION, _R.ERROR_REASON_LAYOUT_MISMATCH),
    errors.OpeningMissingError: ErrorMapping(_C.INVALID_ARGUMENT, _R.ERROR_REASON_OPENING_MISSING),
    errors.OpeningRepeatedError: ErrorMapping(
        _C.INVALID_ARGUMENT, _R.ERROR_REASON_OPENING_REPEATED
    ),
    errors.MessageUnreadableError: ErrorMapping(
        _C.INVALID_ARGUMENT, _R.ERROR_REASON_MESSAGE_UNREADABLE
    ),
    errors.MessageTooLargeError: ErrorMapping(
        _C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_MESSAGE_TOO_LARGE
    ),
    errors.TooManyGroupsError: ErrorMapping(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_TOO_MANY_GROUPS),
    errors.TooManyMetricsError: ErrorMapping(
        _C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_TOO_MANY_METRICS
    ),
    errors.ProfileNotFoundError: ErrorMapping(_C.NOT_FOUND, _R.ERROR_REASON_PROFILE_NOT_FOUND),
    errors.VersionNotFoundError: ErrorMapping(_C.NOT_FOUND, _R.ERROR_REASON_VERSION_NOT_FOUND),
    errors.RunNotFoundError: ErrorMapping(_C.NOT_FOUND, _R.ERROR_REASON_RUN_NOT_FOUND),
    errors.PolicyNotFoundError: ErrorMapping(_C.NOT_FOUND, _R.ERROR_REASON_POLICY_NOT_FOUND),
    errors.PolicyMovedError: ErrorMapping(_C.ABORTED, _R.ERROR_REASON_POLICY_MOVED),
    errors.RecipeNotFoundError: ErrorMapping(_C.NOT_FOUND, _R.ERROR_REASON_RECIPE_NOT_FOUND),
    errors.RecipeMovedError: ErrorMapping(_C.ABORTED, _R.ERROR_REASON_RECIPE_MOVED),
    errors.RecipeInUseError: ErrorMapping(_C.FAILED_PRECONDITION, _R.ERROR_REASON_RECIPE_IN_USE),
    errors.AliasMovedError: ErrorMapping(_C.ABORTED, _R.ERROR_REASON_ALIAS_MOVED),
    errors.VersionInUseError: ErrorMapping(_C.FAILED_PRECONDITION, _R.ERROR_REASON_VERSION_IN_USE),
    errors.PolicyInUseError: ErrorMapping(_C.FAILED_PRECONDITION, _R.ERROR_REASON_POLICY_IN_USE),
    errors.RequestReusedError: ErrorMapping(_C.INVALID_ARGUMENT, _R.ERROR_REASON_REQUEST_REUSED),
    errors.AuditUnavailableError: ErrorMapping(_C.UNAVAILABLE, _R.ERROR_REASON_AUDIT_UNAVAILABLE),
    errors.StoreUnavailableError: ErrorMapping(_C.UNAVAILABLE, _R.ERROR_REASON_STORE_UNAVAILABLE),
    errors.UnauthenticatedError: ErrorMapping(_C.UNAUTHENTICATED, _R.ERROR_REASON_UNAUTHENTICATED),
    errors.PermissionDeniedError: ErrorMapping(
        _C.PERMISSION_DENIED, _R.ERROR_REASON_PERMISSION_DENIED
    ),
    errors.QuotaExceededError: ErrorMapping(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_QUOTA_EXCEEDED),
    errors.TooBusyError: ErrorMapping(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_TOO_BUSY),
    errors.StoppingError: ErrorMapping(_C.UNAVAILABLE, _R.ERROR_REASON_STOPPING),
    errors.ProfileDamagedError: ErrorMapping(_C.DATA_LOSS, _R.ERROR_REASON_PROFILE_DAMAGED),
    errors.StoreDamagedError: ErrorMapping(_C.DATA_LOSS, _R.ERROR_REASON_STORE_DAMAGED),
    errors.ProfileTooNewError: ErrorMapping(
        _C.FAILED_PRECONDITION, _R.ERROR_REASON_PROFILE_TOO_NEW
    ),
}
DEFECT = ErrorMapping(_C.INTERNAL, _R.ERROR_REASON_INTERNAL)


def error_mapping_of(error: Exception) -> ErrorMapping:
    """Return the mapping of an exception; one that is not in the table is a defect."""
    return TABLE.get(type(error), DEFECT)


def metadata_of(error: Exception) -> dict[str, str]:
    """Return the machine-readable metadata of an exception."""
    match error:
        case LayoutMismatchError():
            return {
                "unmatched": _joined(error.unmatched),
                "unmatched_count": str(len(error.unmatched)),
            }
        case (
            errors.ProfileNotFoundError()
            | errors.PolicyNotFoundError()
            | errors.RecipeNotFoundError()
        ):
            return {"nearest": _joined(error.nearest)}
        case _:
            return {}


def _joined(names: Sequence[str]) -> str:
    """Return as many of the names as fit, one per line."""
    lines: list[str] = []
    left = _MAX_LIST_BYTES
    for name in names:
        left -= len(name.encode()) + 1
        if left < 0:
            break
        lines.append(name)
    return "\n".join(lines)
