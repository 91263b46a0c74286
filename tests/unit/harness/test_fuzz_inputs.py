"""Fuzzing reaches every method and field, and finds planted defects."""

from __future__ import annotations

import math
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from advisor.wire.errors import DEFECT
from fslr.advisor.v1 import advisor_service_pb2, policy_service_pb2
from fslr.errors import ERROR_DOMAIN
from tests.fuzz import decoding, valid
from tests.fuzz.decoding import TARGETS, take, take_bytes
from tests.fuzz.inputs import Input
from tests.fuzz.judging import Answer, complaint
from tests.fuzz.methods import all_methods, by_name, class_of
from tests.fuzz.strategies import calls, messages, on_the_wire

METHODS = all_methods()
_found_or_not = settings(
    database=None, derandomize=True, max_examples=20_000, phases=[Phase.generate]
)
# An example of 100 kB may be found as well as a small one, and is then the result.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


def test_all_services_of_the_contract_are_fuzzed() -> None:
    assert {"AdvisorService", "ProfileService", "RunService"} <= {m.service for m in METHODS}
    assert by_name()["AdvisorService/RecommendLR"].takes_stream
    assert by_name()["RunService/WatchRun"].gives_stream


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.short)
def test_every_method_has_valid_requests_of_its_type(method: Any) -> None:
    for request in valid.requests(method.short):
        assert isinstance(request, class_of(method.request))


def fields_of(descriptor: Descriptor) -> set[str]:
    """Return the full names of all fields that a message can have, at any depth."""
    found: set[str] = set()
    waiting = [descriptor]
    while waiting:
        for field in waiting.pop().fields:
            if field.full_name not in found:
                found.add(field.full_name)
                waiting.extend([] if field.message_type is None else [field.message_type])
    return found


def set_in(message: Message) -> set[str]:
    """Return the full names of the fields that are set in a message, at any depth."""
    found = set()
    for field, value in message.ListFields():
        found.add(field.full_name)
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            found.update(inner.full_name for inner in field.message_type.fields)
        else:
            for inner in value if field.is_repeated else [value]:
                found |= set_in(inner)
    return found


class AllBuiltError(Exception):
    """Raised when every field was set in a message."""


@pytest.mark.parametrize(
    "descriptor",
    {method.request.full_name: method.request for method in METHODS}.values(),
    ids=lambda descriptor: descriptor.name,
)
def test_every_field_of_every_request_is_generated(descriptor: Descriptor) -> None:
    missing = fields_of(descriptor)

    @settings(
        max_examples=2_000,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(messages(descriptor))
    def look(message: Message) -> None:
        missing.difference_update(set_in(message))
        if not missing:
            raise AllBuiltError("every field")

    with pytest.raises(AllBuiltError, match="every field"):
        look()


def test_strings_that_are_not_valid_utf8_are_sent() -> None:
    request: Any = class_of(by_name()["RunService/GetRun"].request)(name="a\ue000b\ue001")
    assert on_the_wire(request).endswith(b"a\xed\xa0\x80b\xff\xfe\xfd")


def test_calls_include_undecodable_bytes_and_odd_metadata() -> None:
    method = by_name()["RunService/GetRun"]

    def is_unreadable(sent: Input) -> bool:
        try:
            class_of(method.request).FromString(sent.messages[0])
        except DecodeError:
            return bool(sent.metadata)
        return False

    assert find(calls(method), is_unreadable, settings=_found_or_not)


def check_that_no_message_causes_a_defect(kind: type[Any], **more: Any) -> None:
    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], **more)
    @given(messages(kind.DESCRIPTOR))
    def holds(message: Message) -> None:
        take(message)

    holds()


@pytest.mark.parametrize("kind", list(TARGETS), ids=lambda kind: kind.DESCRIPTOR.name)
def test_no_message_causes_a_defect(kind: type[Any]) -> None:
    check_that_no_message_causes_a_defect(kind)


def test_a_planted_defect_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def divide_by_zero(request: Any) -> None:
        if math.isinf(request.policy.slew_limit):
            raise ZeroDivisionError("planted")
        decoding.set_policy(request)

    kind = policy_service_pb2.SetPolicyRequest
    monkeypatch.setitem(TARGETS, kind, divide_by_zero)
    with pytest.raises(ZeroDivisionError, match="planted"):
        check_that_no_message_causes_a_defect(
            kind, max_examples=2_000, phases=[Phase.generate], derandomize=True
        )


@given(st.binary(max_size=200))
def test_no_bytes_cause_a_defect(data: bytes) -> None:
    for kind in TARGETS:
        take_bytes(kind, data)


def answer(code: grpc.StatusCode, reason: str = "", *responses: Message) -> Answer:
    """Return an answer in the form of the service."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN))
    status = status_pb2.Status(details=[detail] if reason else []).SerializeToString()
    trailers = (("grpc-status-details-bin", status),)
    return Answer(code, "words", trailers, tuple(each.SerializeToString() for each in responses))


@pytest.mark.parametrize(
    ("given_answer", "words"),
    [
        (answer(grpc.StatusCode.INTERNAL, DEFECT.reason), "failed: words"),
        (answer(grpc.StatusCode.UNKNOWN), "UNKNOWN with 0 reasons"),
        (answer(grpc.StatusCode.NOT_FOUND, "INVALID_REQUEST"), "with the reason INVALID_REQUEST"),
        (answer(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"), "reason STORE_UNAVAILABLE"),
        (
            answer(
                grpc.StatusCode.OK,
                "",
                advisor_service_pb2.RecommendLRResponse(multipliers=[math.nan]),
            ),
            "multipliers of nan",
        ),
        (
            answer(
                grpc.StatusCode.OK, "", advisor_service_pb2.RecommendLRResponse(multipliers=[0.0])
            ),
            "a multiplier that is not above 0",
        ),
        (Answer(grpc.StatusCode.OK, "", (), (b"\xff",)), "does not parse"),
    ],
)
def test_answers_that_the_contract_does_not_allow_are_found(
    given_answer: Answer, words: str
) -> None:
    sent = Input(by_name()["AdvisorService/RecommendLROnce"], (b"",))
    assert words in complaint(sent, given_answer)
