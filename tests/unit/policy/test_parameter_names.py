from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import Group, InvalidValueError, Layout
from advisor.policy.aliases import AliasTable, GroupAlias, check_aliases
from advisor.policy.name_patterns import check_templates, compile_templates
from advisor.policy.nearest_roles import nearest_roles
from advisor.policy.parameter_names import Axis, axes_of, parse_name, parse_names
from advisor.policy.wrappers import clean_names, strip_wrappers


@pytest.mark.parametrize(
    ("name", "role", "indices"),
    [
        ("blocks.3.attn.qkv.weight", "blocks.*.attn.qkv.weight", (3,)),
        ("blocks.3.mlp.0.weight", "blocks.*.mlp.0.weight", (3,)),  # up and down are not blocks
        ("blocks.3.1.weight", "blocks.*.1.weight", (3,)),
        ("stages.2.0.conv1.weight", "stages.*.*.conv1.weight", (2, 0)),
        ("features.5.17.block.0.weight", "features.*.*.block.0.weight", (5, 17)),
        ("features.4.weight", "features.4.weight", ()),  # its neighbor may be of a different kind
        ("encoder.3.attn.weight", "encoder.*.attn.weight", (3,)),
        ("layers.4.weight", "layers.*.weight", (4,)),
        ("transformer.h.11.mlp.c_fc.bias", "transformer.h.*.mlp.c_fc.bias", (11,)),
        ("0.weight", "0.weight", ()),
        ("0.attn.weight", "*.attn.weight", (0,)),
        ("head.weight", "head.weight", ()),
        ("norm1.weight", "norm1.weight", ()),  # a digit inside a word is not an index
        ("fc2.weight", "fc2.weight", ()),
        ("blocks.².weight", "blocks.².weight", ()),  # a digit in Unicode, but int() refuses it
        ("layers.2.experts.5.w", "layers.*.experts.*.w", (2, 5)),
        ("layer1.0.conv1.weight", "layer*.*.conv1.weight", (1, 0)),
        ("down_blocks.0.resnets.1.conv1.w", "down_blocks.*.resnets.*.conv1.w", (0, 1)),
        ("Dense_0/kernel", "Dense_0/kernel", ()),
        ("Net_0/Dense_0/kernel", "Net_*/Dense_0/kernel", (0,)),
        (
            "Transformer/encoderblock_3/Dense_1/kernel",
            "Transformer/encoderblock_*/Dense_1/kernel",
            (3,),
        ),
        (
            "features.denseblock1.denselayer2.conv1.weight",
            "features.denseblock*.denselayer*.conv1.weight",
            (1, 2),
        ),
        ("Block_3/Dense_0/kernel", "Block_*/Dense_0/kernel", (3,)),
        ("encoder/layers_3/mlp/kernel", "encoder/layers_*/mlp/kernel", (3,)),
    ],
)
def test_the_role_is_the_name_without_its_block_indices(
    name: str, role: str, indices: tuple[int, ...]
) -> None:
    assert (parse_name(name).role, parse_name(name).numbers) == (role, indices)


@given(st.from_regex(r"[A-Za-z0-9_./]{1,40}", fullmatch=True))
def test_the_name_can_be_rebuilt_from_its_role_and_indices(name: str) -> None:
    found = parse_name(name)
    role = found.role
    assert role.count("*") == len(found.numbers) == len(found.prefixes)
    assert len(axes_of(role, len(found.numbers))) == len(found.numbers)
    for index, prefix in zip(found.numbers, found.prefixes, strict=True):
        assert found.role.startswith(f"{prefix}*")
        role = role.replace("*", str(index), 1)
    for prefix, number in found.fixed:
        assert found.role.startswith(prefix)
        assert str(number) in name
    if "0" not in name:  # leading zeros are not kept
        assert role == name


@given(st.lists(st.from_regex(r"([ah][01]{0,2}[./]){0,3}[01w]{1,2}", fullmatch=True), unique=True))
def test_names_are_parsed_alike_in_any_order(names: list[str]) -> None:
    assert parse_names(names[::-1]) == parse_names(names)[::-1]


def test_the_first_matching_template_applies() -> None:
    templates = ["net.s*.u*", "net"]

    def read(name: str) -> tuple[str, tuple[int, ...]]:
        return parse_name(name, compile_templates(templates)).role, parse_name(
            name, compile_templates(templates)
        ).numbers

    assert read("net.s1.u2.3.w") == ("net.s*.u*.3.w", (1, 2))
    assert read("net.7.w") == ("net.7.w", ())
    assert read("network.7.a.w") == ("network.*.a.w", (7,))


def test_many_templates_are_applied_to_many_names_quickly() -> None:
    """Compiling them again for each name took 20 seconds, and minutes for a full layout."""
    started = time.process_time()
    templates = [f"x{i}.*{'y' * 500}" for i in range(256)]
    layout = Layout.of([Group(f"a{i}.b") for i in range(2_000)], templates)
    assert time.process_time() - started < 8
    assert layout.roles[:2] == ("a0.b", "a1.b")


def test_the_word_before_an_index_sets_its_axis() -> None:
    assert axes_of("stages.*.layers.*.experts.*.w", 3) == (Axis.STAGE, Axis.DEPTH, Axis.EXPERT)
    assert axes_of("Stage_*/Expert_*/kernel", 2) == (Axis.STAGE, Axis.EXPERT)
    assert axes_of("mlp", 1) == (Axis.DEPTH,)  # an explicit role


def test_patterns_take_time_in_proportion_to_the_name() -> None:
    """Each would try 200^4 ways to match if a * could end anywhere."""
    started = time.process_time()
    with pytest.raises(InvalidValueError, match=r"'\*1\*1.*has a digit next to a \*"):
        check_templates("t", ["*1*1*1*1*1x"])
    with pytest.raises(
        InvalidValueError, match=r"has more than one \*\*; write one alias for each"
    ):
        check_aliases("a", [GroupAlias("**a**a**ab", "**a**a**ab")])
    assert parse_name("1" * 500 + ".w", compile_templates(["*x"])).role == "1" * 500 + ".w"
    table = AliasTable([GroupAlias("*x*x*x*x**b", "*x*x*x*x**b")])
    assert table.rewritten("1x1x1x1x" + "1x" * 250) is None
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "wrapped",
    [
        "module.blocks.0.w",
        "_orig_mod.blocks.0.w",
        "module._orig_mod.blocks.0.w",
        "_fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.w",
        "blocks.0._checkpoint_wrapped_module.w",
        "base_model.model.blocks.0.w",
        "_orig_mod.module.base_model.model.blocks.0._orig_mod.w",
    ],
)
def test_wrappers_are_stripped(wrapped: str) -> None:
    assert strip_wrappers(wrapped) == "blocks.0.w"


def test_names_that_only_resemble_wrappers_are_not_stripped() -> None:
    assert strip_wrappers("encoder.module.w") == "encoder.module.w"
    assert strip_wrappers("my_orig_mod.w") == "my_orig_mod.w"


def test_names_that_would_become_equal_are_not_stripped() -> None:
    assert clean_names(["module.a", "a", "module.b"]) == ["module.a", "a", "b"]


def test_the_first_matching_alias_rewrites_names_and_roles() -> None:
    table = AliasTable([
        GroupAlias("Dense_0/kernel", "0.weight"),
        GroupAlias("blocks_*/attn/kernel", "blocks.*.attn.weight"),
        GroupAlias("model.**", "**"),
    ])
    assert table.rewritten("Dense_0/kernel") == "0.weight"
    assert table.rewritten("blocks_12/attn/kernel") == "blocks.12.attn.weight"
    assert table.rewritten("blocks_*/attn/kernel") == "blocks.*.attn.weight"
    assert table.rewritten("model.head.w") == "head.w"
    assert table.rewritten("blocks_x/attn/kernel") is None
    assert table.rewritten("Dense_0/kernel2") is None


@pytest.mark.parametrize(
    ("alias", "message"),
    [
        (GroupAlias("", "a"), r"t\[0\]\.pattern: 0 characters, but 1 to 512"),
        (GroupAlias("a", "a" * 513), r"t\[0\]\.target: 513 characters"),
        (GroupAlias("a.*", "a"), r"t\[0\]\.target: 'a' has different wildcards than .* 'a\.\*'"),
        (GroupAlias("a.***", "a.***"), r"has \*\*\*; write \* for an index"),
    ],
)
def test_an_invalid_alias_is_refused(alias: GroupAlias, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        check_aliases("t", [alias])


def test_an_invalid_template_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"t\[0\]: 'blocks' has no \*; write the beginning"):
        check_templates("t", ["blocks"])
    with pytest.raises(InvalidValueError, match=r"t: 257 entries, but at most 256"):
        check_templates("t", ["a.*"] * 257)


def test_the_nearest_role_is_of_the_same_kind_and_shares_most_words() -> None:
    base = ["blocks.*.attn.qkv.weight", "blocks.*.attn.qkv.bias", "blocks.*.mlp.up.weight"]
    base.append("head.w")
    nearest = nearest_roles(
        ["blocks.*.attn.q.weight", "layers.*.mlp.up.kernel", "blocks.*.attn.q.bias", "mystery.w"],
        base,
    )
    assert nearest == {
        "blocks.*.attn.q.weight": "blocks.*.attn.qkv.weight",
        "layers.*.mlp.up.kernel": "blocks.*.mlp.up.weight",
        "blocks.*.attn.q.bias": "blocks.*.attn.qkv.bias",
    }
