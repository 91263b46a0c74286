from __future__ import annotations

import pytest

from advisor.policy import Group, InvalidValueError, Layout
from advisor.policy.layout import MAX_GROUPS, split_role


@pytest.mark.parametrize(
    ("name", "role", "index"),
    [
        ("blocks.3.attn.qkv.weight", "blocks.*.attn.qkv.weight", 3),
        ("transformer.h.11.mlp.c_fc.bias", "transformer.h.*.mlp.c_fc.bias", 11),
        ("head.weight", "head.weight", -1),
        ("norm1.weight", "norm1.weight", -1),  # a digit inside a word is no index
        ("layers.2.experts.5.w", "layers.*.experts.5.w", 2),
        ("blocks.².weight", "blocks.².weight", -1),  # a digit to Unicode, not to a number
    ],
)
def test_the_role_is_the_name_without_its_first_index(name: str, role: str, index: int) -> None:
    assert split_role(name) == (role, index)


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


def test_a_given_role_is_kept() -> None:
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
        (
            [Group("a", "r", 0, 2), Group("b", "r", 1, 3)],
            r"groups\[1\]\.depth_count: 3, but another group of the role 'r' says 2",
        ),
        (
            [Group("a", "r", 0, 2), Group("b", "r", 0, 2)],
            r"groups\[1\]\.depth_index: 0 is also that of groups\[0\] of the role 'r'; give one",
        ),
        ([Group("x.1.w"), Group("x.01.w")], r"groups\[1\]\.depth_index: 0 is also that of"),
        ([Group("a", "r", 0, 2**31 - 1)], r"depth_count: 2147483647 is above 20000"),
        ([Group(str(i)) for i in range(MAX_GROUPS + 1)], r"20001 groups, but at most 20000"),
    ],
)
def test_a_bad_layout_is_refused_with_the_field(groups: list[Group], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        Layout.of(groups)
