"""Refuses to scale parameters that are not initial ones, or that are scaled already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fslr.advisor.v1 import layout_pb2
from fslr.errors import AttachError
from fslr.jax.groups import ModelGroups
from fslr.training.initial_scaling import InitialScaling, is_far, listed
from fslr.training.recipe import Recipe
from fslr.training.trained_weights import (
    FEWEST,
    sizes_vary,
    unequal_entries,
    unequal_matrices,
)


@dataclass(frozen=True, slots=True)
class _View:
    """How the layers of a leaf are compared.

    Attributes:
        leaf: Index of the leaf.
        axis: Its axis that counts layers; None: it is one layer.
        row_dimensions: The number of a layer's leading dimensions that count rows; 0: the layer is
            the gain or the bias of a norm.
    """

    leaf: int
    axis: int | None
    row_dimensions: int


def refuse_scaling(
    recipe: Recipe, groups: ModelGroups, params: Any, scaling: InitialScaling
) -> None:
    """Refuse to scale parameters that are not the initial ones that a recipe was asked for.

    Traced parameters have no values to look at, and are not refused.

    Args:
        recipe: The recipe.
        groups: The groups of the model.
        params: The parameters.
        scaling: How those that the recipe was asked for are scaled.

    Raises:
        AttachError: The recipe was asked for without values; or the parameters are as large as
            scaled ones, or look trained.
    """
    unknown = [
        name
        for name, wanted, rms in zip(groups.names, recipe.initial_rms, scaling.rms, strict=True)
        if wanted is not None and rms is None
    ]
    if unknown:
        raise AttachError(
            "initialize() scales the initial weights that recipe_for() got, but it got no finite "
            f"values of {listed(unknown)}; nothing was changed; pass the initial parameters to "
            "recipe_for(), not their shapes"
        )
    leaves = jax.tree.leaves(params)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return
    layout = groups.layout(params)
    if _is_scaled(scaling, [group.initial_rms for group in layout.groups]):
        raise AttachError(
            "initialize() scales initial weights, but these are as large as it leaves them; "
            "nothing was changed; call it once, on the parameters that recipe_for() got"
        )
    evidence = _looks_trained(groups, layout, leaves)
    if evidence:
        raise AttachError(
            f"initialize() scales initial weights, but these look trained: {evidence}; nothing was "
            "changed; call it before the first step, and before a checkpoint is loaded"
        )


def _is_scaled(scaling: InitialScaling, now: Sequence[float]) -> bool:
    """Return whether sizes are nearer to those after scaling than to those before it."""
    from_before = from_after = 0.0
    for factor, after, own in zip(scaling.factors, scaling.rms, now, strict=True):
        if after and own and is_far(factor):
            from_before += math.log(own * factor / after) ** 2
            from_after += math.log(own / after) ** 2
    return from_after < from_before


def _looks_trained(
    groups: ModelGroups, layout: layout_pb2.Layout, leaves: Sequence[jax.Array]
) -> str:
    """Return why parameters look trained; empty if they do not."""
    views: dict[_View, None] = {}
    for group, described, is_norm in zip(groups, layout.groups, groups.are_norms, strict=True):
        shape = tuple(described.shape)
        axis = None if group.layer is None else group.axis
        if is_norm and len(shape) == 1:
            views[_View(group.leaf, axis, 0)] = None
        elif rows := _row_dimensions(shape):
            views[_View(group.leaf, axis, rows)] = None
    found = dict(zip(views, jax.device_get(_statistics(leaves, tuple(views))), strict=True))
    names: dict[int, list[str]] = {}
    for group in groups:
        names.setdefault(group.leaf, []).append(group.name)
    vary: list[bool] = []
    for view, (lows, highs, kurtosis) in found.items():
        for layer, name in enumerate(names[view.leaf]):
            if view.row_dimensions == 0:
                if evidence := unequal_entries(name, float(lows[layer]), float(highs[layer])):
                    return evidence
            elif np.any(lows[layer]):
                sizes = (lows[layer], highs[layer])
                vary.append(
                    any(
                        sizes_vary(own, float(kurtosis[layer]), len(other))
                        for own, other in (sizes, sizes[::-1])
                    )
                )
    return unequal_matrices(vary)


def _row_dimensions(shape: tuple[int, ...]) -> int:
    """Return how many dimensions of a matrix count its rows; 0 if it has too few rows or columns.

    Frameworks do not agree which ones they are. Those that make it the most square are taken.
    """
    sizes = {
        split: min(math.prod(shape[:split]), math.prod(shape[split:]))
        for split in range(1, len(shape))
    }
    best = max(sizes, key=lambda split: sizes[split], default=0)
    return best if best and sizes[best] >= FEWEST else 0


@partial(jax.jit, static_argnums=1)
def _statistics(
    leaves: Sequence[jax.Array], views: tuple[_View, ...]
) -> list[tuple[jax.Array, jax.Array, jax.Array]]:
    """Return what is compared of each layer: the range of a norm, or the sizes in a matrix.

    Args:
        leaves: The parameters.
        views: How they are compared.

    Returns:
        For each view three arrays, whose first axis counts layers: the lowest entries, the highest
        ones, and zeros; or mean squares of rows, those of columns, and the kurtosis.
    """
    found = []
    for view in views:
        values = leaves[view.leaf].astype(jnp.float32)
        layers = values[None] if view.axis is None else jnp.moveaxis(values, view.axis, 0)
        if view.row_dimensions == 0:
            low, high = layers.min(axis=1), layers.max(axis=1)
            found.append((low, high, jnp.zeros_like(low)))
            continue
        rows = math.prod(layers.shape[1 : 1 + view.row_dimensions])
        squares = jnp.square(layers.reshape(len(layers), rows, -1))
        kurtosis = jnp.square(squares).mean(axis=(1, 2)) / jnp.square(squares.mean(axis=(1, 2)))
        found.append((squares.mean(axis=2), squares.mean(axis=1), kurtosis))
    return found
