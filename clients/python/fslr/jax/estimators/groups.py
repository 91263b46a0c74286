"""Which leaves of a pytree of parameters form a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fslr.errors import MeasurementError

PyTree = Any


@dataclass(frozen=True, slots=True)
class LeafGroup:
    """A group: some leaves of the parameters, or one layer of some stacked leaves.

    Attributes:
        name: The group's name.
        leaves: Indices of its leaves, in the order of :func:`jax.tree_util.tree_flatten`.
        layer: Index of its layer along ``axis`` of its leaves; None: it has the whole leaves.
        axis: The axis of the leaves that counts the layers.
    """

    name: str
    leaves: tuple[int, ...]
    layer: int | None = None
    axis: int = 0


def leaf_groups(params: PyTree, *, stacked: Mapping[str, int] | None = None) -> list[LeafGroup]:
    """Return one group for each leaf, and for leaves with stacked layers one for each layer.

    Args:
        params: The parameters.
        stacked: The axis that counts the layers, by the name of a leaf or by the name of a part of
            the tree that holds the leaves, such as ``{"blocks": 0}``.

    Returns:
        The groups in the order of the leaves. The leaf ``blocks.kernel`` of three stacked layers
        gives ``blocks.0.kernel``, ``blocks.1.kernel`` and ``blocks.2.kernel``.

    Raises:
        MeasurementError: A name in ``stacked`` is not in the tree, or a leaf there has no such
            axis.
    """
    stacks = dict(stacked or {})
    unused = set(stacks)
    groups: list[LeafGroup] = []
    for index, (path, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(params)[0]):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        stack = next((s for s in stacks if name == s or name.startswith(f"{s}.")), None)
        if stack is None:
            groups.append(LeafGroup(name, (index,)))
            continue
        unused.discard(stack)
        axis, shape = stacks[stack], jnp.shape(leaf)
        if not 0 <= axis < len(shape):
            raise MeasurementError(
                f"stacked says that axis {axis} of {name!r} counts layers, but its shape is {shape}"
            )
        rest = name[len(stack) :]
        groups += [
            LeafGroup(f"{stack}.{layer}{rest}", (index,), layer, axis)
            for layer in range(shape[axis])
        ]
    if unused:
        raise MeasurementError(
            f"stacked names {min(unused)!r}, which is not in the parameters; their names are "
            f"{', '.join(repr(group.name) for group in groups[:8])}"
        )
    return groups


def check_groups(groups: Sequence[LeafGroup], params: PyTree) -> None:
    """Check that groups fit the parameters and that each of their leaves can be measured.

    Args:
        groups: The groups.
        params: The parameters; only shapes and types are read.

    Raises:
        MeasurementError: There is no group; or a leaf does not exist, is in two groups, has no such
            layer, or is not an array of real floating-point numbers.
    """
    if not groups:
        raise MeasurementError("there are no groups to measure; pass at least one")
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    owners: dict[int, dict[int | None, str]] = {}
    for group in groups:
        for index in group.leaves:
            if not 0 <= index < len(paths):
                raise MeasurementError(
                    f"group {group.name!r} has leaf {index}, but the parameters have "
                    f"{len(paths)} leaves; make the groups from the same pytree"
                )
            path, leaf = paths[index]
            _check_leaf(group, jax.tree_util.keystr(path), leaf)
            layers = owners.setdefault(index, {})
            same = [other for layer, other in layers.items() if None in {layer, group.layer}]
            other = layers.get(group.layer, same[0] if same else None)
            if other is not None:
                raise MeasurementError(
                    f"leaf {jax.tree_util.keystr(path)} is in the groups {other!r} and "
                    f"{group.name!r}; a leaf must be in one group"
                )
            layers[group.layer] = group.name


def _check_leaf(group: LeafGroup, path: str, leaf: Any) -> None:
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        raise MeasurementError(
            f"parameter {path} is a {type(leaf).__name__}; it must be an array. Pass only the "
            "arrays: eqx.partition(model, eqx.is_inexact_array) or nnx.split(model, nnx.Param, ...)"
        )
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise MeasurementError(
            f"parameter {path} has the complex type {dtype}, which is not supported; keep its real "
            "and imaginary parts as two parameters"
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise MeasurementError(
            f"parameter {path} has type {dtype}; only floating-point arrays have a rate. Leave it "
            "out of the parameters, such as by eqx.partition(model, eqx.is_inexact_array) or "
            "nnx.split(model, nnx.Param, ...)"
        )
    shape = jnp.shape(leaf)
    if group.layer is not None and not (
        0 <= group.axis < len(shape) and 0 <= group.layer < shape[group.axis]
    ):
        raise MeasurementError(
            f"group {group.name!r} is layer {group.layer} along axis {group.axis} of {path}, whose "
            f"shape is {shape}"
        )


def check_updates(params: PyTree, unit_updates: PyTree) -> None:
    """Check that the updates have the structure and the shapes of the parameters.

    Args:
        params: The parameters.
        unit_updates: The update divided by the learning rate.

    Raises:
        MeasurementError: They differ.
    """
    expected: Any = jax.tree_util.tree_structure(params)
    given: Any = jax.tree_util.tree_structure(unit_updates)
    if expected != given:
        raise MeasurementError(
            f"unit_updates has the structure {given}, and params {expected}; pass the updates that "
            "the optimizer made from gradients by these parameters"
        )
    for (path, leaf), update in zip(
        jax.tree_util.tree_flatten_with_path(params)[0],
        jax.tree_util.tree_leaves(unit_updates),
        strict=True,
    ):
        if jnp.shape(leaf) != jnp.shape(update):
            raise MeasurementError(
                f"the update of {jax.tree_util.keystr(path)} has shape {jnp.shape(update)}, and "
                f"the parameter {jnp.shape(leaf)}"
            )
