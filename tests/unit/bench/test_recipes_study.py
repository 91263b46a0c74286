"""Recipes and the same parametrizations in model code give the same trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import advisor.cli
import benchmarks
from benchmarks.__main__ import app
from benchmarks.char_gpt import CharGPT
from benchmarks.studies import recipes
from benchmarks.studies.recipes import PAIRS, Pair, is_known, row
from benchmarks.transfer import by_recipe, models
from benchmarks.transfer.optimizers import build_optimizer
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.shape_rules import Family, RuleName
from fslr import save_layout
from fslr.torch import ModelGroups

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


_COMPARED = ("model", "recipe", "optimizer", "groups", "with_rule", "tensors")
_ASKED: tuple[tuple[RuleName, Family], ...] = (("mup", "sgd"), ("completep", "adam"))


@pytest.fixture(scope="module")
def printed() -> list[dict[str, Any]]:
    """Return what the command prints for two of its five recipes, without its trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "_pretrained", CharGPT)
        patch.setattr(recipes, "RECIPES", {key: by_recipe.RECIPES[key] for key in _ASKED})
        patch.setattr(recipes, "losses", lambda *_, steps, **__: [1.0] * steps)
        result = CliRunner().invoke(app, ["recipes", "--quick", "--json"], catch_exceptions=False)
    content = json.loads(result.stdout)
    assert content["steps"] == 5
    rows: list[dict[str, Any]] = content["rows"]
    return rows


def test_the_command_prints_a_row_for_each_architecture_and_recipe(
    printed: list[dict[str, Any]],
) -> None:
    file = Path(benchmarks.__file__).parent / "results" / "recipes.json"
    stored = json.loads(file.read_text("utf-8"))["rows"]
    expected = [row for row in stored if row["recipe"] in {"mup-sgd", "completep"}]
    assert len(printed) == 11
    assert [_summary(row) for row in printed] == [_summary(row) for row in expected]


def _summary(row: dict[str, Any]) -> list[Any]:
    return [*(row[key] for key in _COMPARED), len(row["problems"])]


@pytest.mark.parametrize("model", list(_BY_MODEL))
def test_saved_layouts_are_checked_as_the_benchmark_does(
    model: str, printed: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_pretrained", CharGPT)

    def saved(setting: Setting) -> str:
        torch.manual_seed(0)
        built = models.build_task(setting).model
        groups = ModelGroups(built, build_optimizer("SGD", built, 0.1, {}))
        path = tmp_path / f"{setting.width}-{setting.rank}.json"
        save_layout(groups.layout(models.residual_outputs(built)), path)
        return str(path)

    pair = _BY_MODEL[model]
    layout, base = saved(pair.big), saved(pair.base)
    rows = [each for each in printed if each["model"] == model]
    assert rows
    for each in rows:
        options = ("--base", base, "--optimizer", each["optimizer"])
        words = ["recipe", "check", each["recipe"], layout, *options, "--json"]
        result = CliRunner().invoke(advisor.cli.app, words)
        found = json.loads(result.stdout)
        assert found["groups_with_rule"] == each["with_rule"]
        problems = [f["message"] for f in found["findings"] if f["is_problem"]]
        assert (problems, found["fits"]) == (each["problems"], not each["problems"])
        assert result.exit_code == bool(each["problems"])
