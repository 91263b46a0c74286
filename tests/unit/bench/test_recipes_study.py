"""Recipes and the same parametrizations in model code give the same trainings."""

from __future__ import annotations

import pytest

from benchmarks.char_gpt import CharGPT
from benchmarks.studies import recipes
from benchmarks.studies.recipes import PAIRS, Pair, is_known, row
from benchmarks.transfer import models
from benchmarks.transfer.shape_rules import Family, RuleName

_BY_MODEL: dict[str, Pair] = {pair.big.model: pair for pair in PAIRS}


@pytest.mark.parametrize(
    ("model", "rule", "family"),
    [
        ("char_gpt_pre", "depth_mup", "adam"),
        ("moe_gpt", "completep", "adam"),
        ("res_mlp", "depth_mup", "sgd"),
        ("res_mlp", "completep", "adam"),
        ("conv_net", "mup", "sgd"),
    ],
)
def test_losses_with_a_recipe_are_those_with_factors_in_the_code(
    model: str, rule: RuleName, family: Family
) -> None:
    found = row(_BY_MODEL[model], rule, family, steps=3)
    assert found["tensors"] == []
    assert found["with_rule"] == found["groups"]
    assert found["max_difference"] < 1e-12


def test_factors_that_differ_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "RECIPES", {("depth_mup", "adam"): "mup-adam"})
    found = row(_BY_MODEL["res_mlp"], "depth_mup", "adam", steps=3)
    assert {"blocks.0.1.weight", "blocks.7.1.bias"} <= set(found["tensors"])
    assert "head.weight" not in found["tensors"]
    assert found["max_difference"] > 1e-6
    assert any("depth grows by 4" in problem for problem in found["problems"])


def test_a_recipe_without_rules_is_reported_and_not_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "_pretrained", CharGPT)
    found = row(_BY_MODEL["lora_gpt"], "mup", "adam", steps=1)
    assert (found["with_rule"], found["tensors"], found["max_difference"]) == (0, None, None)
    assert any("no rule" in problem for problem in found["problems"])


def test_six_architectures_are_checked() -> None:
    assert len(_BY_MODEL) == 6
    assert not is_known(_BY_MODEL["conv_net"], ("completep", "adam"))
    assert is_known(_BY_MODEL["res_mlp"], ("completep", "adam"))
