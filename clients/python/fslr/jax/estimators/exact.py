"""The ``exact`` estimator: unit rates without sampling, one Jacobian-vector product per group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fslr.jax.estimators.base import Estimator
from fslr.jax.estimators.derivatives import linearized
from fslr.jax.estimators.groups import LeafGroup, PyTree
from fslr.jax.estimators.mask import weights_of
from fslr.jax.estimators.measurement import ExactChanges

_MAX_GRAM_ELEMENTS = 1 << 26  # of all groups' changes, which are kept for the Gram matrix


class ExactEstimator(Estimator):
    """Measures exact unit rates: no bias and no sampling error, only rounding errors.

    A measurement costs about two forward passes per group, so it is an oracle for tests and for
    small models. It has no noise, so ``probes`` and the key have no effect.

    Its Gram matrix, and with it the total rate and the shares, is computed if the changes of the
    outputs by all groups have at most 2^26 elements. The linearity error is a difference of
    float32 sums, which is imprecise below 0.001.

    Source: Milsom, Anson, Aitchison, "Function-Space Learning Rates", arXiv 2502.17405, definition
    of the function-space learning rate.
    """

    def _content(
        self,
        apply: Callable[[Sequence[Any]], Array],
        leaves: list[Array],
        updates: list[Array],
        batch: PyTree,
        key: Array,  # noqa: ARG002 - nothing is random
        after: Array | None,
        probes: int,  # noqa: ARG002
    ) -> tuple[ExactChanges, Array, dict[str, str]]:
        outputs, change_of = group_changes(apply, leaves, updates, self._groups)
        weights = weights_of(self._mask, batch, jnp.moveaxis(outputs, 0, self._output_axis))
        count = len(self._groups)

        def weighed(change: Array) -> Array:
            change = jnp.moveaxis(change.astype(jnp.float32), 0, self._output_axis)
            return weights.weigh(weights.clear(change)).ravel()

        real = None if after is None else weighed(_difference(after, outputs))
        indices = jnp.arange(count)
        if count * outputs.size <= _MAX_GRAM_ELEMENTS:
            changes = jax.lax.map(lambda index: weighed(change_of(index)), indices)
            gram = jnp.matmul(changes, changes.T, precision=jax.lax.Precision.HIGHEST)
            squares = jnp.sum(jnp.square(changes), 1)
            gram = jnp.where(jnp.eye(count, dtype=bool), squares, gram)
            products = None if real is None else jnp.sum(changes * real, 1)
        else:
            squares = jax.lax.map(lambda i: jnp.sum(jnp.square(weighed(change_of(i)))), indices)
            gram = products = None
        square = None if real is None or products is None else jnp.sum(jnp.square(real))
        content = ExactChanges(squares, gram, products, square, outputs.shape[0])
        return content, weights.total, {}


def group_changes(
    apply: Callable[[Sequence[Any]], Array],
    leaves: Sequence[Array],
    updates: Sequence[Array],
    groups: Sequence[LeafGroup],
) -> tuple[Array, Callable[[Array], Array]]:
    """Return the outputs, and a function that maps a group's index to its change of the outputs.

    Args:
        apply: Returns the outputs for leaves of the parameters.
        leaves: The leaves.
        updates: The unit updates of the leaves.
        groups: The groups.
    """
    used = sorted({index for group in groups for index in group.leaves})

    def outputs_at(some: list[Array]) -> Array:
        changed = list(leaves)
        for index, leaf in zip(used, some, strict=True):
            changed[index] = leaf
        return apply(changed)

    outputs, tangent_map = linearized(outputs_at, [leaves[index] for index in used])
    # The number of the group that each layer of a leaf belongs to; -1: none.
    owners: dict[int, Array] = {}
    for index in used:
        of_leaf = [(n, group) for n, group in enumerate(groups) if index in group.leaves]
        if of_leaf[0][1].layer is None:
            owners[index] = jnp.int32(of_leaf[0][0])
            continue
        axis, shape = of_leaf[0][1].axis, leaves[index].shape
        numbers = [-1] * shape[axis]
        for number, group in of_leaf:
            assert group.layer is not None  # noqa: S101 - a leaf is stacked for all or none
            numbers[group.layer] = number
        owners[index] = jnp.array(numbers).reshape([-1 if d == axis else 1 for d in range(len(shape))])

    def change_of(group: Array) -> Array:
        tangents = [
            jnp.where(owners[index] == group, updates[index], 0).astype(leaves[index].dtype)
            for index in used
        ]
        return tangent_map(tangents)

    return outputs, change_of


def _difference(after: Array, before: Array) -> Array:
    """Return the real change of the outputs; 0 where both are the same infinity (a mask)."""
    masked = jnp.isinf(after) & (after == before)
    return jnp.where(masked, 0.0, after.astype(jnp.float32) - before.astype(jnp.float32))
