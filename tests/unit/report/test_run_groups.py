"""The groups of a run are those of its layout, derived with less work."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import InvalidValueError, Layout
from advisor.report.run_groups import RunGroups
from advisor.wire.layouts import layout_from_proto, layout_to_proto
from fslr.advisor.v1 import layout_pb2
from tests.building import layout_message

_WORDS = ("blocks", "layer", "h", "experts", "weight", "net", "Dense_0", "stages", "a1b", "module")
_segments = st.one_of(
    st.sampled_from(_WORDS),
    st.integers(0, 2).map(str),
    st.builds("{}{}".format, st.sampled_from(_WORDS), st.integers(0, 2)),
)
_names = st.lists(
    st.lists(_segments, min_size=1, max_size=6).map(".".join), min_size=1, max_size=12, unique=True
)
_templates = st.sampled_from([[], ["net.*"], ["blocks*.h.*", "stages*"]])


@given(_names, _names, _templates)
def test_roles_and_blocks_are_those_of_the_layout(
    names: Sequence[str], frozen: Sequence[str], templates: Sequence[str]
) -> None:
    message = layout_message(names)
    message.role_templates.extend(templates)
    message.frozen_names.extend(set(frozen) - set(names))
    layout = layout_from_proto(message)
    groups = RunGroups.of(message)
    assert groups.names == tuple(names)
    assert _roles_and_blocks(groups) == _of_layout(layout)
    assert _roles_and_blocks(RunGroups.of(layout_to_proto(layout))) == _of_layout(layout)


def _roles_and_blocks(groups: RunGroups) -> list[tuple[str, str]]:
    """Return role and block of each group."""
    pairs = zip(groups.roles.indices, groups.blocks.indices, strict=True)
    return [(groups.roles.names[role], groups.blocks.names[block]) for role, block in pairs]


def _of_layout(layout: Layout) -> list[tuple[str, str]]:
    """Return role and block of each group of a layout whose roles are derived."""
    found = []
    for group, place in zip(layout.groups, layout.places, strict=True):
        start, star, _ = group.role.partition("*")
        module = re.match(r"(.+)[./][^./]*$|(.*)", group.role)
        assert module is not None
        found.append((group.role, f"{start}{place.numbers[0]}" if star else module[1] or module[2]))
    return found


def test_given_positions_are_blocks_of_their_own() -> None:
    message = layout_pb2.Layout(
        groups=[
            layout_pb2.Group(name=name, role="net.w", depth_index=i, depth_count=2)
            for i, name in enumerate(("first", "second"))
        ]
    )
    groups = RunGroups.of(message)
    assert groups.blocks.names == ("net 0", "net 1")
    assert groups.sizes.tolist() == [1, 1]


def test_a_layout_without_groups_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="the layout has no group; name at least one"):
        RunGroups.of(layout_pb2.Layout())
