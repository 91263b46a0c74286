"""Where the examples are in an array that is linear in a probe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True, slots=True)
class Rows:
    """Each element depends on the probe's entries of one example only.

    The dimension ``axis`` has the size ``outer * B * inner``. The example of an element with the
    index ``i`` there is ``(i // inner) % B``. So ``inner == 1`` and ``outer == 1`` if the dimension
    counts the examples, ``inner == T`` in ``[B * T, D]``, and ``outer == T`` in ``[T * B, D]``.

    Attributes:
        axis: The dimension.
        inner: Number of neighboring indices that belong to the same example.
        direct: Whether each element is a multiple of one entry of the probe, and no two elements
            are multiples of the same one.
    """

    axis: int
    inner: int = 1
    direct: bool = False

    def moved(self, axis: int, *, direct: bool = False) -> Rows:
        """Return the rows with the dimension at a different place."""
        return Rows(axis, self.inner, self.direct and direct)


@dataclass(frozen=True, slots=True)
class Mixed:
    """Elements may depend on the probe's entries of several examples."""


@dataclass(frozen=True, slots=True)
class Iterations:
    """Inside of a loop over the examples: the whole array depends on one example's entries only.

    The example of iteration ``i`` is ``(i // inner) % B``.

    Attributes:
        inner: Number of neighboring iterations that belong to the same example.
    """

    inner: int = 1


@dataclass(frozen=True, slots=True)
class Chunks:
    """The examples are divided into chunks of neighbors, as by ``jax.lax.map`` with a batch size.

    Attributes:
        axis: The dimension that counts the chunks; its size n divides B.
        rows: Where the B / n examples of a chunk are; the dimension is counted in the whole array.
    """

    axis: int
    rows: Rows

    def moved(self, by: int) -> Chunks:
        """Return the chunks with all dimensions moved."""
        return Chunks(self.axis + by, self.rows.moved(self.rows.axis + by))


MIXED = Mixed()
Label = Rows | Mixed | Iterations | Chunks | None
"""Where the examples are; None: nothing depends on the probe."""


def join(labels: Iterable[Label]) -> Label:
    """Return the label of an array whose elements depend on those of several arrays."""
    found: Label = None
    for label in labels:
        if label is None:
            continue
        if found is None:
            found = label
        elif isinstance(found, Rows) and isinstance(label, Rows):
            same = (found.axis, found.inner) == (label.axis, label.inner)
            found = replace(found, direct=False) if same else MIXED
        elif found != label:
            found = MIXED
    return found


def reshaped(
    label: Rows | Chunks, before: Sequence[int], after: Sequence[int], examples: int
) -> Label:
    """Return the label of an array after a reshape in row-major order.

    Args:
        label: The label before.
        before: The shape before.
        after: The shape after.
        examples: Number of examples B.
    """
    # The example of an element at the flat position f is (f // stride) % B.
    rows = label if isinstance(label, Rows) else label.rows
    stride = rows.inner * math.prod(before[rows.axis + 1 :])
    if isinstance(label, Chunks):
        size = examples // before[label.axis]
        if math.prod(before[label.axis + 1 :]) != stride * size:
            return MIXED  # the chunks are not next to their rows
    found = _rows_in(after, stride, examples)
    if found is not None:
        return replace(found, direct=rows.direct)
    for axis, count in enumerate(after):
        if count < 2 or examples % count:
            continue
        inside, size = after[axis + 1 :], examples // count
        found = _rows_in(inside, stride, size)
        if found is not None and math.prod(inside) == stride * size:
            return Chunks(axis, found.moved(found.axis + axis + 1))
    return MIXED


def _rows_in(shape: Sequence[int], stride: int, examples: int) -> Rows | None:
    """Return the dimension that counts examples which change every ``stride`` elements, or None."""
    below = 1
    for axis in range(len(shape) - 1, -1, -1):
        size = shape[axis]
        if size > 1 and stride % below == 0 and (below * size) % (stride * examples) == 0:
            return Rows(axis, stride // below)
        below *= size
    return None


def expanded(steps: Array, label: Rows | Mixed, shape: Sequence[int]) -> Array:
    """Return values per example in a shape that broadcasts to that of an array.

    Args:
        steps: One value per example, [B]. If rows belong to no single example, the first is used.
        label: Where the examples are in the array.
        shape: The array's shape.
    """
    if isinstance(label, Mixed):
        return steps[0]
    examples, size = len(steps), shape[label.axis]
    outer = size // (examples * label.inner)
    by_index = jnp.broadcast_to(steps[None, :, None], (outer, examples, label.inner))
    return by_index.reshape([size if d == label.axis else 1 for d in range(len(shape))])


def sums_by_example(values: Array, label: Rows, examples: int) -> Array:
    """Return the sums of an array's elements by example, [B].

    Args:
        values: The array.
        label: Where the examples are in it.
        examples: Number of examples B.
    """
    rest = tuple(d for d in range(values.ndim) if d != label.axis)
    by_index = jnp.sum(values, rest)
    return jnp.sum(by_index.reshape(-1, examples, label.inner), (0, 2))
