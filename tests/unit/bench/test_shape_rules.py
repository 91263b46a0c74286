"""The parametrizations that FLeRM is compared with pass muP's coordinate check."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.char_gpt import CharGPT, CharGPTConfig
from benchmarks.image_models import ResMLP
from benchmarks.transfer.optimizers import build_optimizer
from benchmarks.transfer.parametrization import Factors
from benchmarks.transfer.shape_rules import (
    Family,
    Rule,
    completep,
    depth_mup,
    initialize,
    mup,
    standard,
    width_and_depth,
)

VOCABULARY = 20
STEPS = 4


def gpt(width: int = 32, blocks: int = 2) -> CharGPT:
    return CharGPT(CharGPTConfig(VOCABULARY, width, blocks, context=16))


def change(
    build: Callable[[], nn.Module],
    base: nn.Module,
    rule: Rule,
    family: Family,
    inputs: Tensor,
    layer: str,
) -> float:
    """Return the RMS change of a layer's output over a few steps."""
    torch.manual_seed(0)
    model = build()
    factors = rule(model, base, family)
    initialize(model, factors)
    optimizer = (
        build_optimizer("Adam", model, 2.0**-8, factors)
        if family == "adam"
        else build_optimizer("SGD", model, 2.0**-4, factors)
    )
    targets = torch.randint(0, 10, (inputs.numel() // (1 if inputs.dim() == 2 else 64),))
    seen: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.detach())
    )
    with hook:
        for _ in range(STEPS + 1):
            logits = model(inputs).flatten(0, -2)
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, targets[: len(logits)]).backward()
            optimizer.step()
    return float((seen[-1] - seen[0]).pow(2).mean().sqrt())


def growth(
    sizes: list[int],
    build: Callable[[int], nn.Module],
    rule: Rule,
    family: Family,
    inputs: Tensor,
    layer: str = "head",
) -> float:
    """Return the exponent of the growth of a layer's output change with a size."""
    base = build(sizes[0])
    moved = [
        change(lambda size=size: build(size), base, rule, family, inputs, layer)  # type: ignore[misc]
        for size in sizes
    ]
    return math.log(moved[-1] / moved[0]) / math.log(sizes[-1] / sizes[0])


TOKENS = torch.randint(0, VOCABULARY, (8, 16), generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layer", ["head", "blocks.1.up", "blocks.0.attention.qkv", "norm"])
def test_with_mup_adam_moves_each_layer_equally_at_every_width(layer: str) -> None:
    assert abs(growth([32, 256], gpt, mup, "adam", TOKENS, layer)) < 0.2


def test_without_mup_adam_moves_wide_models_further() -> None:
    assert growth([32, 256], gpt, standard, "adam", TOKENS) > 0.4


def test_with_mup_sgd_moves_the_outputs_equally_at_every_width() -> None:
    def build(width: int) -> nn.Module:
        return ResMLP(width=width, blocks=2)

    assert abs(growth([64, 512], build, mup, "sgd", IMAGES)) < 0.2


def test_with_depth_mup_deep_models_move_like_shallow_ones() -> None:
    def build(blocks: int) -> nn.Module:
        return ResMLP(width=64, blocks=blocks)

    deep = growth([2, 32], build, depth_mup, "adam", IMAGES, "blocks.1")
    assert growth([2, 32], build, depth_mup, "adam", IMAGES) < 0.3
    assert growth([2, 32], build, standard, "adam", IMAGES) > 0.5
    assert deep < 0.1


@pytest.mark.parametrize("rule", [standard, mup, depth_mup, width_and_depth])
@pytest.mark.parametrize("family", ["adam", "sgd"])
def test_the_base_is_unchanged(rule: Rule, family: Family) -> None:
    assert set(rule(gpt(), gpt(), family).values()) == {Factors()}


def test_factors_match_the_table_of_mup() -> None:
    found = mup(gpt(128), gpt(32), "adam")
    assert found["characters.weight"] == Factors(1, 1)
    assert found["blocks.1.up.weight"] == Factors(1, 1 / 4, 1, 4)
    assert found["blocks.1.norm1.weight"] == Factors(1, 1)
    assert found["head.weight"] == Factors(1 / 2, 1 / 4, 4, 4)
    sgd = mup(gpt(128), gpt(32), "sgd")
    assert sgd["characters.weight"] == Factors(1, 4, 1, 1 / 4)
    assert sgd["blocks.1.up.weight"] == Factors(1, 1)
    assert sgd["blocks.1.norm1.weight"] == Factors(1, 4, 1, 1 / 4)
    assert sgd["head.weight"] == Factors(1 / 2, 1 / 4, 1, 4)


def test_branches_are_scaled_in_their_last_layer() -> None:
    found = depth_mup(gpt(blocks=8), gpt(blocks=2), "adam")
    assert found["blocks.7.attention.out.weight"] == Factors(1 / 2, 1 / 4, 2, 2)
    assert found["blocks.7.up.weight"] == Factors(1, 1 / 2)
    assert found["head.weight"] == Factors()
    both = width_and_depth(gpt(128, 8), gpt(32, 2), "adam")
    assert both["blocks.7.down.weight"] == Factors(1 / 2, 1 / 16, 2, 8)


def test_more_blocks_and_experts_take_the_factors_of_the_last_ones() -> None:
    def mixture(blocks: int, experts: int) -> CharGPT:
        return CharGPT(CharGPTConfig(VOCABULARY, 32, blocks, context=16, experts=experts))

    found = width_and_depth(mixture(8, 4), mixture(2, 2), "adam")
    assert found["blocks.7.mixture.experts.3.up.weight"] == Factors(1, 1 / 2)
    assert found["blocks.7.mixture.experts.3.down.weight"] == Factors(1 / 2, 1 / 4, 2, 2)


def test_completep_divides_branches_by_the_depth_and_keeps_learning_rates() -> None:
    found = completep(gpt(128, 8), gpt(32, 2), "adam")
    assert found["blocks.7.down.weight"] == Factors(1 / 4, 1 / 16, 1 / 4, 16)
    assert found["blocks.7.up.weight"] == Factors(1, 1 / 4, 1 / 16, 4)
    assert found["blocks.7.norm1.weight"] == Factors(1, 1, 1 / 16, 1)
    assert found["norm.weight"] == found["characters.weight"] == Factors()
    assert found["head.weight"] == Factors(1 / 2, 1 / 4, 4, 4)
    with pytest.raises(ValueError, match="CompleteP is published for Adam and AdamW, not for sgd"):
        completep(gpt(128, 8), gpt(32, 2), "sgd")


def test_a_layer_without_a_rule_is_rejected() -> None:
    class Odd(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(size, 4))

    with pytest.raises(ValueError, match=r"Odd.table grows from \(2, 4\) to \(3, 4\)"):
        mup(Odd(3), Odd(2), "adam")
