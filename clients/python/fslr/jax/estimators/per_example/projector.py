"""Projects the changes of the outputs by all groups onto probes, by one backward pass each."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from fslr.jax.estimators.per_example.follow import Follower
from fslr.jax.estimators.per_example.parts import Stack, State, UseKey
from fslr.jax.estimators.per_example.plan import Plan, follow, parts_of_leaves
from fslr.jax.estimators.per_example.row_labels import MIXED, Rows, sums_by_example
from fslr.jax.estimators.per_example.taps import Mover, moved_along, steps_key
from fslr.jax.estimators.step import Step

Kept = dict[tuple[UseKey, int], Array]


class Projector:
    """Evaluates a function once and projects its changes onto any number of probes.

    Args:
        plan: How the function is measured.
        step: The step.

    Attributes:
        outputs: The outputs, with the examples on axis 0.
        direct_groups: The groups with a part directly at the outputs, in the order of the parts.
    """

    def __init__(self, plan: Plan, step: Step) -> None:
        self._plan = plan
        self._step = step
        (outputs,) = step.function.out_avals
        # One array for each group: slices of a single one would be added up by the backward pass.
        steps = [jnp.zeros(outputs.shape[0], jnp.float32) for _ in step.groups]
        offsets = {use: jnp.zeros_like(plan.shapes[use]) for use in plan.direct}
        self._offset_keys = list(offsets)
        self.outputs, self._pullback, kept = jax.vjp(
            self._moved, steps, list(offsets.values()), has_aux=True
        )
        self._kept: Kept = dict(zip(self._kept_keys, kept, strict=True))
        self.direct_groups = tuple(group for _, group in self._kept)

    def project(self, probe: Array) -> tuple[Array, Array, Array]:
        """Return the projections on a probe.

        Args:
            probe: Signs, multiplied by the roots of the weights of the output elements; in the
                type of the outputs.

        Returns:
            The projections of all groups, float32 [B, groups]; those of the parts directly at the
            outputs, [B, parts]; and the squares of these parts, which are the same for each probe,
            [parts].
        """
        rows, by_offsets = self._pullback(probe)
        examples = probe.shape[0]
        cotangents = dict(zip(self._offset_keys, by_offsets, strict=True))
        direct: list[Array] = []
        squares: list[Array] = []
        for (use, group), change in self._kept.items():
            products = cotangents[use].astype(jnp.float32) * change.astype(jnp.float32)
            label = self._plan.uses[use]
            assert isinstance(label, Rows)  # noqa: S101 - parts directly at the outputs have rows
            direct.append(sums_by_example(products, label, examples))
            squares.append(jnp.sum(jnp.square(products)))
            rows[group] += direct[-1]
        if not direct:
            return jnp.stack(rows, 1), jnp.zeros((examples, 0)), jnp.zeros(0)
        return jnp.stack(rows, 1), jnp.stack(direct, 1), jnp.stack(squares)

    def _moved(self, steps: list[Array], offsets: list[Array]) -> tuple[Array, list[Array]]:
        """Return the outputs for step sizes and offsets, which are all 0."""
        plan, step = self._plan, self._step
        mover = Mover(plan.uses, plan.direct, plan.parts)
        without = (*plan.exact, *plan.at_leaves)
        state: State = dict(enumerate(steps))
        for part in parts_of_leaves(step, without).values():
            if isinstance(part, Stack):
                state[steps_key(part)] = _of_layers(steps, part)
        for use, offset in zip(self._offset_keys, offsets, strict=True):
            state["offset", use] = offset
        moved = replace(step, leaves=self._moved_leaves(steps))
        outputs = follow(Follower(mover), moved, state, without)
        self._kept_keys = list(mover.kept)
        return outputs, list(mover.kept.values())

    def _moved_leaves(self, steps: list[Array]) -> list[Array]:
        """Move the leaves of groups that could not be followed."""
        step = self._step
        leaves = list(step.leaves)
        ignored = [n for n in range(len(step.groups)) if n not in self._plan.at_leaves]
        for index, part in parts_of_leaves(step, ignored).items():
            update = step.updates[index].astype(leaves[index].dtype)
            if isinstance(part, Stack):
                by_layer = _of_layers(steps, part)[:, 0]
                leaves[index] = moved_along(Rows(part.axis), leaves[index], update, by_layer)
            elif isinstance(part, int):
                leaves[index] = moved_along(MIXED, leaves[index], update, steps[part])
        return leaves


def _of_layers(steps: list[Array], stack: Stack) -> Array:
    """Return the step sizes of the groups of a stack's layers, [layers, B]; 0 without a group."""
    zeros = jnp.zeros_like(steps[0])
    return jnp.stack([steps[group] if group >= 0 else zeros for group in stack.groups])
