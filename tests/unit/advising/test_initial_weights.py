"""Warnings about initial weights that do not scale alike in base and run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import nn

from advisor.advising.initial_weights import initial_weight_warnings
from advisor.local.in_process import InProcessAdvisor
from advisor.policy import DepthRule, GroupKind, Layout, UnmatchedRule, map_layout
from advisor.wire import layout_from_proto
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.torch import ModelGroups
from tests.building import content_message, describe_tensors, opening_message

VOCABULARY = 60


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)


class GPT(nn.Module):
    """The tensors of a language model; its initial weights are those of PyTorch."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.head = nn.Linear(width, VOCABULARY, bias=False)


Scales = Callable[[str, int, int], float | None]  # of name, fan-in and blocks; None: PyTorch's


def torch_default(_name: str, _fan_in: int, _blocks: int) -> float | None:
    return None


def gpt2(name: str, _fan_in: int, blocks: int) -> float | None:
    return 0.02 / math.sqrt(2 * blocks) if is_projection(name) else 0.02


def gpt2_with_width(name: str, fan_in: int, blocks: int) -> float | None:
    if name.startswith("tokens"):
        return 0.02
    return (gpt2(name, fan_in, blocks) or 0) * math.sqrt(64 / fan_in)


def mup(name: str, fan_in: int, _blocks: int) -> float | None:
    if name.startswith("tokens"):
        return 1.0
    return 1 / fan_in if name.startswith("head") else 1 / math.sqrt(fan_in)


def zero_projections(name: str, fan_in: int, blocks: int) -> float | None:
    return 0.0 if is_projection(name) else gpt2_with_width(name, fan_in, blocks)


def is_projection(name: str) -> bool:
    return "proj" in name or "down" in name


def layout(width: int, scales: Scales, blocks: int = 2) -> Layout:
    torch.manual_seed(width + blocks)
    model = GPT(width, blocks)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                fan_in = VOCABULARY if name.startswith("tokens") else parameter.shape[1]
                scale = scales(name, fan_in, blocks)
                if scale is not None:
                    parameter.normal_(std=scale)
    return layout_from_proto(ModelGroups(model, torch.optim.Adam(model.parameters())).layout())


def warnings(run: Layout, base: Layout) -> list[str]:
    return initial_weight_warnings(run, base, map_layout(run, base, DepthRule.SUM))


@pytest.mark.parametrize("scales", [torch_default, gpt2_with_width, mup, zero_projections])
@pytest.mark.parametrize(("width", "blocks"), [(48, 2), (192, 2), (96, 4), (192, 8)])
def test_initial_weights_that_scale_alike_give_no_warning(
    scales: Scales, width: int, blocks: int
) -> None:
    assert not warnings(layout(width, scales, blocks), layout(48, scales))


def test_a_constant_scale_over_widths_is_reported_with_what_base_or_run_should_have() -> None:
    first, second, why = warnings(layout(192, gpt2), layout(48, gpt2))
    assert first.startswith(
        "initial weights of blocks.*.qkv.weight, blocks.*.up.weight, head.weight do not scale "
        "alike: their RMS is 0.02 in the base and 0.02 in the run, whose fan-in is 4 times the "
        "base's; record a base that starts with 0.04, or start the run with 0.01"
    )
    assert second.startswith("initial weights of blocks.*.proj.weight, blocks.*.down.weight do not")
    assert second.endswith("record a base that starts with 0.02, or start the run with 0.005")
    assert "docs/explanation/initial-weights.md" in why


def test_a_constant_scale_is_not_mistaken_for_a_scale_by_width_if_depth_grows_too() -> None:
    """Projections of 1 / sqrt(2 L) shrink by 2 if depth grows by 4, as 1 / sqrt(fan-in) would."""
    _, projections, _ = warnings(layout(192, gpt2, blocks=8), layout(48, gpt2))
    assert projections.startswith("initial weights of blocks.*.proj.weight, blocks.*.down.weight")
    assert "4 times the base's and whose depth is 4 times the base's; record" in projections


def test_depth_needs_no_constant_scale_to_be_followed() -> None:
    assert not warnings(layout(48, gpt2, blocks=8), layout(48, gpt2))


def test_a_base_with_another_scale_is_reported_at_the_same_width_too() -> None:
    def twice(name: str, fan_in: int, blocks: int) -> float | None:
        return (gpt2(name, fan_in, blocks) or 0) * (2 if "qkv" in name else 1)

    first, why = warnings(layout(48, gpt2), layout(48, twice))
    assert first == (
        "initial weights of blocks.*.qkv.weight do not scale alike: their RMS is 0.04 in the base "
        "and 0.02 in the run, whose fan-in is the same; record a base that starts with 0.02, or "
        "start the run with 0.04"
    )
    assert why.startswith("initial weights: ")


def test_an_embedding_has_one_scale_at_every_width() -> None:
    def smaller(name: str, _fan_in: int, _blocks: int) -> float | None:
        return 0.1 if name.startswith("tokens") else None

    first, _ = warnings(layout(96, smaller), layout(48, torch_default))
    assert "initial weights of tokens.weight do not scale alike" in first
    assert "an embedding has the same scale at every width; record a base that starts" in first


@pytest.mark.parametrize(("zero_side", "other_side"), [("base", "run"), ("run", "base")])
def test_zeros_on_one_side_are_reported(zero_side: str, other_side: str) -> None:
    sides = {zero_side: layout(96, zero_projections), other_side: layout(96, gpt2_with_width)}
    first, _ = warnings(sides["run"], sides["base"])
    assert first == (
        "initial weights of blocks.*.proj.weight, blocks.*.down.weight are zero in the "
        f"{zero_side} and not in the {other_side}; start both in the same way"
    )


def test_at_most_five_messages_are_returned() -> None:
    def scattered(name: str, _fan_in: int, _blocks: int) -> float | None:
        parts = ("qkv", "up", "down", "proj", "head", "tokens")
        return 0.001 * 2.0 ** next(i for i, part in enumerate(parts) if part in name)

    run = layout(96, torch_default)
    none = {i for i, group in enumerate(run.groups) if group.name.endswith("norm.weight")}
    zeros = [0.0 if i in none else rms for i, rms in enumerate(run.initial_rms)]
    found = warnings(run.with_initial_rms(zeros), layout(96, scattered))
    assert len(found) == 5
    assert found[2].endswith("; 3 more roles differ in other ways")


def test_trained_weights_are_not_compared() -> None:
    base, run = layout(48, gpt2, blocks=4), layout(192, gpt2, blocks=4)
    factors = [1 + 0.1 * group.depth_index for group in run.groups]
    trained = [(rms or 0) * factor for rms, factor in zip(run.initial_rms, factors, strict=True)]
    assert warnings(run, base)
    assert not warnings(run.with_initial_rms(trained), base)
    assert not warnings(base, run.with_initial_rms(trained))


@pytest.mark.parametrize("extreme", [5e-324, 1e-300, 1e300])
def test_extreme_weights_are_reported_like_others(extreme: float) -> None:
    base, run = layout(48, gpt2), layout(192, gpt2)
    names = [group.name for group in run.groups]
    extremes = [extreme if "qkv" in name else 0.02 for name in names]
    opposite = [1 / max(extreme, 1e-307) if "qkv" in name else 0.02 for name in names]
    found = warnings(run.with_initial_rms(extremes), base.with_initial_rms(opposite))
    assert any("blocks.*.qkv.weight do not scale alike" in message for message in found)


def test_unknown_weights_kinds_and_fans_are_not_compared() -> None:
    base, run = layout(48, gpt2), layout(192, gpt2)
    assert not warnings(run.with_initial_rms(()), base)
    assert not warnings(run, base.with_initial_rms(()))
    pairs = zip(run.groups, run.initial_rms, strict=True)
    partly = [None if "qkv" in group.name else rms for group, rms in pairs]
    assert "qkv" not in " ".join(warnings(run.with_initial_rms(partly), base))
    no_fans = [dataclasses.replace(group, fan_in=0) for group in run.groups]
    no_kinds = [dataclasses.replace(group, kind=GroupKind.UNKNOWN) for group in run.groups]
    for groups in (no_fans, no_kinds):
        assert not warnings(Layout.of(groups, initial_rms=run.initial_rms), base)


def test_groups_without_a_true_counterpart_are_not_compared() -> None:
    base = layout(48, gpt2)
    groups = [dataclasses.replace(g, name=f"other.{g.name}", role="") for g in base.groups]
    renamed = Layout.of(groups, initial_rms=[1.0] * len(groups))
    for rule in UnmatchedRule:
        mapping = map_layout(renamed, base, DepthRule.SUM, unmatched_rule=rule)
        if not mapping.matched.all() or rule is UnmatchedRule.NEAREST_ROLE:
            assert not initial_weight_warnings(renamed, base, mapping)


def advisor_and_opening(sizes: Mapping[str, int]) -> tuple[InProcessAdvisor, pb.RunOpening]:
    content, opening = content_message(), opening_message("projects/default/profiles/base")
    describe_tensors(content.layout, width=sizes["base"])
    describe_tensors(opening.layout, width=sizes["run"])
    return InProcessAdvisor(content), opening


def test_a_run_is_warned_before_its_first_step_and_with_its_first_answer() -> None:
    advisor, opening = advisor_and_opening({"base": 8, "run": 32})
    sent = list(advisor.validate_layout(opening).warnings)
    assert sent[0].endswith("record a base that starts with 0.04, or start the run with 0.01")
    session = advisor.open_run(opening)
    first = session.recommend(pb.Measurement(step=0, unit_rates=[1.0] * 4))
    kind = pb.WARNING_KIND_INITIAL_WEIGHTS
    assert [w.message for w in first.warnings if w.kind == kind] == sent
    later = session.recommend(pb.Measurement(step=9, unit_rates=[1.0] * 4, interval_steps=9))
    assert not later.warnings


def test_a_run_that_scales_alike_is_not_warned() -> None:
    advisor, opening = advisor_and_opening({"base": 8, "run": 8})
    assert not advisor.validate_layout(opening).warnings


@pytest.mark.parametrize("recipe", ["", "completep"])
def test_initial_weights_that_a_recipe_wants_give_no_warning(recipe: str) -> None:
    base = content_message(names=["blocks.0.up_proj.weight", "blocks.0.down_proj.weight"])
    describe_tensors(base.layout, width=16)
    names = [f"blocks.{i}.{name}_proj.weight" for i in range(4) for name in ("up", "down")]
    opening = opening_message("projects/default/profiles/x", names)
    describe_tensors(opening.layout, width=64)
    for group in opening.layout.groups:
        group.initial_rms = 0.02 / 2 / (4 if "down" in group.name else 1)
    opening.recipe = recipe
    warnings = InProcessAdvisor(base).validate_layout(opening).warnings
    assert any("do not scale alike" in warning for warning in warnings) == (not recipe)
