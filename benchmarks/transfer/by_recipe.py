"""The parametrizations of recipes, applied to models through their layouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from advisor.policy import DepthRule, Layout, LayoutMapping, map_layout
from advisor.recipes import Field, RecipeFactors, apply_recipe, shipped_recipe
from advisor.wire import layout_from_proto
from benchmarks.transfer.models import build_task, residual_outputs
from benchmarks.transfer.optimizers import OptimizerName, build_optimizer
from benchmarks.transfer.parametrization import Factors
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.shape_rules import Family, RuleName, initialize
from fslr.torch import ModelGroups

RECIPES: Final[Mapping[tuple[RuleName, Family], str]] = {
    ("mup", "adam"): "mup-adam",
    ("mup", "sgd"): "mup-sgd",
    ("depth_mup", "adam"): "depth-mup",
    ("depth_mup", "sgd"): "depth-mup",
    ("completep", "adam"): "completep",
}
"""The shipped recipe that is the same parametrization as a rule in model code."""


def layout_of(model: nn.Module, optimizer: OptimizerName) -> Layout:
    """Return the layout of a model as a client would send it.

    Args:
        model: The model.
        optimizer: The optimizer that trains it.
    """
    groups = ModelGroups(model, build_optimizer(optimizer, model, 0.1, {}))
    return layout_from_proto(groups.layout(residual_outputs(model)))


def applied(recipe: str, run: Layout, base: Layout, optimizer: str) -> RecipeFactors:
    """Return the factors of a shipped recipe for the layout of a run.

    Args:
        recipe: Its name.
        run: The run's layout.
        base: The base's layout.
        optimizer: The run's optimizer.
    """
    return apply_recipe(shipped_recipe(recipe), run, base, _mapped(run, base), optimizer=optimizer)


def _mapped(run: Layout, base: Layout) -> LayoutMapping:
    return map_layout(run, base, DepthRule.COPY)


@dataclass(frozen=True, slots=True)
class ByRecipe:
    """A parametrization that a recipe gives from the layouts of base and big model.

    Attributes:
        recipe: Name of a shipped recipe.
        optimizer: The optimizer.
    """

    recipe: str
    optimizer: OptimizerName

    @property
    def name(self) -> str:
        """Name in tables and JSON."""
        return self.recipe

    def factors(self, model: nn.Module, base: Setting) -> dict[str, Factors]:
        """Return the factors of a model's tensors; initial ones are relative to PyTorch's values.

        A recipe's initial scale is relative to the base's values. PyTorch's own already shrink with
        the fan-in of a layer.

        Args:
            model: The model.
            base: The setting where the learning rate was tuned.
        """
        with torch.random.fork_rng(devices=[]):
            base_model = build_task(base).model
        run, of_base = (layout_of(each, self.optimizer) for each in (model, base_model))
        found = applied(self.recipe, run, of_base, self.optimizer)
        mapping = _mapped(run, of_base)
        source = dict(zip(mapping.targets.tolist(), mapping.sources.tolist(), strict=True))
        own, its = _default_scales(model), _default_scales(base_model)
        factors = {}
        for i, group in enumerate(run.groups):
            default = own[group.name] / its[of_base.groups[source[i]].name]
            factors[group.name] = Factors(
                float(found.factors[Field.INITIAL_SCALE][i]) / default,
                float(found.factors[Field.LEARNING_RATE][i]),
                float(found.factors[Field.EPSILON][i]),
                float(found.factors[Field.WEIGHT_DECAY][i]),
            )
        return factors

    def prepare(self, model: nn.Module, setting: Setting, base: Setting) -> dict[str, Factors]:  # noqa: ARG002
        """Scale the initial weights in place and return factors on the optimizer's settings.

        Args:
            model: The model.
            setting: Its setting; not used.
            base: The setting where the learning rate was tuned.
        """
        found = self.factors(model, base)
        initialize(model, found)
        return found


def _default_scales(model: nn.Module) -> dict[str, float]:
    """Return how PyTorch's initial values of each tensor depend on the fan-in of its layer."""
    found = {name: 1.0 for name, _ in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            for key, _ in module.named_parameters(recurse=False):
                found[f"{name}.{key}"] = module.weight[0].numel() ** -0.5
    return found
