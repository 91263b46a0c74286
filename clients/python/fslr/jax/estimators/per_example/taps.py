"""What is done where parameters act on the examples: find the examples, or move the result."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fslr.jax.estimators.per_example.parts import Loop, Part, Stack, State, UseKey
from fslr.jax.estimators.per_example.row_labels import (
    MIXED,
    Chunks,
    Label,
    Mixed,
    Rows,
    expanded,
)


@dataclass(frozen=True, slots=True)
class InLoop:
    """The result of a use belongs to the example of the iteration of a loop around it.

    Attributes:
        loop: The loop; the example of its iteration ``i`` is ``(i // inner) % B``.
        inner: Number of neighboring iterations that belong to the same example.
    """

    loop: Loop
    inner: int


@dataclass(frozen=True, slots=True)
class InChunk:
    """The result of a use has the examples of a chunk, that of the iteration of a loop around it.

    Attributes:
        loop: The loop, along chunks of neighboring examples.
        rows: Where the chunk's examples are in the result.
    """

    loop: Loop
    rows: Rows


UseLabel = Rows | Mixed | InLoop | InChunk
"""Where the examples are in the result of a use."""

Labels = Mapping[UseKey, UseLabel]
"""Where the examples are in the result of each use; a use that is not here has no effect."""


class UseFinder:
    """Adds an offset to each result, so that its cotangent can be followed.

    The state has one offset per use. In the first pass it has none, and the uses are only noted.
    Loops may go along the examples, or along chunks of them. So a use inside of a loop has an
    offset for each iteration if the number of iterations is a multiple of that of the examples, or
    divides it.

    Args:
        examples: Number of examples B.

    Attributes:
        shapes: Shape and type of the result of each use.
        parts: The parts of the parameters that act there.
    """

    def __init__(self, examples: int) -> None:
        self.shapes: dict[UseKey, jax.ShapeDtypeStruct] = {}
        self.parts: dict[UseKey, tuple[Part, ...]] = {}
        self._examples = examples
        self._loops: dict[UseKey, Loop] = {}

    def __call__(
        self, state: State, use: UseKey, result: Array, changes: Mapping[Part, Array]
    ) -> Array:
        """Add the offset of a use, if there is one."""
        self.shapes[use] = jax.ShapeDtypeStruct(result.shape, result.dtype)  # type: ignore[no-untyped-call]
        self.parts[use] = tuple(changes)
        offset = state.get(use)
        return result if offset is None else result + offset

    def slices(self, state: State, loop: Loop, stacks: Sequence[Stack]) -> State:  # noqa: ARG002
        """Return the offsets inside of a loop that may go along the examples or chunks of them."""
        if loop.length == 0 or (loop.length % self._examples and self._examples % loop.length):
            return {}
        self._loops[loop.place] = loop
        return {
            use: offset for use, offset in state.items() if isinstance(use, tuple) and loop.has(use)
        }

    def offset(self, use: UseKey) -> jax.ShapeDtypeStruct:
        """Return the shape and type of a use's offset, with the loops' iterations in front."""
        result = self.shapes[use]
        lengths = [loop.length for loop in self._loops_around(use)]
        return jax.ShapeDtypeStruct((*lengths, *result.shape), result.dtype)  # type: ignore[no-untyped-call]

    def label(self, use: UseKey, of_offset: Label) -> UseLabel | None:
        """Return where the examples are in the result of a use; None: it has no effect.

        Args:
            use: The use.
            of_offset: Where they are in the cotangent of its offset.
        """
        loops = self._loops_around(use)
        if isinstance(of_offset, Chunks):
            rows = of_offset.rows
            if of_offset.axis < len(loops) <= rows.axis:
                return InChunk(loops[of_offset.axis], rows.moved(rows.axis - len(loops)))
            return MIXED
        if not isinstance(of_offset, Rows):
            return None if of_offset is None else MIXED
        if of_offset.axis < len(loops):
            return InLoop(loops[of_offset.axis], of_offset.inner)
        return of_offset.moved(of_offset.axis - len(loops), direct=not loops)

    def _loops_around(self, use: UseKey) -> list[Loop]:
        """Return the loops around a use that may go along the examples, the outermost first."""
        around = [loop for loop in self._loops.values() if loop.has(use)]
        return sorted(around, key=lambda loop: len(loop.place))


class Mover:
    """Moves each result along its changes, by one step size for each group and example.

    At step sizes of 0 nothing moves. The derivative of ``z . f`` by the step size of a group and an
    example is the projection ``u_b`` of that group's change. If a group acts in several places, its
    parts there are added by the chain rule.

    The state has the step sizes of each part, shape [B], and of each stack, shape [layers, B].
    Inside of a loop along the examples it also has those of the iteration's example, and inside of
    one along chunks those of the chunk's examples.

    Args:
        labels: Where the examples are in the result of each use.
        direct: For uses directly at the outputs, the groups whose changes are only kept.
        parts: The parts of the parameters that act at each use.
    """

    def __init__(
        self,
        labels: Labels,
        direct: Mapping[UseKey, frozenset[int]],
        parts: Mapping[UseKey, Sequence[Part]],
    ) -> None:
        self._labels = labels
        self._direct = direct
        self._iterated = {
            (label, steps_key(part)): None
            for use, label in labels.items()
            if isinstance(label, InLoop | InChunk)
            for part in parts[use]
        }
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
                self.kept[use, part] = jnp.broadcast_to(change, result.shape)
                continue
            key = steps_key(part)
            held = jax.lax.stop_gradient(change)
            if isinstance(label, InLoop):
                result = moved_along(MIXED, result, held, state[label, key][None])
            elif isinstance(label, InChunk):
                result = moved_along(label.rows, result, held, state[label, key])
            else:
                result = moved_along(label, result, held, state[key])
        offset = state.get(("offset", use))
        return result if offset is None else result + offset

    def slices(self, state: State, loop: Loop, stacks: Sequence[Stack]) -> State:
        """Return the step sizes of each layer of some stacks, and of each iteration's example."""
        keys = dict.fromkeys(steps_key(stack) for stack in stacks)
        found = {key: state[key] for key in keys}
        for label, key in self._iterated:
            if label.loop == loop:
                steps = _of_iterations(state[key], label)
                # A loop along layers too takes the steps of its iteration's layer.
                found[label, key] = _diagonal(steps) if key in keys else steps
            elif key in keys and label.loop.has(loop.place):
                found[label, key] = state[label, key]
        return found


def _diagonal(steps: Array) -> Array:
    return jnp.moveaxis(jnp.diagonal(steps), -1, 0)


def _of_iterations(steps: Array, label: InLoop | InChunk) -> Array:
    """Return the step sizes of the examples of each iteration of a loop.

    Args:
        steps: The step sizes, [..., B].
        label: The loop.

    Returns:
        The step sizes, [iterations, ...] or [iterations, ..., examples of a chunk].
    """
    if isinstance(label, InChunk):
        chunks = label.loop.length
        by_chunk = steps.reshape(*steps.shape[:-1], chunks, steps.shape[-1] // chunks)
        return jnp.moveaxis(by_chunk, -2, 0)
    by_example = jnp.moveaxis(steps, -1, 0)
    examples, *rest = by_example.shape
    outer = label.loop.length // (examples * label.inner)
    repeated = jnp.broadcast_to(by_example[None, :, None], (outer, examples, label.inner, *rest))
    return repeated.reshape(label.loop.length, *rest)


def steps_key(part: Part) -> object:
    """Return the key of a part's step sizes in the state of a :class:`Mover`."""
    return part if isinstance(part, int) else part.groups


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def moved_along(label: Rows | Mixed, result: Array, change: Array, steps: Array) -> Array:  # noqa: ARG001
    """Return a result unchanged; its derivative by the step sizes is the change.

    Args:
        label: Where the examples are in the result.
        result: The result.
        change: Its change for a step size of 1, without leading dimensions along which it is the
            same.
        steps: The step sizes, float32 [B]; the first counts for all if the label is mixed.
    """
    return result


@moved_along.defjvp
def _moved_jvp(label: Rows | Mixed, primals: Any, tangents: Any) -> tuple[Array, Array]:
    result, change, steps = primals
    moved, _, step = tangents
    change = change.astype(steps.dtype)  # float32, so that the transpose sums in float32
    leading = result.shape[: result.ndim - change.ndim]
    if isinstance(label, Rows) and label.axis < len(leading):
        by_row = jnp.broadcast_to(expanded(step, label, leading), leading)
        # The transpose is a product of matrices, which is faster than a sum over products.
        along = jnp.tensordot(by_row, change, 0, precision=jax.lax.Precision.HIGHEST)
    else:
        along = jnp.broadcast_to(expanded(step, label, result.shape) * change, result.shape)
    return result, moved + along.astype(result.dtype)
