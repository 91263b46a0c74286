"""Exceptions as ``google.rpc.Status``, with machine-readable details."""

from __future__ import annotations

import structlog
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from advisor.errors import (
    QuotaExceededError,
    StoppingError,
    StoreUnavailableError,
    TooBusyError,
)
from advisor.policy import InvalidValueError
from advisor.wire.errors import DEFECT, error_mapping_of, metadata_of
from fslr.errors import ERROR_DOMAIN

_RETRY_DELAY_S = 1.0
# A message is sent twice, non-ASCII characters take three bytes, and gRPC allows 8 KiB an error.
_MAX_MESSAGE_CHARACTERS = 1_500

_log = structlog.get_logger()


def status_of(error: Exception) -> status_pb2.Status:
    """Return the status that reports an exception to the caller.

    A defect is logged, and its status reveals no internals of the service.
    """
    mapping = error_mapping_of(error)
    message = _truncated(str(error))
    if mapping is DEFECT:
        _log.error("defect", exc_info=error)
        message = "internal error; please report it, with the service's log"
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            domain=ERROR_DOMAIN, reason=mapping.reason, metadata=metadata_of(error)
        )
    ]
    if isinstance(error, InvalidValueError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_truncated(error.field), description=_truncated(error.description)
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, (StoreUnavailableError, TooBusyError, StoppingError, QuotaExceededError)):
        delay_s = error.retry_s if isinstance(error, QuotaExceededError) else _RETRY_DELAY_S
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(delay_s * 1_000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(
        code=code_pb2.Code.Value(mapping.code.name), message=message, details=_as_any(details)
    )


def _truncated(text: str) -> str:
    limit = _MAX_MESSAGE_CHARACTERS if text.isascii() else _MAX_MESSAGE_CHARACTERS // 4
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def _as_any(details: list[Message]) -> list[any_pb2.Any]:
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return packed
