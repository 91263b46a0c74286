"""Messages built from their descriptors: every field of every message can have every odd value."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz import methods, values
from tests.fuzz.methods import class_of

_DEEPEST = 6


class Builder:
    """Builds messages and values of fields.

    Args:
        chance: Where they come from.
        service: The service whose requests they are; tells what a name names.
    """

    def __init__(self, chance: random.Random, service: str) -> None:
        self._chance = chance
        self._service = service
        self._length = 4

    def message(self, descriptor: Descriptor) -> Message:
        """Return a message of a type."""
        # Arrays that belong together have one length, or nothing behind the first check is met.
        self._length = self._chance.choice((1, 2, 4, 4, 4, 4, 7, 40))
        return self._message(descriptor, 0)

    def set(self, message: Any, field: FieldDescriptor, depth: int = 0) -> None:
        """Give a field of a message another value."""
        message.ClearField(field.name)
        kind = field.message_type
        if methods.is_map(field):
            self._fill_map(message, field, depth)
        elif field.is_repeated:
            here = getattr(message, field.name)
            if kind is not None:
                here.extend(self._message(kind, depth + 1) for _ in range(self._size(depth)))
            else:
                here.extend(self._entries(field))
        elif kind is not None:
            getattr(message, field.name).CopyFrom(self._message(kind, depth + 1))
        else:
            setattr(message, field.name, self.scalar(field))

    def scalar(self, field: FieldDescriptor) -> Any:
        """Return a value for a field that is no message."""
        chance = self._chance
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING:
                if field.type == FieldDescriptor.TYPE_BYTES:
                    return chance.choice(values.BYTES)
                return values.text(chance, self._service, field)
            case FieldDescriptor.CPPTYPE_BOOL:
                return chance.random() < 0.5
            case FieldDescriptor.CPPTYPE_ENUM:
                return chance.choice((*range(9), 64, -1, 2**31 - 1, -(2**31)))
            case FieldDescriptor.CPPTYPE_DOUBLE:
                return chance.choice(values.DOUBLES)
            case FieldDescriptor.CPPTYPE_FLOAT:
                return chance.choice(values.FLOATS)
            case FieldDescriptor.CPPTYPE_INT32:
                return chance.choice(values.SMALL_INTEGERS)
            case FieldDescriptor.CPPTYPE_INT64:
                if field.name == "seconds":
                    return chance.choice(values.SECONDS)
                return chance.choice(values.INTEGERS)
        return abs(chance.choice(values.SMALL_INTEGERS))  # unsigned

    def _message(self, descriptor: Descriptor, depth: int) -> Message:
        built = class_of(descriptor)()
        often = self._chance.choice((0.3, 0.7, 0.95))
        for field in descriptor.fields:
            if depth < _DEEPEST and self._chance.random() < often:
                self.set(built, field, depth)
        return built

    def _fill_map(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        here = getattr(message, field.name)
        key, value = methods.map_fields(field)
        for _ in range(self._size(depth)):
            if value.message_type is None:
                here[self.scalar(key)] = self.scalar(value)
            else:
                here[self.scalar(key)].CopyFrom(self._message(value.message_type, depth + 1))

    def _size(self, depth: int) -> int:
        if self._chance.random() < 0.8:
            return self._length if depth < 3 else min(self._length, 4)
        return self._chance.choice((0, 1, 2, 3, 70))

    def _entries(self, field: FieldDescriptor) -> list[Any]:
        """Return the entries of an array: mostly plain ones, or no array would ever be taken."""
        size = self._size(2)
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING or self._chance.random() < 0.3:
            return [self.scalar(field) for _ in range(size)]
        if field.cpp_type in {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}:
            rising = sorted(self._chance.uniform(0.01, 2.0) for _ in range(size))
            if rising and self._chance.random() < 0.3:
                rising[self._chance.randrange(size)] = self.scalar(field)
            return rising
        plain = self.scalar(field)
        return [plain] * size


def on_the_wire(message: Message) -> bytes:
    """Return the bytes of a message, with texts in it that no text can be."""
    data = message.SerializeToString()
    for stand_in, wanted in values.UNENCODABLE.items():
        data = data.replace(stand_in.encode(), wanted)
    return data
