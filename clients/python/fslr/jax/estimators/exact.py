"""The ``exact`` estimator: unit rates without sampling, one Jacobian-vector product per group."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from fslr.jax.estimators.base import Estimator
from fslr.jax.estimators.derivatives import linearized
from fslr.jax.estimators.measurement import ExactChanges
from fslr.jax.estimators.step import Step

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
        step: Step,
        key: Array,  # noqa: ARG002 - nothing is random
        after: Array | None,
        probes: int,  # noqa: ARG002
    ) -> tuple[ExactChanges, Array, dict[str, str]]:
        outputs, change_of = group_changes(step)
        weights = self._weights(step.batch, outputs)
        count = len(self._groups)

        def weighed(change: Array) -> Array:
            return weights.weigh(weights.clear(change.astype(jnp.float32))).ravel()

        real = None if after is None else weighed(difference(after, outputs))
        indices = jnp.arange(count)
        gram: Array | None = None
        products: Array | None = None
        if count * outputs.size <= _MAX_GRAM_ELEMENTS:
            changes = jax.lax.map(lambda index: weighed(change_of(index)), indices)
            gram = jnp.matmul(changes, changes.T, precision=jax.lax.Precision.HIGHEST)
            squares = jnp.sum(jnp.square(changes), 1)
            gram = jnp.where(jnp.eye(count, dtype=bool), squares, gram)
            products = None if real is None else jnp.sum(changes * real, 1)
        else:
            squares = jax.lax.map(lambda i: jnp.sum(jnp.square(weighed(change_of(i)))), indices)
        square = None if real is None or products is None else jnp.sum(jnp.square(real))
        content = ExactChanges(squares, gram, products, square, outputs.shape[0])
        return content, weights.total, {}


def group_changes(step: Step) -> tuple[Array, Callable[[Array], Array]]:
    """Return the outputs, and a function that maps a group's index to its change of the outputs.

    Args:
        step: The step.
    """
    used = sorted({index for group in step.groups for index in group.leaves})

    def outputs_at(some: list[Array]) -> Array:
        leaves = list(step.leaves)
        for index, leaf in zip(used, some, strict=True):
            leaves[index] = leaf
        return step.apply(leaves, step.batch)

    outputs, tangent_map = linearized(outputs_at, [step.leaves[index] for index in used])
    owners = {index: _owners(step, index) for index in used}

    def change_of(group: Array) -> Array:
        tangents = [
            jnp.where(owners[index] == group, step.updates[index], 0).astype(
                step.leaves[index].dtype
            )
            for index in used
        ]
        return jnp.asarray(tangent_map(tangents))

    return outputs, change_of


def _owners(step: Step, index: int) -> Array:
    """Return the group of each layer of a leaf, in a shape that broadcasts to that of the leaf."""
    shape = step.leaves[index].shape
    numbers: list[int] = []
    axis = 0
    for number, group in enumerate(step.groups):
        if index not in group.leaves:
            continue
        if group.layer is None:
            owner: Array = jnp.int32(number)
            return owner
        axis = group.axis
        numbers = numbers or [-1] * shape[axis]
        numbers[group.layer] = number
    owners: Array = jnp.array(numbers)
    return owners.reshape([-1 if d == axis else 1 for d in range(len(shape))])


def difference(after: Array, before: Array) -> Array:
    """Return the real change of the outputs; 0 where both are the same infinity (a mask).

    Args:
        after: The outputs after the step.
        before: The outputs before it.
    """
    masked = jnp.isinf(after) & (after == before)
    return jnp.where(masked, 0.0, after.astype(jnp.float32) - before.astype(jnp.float32))
