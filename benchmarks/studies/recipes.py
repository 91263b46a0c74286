"""``python -m benchmarks recipes``: recipes equal the same parametrizations in model code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from advisor.recipes import check_recipe
from benchmarks.markdown import number
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.training import loss_of, one_thread
from benchmarks.transfer.by_recipe import RECIPES, ByRecipe, applied, layout_of
from benchmarks.transfer.models import build_task
from benchmarks.transfer.optimizers import OptimizerName, build_optimizer
from benchmarks.transfer.parametrization import Factors
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.shape_rules import ByShape, Family, RuleName, initialize

STEPS = 20
_LEARNING_RATES: dict[Family, float] = {"adam": 2.0**-7, "sgd": 2.0**-4}
_OPTIMIZERS: dict[Family, OptimizerName] = {"adam": "AdamW", "sgd": "SGD"}

_FILE_WIDTH = 100  # characters


@dataclass(frozen=True, slots=True)
class Pair:
    """A base and a scaled model of one architecture."""

    base: Setting
    big: Setting


PAIRS = (
    Pair(Setting("char_gpt_pre", 16), Setting("char_gpt_pre", 64, depth=8)),
    Pair(Setting("char_gpt_post", 16), Setting("char_gpt_post", 64, depth=4)),
    Pair(Setting("moe_gpt", 16, experts=2), Setting("moe_gpt", 32, depth=4, experts=4)),
    Pair(Setting("res_mlp", 16, batch_size=32), Setting("res_mlp", 64, depth=8, batch_size=32)),
    Pair(Setting("conv_net", 8, batch_size=32), Setting("conv_net", 32, batch_size=32)),
    Pair(Setting("lora_gpt", 64, rank=1), Setting("lora_gpt", 64, rank=4)),
)
"""Six architectures. The recipes say nothing of the rank of adapters; that is checked, too."""


def recipes(
    *,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="Take 5 instead of 20 steps (below 1 min).")
    ] = False,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Compare recipes with model code, in float64, and check them on six architectures (1 min)."""
    steps = 5 if is_quick else STEPS
    pairs = [(pair, key) for pair in PAIRS for key in RECIPES if is_known(pair, key)]
    with one_thread():
        rows = [row(pair, *key, steps=steps) for pair, key in pairs]
    emit({"rows": rows, "steps": steps}, as_json=as_json, out=out, threads=1)
    if not as_json:
        _print(rows, steps)


def is_known(pair: Pair, key: tuple[RuleName, Family]) -> bool:
    """Return whether a parametrization is published for a kind of model.

    Args:
        pair: The models.
        key: The parametrization and the optimizer's family.
    """
    return key[0] != "completep" or pair.big.model != "conv_net"  # CompleteP is for residual blocks


def row(pair: Pair, rule: RuleName, family: Family, *, steps: int = STEPS) -> dict[str, Any]:
    """Return how a recipe compares with its model code, and what a check of it finds.

    Args:
        pair: The models.
        rule: The parametrization.
        family: The optimizer's family.
        steps: Optimizer steps of the two trainings.

    Returns:
        ``tensors`` with factors that differ and ``max_difference`` of the losses, relative to the
        loss: both null for a recipe without a rule for all groups; ``groups`` and ``with_rule``
        count groups; ``problems`` and ``warnings`` are a check's findings.
    """
    recipe, optimizer = RECIPES[rule, family], _OPTIMIZERS[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        big, base = (build_task(each).model for each in (pair.big, pair.base))
    run = layout_of(big, optimizer)
    found = applied(recipe, run, layout_of(base, optimizer), optimizer)
    findings = check_recipe(run, found)
    result: dict[str, Any] = {
        "model": pair.big.model,
        "recipe": recipe,
        "optimizer": optimizer,
        "groups": len(run),
        "with_rule": int(found.has_rule.sum()),
        "problems": [finding.message for finding in findings if finding.is_problem],
        "warnings": [finding.message for finding in findings if not finding.is_problem],
        "tensors": None,
        "max_difference": None,
    }
    if pair.big.model == "lora_gpt":
        return result
    in_code = ByShape(rule, family).factors(big, pair.base)
    by_recipe = ByRecipe(recipe, optimizer).factors(big, pair.base)
    one, other = (losses(pair.big, each, family, steps=steps) for each in (in_code, by_recipe))
    result["tensors"] = [name for name in in_code if not _agree(in_code[name], by_recipe[name])]
    result["max_difference"] = max(abs(a - b) / a for a, b in zip(one, other, strict=True))
    return result


def _agree(one: Factors, other: Factors) -> bool:
    pairs = ((getattr(one, f.name), getattr(other, f.name)) for f in fields(Factors))
    return all(abs(a - b) <= 1e-12 * abs(a) for a, b in pairs)


def losses(
    setting: Setting, factors: Mapping[str, Factors], family: Family, *, steps: int
) -> list[float]:
    """Return the losses of a training in float64.

    Args:
        setting: The model.
        factors: The factors of each tensor.
        family: The optimizer's family.
        steps: Optimizer steps.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task = build_task(setting)
    model = task.model.double()
    initialize(model, dict(factors))
    optimizer = build_optimizer(
        _OPTIMIZERS[family],
        model,
        _LEARNING_RATES[family],
        factors,
        0.1 if family == "adam" else None,
    )
    batches = torch.Generator().manual_seed(1)
    found = []
    for _ in range(steps):
        inputs, targets = task.draw(batches)
        loss = loss_of(model, inputs.double() if inputs.is_floating_point() else inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def _print(rows: list[dict[str, Any]], steps: int) -> None:
    table = Table(
        *("model", "recipe", "optimizer", "rules", "factors differ", "losses differ", "problems"),
        title=f"Recipes and model code, {steps} steps in float64",
        box=box.SIMPLE,
    )
    problems: dict[tuple[str, str], None] = {}
    for each in rows:
        differing = each["tensors"]
        table.add_row(
            *(each["model"], each["recipe"], each["optimizer"]),
            f"{each['with_rule']} of {each['groups']}",
            "-" if differing is None else f"{len(differing)} of {each['groups']}",
            number(each["max_difference"], ".0e"),
            str(len(each["problems"])),
        )
        problems |= {
            (f"{each['model']}, {each['recipe']}", text): None for text in each["problems"]
        }
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)
    console.print(
        "Losses differ: the largest difference of a step, relative to the loss. Problems:"
    )
    for name, problem in problems:
        console.print(f"  {name}: {problem}")
