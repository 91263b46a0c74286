"""Valid messages made wrong: field by field, and byte by byte."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz.messages import Builder

_VARINTS = (
    b"\x00",
    b"\x7f",
    b"\xff\xff\xff\xff\x0f",  # 2**32 - 1
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # 2**64 - 1
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # does not fit 64 bits
    b"\x80" * 11,  # never ends
)


def mutated_fields(message: Message, builder: Builder, chance: random.Random) -> Message:
    """Return a copy of a message with one to three of its fields, at any depth, changed."""
    changed = type(message)()
    changed.CopyFrom(message)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        _change(_somewhere(changed, chance), builder, chance)
    return changed


def _somewhere(message: Message, chance: random.Random) -> Message:
    """Return the message itself or one inside of it."""
    while chance.random() < 0.75:
        inside: list[Message] = []
        for field, value in message.ListFields():
            if field.message_type is None or field.message_type.GetOptions().map_entry:
                continue
            inside.append(chance.choice(value) if field.is_repeated else value)
        if not inside:
            break
        message = chance.choice(inside)
    return message


def _change(message: Message, builder: Builder, chance: random.Random) -> None:
    fields: list[Any] = list(message.DESCRIPTOR.fields)
    if not fields:
        return
    field: FieldDescriptor = chance.choice(fields)
    is_list = field.is_repeated and not (
        field.message_type is not None and field.message_type.GetOptions().map_entry
    )
    if is_list and len(getattr(message, field.name)) and chance.random() < 0.7:
        _change_list(getattr(message, field.name), field, builder, chance)
    elif chance.random() < 0.15:
        message.ClearField(field.name)
    else:
        builder.set(message, field)


def _change_list(
    here: Any, field: FieldDescriptor, builder: Builder, chance: random.Random
) -> None:
    at = chance.randrange(len(here))
    match chance.randrange(4):
        case 0:
            del here[at]
        case 1:
            here.append(here[at])
        case 2:
            kept = list(here)
            chance.shuffle(kept)
            del here[:]
            here.extend(kept)
        case _:
            if field.message_type is None:
                here[at] = builder.scalar(field)
            else:
                _change(here[at], builder, chance)


def mutated_bytes(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return a message's bytes with one to four mistakes.

    Args:
        data: The bytes.
        other: Those of another message, for splices.
        chance: Where the mistakes come from.
    """
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(8):
            case 0 if changed:
                changed[min(at, len(changed) - 1)] ^= 1 << chance.randrange(8)
            case 1:
                del changed[at:]
            case 2:
                del changed[at : at + chance.choice((1, 2, 8))]
            case 3:
                changed[at:at] = changed[at : at + chance.choice((1, 4, 32))]
            case 4:
                start = chance.randrange(len(other) + 1)
                changed[at:] = other[start:]
            case 5:
                changed[at : at + 1] = chance.choice(_VARINTS)
            case 6:
                changed += changed[: chance.randrange(len(changed) + 1)]
            case _:
                changed[at:at] = chance.randbytes(chance.choice((1, 3, 9)))
    return bytes(changed)
