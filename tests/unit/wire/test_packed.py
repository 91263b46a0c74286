"""Packed messages decode every encoding of a request as the contract's own classes do."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from advisor.wire import RecommendLRRequest, packed, packed_event
from benchmarks.rpc.payload import measurements, recommend_request
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import run_service_pb2

GROUPS = 20


def _tag(field: int, wire_type: int) -> bytes:
    return bytes([field << 3 | wire_type])


def _bytes_field(field: int, data: bytes) -> bytes:
    length, left = b"", len(data)
    while left >= 128:
        length, left = length + bytes([left % 128 + 128]), left // 128
    return _tag(field, 2) + length + bytes([left]) + data


def _plain(measurement: pb.Measurement) -> bytes:
    return measurement.SerializeToString()


def _not_packed(measurement: pb.Measurement) -> bytes:
    rates = np.array(measurement.unit_rates, dtype="<f4")
    rest = pb.Measurement.FromString(_plain(measurement))
    rest.ClearField("unit_rates")
    return _plain(rest) + b"".join(_tag(2, 5) + rate.tobytes() for rate in rates)


def _in_pieces(measurement: pb.Measurement) -> bytes:
    data = np.array(measurement.unit_rates, dtype="<f4").tobytes()
    rest = pb.Measurement.FromString(_plain(measurement))
    rest.ClearField("unit_rates")
    return _bytes_field(2, data[:12]) + _plain(rest) + _bytes_field(2, data[12:])


def _with_two_byte_flags(measurement: pb.Measurement) -> bytes:
    rest = pb.Measurement.FromString(_plain(measurement))
    rest.ClearField("advised")
    return _plain(rest) + _bytes_field(13, b"\x81\x00" * len(measurement.advised))


def _with_a_field_repeated(measurement: pb.Measurement) -> bytes:
    return _tag(1, 0) + b"\x05" + _plain(measurement)


def _with_defaults_written_out(measurement: pb.Measurement) -> bytes:
    return _plain(measurement) + _tag(7, 0) + b"\x00"


def _with_an_unknown_field(measurement: pb.Measurement) -> bytes:
    return _plain(measurement) + b"\xba\x3e" + b"\x07unknown"  # field 999, of bytes


ENCODINGS = (
    *(_plain, _not_packed, _in_pieces, _with_two_byte_flags),
    *(_with_a_field_repeated, _with_defaults_written_out, _with_an_unknown_field),
)


@pytest.mark.parametrize("encode", ENCODINGS)
@pytest.mark.parametrize("with_opening", [False, True])
def test_every_encoding_of_a_request_decodes_to_the_same_message(
    encode: Callable[[pb.Measurement], bytes], with_opening: bool
) -> None:
    opening = recommend_request("run", GROUPS).opening.SerializeToString()
    data = (_bytes_field(1, opening) if with_opening else b"") + _bytes_field(
        2, encode(measurements(GROUPS)[0])
    )
    expected = pb.RecommendLRRequest.FromString(data)
    found = RecommendLRRequest.from_bytes(data)
    assert (found.opening is None) == (not with_opening)
    if with_opening:
        assert found.opening == expected.opening
    assert pb.Measurement.FromString(found.encoded_measurement) == expected.measurement
    read = pb.Measurement.FromString(found.measurement.SerializeToString())
    for message in (read, expected.measurement):
        message.DiscardUnknownFields()
    assert read == expected.measurement


def test_a_message_in_two_pieces_is_merged() -> None:
    first, second = pb.Measurement(step=3), pb.Measurement(probes=4)
    data = _bytes_field(2, _plain(first)) + _bytes_field(2, _plain(second))
    assert RecommendLRRequest.from_bytes(data).measurement.step == 3
    assert RecommendLRRequest.from_bytes(data).measurement.probes == 4


def test_an_empty_message_differs_from_an_absent_one() -> None:
    assert RecommendLRRequest.from_bytes(b"").measurement is None
    assert RecommendLRRequest.from_bytes(_bytes_field(2, b"")).measurement is not None
    assert RecommendLRRequest.from_bytes(b"").opening is None
    assert RecommendLRRequest.from_bytes(_bytes_field(1, b"")).opening is not None


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",
        _bytes_field(2, b"\x12\xff"),
        _bytes_field(2, _bytes_field(2, b"123")),  # not a multiple of four bytes
        _bytes_field(2, _bytes_field(13, b"\x01\x80")),  # an unterminated flag
        _bytes_field(1, _bytes_field(1, b"\xff")),  # a name that is not UTF-8
    ],
)
def test_undecodable_requests_raise_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"pars"):
        pb.RecommendLRRequest.FromString(data)
    with pytest.raises(DecodeError, match=r"pars"):
        RecommendLRRequest.from_bytes(data)


def test_a_packed_event_has_the_encoding_of_the_contract() -> None:
    measured, answered = measurements(GROUPS)[0], pb.RecommendLRResponse(step=7, stale=True)
    time = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    event = run_service_pb2.RunEvent(measurement=measured, recommendation=answered)
    event.time.FromDatetime(time)
    encoded = packed_event(time, _plain(measured), answered.SerializeToString())
    assert encoded == event.SerializeToString()


def _mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5])):
        place = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0 if place < len(changed):
                changed[place] = chance.randrange(256)
            case 1:
                changed[place:place] = chance.randbytes(chance.randrange(1, 5))
            case 2:
                del changed[place : place + chance.randrange(1, 6)]
            case _:
                changed[place:place] = changed[: chance.randrange(1, 40)]
    return bytes(changed)


def _decoded_by_the_contract(data: bytes) -> tuple[object, object] | None:
    try:
        message = pb.RecommendLRRequest.FromString(data)
    except DecodeError:
        return None
    opening = message.opening if message.HasField("opening") else None
    if not message.HasField("measurement"):
        return opening, None
    message.measurement.DiscardUnknownFields()
    return opening, message.measurement


def _decoded_packed(data: bytes) -> tuple[object, object] | None:
    try:
        request = RecommendLRRequest.from_bytes(data)
    except DecodeError:
        return None
    if request.measurement is None:
        return request.opening, None
    measurement = pb.Measurement.FromString(request.measurement.SerializeToString())
    measurement.DiscardUnknownFields()
    return request.opening, measurement


@given(seed=st.integers(0, 2**32))
def test_mutated_requests_decode_as_with_the_contract_s_classes(seed: int) -> None:
    chance = random.Random(seed)
    whole = recommend_request("run", 3)
    later = pb.RecommendLRRequest(measurement=measurements(3)[1])
    for message in (whole, later) * 10:
        data = _mutated(message.SerializeToString(), chance)
        assert _decoded_packed(data) == _decoded_by_the_contract(data)


def test_a_signaling_nan_decodes_without_a_warning() -> None:
    signaling = (0x7F800001).to_bytes(4, "little")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = packed.numbers(signaling + np.float32(1).tobytes(), "<f4")
    assert np.isnan(found[0])
    assert found[1] == 1


@given(st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 200), max_size=20))
def test_packed_integers_are_those_of_the_contract(values: list[int]) -> None:
    answer = pb.RecommendLRResponse(limits=values)
    assert packed.integers(packed.packed_response(answer).limits).tolist() == values
