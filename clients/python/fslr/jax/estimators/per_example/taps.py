"""What is done where parameters act on the examples: find the examples, or move the result."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fslr.jax.estimators.per_example.follow import Part, Stack, State, UseKey
from fslr.jax.estimators.per_example.row_labels import Label, Mixed, Rows, expanded

Labels = Mapping[UseKey, Rows | Mixed]
"""Where the examples are in the result of each use; a use that is not here has no effect."""


class UseFinder:
    """Adds an offset to each result, so that its cotangent can be followed.

    The state has one offset per use. In the first pass it has none, and the uses are only noted.

    Attributes:
        shapes: Shape and type of the result of each use.
        parts: The parts of the parameters that act there.
    """

    def __init__(self) -> None:
        self.shapes: dict[UseKey, jax.ShapeDtypeStruct] = {}
        self.parts: dict[UseKey, tuple[Part, ...]] = {}

    def __call__(
        self, state: State, use: UseKey, result: Array, changes: Mapping[Part, Array]
    ) -> Array:
        """Add the offset of a use, if there is one."""
        self.shapes[use] = jax.ShapeDtypeStruct(result.shape, result.dtype)  # type: ignore[no-untyped-call]
        self.parts[use] = tuple(changes)
        offset = state.get(use)
        return result if offset is None else result + offset

    def slices(self, state: State, stacks: Sequence[Stack]) -> State:  # noqa: ARG002
        """Return nothing: layers share the offset of a use."""
        return {}


class Mover:
    """Moves each result along its changes, by one step size for each group and example.

    At step sizes of 0 nothing moves. The derivative of ``z . f`` by the step size of a group and an
    example is the projection ``u_b`` of that group's change. If a group acts in several places, its
    parts there are added by the chain rule.

    The state has the step sizes of each part, shape [B], and of each stack, shape [layers, B].

    Args:
        labels: Where the examples are in the result of each use.
        direct: For uses directly at the outputs, the groups whose changes are only kept.
    """

    def __init__(self, labels: Labels, direct: Mapping[UseKey, frozenset[int]]) -> None:
        self._labels = labels
        self._direct = direct
        self.kept: dict[tuple[UseKey, int], Array] = {}

    def __call__(
        self, state: State, use: UseKey, result: Array, changes: Mapping[Part, Array]
    ) -> Array:
        """Move the result of a use."""
        label = self._labels.get(use)
        if label is None:
            return result
        for part, change in changes.items():
            if part in self._direct.get(use, ()):
                assert isinstance(part, int)  # noqa: S101 - stacks are inside of loops
                self.kept[use, part] = change
                continue
            steps = state[steps_key(part)]
            result = moved_along(label, result, jax.lax.stop_gradient(change), steps)
        offset = state.get(("offset", use))
        return result if offset is None else result + offset

    def slices(self, state: State, stacks: Sequence[Stack]) -> State:
        """Return the step sizes of the layers of some stacks."""
        keys = dict.fromkeys(steps_key(stack) for stack in stacks)
        return {key: state[key] for key in keys}


def steps_key(part: Part) -> object:
    """Return the key of a part's step sizes in the state of a :class:`Mover`."""
    return part if isinstance(part, int) else part.groups


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def moved_along(label: Rows | Mixed, result: Array, change: Array, steps: Array) -> Array:  # noqa: ARG001
    """Return a result unchanged; its derivative by the step sizes is the change.

    Args:
        label: Where the examples are in the result.
        result: The result.
        change: Its change for a step size of 1, of the same shape.
        steps: The step sizes, float32 [B]; the first counts for all if the label is mixed.
    """
    return result


@moved_along.defjvp
def _moved_jvp(label: Rows | Mixed, primals: Any, tangents: Any) -> tuple[Array, Array]:
    result, change, steps = primals
    moved, _, step = tangents
    # In float32, so that the transpose sums in float32.
    along = expanded(step, label, result.shape) * change.astype(steps.dtype)
    along = jnp.broadcast_to(along, result.shape)
    return result, moved + along.astype(result.dtype)


def active_labels(labels: Mapping[UseKey, Label]) -> dict[UseKey, Rows | Mixed]:
    """Return the labels of the uses that have an effect on the outputs."""
    return {use: label for use, label in labels.items() if label is not None}
