"""The messages of a recommendation with their arrays as bytes: the same wire, fewer objects.

An array of the contract travels *packed*: its numbers one after the other, little-endian, behind a
length, as a field of type ``bytes`` does. A message class that calls them bytes reads and writes a
hundred numbers in one step, and numpy looks at them where they lie; the contract's own classes make
a Python object of each. The classes here are made from the contract's descriptors, so they cannot
drift from it.

The contract allows other spellings of the same message too: arrays that are not packed, or in
pieces, fields twice, defaults written out, fields of later versions. A message that is not written
as protobuf's own encoders write it is read by the contract's class first and written anew.
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
    """Return classes like the originals, with arrays of numbers and messages as bytes."""
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
                field.type = _Field.TYPE_BYTES  # as many as there were
                field.ClearField("type_name")
                if not is_array:  # an empty message is another thing than none
                    field.proto3_optional = True
                    field.oneof_index = len(message.oneof_decl)
                    message.oneof_decl.add(name=f"_{field.name}")
            elif is_array and not is_text:
                field.type = _Field.TYPE_BYTES
                field.label = _Field.LABEL_OPTIONAL
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
_ITEM_BYTES: dict[str, int] = {  # of the arrays of a measurement
    field.name: _NUMBER_BYTES[field.type]
    for field in advisor_service_pb2.Measurement.DESCRIPTOR.fields
    if Measurement.DESCRIPTOR.fields_by_name[field.name].type == _Field.TYPE_BYTES
}
_WIDE = [(name, size) for name, size in _ITEM_BYTES.items() if size > 1]
_FLAGS = [name for name, size in _ITEM_BYTES.items() if size == 1]
_NOT_FLAGS = bytes(range(2, 256))


class RecommendLRRequest:
    """A request as it came.

    Attributes:
        opening: The run's opening, or None.
        measurement: The measurement with its arrays as bytes, or None.
        encoded_measurement: The same, as it came.
    """

    __slots__ = ("encoded_measurement", "measurement", "opening")

    def __init__(self, data: bytes) -> None:
        request = _Request.FromString(data)
        if not _is_plain(request, data):
            plain = advisor_service_pb2.RecommendLRRequest.FromString(data)
            request = _Request.FromString(plain.SerializeToString())
        self.opening: advisor_service_pb2.RunOpening | None = None
        if request.HasField("opening"):
            self.opening = advisor_service_pb2.RunOpening.FromString(request.opening)
        self.encoded_measurement: bytes = request.measurement
        self.measurement: Any = None
        if request.HasField("measurement"):
            self.measurement = Measurement.FromString(request.measurement)
            if not (_is_plain(self.measurement, request.measurement) and _fits(self.measurement)):
                again = advisor_service_pb2.Measurement.FromString(request.measurement)
                self.encoded_measurement = again.SerializeToString()
                self.measurement = Measurement.FromString(self.encoded_measurement)

    @classmethod
    def from_bytes(cls, data: bytes) -> RecommendLRRequest:
        """Read a request.

        Raises:
            DecodeError: The bytes are none.
        """
        return cls(data)


def packed_event(time: datetime, measurement: bytes, recommendation: bytes) -> bytes:
    """Return a run's event, encoded, of parts that are encoded.

    Args:
        time: When it was answered, UTC.
        measurement: What was measured.
        recommendation: What was answered.
    """
    stamp = timestamp_pb2.Timestamp(seconds=int(time.timestamp()), nanos=time.microsecond * 1_000)
    event = Event(
        time=stamp.SerializeToString(), measurement=measurement, recommendation=recommendation
    )
    return bytes(event.SerializeToString())


def _is_plain(message: Any, data: bytes) -> bool:
    """Return whether a message is written as protobuf's own encoders write it."""
    message.DiscardUnknownFields()
    return bool(message.SerializeToString() == data)


def _fits(message: Any) -> bool:
    """Return whether the arrays of a measurement hold whole numbers and flags of one byte each."""
    return not any(len(getattr(message, name)) % size for name, size in _WIDE) and not any(
        len(flags) != len(flags.translate(None, _NOT_FLAGS))
        for flags in (getattr(message, name) for name in _FLAGS)
    )


def numbers(data: bytes, dtype: npt.DTypeLike) -> npt.NDArray[np.float64]:
    """Return an array as double precision numbers.

    Args:
        data: The array.
        dtype: What its numbers are on the wire.
    """
    # A signalling NaN is no different here from any other, and no warning in the log.
    with np.errstate(invalid="ignore"):
        return np.frombuffer(data, dtype).astype(np.float64)
