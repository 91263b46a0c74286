"""The groups of a model: the leaves of its parameters, and the layers of stacked ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fslr.advisor.v1 import layout_pb2
from fslr.errors import AttachError
from fslr.jax.adapters import adapters_of
from fslr.jax.advice_transform import depth_axis
from fslr.jax.kinds import Leaf, describe, is_of_norm
from fslr.jax.model_forms import ModelForm, check_params
from fslr.jax.names import keys_of, name_of, parts_of
from fslr.training.adapter_rates import adapter_pairs, all_pairs


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """One group of a model: a leaf of the parameters, or one layer of a stacked leaf.

    Attributes:
        name: Its name, such as ``Dense_0.kernel``; that of a layer has the layer's number.
        leaf: Index of its leaf, in the order of :func:`jax.tree.leaves`.
        leaf_name: Name of its leaf.
        layer: Index of its layer; None: it is the whole leaf.
        axis: The axis of the leaf that counts layers.
    """

    name: str
    leaf: int
    leaf_name: str
    layer: int | None = None
    axis: int = 0


class ModelGroups:
    """The groups of a model in layout order.

    Args:
        model: A module, or a pytree of parameters.
        form: How the model is taken apart.
        stacked: The axis that counts layers, by the name of a leaf or of a subtree.

    Attributes:
        leaf_names: The names of all leaves, in their order.

    Raises:
        AttachError: A leaf is not an array of floating-point numbers, two have the same name, or
            ``stacked`` names a leaf that does not exist, or an axis that a leaf does not have.
    """

    def __init__(
        self, model: Any, form: ModelForm, stacked: Mapping[str, int] | None = None
    ) -> None:
        params = form.split(model).params
        check_params(params)
        leaves = jax.tree_util.tree_flatten_with_path(params)[0]
        self.leaf_names = [name_of(path) for path, _ in leaves]
        self._stacked = dict(stacked or {})
        self._check_names()
        self._groups: list[ParameterGroup] = []
        self._described: list[Leaf] = []
        for index, (path, leaf) in enumerate(leaves):
            self._add(index, parts_of(path), tuple(leaf.shape), _classes(model, path))
        self._is_ordered = _keeps_order(model, form)

    def _check_names(self) -> None:
        """Refuse names that are not unique, and stacked ones that do not exist.

        Raises:
            AttachError: A name occurs twice, or ``stacked`` names none of the leaves.
        """
        seen: set[str] = set()
        for name in self.leaf_names:
            if name in seen:
                raise AttachError(
                    f"two leaves of the parameters are called {name!r}; give them different names"
                )
            seen.add(name)
        for prefix in self._stacked:
            if not any(name == prefix or name.startswith(f"{prefix}.") for name in seen):
                raise AttachError(
                    f"stacked names {prefix!r}, which is not in the parameters; give the name of a "
                    f"leaf or the beginning of one, such as {', '.join(self.leaf_names[:3])}"
                )

    def _add(
        self, index: int, path: tuple[str, ...], shape: tuple[int, ...], classes: tuple[str, ...]
    ) -> None:
        """Add the groups of a leaf.

        Raises:
            AttachError: The leaf lacks the axis that counts layers.
        """
        name = self.leaf_names[index]
        axis = depth_axis(name, self._stacked)
        if axis is None:
            self._groups.append(ParameterGroup(name, index, name))
            self._described.append(Leaf(path, shape, classes))
            return
        if not 0 <= axis < len(shape):
            raise AttachError(
                f"stacked says that axis {axis} of {name!r} counts layers, but its shape is "
                f"{shape}; name one of its axes, from 0"
            )
        prefix = next(p for p in self._stacked if name == p or name.startswith(f"{p}."))
        rest = name[len(prefix) :]
        of_layer = shape[:axis] + shape[axis + 1 :]
        for layer in range(shape[axis]):
            group = f"{prefix}.{layer}{rest}"
            self._groups.append(ParameterGroup(group, index, name, layer, axis))
            self._described.append(Leaf(path, of_layer, classes, layer))

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self._groups)

    def __iter__(self) -> Iterator[ParameterGroup]:
        """Iterate over the groups in layout order."""
        return iter(self._groups)

    @property
    def names(self) -> list[str]:
        """The names of the groups."""
        return [group.name for group in self._groups]

    @property
    def are_norms(self) -> list[bool]:
        """Whether each group belongs to a norm."""
        return [is_of_norm(leaf) for leaf in self._described]

    def adapters(self) -> list[tuple[int, int]]:
        """Return the layout indices of the factors A and B of each low-rank adapter.

        They are known by their names, or by their shapes and the module that they are in.
        """
        return all_pairs(adapter_pairs(self.names), adapters_of(self._described))

    def by_leaf(self, values: Sequence[float]) -> dict[str, float | list[float]]:
        """Return a value for each group as one for each leaf, a list for a stacked leaf."""
        found: dict[str, float | list[float]] = {}
        for group, value in zip(self._groups, values, strict=True):
            if group.layer is None:
                found[group.leaf_name] = value
            else:
                layers = found.setdefault(group.leaf_name, [])
                assert isinstance(layers, list)  # noqa: S101 - a leaf is stacked or not
                layers.append(value)
        return found

    def of_leaves(self, values: Mapping[str, float]) -> list[float]:
        """Return a value for each leaf as one for each group; 0 for leaves without one."""
        return [values.get(group.leaf_name, 0.0) for group in self._groups]

    def layout(
        self,
        params: Any,
        *,
        has_stepped: bool = False,
        optimizers: Mapping[str, str] | None = None,
    ) -> layout_pb2.Layout:
        """Return the layout message: names, shapes, kinds and initial weights of the groups.

        Args:
            params: The parameters.
            has_stepped: Whether the optimizer has made a step, so that the weights are not the
                initial ones.
            optimizers: Name of the optimizer of each leaf, if it is not that of the run.
        """
        descriptions = describe(
            self._described,
            is_ordered=self._is_ordered,
            adapters=adapters_of(self._described),
        )
        rms = [None] * len(self) if has_stepped else self._rms_of(params)
        names = optimizers or {}
        return layout_pb2.Layout(
            groups=[
                layout_pb2.Group(
                    name=group.name,
                    parameter_count=math.prod(leaf.shape),
                    shape=description.shape,
                    fan_in=description.fan_in,
                    fan_out=description.fan_out,
                    kind=description.kind,
                    initial_rms=initial,
                    optimizer=names.get(group.leaf_name, ""),
                )
                for group, leaf, description, initial in zip(
                    self._groups, self._described, descriptions, rms, strict=True
                )
            ]
        )

    def _rms_of(self, params: Any) -> list[float | None]:
        """Return the root mean square of each group's entries; None if it is not known."""
        leaves = jax.tree.leaves(params)
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
            return [None] * len(self)
        axes = {group.leaf: group.axis for group in self if group.layer is not None}
        squares = jax.device_get(_mean_squares(leaves, tuple(sorted(axes.items()))))
        found = [
            float(np.sqrt(squares[g.leaf] if g.layer is None else squares[g.leaf][g.layer]))
            for g in self
        ]
        return [rms if math.isfinite(rms) else None for rms in found]


@partial(jax.jit, static_argnums=1)
def _mean_squares(
    leaves: Sequence[jax.Array], axes: tuple[tuple[int, int], ...]
) -> list[jax.Array]:
    stacked = dict(axes)
    return [
        jnp.mean(
            jnp.square(leaf.astype(jnp.float32)),
            axis=tuple(i for i in range(leaf.ndim) if i != stacked[index]),
        )
        if index in stacked
        else jnp.mean(jnp.square(leaf.astype(jnp.float32)))
        for index, leaf in enumerate(leaves)
    ]


def _classes(model: Any, path: tuple[Any, ...]) -> tuple[str, ...]:
    """Return the names of the classes of the module that a leaf belongs to; empty: no module."""
    owner = model
    for key in keys_of(path)[:-1]:
        part = next(getattr(key, name) for name in ("name", "key", "idx") if hasattr(key, name))
        try:
            owner = getattr(owner, part) if hasattr(owner, str(part)) else owner[part]
        except (KeyError, IndexError, TypeError):
            return ()
    names = tuple(kind.__name__ for kind in type(owner).__mro__)
    return names if {"Module", "Pytree"}.intersection(names) else ()


def _keeps_order(model: Any, form: ModelForm) -> bool:
    """Return whether the leaves are in the order of the model: dictionaries may be sorted."""
    if form.framework == "Equinox":
        return True
    if form.framework == "Flax nnx":
        return False
    return not _has_sorted_dict(model)


def _has_sorted_dict(tree: Any) -> bool:
    if isinstance(tree, Mapping):
        return len(tree) > 1 or any(map(_has_sorted_dict, tree.values()))
    if isinstance(tree, (list, tuple)):
        return any(map(_has_sorted_dict, tree))
    return False
