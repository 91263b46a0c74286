"""How each primitive moves the examples of its operands to its results.

A rule takes an equation and the labels of its operands, of which at least one is not None, and
returns the labels of its results. It must be sound: if it returns :class:`Rows`, each element of
the result depends on the operands' elements of the same example only. A primitive without a rule
mixes the examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jax.extend.core import JaxprEqn

from fslr.jax.estimators.per_example.row_labels import MIXED, Chunks, Label, Rows, join, reshaped

Rule = Callable[[JaxprEqn, Sequence[Label], int], list[Label]]

_LINEAR_ELEMENTWISE = {
    *("mul", "neg", "sub", "add", "add_any", "convert_element_type", "select_n", "copy", "copy_p"),
    *("name", "sharding_constraint", "reduce_precision", "real", "imag", "pvary"),
    *("reshard", "mesh_cast", "pcast", "layout_constraint"),
}
ELEMENTWISE = _LINEAR_ELEMENTWISE | {
    *("abs", "acos", "acosh", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil"),
    *("clamp", "complex", "conj", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc"),
    *("exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma"),
    *("log", "log1p", "logistic", "lt", "max", "min", "ne", "nextafter", "not", "or", "pow", "rem"),
    *("round", "rsqrt", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "tan", "tanh"),
    "xor",
}


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)


def _elementwise(eqn: JaxprEqn, labels: Sequence[Label], examples: int) -> list[Label]:  # noqa: ARG001
    keeps = eqn.primitive.name in _LINEAR_ELEMENTWISE
    shape = _shape(eqn.outvars[0])
    found: list[Label] = []
    for variable, label in zip(eqn.invars, labels, strict=True):
        if isinstance(label, Rows):
            fits = _shape(variable) == shape
            found.append(label.moved(label.axis, direct=keeps) if fits else MIXED)
        else:
            found.append(label)
    return [join(found)]


def _div(eqn: JaxprEqn, labels: Sequence[Label], examples: int) -> list[Label]:
    numerator, denominator = labels
    if denominator is None and isinstance(numerator, Rows):
        return [numerator if _shape(eqn.invars[0]) == _shape(eqn.outvars[0]) else MIXED]
    return _elementwise(eqn, labels, examples)


def _one_by_one(eqn: JaxprEqn, labels: Sequence[Label], examples: int) -> list[Label]:  # noqa: ARG001
    return list(labels)


def _unary(move: Callable[[JaxprEqn, Rows, int], Label]) -> Rule:
    """Return a rule for a primitive whose first operand has the examples."""

    def rule(eqn: JaxprEqn, labels: Sequence[Label], examples: int) -> list[Label]:
        first, *others = labels
        if any(label is not None for label in others) or not isinstance(first, Rows):
            return [MIXED] * len(eqn.outvars)
        return [move(eqn, first, examples)] * len(eqn.outvars)

    return rule


def _broadcast(eqn: JaxprEqn, rows: Rows, examples: int) -> Label:  # noqa: ARG001
    axis = eqn.params["broadcast_dimensions"][rows.axis]
    before, after = _shape(eqn.invars[0]), _shape(eqn.outvars[0])
    if after[axis] != before[rows.axis]:
        return MIXED
    return rows.moved(axis, direct=_size(before) == _size(after))


def _size(shape: Sequence[int]) -> int:
    size = 1
    for each in shape:
        size *= each
    return size


def _reshape(eqn: JaxprEqn, labels: Sequence[Label], examples: int) -> list[Label]:
    label, *others = labels
    if not isinstance(label, Rows | Chunks) or others or eqn.params.get("dimensions") is not None:
        return [MIXED]
    return [reshaped(label, _shape(eqn.invars[0]), _shape(eqn.outvars[0]), examples)]


def _transpose(eqn: JaxprEqn, rows: Rows, examples: int) -> Label:  # noqa: ARG001
    return rows.moved(list(eqn.params["permutation"]).index(rows.axis), direct=True)


def _without(rows: Rows, axes: Sequence[int], *, direct: bool) -> Label:
    if rows.axis in axes:
        return MIXED
    return rows.moved(rows.axis - sum(axis < rows.axis for axis in axes), direct=direct)


def _squeeze(eqn: JaxprEqn, rows: Rows, examples: int) -> Label:  # noqa: ARG001
    return _without(rows, eqn.params["dimensions"], direct=True)


def _reduce(eqn: JaxprEqn, rows: Rows, examples: int) -> Label:  # noqa: ARG001
    axes, shape = eqn.params["axes"], _shape(eqn.invars[0])
    return _without(rows, axes, direct=all(shape[axis] == 1 for axis in axes))


def _along(parameter: str, *, direct: bool = False) -> Rule:
    """Return a rule for a primitive that mixes the elements along one axis only."""

    def rule(eqn: JaxprEqn, labels: Sequence[Label], examples: int) -> list[Label]:  # noqa: ARG001
        axis = eqn.params[parameter]
        found: list[Label] = [
            (MIXED if label.axis == axis else label.moved(label.axis, direct=direct))
            if isinstance(label, Rows)
            else label
            for label in labels
        ]
        return [join(found)] * len(eqn.outvars)

    return rule


def _stack(eqn: JaxprEqn, labels: Sequence[Label], examples: int) -> list[Label]:  # noqa: ARG001
    axis = eqn.params["axis"]
    found: list[Label] = [
        label.moved(label.axis + (label.axis >= axis), direct=True)
        if isinstance(label, Rows)
        else label
        for label in labels
    ]
    return [join(found)]


def _unstack(eqn: JaxprEqn, rows: Rows, examples: int) -> Label:  # noqa: ARG001
    return _without(rows, [eqn.params["axis"]], direct=True)


def _rev(eqn: JaxprEqn, rows: Rows, examples: int) -> Label:  # noqa: ARG001
    return MIXED if rows.axis in eqn.params["dimensions"] else rows.moved(rows.axis, direct=True)


def _whole_axis(eqn: JaxprEqn, rows: Rows, examples: int) -> Label:  # noqa: ARG001
    """Follow an axis that is taken as a whole, as in a slice of other axes."""
    is_whole = _shape(eqn.invars[0])[rows.axis] == _shape(eqn.outvars[0])[rows.axis]
    return rows.moved(rows.axis, direct=True) if is_whole else MIXED


def _pad(eqn: JaxprEqn, rows: Rows, examples: int) -> Label:  # noqa: ARG001
    is_whole = tuple(eqn.params["padding_config"][rows.axis]) == (0, 0, 0)
    return rows.moved(rows.axis, direct=True) if is_whole else MIXED


def _dynamic_update_slice(
    eqn: JaxprEqn,
    labels: Sequence[Label],
    examples: int,  # noqa: ARG001
) -> list[Label]:
    if any(label is not None for label in labels[2:]):
        return [MIXED]
    whole, part = _shape(eqn.invars[0]), _shape(eqn.invars[1])
    found: list[Label] = [
        (label.moved(label.axis) if whole[label.axis] == part[label.axis] else MIXED)
        if isinstance(label, Rows)
        else label
        for label in labels[:2]
    ]
    return [join(found)]


def _dot_general(eqn: JaxprEqn, labels: Sequence[Label], examples: int) -> list[Label]:  # noqa: ARG001
    contracted, batched = eqn.params["dimension_numbers"]
    ranks = [len(_shape(variable)) for variable in eqn.invars]
    free = [
        [d for d in range(ranks[side]) if d not in contracted[side] and d not in batched[side]]
        for side in (0, 1)
    ]
    starts = len(batched[0]), len(batched[0]) + len(free[0])
    found: list[Label] = []
    for side in (0, 1):
        label = labels[side]
        if not isinstance(label, Rows):
            found.append(label)
        elif label.axis in contracted[side]:
            found.append(MIXED)
        elif label.axis in batched[side]:
            found.append(label.moved(list(batched[side]).index(label.axis)))
        else:
            found.append(label.moved(starts[side] + free[side].index(label.axis)))
    return [join(found)]


def _convolution(eqn: JaxprEqn, labels: Sequence[Label], examples: int) -> list[Label]:  # noqa: ARG001
    label, numbers = labels[0], eqn.params["dimension_numbers"]
    is_batch = (
        isinstance(label, Rows)
        and labels[1] is None
        and label.axis == numbers.lhs_spec[0]
        and eqn.params["batch_group_count"] == 1
    )
    if not is_batch:
        return [MIXED]
    assert isinstance(label, Rows)  # noqa: S101 - checked above
    return [label.moved(numbers.out_spec[0])]


def _windows(eqn: JaxprEqn, labels: Sequence[Label], examples: int) -> list[Label]:  # noqa: ARG001
    params = eqn.params

    def is_single(axis: int) -> bool:
        return (
            params["window_dimensions"][axis] == 1
            and params["window_strides"][axis] == 1
            and tuple(params["padding"][axis]) == (0, 0)
            and params.get("base_dilation", {axis: 1})[axis] == 1
            and params.get("window_dilation", {axis: 1})[axis] == 1
        )

    found: list[Label] = [
        (label.moved(label.axis) if is_single(label.axis) else MIXED)
        if isinstance(label, Rows)
        else label
        for label in labels
    ]
    return [join(found)] * len(eqn.outvars)


def _leading(kept: int) -> Rule:
    """Return a rule for a primitive that works on the last dimensions of all operands."""

    def rule(eqn: JaxprEqn, labels: Sequence[Label], examples: int) -> list[Label]:  # noqa: ARG001
        found: list[Label] = [
            (label.moved(label.axis) if label.axis < len(_shape(variable)) - kept else MIXED)
            if isinstance(label, Rows)
            else label
            for variable, label in zip(eqn.invars, labels, strict=True)
        ]
        return [join(found)] * len(eqn.outvars)

    return rule


KEEPS_CHUNKS = ELEMENTWISE | {"reshape"}
"""The primitives whose rule is sound for :class:`Chunks`."""

RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("optimization_barrier", "device_put"), _one_by_one),
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"),
        _unary(_reduce),
    ),
    **dict.fromkeys(("argmax", "argmin"), _unary(_reduce)),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _along("axis")),
    **dict.fromkeys(
        (
            *("reduce_window_sum", "reduce_window_max", "reduce_window_min"),
            *("select_and_scatter_add", "select_and_gather_add"),
        ),
        _windows,
    ),
    "div": _div,
    "broadcast_in_dim": _unary(_broadcast),
    "concatenate": _along("dimension", direct=True),
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "dynamic_slice": _unary(_whole_axis),
    "dynamic_update_slice": _dynamic_update_slice,
    "pad": _unary(_pad),
    "reshape": _reshape,
    "rev": _unary(_rev),
    "slice": _unary(_whole_axis),
    "sort": _along("dimension"),
    "split": _along("axis", direct=True),
    "squeeze": _unary(_squeeze),
    "stack": _stack,
    "transpose": _unary(_transpose),
    "triangular_solve": _leading(2),
    "unstack": _unary(_unstack),
}
"""The rules by the names of the primitives."""
