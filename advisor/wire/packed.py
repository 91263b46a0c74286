"""The messages of a recommendation with their arrays as bytes: the same encoding, fewer objects.

Protobuf encodes an array of numbers *packed*: a length, then the numbers in little-endian order, as
a field of type ``bytes`` is. A message class that declares these fields as bytes reads and writes a
hundred numbers in one step, and numpy uses them without a copy; the contract's own classes create a
Python object for each number. The classes here are derived from the contract's descriptors, so they
cannot deviate from it.

The same message can be encoded differently: arrays not packed or in pieces, fields repeated,
defaults written out, unknown fields. A message that is not in the form that protobuf's own encoders
produce is parsed by the contract's class and encoded again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

from fslr.advisor.v1 import advisor_service_pb2, run_service_pb2

_PACKAGE = "fslr.advisor.packed"
_Field = descriptor_pb2.FieldDescriptorProto


def _classes(*originals: Any) -> list[Any]:
    """Return classes like the originals, with bytes for arrays of numbers and for messages."""
    file = descriptor_pb2.FileDescriptorProto(
        name="fslr/advisor/packed.proto", package=_PACKAGE, syntax="proto3"
    )
    for original in originals:
        message = file.message_type.add()
        original.DESCRIPTOR.CopyToProto(message)
        for field in message.field:
            is_text = field.type in {_Field.TYPE_STRING, _Field.TYPE_BYTES}
            is_array = field.label == _Field.LABEL_REPEATED
            if field.type == _Field.TYPE_MESSAGE:
                field.type = _Field.TYPE_BYTES  # a repeated field stays repeated
                field.ClearField("type_name")
                if not is_array:  # an empty message differs from an absent one
                    field.proto3_optional = True
                    field.oneof_index = len(message.oneof_decl)
                    message.oneof_decl.add(name=f"_{field.name}")
            elif is_array and not is_text:
                field.type = _Field.TYPE_BYTES
                field.label = _Field.LABEL_OPTIONAL
                field.ClearField("type_name")
            elif field.type == _Field.TYPE_ENUM:
                field.type = _Field.TYPE_INT32  # has the same encoding
                field.ClearField("type_name")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return [
        message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{original.DESCRIPTOR.name}")
        )
        for original in originals
    ]


_NUMBER_BYTES: dict[int, int] = {
    _Field.TYPE_FLOAT: 4,
    _Field.TYPE_DOUBLE: 8,
    _Field.TYPE_BOOL: 1,
}
_Request, Measurement, Response, Event = _classes(
    advisor_service_pb2.RecommendLRRequest,
    advisor_service_pb2.Measurement,
    advisor_service_pb2.RecommendLRResponse,
    run_service_pb2.RunEvent,
)
_ITEM_BYTES: dict[str, int] = {  # size of one entry, for each array of a measurement
    field.name: _NUMBER_BYTES[field.type]
    for field in advisor_service_pb2.Measurement.DESCRIPTOR.fields
    if Measurement.DESCRIPTOR.fields_by_name[field.name].type == _Field.TYPE_BYTES
}
_NUMBER_ARRAYS = [(name, size) for name, size in _ITEM_BYTES.items() if size > 1]
_FLAG_ARRAYS = [name for name, size in _ITEM_BYTES.items() if size == 1]
_NOT_FLAGS = bytes(range(2, 256))


class RecommendLRRequest:
    """A request whose measurement has its arrays as bytes.

    Args:
        data: The encoded request.

    Attributes:
        opening: The run's opening, or None.
        measurement: The measurement with its arrays as bytes, or None.
        encoded_measurement: The encoded measurement; empty if it is absent.
        end: Whether the job has ended.

    Raises:
        DecodeError: The bytes are not a request of the contract.
    """

    __slots__ = ("encoded_measurement", "end", "measurement", "opening")

    def __init__(self, data: bytes) -> None:
        request = _Request.FromString(data)
        if not _is_canonical(request, data):
            message = advisor_service_pb2.RecommendLRRequest.FromString(data)
            request = _Request.FromString(message.SerializeToString())
        self.opening: advisor_service_pb2.RunOpening | None = None
        if request.HasField("opening"):
            self.opening = advisor_service_pb2.RunOpening.FromString(request.opening)
        self.end: bool = request.end
        self.encoded_measurement: bytes = request.measurement
        self.measurement: Any = None
        if request.HasField("measurement"):
            self.measurement = Measurement.FromString(request.measurement)
            if not (
                _is_canonical(self.measurement, request.measurement)
                and _has_valid_arrays(self.measurement)
            ):
                parsed = advisor_service_pb2.Measurement.FromString(request.measurement)
                self.encoded_measurement = parsed.SerializeToString()
                self.measurement = Measurement.FromString(self.encoded_measurement)

    @classmethod
    def from_bytes(cls, data: bytes) -> RecommendLRRequest:
        """Decode a request.

        Raises:
            DecodeError: The bytes are not a request of the contract.
        """
        return cls(data)


def packed_measurement(message: advisor_service_pb2.Measurement) -> Any:
    """Return a measurement with its arrays as bytes.

    Args:
        message: The measurement.
    """
    return Measurement.FromString(message.SerializeToString())


def packed_response(message: advisor_service_pb2.RecommendLRResponse) -> Any:
    """Return an answer with its arrays as bytes.

    Args:
        message: The answer.
    """
    return Response.FromString(message.SerializeToString())


def integers(data: bytes) -> npt.NDArray[np.int64]:
    """Return an array of integers; negative ones are in two's complement of 64 bits.

    Args:
        data: The encoded array: each integer takes 7 bits of a byte, the low ones first, and the
            highest bit is set in all its bytes but the last one.
    """
    encoded = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(encoded < 0x80)
    if len(ends) == len(encoded):  # nearly always: a byte each
        return encoded.astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(encoded)) - np.repeat(starts, ends - starts + 1)
    bits = (encoded & np.uint8(0x7F)).astype(np.uint64) << (7 * places).astype(np.uint64)
    found: npt.NDArray[np.int64] = np.add.reduceat(bits, starts).view(np.int64)
    return found


def packed_event(time: datetime, measurement: bytes, recommendation: bytes) -> bytes:
    """Return an encoded ``RunEvent``, built from encoded parts.

    Args:
        time: When the measurement was answered, UTC.
        measurement: The encoded measurement.
        recommendation: The encoded answer.
    """
    stamp = timestamp_pb2.Timestamp(seconds=int(time.timestamp()), nanos=time.microsecond * 1_000)
    event = Event(
        time=stamp.SerializeToString(), measurement=measurement, recommendation=recommendation
    )
    return bytes(event.SerializeToString())


def _is_canonical(message: Any, data: bytes) -> bool:
    """Return whether a message was encoded in the form that protobuf's own encoders produce."""
    message.DiscardUnknownFields()
    return bool(message.SerializeToString() == data)


def _has_valid_arrays(message: Any) -> bool:
    """Return whether the arrays of a measurement hold complete numbers and one-byte flags."""
    return not any(len(getattr(message, name)) % size for name, size in _NUMBER_ARRAYS) and not any(
        len(flags) != len(flags.translate(None, _NOT_FLAGS))
        for flags in (getattr(message, name) for name in _FLAG_ARRAYS)
    )


def numbers(data: bytes, dtype: npt.DTypeLike) -> npt.NDArray[np.float64]:
    """Return an array as float64 numbers.

    Args:
        data: The encoded array.
        dtype: Type of its numbers on the wire.
    """
    # A signaling NaN is treated like any other NaN, without a warning.
    with np.errstate(invalid="ignore"):
        return np.frombuffer(data, dtype).astype(np.float64)


def small_integers(rows: npt.NDArray[np.int64]) -> list[bytes]:
    """Return each row of integers in [0, 2^14) as an encoded array.

    Args:
        rows: Shape [rows, integers].
    """
    if np.count_nonzero(rows >= 1 << 7) == 0:  # nearly always: a byte each
        size = rows.shape[1]
        data = rows.astype(np.uint8).tobytes()
        return [data[start : start + size] for start in range(0, len(data), size)]
    # An integer of more than 7 bits has its low ones first, with the highest bit set.
    pairs = np.stack([rows & 0x7F | np.where(rows > 0x7F, 0x80, 0), rows >> 7], axis=-1)
    kept = np.stack([np.ones_like(rows, dtype=np.bool_), rows > 0x7F], axis=-1)
    return [pair[keep].astype(np.uint8).tobytes() for pair, keep in zip(pairs, kept, strict=True)]
