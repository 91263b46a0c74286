"""Recipes applied to layouts."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from advisor.policy import (
    DepthRule,
    Group,
    GroupKind,
    InvalidValueError,
    Layout,
    Match,
    UnmatchedRule,
    map_layout,
)
from advisor.policy.ratios import group_ratios
from advisor.recipes import (
    Field,
    NoRule,
    Powers,
    Ratio,
    Recipe,
    Row,
    apply_recipe,
    factors_by_group,
    factors_by_role,
    shipped_recipe,
    shipped_recipe_names,
)
from tests.unit.recipes.layouts import applied, factors_of, transformer

NAMES = shipped_recipe_names()


def changed(layout: Layout, group: str, **changes: Any) -> Layout:
    """Return a layout with a changed group."""
    groups = [replace(g, **changes) if g.name == group else g for g in layout.groups]
    return Layout.of(groups, initial_rms=layout.initial_rms)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_layout_has_factors_of_one(name: str) -> None:
    layout = transformer(64, 2)
    found = applied(shipped_recipe(name), layout, layout)
    assert found.has_rule.all()
    assert all((factors == 1).all() for factors in found.factors.values())


def test_a_layer_that_stands_in_for_a_missing_one_gives_no_factors() -> None:
    def layer(name: str, fan_in: int, fan_out: int) -> Group:
        shape = (fan_out, fan_in)
        return Group(name, shape=shape, fan_in=fan_in, fan_out=fan_out, kind=GroupKind.HIDDEN)

    up, down, gate = (f"blocks.0.mlp.{name}_proj.weight" for name in ("up", "down", "gate"))
    base = Layout.of([layer(up, 64, 256), layer(down, 256, 64)], initial_rms=[0.1, 0.05])
    run = Layout.of([layer(up, 128, 512), layer(down, 512, 128), layer(gate, 128, 512)])
    mapping = map_layout(run, base, DepthRule.SUM, unmatched_rule=UnmatchedRule.NEAREST_ROLE)
    assert mapping.matches[2] is Match.NEAREST_ROLE
    found = apply_recipe(shipped_recipe("mup-adam"), run, base, mapping, optimizer="Adam")
    assert found.no_rules == (None, None, NoRule.COUNTERPART)
    assert found.factors[Field.LEARNING_RATE].tolist() == [0.5, 0.5, 1.0]
    assert np.isnan(found.initial_rms).tolist() == [False, False, True]


@pytest.mark.parametrize("name", NAMES)
def test_factors_multiply_along_a_chain(name: str) -> None:
    layouts = [transformer(64, 2), transformer(192, 6), transformer(320, 12, expansion=6)]
    given = [{Ratio.BATCH: 3.0, Ratio.TOKENS: 5.0}, {Ratio.BATCH: 0.5, Ratio.TOKENS: 7.0}]
    both = {ratio: given[0][ratio] * given[1][ratio] for ratio in given[0]}
    first = applied(shipped_recipe(name), layouts[1], layouts[0], given=given[0])
    second = applied(shipped_recipe(name), layouts[2], layouts[1], given=given[1])
    whole = applied(shipped_recipe(name), layouts[2], layouts[0], given=both)
    roles = {row.role: dict(row.factors) for row in factors_by_role(layouts[1], first)}
    for row in factors_by_group(layouts[2], second):
        expected = {f: factor * roles[row.role][f] for f, factor in row.factors}
        direct = factors_of(whole, layouts[2], row.names[0])
        assert {f: direct.get(f, 1.0) for f in expected} == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_factors_do_not_depend_on_the_order_of_groups(name: str) -> None:
    run, base = transformer(256, 4), transformer(64, 2)
    shuffled = list(run.groups)
    random.Random(0).shuffle(shuffled)
    other = Layout.of(shuffled, initial_rms=[0.5] * len(shuffled))
    found = applied(shipped_recipe(name), run, base)
    reordered = applied(shipped_recipe(name), other, base)
    positions = [[g.name for g in shuffled].index(group.name) for group in run.groups]
    for field in Field:
        np.testing.assert_array_equal(found.factors[field], reordered.factors[field][positions])


def test_a_smaller_run_has_the_inverse_factors() -> None:
    small, large = transformer(64, 2), transformer(256, 8)
    grown = applied(shipped_recipe("completep"), large, small)
    shrunk = applied(shipped_recipe("completep"), small, large)
    name = "blocks.1.mlp.fc2.weight"
    expected = {field: 1 / factor for field, factor in factors_of(grown, large, name).items()}
    assert factors_of(shrunk, small, name) == pytest.approx(expected)


def test_the_wanted_initial_rms_is_that_of_the_base_times_the_factor() -> None:
    run, base = transformer(256, 6, rms=7.0), transformer(64, 2, rms=0.5)
    found = applied(shipped_recipe("mup-adam"), run, base)
    rows = {row.role: row.initial_rms for row in factors_by_role(run, found)}
    assert rows["head.weight"] == pytest.approx((0.5 / 4, 0.5 / 4))
    assert rows["blocks.*.mlp.fc1.weight"] == pytest.approx((0.5 / 2, 0.5 / 2))
    assert rows["tokens.weight"] == (0.5, 0.5)


@pytest.mark.parametrize(
    ("recipe", "base"),
    [
        ("square-root-batch", transformer(64, 2)),
        ("mup-adam", transformer(64, 2).with_initial_rms(())),
    ],
)
def test_initial_values_are_kept_without_a_rule_or_without_those_of_the_base(
    recipe: str, base: Layout
) -> None:
    found = applied(shipped_recipe(recipe), transformer(256, 2), base)
    assert np.isnan(found.initial_rms).all()
    assert {row.initial_rms for row in factors_by_group(transformer(256, 2), found)} == {None}


def test_a_base_that_starts_at_zero_stays_at_zero() -> None:
    base = transformer(64, 2, rms=0.0)
    assert (applied(shipped_recipe("completep"), transformer(256, 6), base).initial_rms == 0).all()


@pytest.mark.parametrize(
    ("changes", "optimizer", "reason"),
    [
        ({"kind": GroupKind.UNKNOWN}, "AdamW", NoRule.UNKNOWN_KIND),
        ({"kind": GroupKind.ADAPTER_A}, "AdamW", NoRule.KIND),
        ({"kind": GroupKind.HIDDEN}, "AdamW", NoRule.KIND_DIFFERS),
        ({"fan_in": 0}, "AdamW", NoRule.SHAPES),
        ({"name": "other.weight", "role": ""}, "AdamW", NoRule.COUNTERPART),
        ({"optimizer": "LBFGS"}, "AdamW", NoRule.OPTIMIZER),
        ({}, "SGD", NoRule.OPTIMIZER),
    ],
)
def test_a_group_without_a_rule_keeps_its_settings_and_says_why(
    changes: dict[str, Any], optimizer: str, reason: NoRule
) -> None:
    run = changed(transformer(256, 2), "head.weight", **changes)
    found = applied(shipped_recipe("mup-adam"), run, transformer(64, 2), optimizer=optimizer)
    index = len(run) - 1
    assert found.no_rules[index] is reason
    assert not found.has_rule[index]
    assert all(factors[index] == 1 for factors in found.factors.values())
    assert math.isnan(found.initial_rms[index])


def test_a_rule_without_shapes_needs_no_counterpart() -> None:
    run = Layout.of_names(["anything", "at.all"])
    found = applied(
        shipped_recipe("square-root-batch"), run, transformer(64, 2), given={Ratio.BATCH: 4.0}
    )
    assert found.factors[Field.LEARNING_RATE].tolist() == [2.0, 2.0]


def test_the_first_row_that_fits_counts() -> None:
    def row(power: float, **selection: Any) -> Row:
        return Row(**selection, powers={Field.LEARNING_RATE: Powers.of({Ratio.DEPTH: power})})

    recipe = Recipe.of(
        "mine",
        [
            row(1, kinds=(GroupKind.HIDDEN,), residual_output=True),
            row(2, kinds=(GroupKind.HIDDEN,), optimizers=("SGD",)),
            row(3, in_block=True),
            row(4),
        ],
    )
    run = transformer(64, 4, optimizer_of_matrices="SGD")
    found = applied(recipe, run, transformer(64, 2, optimizer_of_matrices="SGD"), optimizer="Adam")
    rows = dict(zip([group.name for group in run.groups], found.rows.tolist(), strict=True))
    assert rows["blocks.0.mlp.fc2.weight"] == 0
    assert rows["blocks.0.mlp.fc1.weight"] == 1
    assert rows["blocks.0.norm.weight"] == 2
    assert rows["norm.weight"] == rows["head.weight"] == 3


def test_experts_and_ranks_grow_apart_from_depth() -> None:
    def expert(count: int, depth: int) -> Group:
        names = [f"blocks.{b}.experts.{e}.w1.weight" for b in range(depth) for e in range(count)]
        groups = [Group(name, fan_in=8, fan_out=8, kind=GroupKind.EXPERT) for name in names]
        return Layout.of(groups).groups[0]

    grown = group_ratios(expert(8, 6), expert(2, 3))
    assert (grown[Ratio.EXPERTS], grown[Ratio.DEPTH]) == (4, 2)
    fused = [
        Group("e", shape=(n, 8, 8), fan_in=8, fan_out=8, kind=GroupKind.EXPERT, depth_count=1)
        for n in (2, 6)
    ]
    assert group_ratios(fused[1], fused[0])[Ratio.EXPERTS] == 3
    b = [Group("b", fan_in=r, fan_out=64, kind=GroupKind.ADAPTER_B, depth_count=1) for r in (4, 32)]
    assert group_ratios(b[1], b[0])[Ratio.RANK] == 8
    assert math.isnan(group_ratios(b[0], Group("b", depth_count=1))[Ratio.FAN_IN])


def test_factors_by_role_have_a_row_for_groups_with_the_same_factors() -> None:
    run = transformer(256, 6)
    rows = factors_by_role(run, applied(shipped_recipe("completep"), run, transformer(64, 2)))
    assert len(rows) == len(run.roles)
    assert sum(len(row.names) for row in rows) == len(run)
    by_role = {row.role: row for row in rows}
    assert by_role["blocks.*.attn.out_proj.bias"].residual_output
    assert not by_role["blocks.*.attn.qkv.bias"].residual_output


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_given_ratio_must_be_a_positive_number(value: float) -> None:
    layout = transformer(64, 2)
    with pytest.raises(InvalidValueError, match=r"ratios\.batch: .* is not a positive number"):
        applied(shipped_recipe("completed-p"), layout, layout, given={Ratio.BATCH: value})


def test_what_layouts_show_cannot_be_given() -> None:
    layout = transformer(64, 2)
    with pytest.raises(InvalidValueError, match=r"ratios\.depth: the layouts show this ratio"):
        applied(shipped_recipe("completep"), layout, layout, given={Ratio.DEPTH: 2.0})


def test_a_factor_that_is_no_number_is_refused() -> None:
    layout = transformer(64, 2)
    with pytest.raises(InvalidValueError, match=r"the factor .* of tokens\.weight for .* check"):
        applied(
            shipped_recipe("completed-p"),
            layout,
            layout,
            given={Ratio.BATCH: 1e-300, Ratio.TOKENS: 1e300},
        )


def test_an_unknown_name_of_a_recipe_names_the_nearest() -> None:
    with pytest.raises(
        InvalidValueError, match="'complete-p'; did you mean completed-p or completep"
    ):
        shipped_recipe("complete-p")
    with pytest.raises(InvalidValueError, match="they are completed-p, completep, depth-mup, dep"):
        shipped_recipe("zzz")
