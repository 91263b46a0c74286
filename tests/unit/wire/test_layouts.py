"""Layouts: messages to domain objects and back."""

from __future__ import annotations

import pytest

from advisor.policy import GroupKind, InvalidValueError
from advisor.wire import layout_from_proto, layout_to_proto
from fslr.advisor.v1 import layout_pb2
from tests.building import describe_tensors, layout_message


def test_every_kind_of_the_contract_is_one_of_the_policy() -> None:
    message = layout_message([f"p{i}" for i in layout_pb2.GroupKind.values()])
    for group, kind in zip(message.groups, layout_pb2.GroupKind.values(), strict=True):
        group.kind = kind
    layout = layout_from_proto(message)
    assert {group.kind for group in layout.groups} == set(GroupKind)
    assert [group.kind for group in layout_to_proto(layout).groups] == [
        group.kind for group in message.groups
    ]


def test_what_is_known_of_tensors_is_unchanged_after_conversion_and_back() -> None:
    message = layout_to_proto(layout_from_proto(layout_message()))
    describe_tensors(message, width=4)
    message.groups[0].ClearField("initial_rms")
    message.groups[1].initial_rms = 0.0
    message.groups[2].optimizer = "SGD"
    message.groups[2].residual_output = True
    message.groups[3].residual_output = False
    layout = layout_from_proto(message)
    assert layout.initial_rms == (None, 0.0, 0.02, 0.02)
    assert layout_to_proto(layout) == message
    assert [group.residual_output for group in layout.groups] == [None, None, True, False]


def test_an_unknown_kind_is_refused() -> None:
    message = layout_message()
    message.groups[1].kind = 99  # type: ignore[assignment]
    with pytest.raises(InvalidValueError, match=r"groups\[1\]\.kind: 99 is not a known kind; leav"):
        layout_from_proto(message)
