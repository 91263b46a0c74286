"""A recipe in JAX: initial parameters that it scales, and an optimizer with its factors.

Optimizers of optax are built before their state exists, and settings such as epsilon are constants
of compiled steps. So the factors are asked for first::

    recipe = fslr.jax.recipe_for(params, profile="char-gpt@prod", recipe="completep",
                                 optimizer="adamw")
    params = recipe.initialize(params)
    tx = optax.chain(
        recipe.partition(
            lambda f: optax.adamw(schedule, eps=1e-8 * f.epsilon, weight_decay=0.1 * f.weight_decay)
        ),
        fslr.jax.scale_by_advice(),
    )

The factors on learning rates are multipliers: ``attach(..., recipe=...)`` starts with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fslr.client.advisor_client import AdvisorClient
from fslr.errors import AttachError
from fslr.jax.groups import ModelGroups
from fslr.jax.initial_weights import refuse_scaling
from fslr.jax.model_forms import form_of
from fslr.jax.names import name_of
from fslr.jax.processes import ranks
from fslr.protocols import Advisor
from fslr.training.events import Listener, Listeners, Warned
from fslr.training.initial_scaling import InitialScaling
from fslr.training.recipe import Recipe
from fslr.training.recipe_in_force import RecipeInForce
from fslr.training.run_info import RunInfo, run_info
from fslr.training.setting_factors import SettingFactors

_NOT_BUILT = (
    "the recipe's factors on weight decay, epsilon and betas are part of the optimizer in JAX, and "
    "this one has its own settings; build it with fslr.jax.recipe_for(...).partition(...)"
)
_LABEL = "recipe-"  # of the optimizers that a recipe builds
NEEDED = "scale them with fslr.jax.recipe_for(...).initialize(params) before the first step"
"""What to do about initial weights of a different size."""


class ParameterRecipe:
    """What a recipe says about the parameters of a model. Made by :func:`recipe_for`.

    Args:
        recipe: The recipe.
        groups: The model's groups.
        scaling: How their initial values are scaled.

    Attributes:
        name: The recipe's name; a stored one has a version.
        conditions: What has to be true of the model, in sentences.
        settings: Factors on learning rate and other settings, by the name of the leaf.

    Raises:
        AttachError: The layers of a stacked leaf have different factors.
    """

    def __init__(self, recipe: Recipe, groups: ModelGroups, scaling: InitialScaling) -> None:
        self.name, self.conditions = recipe.name, recipe.conditions
        self.settings: dict[str, SettingFactors] = {}
        for group, factors in zip(groups, recipe.settings, strict=True):
            if self.settings.setdefault(group.leaf_name, factors) != factors:
                raise AttachError(
                    f"the recipe {recipe.name} has different factors for the layers of "
                    f"{group.leaf_name}, which one optimizer steps together; unstack them"
                )
        self._recipe, self._groups, self._scaling = recipe, groups, scaling
        self._axes = {group.leaf_name: group.axis for group in groups}
        self._initial = groups.by_leaf(scaling.factors)

    def initialize(self, model: Any) -> Any:
        """Return a model with scaled initial parameters; it is a pure function.

        Call it once, on the parameters that :func:`recipe_for` got, before the first step. The
        state of an optimizer is initialized afterwards.

        Args:
            model: The parameters, an Equinox module, or a module of Flax nnx, which is changed in
                place.

        Raises:
            AttachError: The parameters are scaled already or look trained, or :func:`recipe_for`
                got no values. Nothing is changed then. Traced parameters are not checked.
        """
        form = form_of(model)
        params = form.split(model).params
        refuse_scaling(self._recipe, self._groups, params, self._scaling)
        scaled = jax.jit(partial(jax.tree_util.tree_map_with_path, self._scaled))(params)
        return form.with_params(model, scaled)

    def _scaled(self, path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = name_of(path)
        factor = jnp.asarray(self._initial[name], jnp.promote_types(leaf.dtype, jnp.float32))
        if factor.ndim:
            shape = [1] * leaf.ndim
            shape[self._axes[name]] = -1
            factor = factor.reshape(shape)
        return (leaf * factor).astype(leaf.dtype)

    def partition(
        self, build: Callable[[SettingFactors], optax.GradientTransformation]
    ) -> optax.GradientTransformation:
        """Return an optimizer that steps each leaf with the recipe's factors.

        Args:
            build: Returns an optimizer with settings times the given factors. It is called once for
                each set of factors. It leaves learning rates alone: they follow from multipliers.
        """
        labels: dict[SettingFactors, str] = {}
        by_name = {
            name: labels.setdefault(factors, f"{_LABEL}{len(labels)}")
            for name, factors in self.settings.items()
        }

        def labels_of(params: Any) -> Any:
            return jax.tree_util.tree_map_with_path(lambda path, _: by_name[name_of(path)], params)

        return optax.multi_transform({label: build(f) for f, label in labels.items()}, labels_of)


def recipe_for(
    model: Any,
    *,
    profile: str,
    optimizer: str,
    recipe: str = "",
    advisor: str | Advisor = "127.0.0.1:50051",
    run: str | RunInfo = "",
    total_steps: int = 0,
    stacked: Mapping[str, int] | None = None,
    listeners: Sequence[Listener] = (),
) -> ParameterRecipe:
    """Ask what a recipe says about a model; all processes that train it call this.

    Args:
        model: The initial parameters, an Equinox module, or a module of Flax nnx.
        profile: The reference, such as ``char-gpt@prod``.
        optimizer: Name of the optimizer to build, such as ``adamw``.
        recipe: The recipe, such as ``completep``. Empty: that of the profile's policy.
        advisor: ``host:port`` of the service, or an advisor in this process.
        run: What the recipe may depend on, such as the batch size; its name does not matter.
        total_steps: Planned number of optimizer steps.
        stacked: As in :func:`.attach`.
        listeners: Called with each event.

    Raises:
        AttachError: The model has no parameters; the run follows no recipe, or one that does not
            say how to initialize it; or the advisor knows none.
        ServiceError: The advisor does not answer, or refuses the run or the recipe.
    """
    form = form_of(model)
    groups = ModelGroups(model, form, stacked)
    opening = run_info(run, total_steps).opening(
        profile,
        groups.layout(form.split(model).params),
        optimizer=optimizer,
        base_learning_rate=0.0,
        recipe=recipe,
    )
    informed = Listeners.with_log(listeners)
    in_force = RecipeInForce(opening, ranks=ranks(), listeners=informed, apply=lambda _: [])
    client = AdvisorClient(advisor) if isinstance(advisor, str) else None
    try:
        scaling = in_force.ask(client or advisor, strict=True, initialize=True)  # type: ignore[arg-type]
    finally:
        if client is not None:
            client.close()
    assert in_force.recipe is not None  # noqa: S101 - or ask() raised
    assert scaling is not None  # noqa: S101
    for message in in_force.recipe.warnings:
        informed.emit(Warned(0, message))
    return ParameterRecipe(in_force.recipe, groups, scaling)


def settings_line(opt_state: Any) -> Callable[[Sequence[SettingFactors]], list[str]]:
    """Return a function that says whether an optimizer lacks a recipe's factors.

    Args:
        opt_state: The optimizer's state.
    """
    is_built = any(
        isinstance(node, Mapping) and any(str(key).startswith(_LABEL) for key in node)
        for node in _inner_states(opt_state)
    )

    def lines(factors: Sequence[SettingFactors]) -> list[str]:
        changes = any(of_group.changes_a_setting for of_group in factors)
        return [_NOT_BUILT] if changes and not is_built else []

    return lines


def _inner_states(opt_state: Any) -> list[Any]:
    """Return the states of partitioned optimizers by label."""
    found = jax.tree.leaves(opt_state, is_leaf=_is_partitioned)
    return [node.inner_states for node in found if _is_partitioned(node)]


def _is_partitioned(node: object) -> bool:
    return hasattr(node, "inner_states")
