"""How gathers and scatters move the examples of their operands to their results.

An index usually mixes examples. It does not where it is a position inside of an example, and where
each row is picked from its own example, as ``x[jnp.arange(B), i]`` does. The rows are proven to be
from their own examples by the values of the indices, which are known for ``jnp.arange(B)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn
from numpy.typing import NDArray

from fslr.jax.estimators.per_example.index_values import KnownIntegers
from fslr.jax.estimators.per_example.row_labels import MIXED, Label, Rows, join

Indices = Callable[[], KnownIntegers | None]
"""Returns what is known of an equation's indices; None: nothing is."""

IndexRule = Callable[[JaxprEqn, Sequence[Label], int, Indices], Label]


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)


def _gather(eqn: JaxprEqn, labels: Sequence[Label], examples: int, indices: Indices) -> Label:
    rows, of_indices = labels
    if of_indices is not None or not isinstance(rows, Rows):
        return MIXED
    numbers, shape = eqn.params["dimension_numbers"], _shape(eqn.invars[0])
    if rows.axis in numbers.operand_batching_dims:
        result = range(len(_shape(eqn.outvars[0])))
        batch = [d for d in result if d not in numbers.offset_dims]
        place = list(numbers.operand_batching_dims).index(rows.axis)
        return rows.moved(batch[numbers.start_indices_batching_dims[place]])
    if rows.axis in numbers.collapsed_slice_dims:
        return _picked(eqn, rows, examples, indices)
    if eqn.params["slice_sizes"][rows.axis] != shape[rows.axis]:
        return MIXED
    inner = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [d for d in range(len(shape)) if d not in inner]
    return rows.moved(numbers.offset_dims[kept.index(rows.axis)])


def _picked(eqn: JaxprEqn, rows: Rows, examples: int, indices: Indices) -> Label:
    """Return the label of elements that are picked along the dimension of the examples."""
    numbers, result = eqn.params["dimension_numbers"], _shape(eqn.outvars[0])
    column = _column(numbers.start_index_map, rows.axis, _shape(eqn.invars[0]), indices)
    if column is None:
        return MIXED
    owners = _examples(column, rows.inner, examples)
    batch = [d for d in range(len(result)) if d not in numbers.offset_dims]
    for place, axis in enumerate(batch):
        for inner in _inner_sizes(result[axis], rows.inner, examples):
            line = _examples(np.arange(result[axis]), inner, examples)
            if np.array_equal(owners, _along(line, place, owners.shape)):
                return Rows(axis, inner)
    return MIXED


def _scatter(eqn: JaxprEqn, labels: Sequence[Label], examples: int, indices: Indices) -> Label:
    operand, of_indices, updates = labels
    if of_indices is not None:
        return MIXED
    if isinstance(updates, Rows):
        updates = _scattered(eqn, updates, examples, indices)
    if operand is None:
        return updates
    if isinstance(operand, Rows):
        operand = operand.moved(operand.axis)
    return join([operand, updates])


def _scattered(eqn: JaxprEqn, rows: Rows, examples: int, indices: Indices) -> Label:
    numbers = eqn.params["dimension_numbers"]
    whole, part = _shape(eqn.invars[0]), _shape(eqn.invars[2])
    if rows.axis in numbers.update_window_dims:
        inner = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
        kept = [d for d in range(len(whole)) if d not in inner]
        axis = kept[list(numbers.update_window_dims).index(rows.axis)]
        return rows.moved(axis) if part[rows.axis] == whole[axis] else MIXED
    batch = [d for d in range(len(part)) if d not in numbers.update_window_dims]
    place = batch.index(rows.axis)
    if place in numbers.scatter_indices_batching_dims:
        place = list(numbers.scatter_indices_batching_dims).index(place)
        return rows.moved(numbers.operand_batching_dims[place])
    line = _examples(np.arange(part[rows.axis]), rows.inner, examples)
    for axis in numbers.inserted_window_dims:
        column = _column(numbers.scatter_dims_to_operand_dims, axis, whole, indices)
        if column is None:
            continue
        owners = _along(line, place, column.shape)
        # No two rows go to the same place, so that none are added.
        is_direct = rows.direct and len(np.unique(column)) == column.size
        for each in _inner_sizes(whole[axis], rows.inner, examples):
            if np.array_equal(_examples(column, each, examples), owners):
                return Rows(axis, each, is_direct)
    return MIXED


def _column(
    dimensions: Sequence[int], axis: int, shape: Sequence[int], indices: Indices
) -> NDArray[Any] | None:
    """Return the indices into a dimension of an array; None: they are unknown or out of bounds."""
    if axis not in dimensions:
        return None
    known = indices()
    if known is None:
        return None
    number = list(dimensions).index(axis)
    column: NDArray[Any] = known.values[..., number]
    if not known.is_known[..., number].all() or not ((column >= 0) & (column < shape[axis])).all():
        return None
    return column


def _examples(places: NDArray[Any], inner: int, examples: int) -> NDArray[Any]:
    """Return the example of each place in a dimension, see :class:`Rows`."""
    found: NDArray[Any] = places // inner % examples
    return found


def _inner_sizes(size: int, inner: int, examples: int) -> Iterable[int]:
    """Return which numbers of neighboring places of an example a dimension may have."""
    if size % examples:
        return ()
    return dict.fromkeys(n for n in (1, inner, size // examples) if size % (examples * n) == 0)


def _along(line: NDArray[Any], axis: int, shape: Sequence[int]) -> NDArray[Any]:
    """Return values along one dimension of a shape, repeated along the others."""
    by_axis = line.reshape([-1 if d == axis else 1 for d in range(len(shape))])
    return np.broadcast_to(by_axis, shape)


INDEX_RULES: dict[str, IndexRule] = {
    "gather": _gather,
    "scatter": _scatter,
    "scatter-add": _scatter,
}
"""The rules by the names of the primitives; the last argument returns the known indices."""
