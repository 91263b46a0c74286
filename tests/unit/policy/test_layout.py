from __future__ import annotations

from collections.abc import Callable

import pytest

from advisor.policy import Group, InvalidValueError, Layout
from advisor.policy.groups import MAX_GROUPS


def test_depth_is_the_rank_among_the_indices_of_a_role() -> None:
    layout = Layout.of_names(["blocks.10.w", "blocks.2.w", "blocks.7.w", "blocks.2.b", "head"])
    depths = [(g.role, g.depth_index, g.depth_count) for g in layout.groups]
    assert depths == [
        ("blocks.*.w", 2, 3),
        ("blocks.*.w", 0, 3),
        ("blocks.*.w", 1, 3),
        ("blocks.*.b", 0, 1),
        ("head", 0, 1),
    ]


def test_a_role_of_two_indices_counts_blocks_inside_their_stage() -> None:
    layout = Layout.of_names([
        *("layer1.0.m.w", "layer1.1.m.w"),
        *("layer3.0.m.w", "layer3.1.m.w", "layer3.2.m.w"),
    ])
    assert {group.role for group in layout.groups} == {"layer*.*.m.w"}
    assert [(group.indices, group.counts) for group in layout.groups] == [
        ((0, 0), (2, 2)),
        ((0, 1), (2, 2)),
        ((1, 0), (2, 3)),
        ((1, 1), (2, 3)),
        ((1, 2), (2, 3)),
    ]


def test_role_templates_define_the_positions_of_indices() -> None:
    groups = [Group("net.s1.u0.conv2.w"), Group("net.s1.u4.conv2.w"), Group("blocks.0.w")]
    layout = Layout.of(groups, ["net.s*.u*"])
    assert [(group.role, group.indices) for group in layout.groups] == [
        ("net.s*.u*.conv2.w", (0, 0)),
        ("net.s*.u*.conv2.w", (0, 1)),
        ("blocks.*.w", (0,)),  # no template matches, so the index is detected
    ]


def test_wrappers_do_not_count_as_part_of_a_role() -> None:
    layout = Layout.of_names(["module._orig_mod.blocks.0.w", "module._orig_mod.blocks.1.w"])
    assert [(group.role, group.depth_index) for group in layout.groups] == [
        ("blocks.*.w", 0),
        ("blocks.*.w", 1),
    ]


def test_an_explicit_role_is_unchanged() -> None:
    group = Group("Dense_0/kernel", role="mlp.*.weight", depth_index=1, depth_count=4)
    assert Layout.of([group]).groups == (group,)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], r"groups: the layout has no group; name at least one"),
        ([Group("")], r"groups\[0\]\.name: empty; give the parameter's name"),
        ([Group("a"), Group("a")], r"groups\[1\]\.name: 'a' is also the name of groups\[0\]"),
        ([Group("a" * 513)], r"groups\[0\]\.name: 513 characters, but at most 512"),
        ([Group("a", role="r" * 513)], r"groups\[0\]\.role: 513 characters"),
        ([Group("a", role="r")], r"groups\[0\]\.depth_index: 0 is not in \[0, depth_count = 0\)"),
        ([Group("a", role="r", depth_index=-1, depth_count=2)], r"depth_index: -1 is not in"),
        ([Group("a", parameter_count=-1)], r"groups\[0\]\.parameter_count: -1 is below 0"),
        ([Group("a", shape=(2,) * 9)], r"groups\[0\]\.shape: 9 dimensions, but at most 8 are allo"),
        ([Group("a", shape=(2, 0))], r"groups\[0\]\.shape\[1\]: 0 is not in \[1, .*; leave the"),
        (
            [Group("a", parameter_count=7, shape=(2, 3))],
            r"groups\[0\]\.parameter_count: 7, but the shape 2 x 3 has 6 entries; correct one",
        ),
        ([Group("a", fan_in=-1)], r"groups\[0\]\.fan_in: -1 is not in \[0, "),
        ([Group("a", fan_out=2**63)], r"groups\[0\]\.fan_out: 9223372036854775808 is not in "),
        ([Group("a", optimizer="x" * 1_025)], r"groups\[0\]\.optimizer: 1025 characters, but at"),
        ([Group("a", optimizer="\x1b")], r"groups\[0\]\.optimizer: .* holds the control char"),
        (
            [Group("a", "r", 0, 2), Group("b", "r", 1, 3)],
            r"groups\[1\]\.depth_count: 3 of 1 indices, but .* of the role 'r' says 2 of 1",
        ),
        (
            [Group("a", "r", 0, 2), Group("b", "r", 0, 2)],
            r"groups\[1\]\.depth_index: 0 is also the position of groups\[0\] of the role",
        ),
        (
            [Group("x.1.a.w"), Group("x.01.a.w")],
            r"groups\[1\]\.depth_index: 0 is also the position of",
        ),
        ([Group("a", "r", 0, 2, 0, (1,))], r"inner_counts: 0 entries, but inner_indices has 1"),
        ([Group("a", "r", 0, 2, 0, (3,), (3,))], r"inner_indices\[0\]: 3 is not in \[0, "),
        (
            [Group("a", "r", 0, 2, 0, (0,), (2,)), Group("b", "r", 0, 2, 0, (1,), (3,))],
            r"groups\[1\]\.inner_counts\[0\]: 3 of 2 indices, but another group",
        ),
        ([Group("a", "r", 0, 2**31 - 1)], r"depth_count: 2147483647 is above 20000"),
        ([Group(str(i)) for i in range(MAX_GROUPS + 1)], r"20001 groups, but at most 20000"),
    ],
)
def test_the_error_for_an_invalid_layout_names_the_field(groups: list[Group], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        Layout.of(groups)


@pytest.mark.parametrize(
    ("initial_rms", "message"),
    [
        ([0.1], r"initial_rms: 1 entry, but the layout has 2 groups; give one for each, or none"),
        ([None, -0.1], r"groups\[1\]\.initial_rms: -0.1 is not a finite number of at least 0"),
        ([float("nan"), 1.0], r"groups\[0\]\.initial_rms: nan is not a finite number"),
    ],
)
def test_the_error_for_invalid_initial_weights_names_the_group(
    initial_rms: list[float | None], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        Layout.of([Group("a"), Group("b")], initial_rms=initial_rms)


def test_layouts_of_different_seeds_are_equal() -> None:
    one, two = (Layout.of([Group("a"), Group("b")], initial_rms=[rms, None]) for rms in (0.1, 0.2))
    assert one == two
    assert (one.initial_rms, two.initial_rms) == ((0.1, None), (0.2, None))
    assert Layout.of([Group("a")], initial_rms=[None]).initial_rms == ()


def test_many_explicit_roles_use_bounded_memory() -> None:
    """A message of one megabyte can declare 20,000 roles of 20,000 positions each."""
    groups = [Group(f"g{i}", role=f"r{i}", depth_count=MAX_GROUPS) for i in range(MAX_GROUPS)]
    with pytest.raises(InvalidValueError, match=r"groups\[50\].depth_count: .*1000000 positions"):
        Layout.of(groups)
    inner = [
        Group(f"g{i}", "r", i, MAX_GROUPS, inner_indices=(0,), inner_counts=(MAX_GROUPS,))
        for i in range(MAX_GROUPS)
    ]
    with pytest.raises(InvalidValueError, match=r"groups\[49\].depth_count: .*1000000 positions"):
        Layout.of(inner)


def test_the_largest_layout_with_explicit_roles_is_accepted() -> None:
    experts = [
        Group(f"g{i}.{j}", "r.*.experts.*.w", i, 100, inner_indices=(j,), inner_counts=(200,))
        for i in range(100)
        for j in range(200)
    ]
    assert Layout.of(experts).groups == tuple(experts)


@pytest.mark.parametrize("character", ["\n", "\x1b", "\x00", "\x85"])
def test_control_characters_in_names_of_a_layout_are_refused(character: str) -> None:
    bad = f"a{character}b"
    builds: dict[str, Callable[[], Layout]] = {
        r"groups\[0\]\.name": lambda: Layout.of_names([bad]),
        r"groups\[0\]\.role": lambda: Layout.of([Group("a", role=bad, depth_count=1)]),
        r"frozen_names\[0\]": lambda: Layout.of([Group("a")], (), [bad]),
        r"role_templates\[0\]": lambda: Layout.of([Group("a")], [f"{bad}.*"]),
    }
    for field, build in builds.items():
        with pytest.raises(InvalidValueError, match=rf"{field}: .*holds the control character"):
            build()
