"""Layouts: messages to domain objects and back."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.policy import Group, GroupKind, InvalidValueError, Layout
from fslr.advisor.v1 import layout_pb2

KINDS = {
    layout_pb2.GROUP_KIND_UNSPECIFIED: GroupKind.UNKNOWN,
    layout_pb2.GROUP_KIND_EMBEDDING: GroupKind.EMBEDDING,
    layout_pb2.GROUP_KIND_HIDDEN: GroupKind.HIDDEN,
    layout_pb2.GROUP_KIND_READOUT: GroupKind.READOUT,
    layout_pb2.GROUP_KIND_VECTOR: GroupKind.VECTOR,
    layout_pb2.GROUP_KIND_CONVOLUTION: GroupKind.CONVOLUTION,
    layout_pb2.GROUP_KIND_ROUTER: GroupKind.ROUTER,
    layout_pb2.GROUP_KIND_EXPERT: GroupKind.EXPERT,
    layout_pb2.GROUP_KIND_ADAPTER_A: GroupKind.ADAPTER_A,
    layout_pb2.GROUP_KIND_ADAPTER_B: GroupKind.ADAPTER_B,
    layout_pb2.GROUP_KIND_INPUT: GroupKind.INPUT,
}
_KIND_NUMBERS = {kind: number for number, kind in KINDS.items()}


def layout_from_proto(message: layout_pb2.Layout) -> Layout:
    """Return the layout of a message; roles that are absent are derived from the names.

    Raises:
        InvalidValueError: The layout is not valid.
    """
    return Layout.of(
        (
            Group(
                name=group.name,
                role=group.role,
                depth_index=group.depth_index,
                depth_count=group.depth_count,
                parameter_count=group.parameter_count,
                inner_indices=tuple(group.inner_indices) if group.role else (),
                inner_counts=tuple(group.inner_counts) if group.role else (),
                shape=tuple(group.shape),
                fan_in=group.fan_in,
                fan_out=group.fan_out,
                kind=_kind(i, group.kind),
                optimizer=group.optimizer,
                residual_output=(
                    group.residual_output if group.HasField("residual_output") else None
                ),
            )
            for i, group in enumerate(message.groups)
        ),
        message.role_templates,
        message.frozen_names,
        message.frozen_parameter_counts,
        initial_rms_from_proto(message),
    )


def initial_rms_from_proto(message: layout_pb2.Layout) -> Sequence[float | None]:
    """Return the initial RMS of each group of a message; empty: all unknown."""
    found = [
        group.initial_rms if group.HasField("initial_rms") else None for group in message.groups
    ]
    return found if any(rms is not None for rms in found) else ()


def layout_to_proto(layout: Layout) -> layout_pb2.Layout:
    """Return the message of a layout."""
    initial_rms = layout.initial_rms or [None] * len(layout)
    return layout_pb2.Layout(
        groups=[
            layout_pb2.Group(
                name=group.name,
                role=group.role,
                depth_index=group.depth_index,
                depth_count=group.depth_count,
                parameter_count=group.parameter_count,
                inner_indices=group.inner_indices,
                inner_counts=group.inner_counts,
                shape=group.shape,
                fan_in=group.fan_in,
                fan_out=group.fan_out,
                kind=_KIND_NUMBERS[group.kind],
                initial_rms=rms,
                optimizer=group.optimizer,
                residual_output=group.residual_output,
            )
            for group, rms in zip(layout.groups, initial_rms, strict=True)
        ],
        role_templates=layout.role_templates,
        frozen_names=layout.frozen_names,
        frozen_parameter_counts=layout.frozen_parameter_counts,
    )


def _kind(index: int, value: layout_pb2.GroupKind.ValueType) -> GroupKind:
    try:
        return KINDS[value]
    except KeyError:
        raise InvalidValueError(
            f"groups[{index}].kind",
            f"{value} is not a known kind; leave it out, and the group has no prior",
        ) from None
