"""Exceptions as ``google.rpc.Status``, with details that programs can read."""

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

_RETRY_MS = 1_000
_MESSAGE_CHARACTERS = 1_500  # sent twice, and not-ASCII threefold, within gRPC's 8 KiB for an error

_log = structlog.get_logger()


def status_of(error: Exception) -> status_pb2.Status:
    """Return the status that tells a caller of an exception.

    A defect is logged, and the caller learns nothing of the service's inside.
    """
    verdict = error_mapping_of(error)
    message = _cut(str(error))
    if verdict is DEFECT:
        _log.error("defect", exc_info=error)
        message = "the service failed; its log says why, please report it"
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            domain=ERROR_DOMAIN, reason=verdict.reason, metadata=metadata_of(error)
        )
    ]
    if isinstance(error, InvalidValueError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(error.field), description=_cut(error.description)
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, (StoreUnavailableError, TooBusyError, StoppingError, QuotaExceededError)):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(
            round(error.retry_s * 1_000) if isinstance(error, QuotaExceededError) else _RETRY_MS
        )
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(
        code=code_pb2.Code.Value(verdict.code.name), message=message, details=_packed(details)
    )


def _cut(text: str) -> str:
    limit = _MESSAGE_CHARACTERS if text.isascii() else _MESSAGE_CHARACTERS // 4
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def _packed(details: list[Message]) -> list[any_pb2.Any]:
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return packed
