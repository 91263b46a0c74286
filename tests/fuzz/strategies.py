"""Hypothesis strategies of messages: fewer than the fuzzer makes, but what fails becomes small."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from tests.fuzz import methods, values
from tests.fuzz.methods import class_of

_LONGEST = 4
_DEEPEST = 4
_WORDS = (*values.GROUP_NAMES, *values.PATTERNS, "projects/a/profiles/b", "projects/a/runs/c", "a")
_WITHOUT_STAND_INS = [word for word in _WORDS if not set(word) & set(values.UNENCODABLE)]


def messages(descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[Message]:
    """Return a strategy for messages of a type: any of the fields, in any combination."""
    fields = [field for field in descriptor.fields if depth < _DEEPEST or not field.message_type]
    each = {field.name: _field(field, depth) for field in fields}
    return st.fixed_dictionaries({}, optional=each).map(lambda given: class_of(descriptor)(**given))


def _field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if methods.is_map(field):
        key, value = methods.map_fields(field)
        return st.dictionaries(_value(key, depth), _value(value, depth), max_size=_LONGEST)
    one = _value(field, depth)
    return st.lists(one, max_size=_LONGEST) if field.is_repeated else one


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, depth + 1)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return st.binary(max_size=20)
            return st.sampled_from(_WITHOUT_STAND_INS) | st.text(max_size=20)
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
