"""Checks of an answer: its status and reason are in the contract, its numbers are finite."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from advisor.wire.errors import DEFECT, TABLE
from fslr.errors import ERROR_DOMAIN
from tests.fuzz.inputs import Input
from tests.fuzz.methods import Method

# The excluded reasons are right only if Redis is unavailable or damaged, or the service busy.
_OF_A_HEALTHY_SERVICE = {
    verdict.reason: verdict.code
    for verdict in TABLE.values()
    if verdict.reason
    not in {
        *("STORE_UNAVAILABLE", "AUDIT_UNAVAILABLE", "STOPPING", "TOO_BUSY"),
        *("PROFILE_DAMAGED", "STORE_DAMAGED", "PROFILE_TOO_NEW"),
    }
}
_METADATA_LIMIT_BYTES = 6_000  # gRPC's own soft limit is 8 KiB, including names
_DETAILS = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended.

    Attributes:
        code: The status code.
        message: The message of the status.
        trailers: The trailing metadata.
        responses: The bytes of each response.
        cut: Whether the caller ended the call.
    """

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]
    responses: tuple[bytes, ...]
    cut: bool = False


def complaint(sent: Input, answer: Answer) -> str:
    """Return a description of what is wrong with an answer; empty if nothing is wrong."""
    return _about_status(sent, answer) or _about_responses(sent.method, answer.responses)


def _about_status(sent: Input, answer: Answer) -> str:
    code = answer.code
    if code is grpc.StatusCode.OK:
        return ""
    if answer.cut and code in {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}:
        return ""
    size = sum(len(key) + len(value) + 32 for key, value in sent.metadata)
    reasons = _reasons(answer)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not reasons and size > _METADATA_LIMIT_BYTES:
        return ""
    if len(reasons) != 1:
        return f"{code.name} with {len(reasons)} reasons: {answer.message}"
    if reasons[0] == DEFECT.reason:
        return f"{sent.method.short} failed: {answer.message}"
    if _OF_A_HEALTHY_SERVICE.get(reasons[0]) is not code:
        return f"{code.name} with the reason {reasons[0]}: {answer.message}"
    return "" if answer.message else f"{code.name} without a message"


def _reasons(answer: Answer) -> list[str]:
    """Return the reasons of the service in the details of a status."""
    found = []
    for key, value in answer.trailers:
        if key == _DETAILS and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
                    found.append(info.reason)
    return found


def _about_responses(method: Method, responses: tuple[bytes, ...]) -> str:
    for data in responses:
        try:
            response = method.response.FromString(data)
        except DecodeError:
            return "a response that does not parse"
        wrong = _not_finite(response)
        if wrong:
            return f"{wrong} in a response"
    return ""


def _not_finite(message: Message) -> str:
    """Return a description of a number that is not finite, or of a multiplier not above 0."""
    if message.DESCRIPTOR.name == "RecommendLRResponse":
        recommendation: Any = message
        for name in ("multipliers", "reference_unit_rates", "depth_factors"):
            for value in getattr(recommendation, name):
                if not math.isfinite(value):
                    return f"{name} of {value}"
        if any(value <= 0 for value in recommendation.multipliers):
            return "a multiplier that is not above 0"
        return ""
    for field in _leading_to_recommendations(message.DESCRIPTOR):
        value = getattr(message, field.name)
        for inner in value if field.is_repeated else [value]:
            wrong = _not_finite(inner)
            if wrong:
                return wrong
    return ""


@functools.cache
def _leading_to_recommendations(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    return tuple(
        field
        for field in descriptor.fields
        if field.message_type is not None
        and (
            field.message_type.name == "RecommendLRResponse"
            or _leading_to_recommendations(field.message_type)
        )
    )
