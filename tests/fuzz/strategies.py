"""Hypothesis strategies for messages and calls; Hypothesis shrinks failing ones."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from tests.fuzz import methods, valid, values
from tests.fuzz.inputs import Input, Metadata
from tests.fuzz.methods import Method, class_of

_MAX_LENGTH = 4
_MAX_DEPTH = 4
_WORDS = (*values.GROUP_NAMES, *values.PATTERNS, "projects/a/profiles/b", "projects/a/runs/c", "a")
_MAX_METADATA_BYTES = 100_000  # gRPC itself refuses metadata above 8 KiB


def messages(descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[Message]:
    """Return a strategy for messages of a type with any combination of its fields."""
    fields = [field for field in descriptor.fields if depth < _MAX_DEPTH or not field.message_type]
    each = {field.name: _field(field, depth) for field in fields}
    return st.fixed_dictionaries({}, optional=each).map(lambda given: class_of(descriptor)(**given))


def calls(method: Method) -> st.SearchStrategy[Input]:
    """Return a strategy for calls of a method, mostly valid requests with replaced fields."""
    one = _encoded(method)
    # All messages of a stream have the same type.
    sent = st.lists(one, min_size=1, max_size=4) if method.takes_stream else one.map(lambda m: [m])
    return st.builds(
        lambda bodies, metadata: Input(method, tuple(bodies), metadata), sent, _metadata()
    )


def _encoded(method: Method) -> st.SearchStrategy[bytes]:
    """Return a strategy for the bytes of a request, including undecodable ones."""
    odd = messages(method.request)
    good = st.sampled_from(valid.requests(method.short))
    merged = st.builds(_merged, good, odd)
    return st.one_of(
        good.map(on_the_wire), merged.map(on_the_wire), odd.map(on_the_wire), st.binary(max_size=99)
    )


def _merged(request: Message, odd: Message) -> Message:
    """Return a request with replaced scalar fields and extended lists."""
    merged = type(request)()
    merged.CopyFrom(request)
    merged.MergeFrom(odd)
    return merged


def on_the_wire(message: Message) -> bytes:
    """Return the bytes of a message, with strings that are not valid UTF-8."""
    data = message.SerializeToString()
    for stand_in, replacement in values.UNENCODABLE.items():
        data = data.replace(stand_in.encode(), replacement)
    return data


def _metadata() -> st.SearchStrategy[Metadata]:
    """Return a strategy for metadata that our clients never send; mostly empty."""
    large = st.sampled_from((100, 300, 4_000, 7_000, 20_000, _MAX_METADATA_BYTES))
    one = st.one_of(
        st.sampled_from(values.METADATA),
        large.map(lambda size: ("fslr-actor", "a" * size)),
        large.map(lambda size: ("authorization", "Bearer " + "x" * size)),
        st.binary(max_size=64).map(lambda data: ("x-many-bin", data)),
    )
    several = st.builds(lambda pair, times: (pair,) * times, one, st.sampled_from((1, 1, 2, 20)))
    return st.just(()) | st.just(()) | several


def _field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if methods.is_map(field):
        key, value = methods.map_fields(field)
        return st.dictionaries(_value(key, depth), _value(value, depth), max_size=_MAX_LENGTH)
    one = _value(field, depth)
    return st.lists(one, max_size=_MAX_LENGTH) if field.is_repeated else one


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, depth + 1)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return st.binary(max_size=20)
            known = values.BY_FIELD.get(field.name, ())
            return st.sampled_from((*known, *_WORDS, *values.WORDS)) | st.text(max_size=20)
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_ENUM:
            return st.integers(-1, 8) | st.sampled_from((2**31 - 1, -(2**31)))
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return st.sampled_from(values.DOUBLES) | st.floats()
        case FieldDescriptor.CPPTYPE_FLOAT:
            return st.sampled_from(values.FLOATS) | st.floats(width=32)
        case FieldDescriptor.CPPTYPE_INT32:
            return st.integers(0, 4) | st.integers(-(2**31), 2**31 - 1)
        case FieldDescriptor.CPPTYPE_INT64:
            return st.sampled_from(values.INTEGERS) | st.integers(-(2**63), 2**63 - 1)
    return st.integers(0, 2**32 - 1)
