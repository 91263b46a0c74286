"""Follows the examples of a probe through a traced function, equation by equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from jax.extend.core import Jaxpr, JaxprEqn, Literal

from fslr.jax.estimators.per_example.index_rules import INDEX_RULES
from fslr.jax.estimators.per_example.index_values import IndexValues
from fslr.jax.estimators.per_example.row_labels import (
    MIXED,
    Chunks,
    Iterations,
    Label,
    Rows,
    join,
)
from fslr.jax.estimators.per_example.row_rules import KEEPS_CHUNKS, RULES


def labels_of_results(
    jaxpr: Jaxpr, labels: Sequence[Label], examples: int, indices: IndexValues
) -> list[Label]:
    """Return where the examples are in the results of a jaxpr.

    Args:
        jaxpr: The jaxpr; its constants do not depend on the probe.
        labels: The labels of its arguments.
        examples: Number of examples B.
        indices: The known values of its variables.
    """
    known: dict[Any, Label] = dict(zip(jaxpr.invars, labels, strict=True))

    def label_of(variable: Any) -> Label:
        return None if isinstance(variable, Literal) else known.get(variable)

    for eqn in jaxpr.eqns:
        operands = [label_of(variable) for variable in eqn.invars]
        results: list[Label] = [None] * len(eqn.outvars)
        if any(label is not None for label in operands):
            results = _results(eqn, operands, examples, indices)
        known.update(zip(eqn.outvars, results, strict=True))
    return [label_of(variable) for variable in jaxpr.outvars]


def _results(
    eqn: JaxprEqn, labels: list[Label], examples: int, indices: IndexValues
) -> list[Label]:
    name = eqn.primitive.name
    if any(isinstance(label, Iterations) for label in labels):
        # Whatever is computed from values of one example belongs to that example.
        return [join(labels)] * len(eqn.outvars)
    if name in _CALLS:
        return _CALLS[name](eqn, labels, examples, indices)
    if name in INDEX_RULES and not any(isinstance(label, Chunks) for label in labels):
        return [INDEX_RULES[name](eqn, labels, examples, lambda: indices.of(eqn.invars[1]))]
    rule = RULES.get(name)
    if any(isinstance(label, Chunks) for label in labels) and name not in KEEPS_CHUNKS:
        rule = None
    if rule is None or (MIXED in labels and len(eqn.outvars) == 1):
        return [MIXED] * len(eqn.outvars)
    return rule(eqn, labels, examples)


_CallRule = Callable[[JaxprEqn, list[Label], int, IndexValues], list[Label]]


def _inner(value: Any) -> Jaxpr:
    """Return a jaxpr that may be closed."""
    jaxpr: Jaxpr = getattr(value, "jaxpr", value)
    return jaxpr


def _called(parameter: str) -> _CallRule:
    def rule(
        eqn: JaxprEqn, labels: list[Label], examples: int, indices: IndexValues
    ) -> list[Label]:
        jaxpr = eqn.params[parameter]
        return labels_of_results(_inner(jaxpr), labels, examples, indices.inside(eqn, jaxpr))

    return rule


def _scan(eqn: JaxprEqn, labels: list[Label], examples: int, indices: IndexValues) -> list[Label]:
    consts, carried = eqn.params["num_consts"], eqn.params["num_carry"]
    labels = [_indirect(label) for label in labels]
    of_consts, carry = labels[:consts], labels[consts : consts + carried]
    slices = [_of_iteration(label) for label in labels[consts + carried :]]
    goes_along_chunks = any(_is_chunked(label) for label in labels[consts + carried :])
    if goes_along_chunks:
        # In an iteration, the examples are those of its chunk. Other labels count them all.
        examples //= eqn.params["length"]
        of_consts, carry = list(map(_mixed, of_consts)), list(map(_mixed, carry))
        slices = [
            label.rows.moved(label.rows.axis - 1) if _is_chunked(label) else _mixed(label)
            for label in labels[consts + carried :]
        ]
    body = eqn.params["jaxpr"]
    inside = indices.inside(eqn, body, [*range(consts), *[None] * (len(labels) - consts)])
    while True:
        results = labels_of_results(_inner(body), [*of_consts, *carry, *slices], examples, inside)
        joined = [
            # What is carried on from one iteration to the next depends on the examples of both.
            MIXED
            if isinstance(after, Iterations) or (goes_along_chunks and after is not None)
            else _indirect(join((before, after)))
            for before, after in zip(carry, results[:carried], strict=True)
        ]
        if joined == carry:
            break
        carry = joined  # labels only move towards MIXED, so this ends
    of_all = _of_all_chunks if goes_along_chunks else _of_all_iterations
    return [*carry, *map(of_all, results[carried:])]


def _cond(eqn: JaxprEqn, labels: list[Label], examples: int, indices: IndexValues) -> list[Label]:
    index, *operands = labels
    if index is not None:
        return [MIXED] * len(eqn.outvars)
    places = range(1, len(labels))
    branches = [
        labels_of_results(
            _inner(branch), operands, examples, indices.inside(eqn, branch, [*places])
        )
        for branch in eqn.params["branches"]
    ]
    return [_indirect(join(labels)) for labels in zip(*branches, strict=True)]


def _while(eqn: JaxprEqn, labels: list[Label], examples: int, indices: IndexValues) -> list[Label]:
    conditions, consts = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    labels = [_indirect(label) for label in labels]
    of_condition, of_body = labels[:conditions], labels[conditions : conditions + consts]
    carry = labels[conditions + consts :]
    unknown = [None] * len(carry)
    body, condition = eqn.params["body_jaxpr"], eqn.params["cond_jaxpr"]
    in_body = indices.inside(eqn, body, [*range(conditions, conditions + consts), *unknown])
    while True:
        results = labels_of_results(_inner(body), [*of_body, *carry], examples, in_body)
        joined = [_indirect(join(pair)) for pair in zip(carry, results, strict=True)]
        if joined == carry:
            break
        carry = joined
    in_condition = indices.inside(eqn, condition, [*range(conditions), *unknown])
    decides = labels_of_results(_inner(condition), [*of_condition, *carry], examples, in_condition)
    return carry if decides == [None] else [MIXED] * len(eqn.outvars)


def _is_chunked(label: Label) -> TypeGuard[Chunks]:
    """Return whether each iteration of a scan along an array gets a chunk of the examples."""
    return isinstance(label, Chunks) and label.axis == 0


def _of_all_chunks(label: Label) -> Label:
    """Return the label of an array that has a slice from each iteration along chunks."""
    if isinstance(label, Rows):
        return Chunks(0, label.moved(label.axis + 1))
    return _mixed(label)


def _mixed(label: Label) -> Label:
    return None if label is None else MIXED


def _of_iteration(label: Label) -> Label:
    """Return the label of what one iteration of a scan gets of an array."""
    if isinstance(label, Chunks):
        return label.moved(-1) if label.axis else MIXED
    if not isinstance(label, Rows):
        return label
    return label.moved(label.axis - 1) if label.axis else Iterations(label.inner)


def _of_all_iterations(label: Label) -> Label:
    """Return the label of an array that has a slice from each iteration of a scan."""
    if isinstance(label, Iterations):
        return Rows(0, label.inner)
    if isinstance(label, Chunks):
        return label.moved(1)
    return label.moved(label.axis + 1) if isinstance(label, Rows) else label


def _indirect(label: Label) -> Label:
    return label.moved(label.axis) if isinstance(label, Rows) else label


_CALLS: dict[str, _CallRule] = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "remat2", "checkpoint"), _called("jaxpr")),
    **dict.fromkeys(("core_call", "custom_jvp_call", "custom_vjp_call"), _called("call_jaxpr")),
    "scan": _scan,
    "cond": _cond,
    "while": _while,
}
