"""Priors: multipliers from shapes alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from advisor.policy import DepthRule, Group, GroupKind, Layout, map_layout, priors


def gpt(width: int, blocks: int = 2, vocabulary: int = 128) -> Layout:
    """The layout of a GPT without biases."""

    def matrix(name: str, fan_in: int, fan_out: int, kind: GroupKind) -> Group:
        shape = (fan_in, fan_out) if kind is GroupKind.EMBEDDING else (fan_out, fan_in)
        return Group(name, shape=shape, fan_in=fan_in, fan_out=fan_out, kind=kind)

    def vector(name: str) -> Group:
        return Group(name, shape=(width,), fan_in=1, fan_out=width, kind=GroupKind.VECTOR)

    groups = [matrix("tokens.weight", vocabulary, width, GroupKind.EMBEDDING)]
    for block in range(blocks):
        groups += [
            vector(f"blocks.{block}.norm.weight"),
            matrix(f"blocks.{block}.up.weight", width, 4 * width, GroupKind.HIDDEN),
            matrix(f"blocks.{block}.down.weight", 4 * width, width, GroupKind.HIDDEN),
        ]
    groups.append(matrix("head.weight", width, vocabulary, GroupKind.READOUT))
    return Layout.of(groups)


def priors_of(
    run: Layout,
    base: Layout,
    optimizer: str = "AdamW",
    depth_rule: DepthRule = DepthRule.SUM,
) -> dict[str, float]:
    mapping = map_layout(run, base, depth_rule)
    found = priors(run, base, mapping, optimizer=optimizer)
    return dict(zip([group.name for group in run.groups], found.tolist(), strict=True))


def test_matrices_shrink_with_their_fan_in_and_the_rest_keeps_its_learning_rate() -> None:
    assert priors_of(gpt(256), gpt(64)) == {
        "tokens.weight": 1,
        **{f"blocks.{block}.norm.weight": 1 for block in range(2)},
        **{f"blocks.{block}.up.weight": 1 / 4 for block in range(2)},
        **{f"blocks.{block}.down.weight": 1 / 4 for block in range(2)},
        "head.weight": 1 / 4,
    }


@pytest.mark.parametrize(
    ("depth_rule", "prior"),
    [
        (DepthRule.SUM, 1 / 4),
        (DepthRule.MEASURED, 1 / 4),
        (DepthRule.SQRT, 1 / 2),
        (DepthRule.COPY, 1.0),
    ],
)
def test_blocks_shrink_with_their_number_as_the_depth_rule_says(
    depth_rule: DepthRule, prior: float
) -> None:
    found = priors_of(gpt(64, blocks=8), gpt(64, blocks=2), depth_rule=depth_rule)
    blocks = {value for name, value in found.items() if name.startswith("blocks.")}
    assert blocks == {prior}
    assert found["tokens.weight"] == found["head.weight"] == 1


def test_a_model_of_the_same_shapes_has_priors_of_one() -> None:
    assert set(priors_of(gpt(64), gpt(64)).values()) == {1}


def test_a_larger_vocabulary_changes_no_prior() -> None:
    assert set(priors_of(gpt(64, vocabulary=512), gpt(64)).values()) == {1}


@pytest.mark.parametrize("optimizer", ["SGD", "Adafactor", "LBFGS", ""])
def test_optimizers_whose_steps_differ_have_no_priors(optimizer: str) -> None:
    assert set(priors_of(gpt(256), gpt(64), optimizer).values()) == {0}


def test_orthogonalized_steps_of_hidden_matrices_shrink_with_the_root_of_the_fan_in() -> None:
    found = priors_of(gpt(256), gpt(64), "MuonWithAdamW")
    assert found["blocks.0.up.weight"] == found["blocks.1.down.weight"] == 1 / 2
    assert found["head.weight"] == 1 / 4
    assert found["tokens.weight"] == found["blocks.0.norm.weight"] == 1


def test_a_group_may_name_its_own_optimizer() -> None:
    run = gpt(256)
    groups = [
        replace(group, optimizer="SGD") if "up" in group.name else group for group in run.groups
    ]
    found = priors_of(Layout.of(groups), gpt(64))
    assert found["blocks.0.up.weight"] == 0
    assert found["blocks.0.down.weight"] == 1 / 4


@pytest.mark.parametrize(
    "change",
    [
        {"kind": GroupKind.UNKNOWN},
        {"kind": GroupKind.ADAPTER_A},
        {"kind": GroupKind.EMBEDDING},
        {"fan_in": 0},
        {"fan_out": 0},
    ],
)
def test_without_shapes_or_with_another_kind_there_is_no_prior(change: dict[str, Any]) -> None:
    run = gpt(256)
    groups = [
        replace(group, **change) if group.name == "head.weight" else group for group in run.groups
    ]
    found = priors_of(Layout.of(groups), gpt(64))
    assert found["head.weight"] == 0
    assert found["blocks.0.up.weight"] == 1 / 4


def test_more_experts_are_no_deeper_model() -> None:
    def experts(count: int) -> Layout:
        return Layout.of(
            Group(
                f"blocks.{block}.experts.{i}.up.weight",
                fan_in=64,
                fan_out=256,
                kind=GroupKind.EXPERT,
            )
            for block in range(2)
            for i in range(count)
        )

    assert set(priors_of(experts(8), experts(2)).values()) == {1}


def test_priors_do_not_depend_on_the_order_of_groups() -> None:
    run = gpt(256)
    reversed_run = Layout.of(run.groups[::-1])
    assert priors_of(run, gpt(64)) == priors_of(reversed_run, gpt(64))
    assert np.isfinite(list(priors_of(run, gpt(64)).values())).all()


def test_more_experts_do_not_shrink_their_biases() -> None:
    def biases(count: int) -> Layout:
        names = [f"blocks.{b}.experts.{i}.up.bias" for b in range(2) for i in range(count)]
        return Layout.of(Group(n, fan_in=1, fan_out=8, kind=GroupKind.VECTOR) for n in names)

    assert set(priors_of(biases(8), biases(2)).values()) == {1}


@pytest.mark.parametrize("depth_rule", list(DepthRule))
@pytest.mark.parametrize("optimizer", ["AdamW", "Muon"])
def test_priors_are_exactly_the_published_powers(optimizer: str, depth_rule: DepthRule) -> None:
    """The formulas are written out here, so that the shared powers change no bit of them."""
    run, base = gpt(192, blocks=14), gpt(80, blocks=6)
    depth = {DepthRule.SQRT: 0.5, DepthRule.COPY: 0.0}.get(depth_rule, 1.0)
    base_by_role = {group.role: group for group in base.groups}
    expected = {}
    for group in run.groups:
        other = base_by_role[group.role]
        width = group.fan_in / other.fan_in
        power = {GroupKind.HIDDEN: -0.5 if optimizer == "Muon" else -1.0, GroupKind.READOUT: -1.0}
        expected[group.name] = width ** power.get(group.kind, 0.0) * (
            group.depth_count / other.depth_count
        ) ** (-1.0 * depth)
    assert priors_of(run, base, optimizer, depth_rule) == expected
