"""Follows the examples of a probe through a traced function, equation by equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn, Literal

from fslr.jax.estimators.per_example.row_labels import MIXED, Label, Rows, join
from fslr.jax.estimators.per_example.row_rules import RULES


def labels_of_results(jaxpr: Jaxpr, labels: Sequence[Label], examples: int) -> list[Label]:
    """Return where the examples are in the results of a jaxpr.

    Args:
        jaxpr: The jaxpr; its constants do not depend on the probe.
        labels: The labels of its arguments.
        examples: Number of examples B.
    """
    known: dict[Any, Label] = dict(zip(jaxpr.invars, labels, strict=True))

    def label_of(variable: Any) -> Label:
        return None if isinstance(variable, Literal) else known.get(variable)

    for eqn in jaxpr.eqns:
        operands = [label_of(variable) for variable in eqn.invars]
        results: list[Label] = [None] * len(eqn.outvars)
        if any(label is not None for label in operands):
            results = _results(eqn, operands, examples)
        known.update(zip(eqn.outvars, results, strict=True))
    return [label_of(variable) for variable in jaxpr.outvars]


def _results(eqn: JaxprEqn, labels: list[Label], examples: int) -> list[Label]:
    name = eqn.primitive.name
    if name in _CALLS:
        return _CALLS[name](eqn, labels, examples)
    rule = RULES.get(name)
    if rule is None or (MIXED in labels and len(eqn.outvars) == 1):
        return [MIXED] * len(eqn.outvars)
    return rule(eqn, labels, examples)


def _inner(value: Any) -> Jaxpr:
    """Return a jaxpr that may be closed."""
    jaxpr: Jaxpr = getattr(value, "jaxpr", value)
    return jaxpr


def _called(parameter: str) -> Callable[[JaxprEqn, list[Label], int], list[Label]]:
    def rule(eqn: JaxprEqn, labels: list[Label], examples: int) -> list[Label]:
        return labels_of_results(_inner(eqn.params[parameter]), labels, examples)

    return rule


def _scan(eqn: JaxprEqn, labels: list[Label], examples: int) -> list[Label]:
    consts, carried = eqn.params["num_consts"], eqn.params["num_carry"]
    labels = [_indirect(label) for label in labels]
    carry = labels[consts : consts + carried]
    slices = [_shifted(label, -1) for label in labels[consts + carried :]]
    body = _inner(eqn.params["jaxpr"])
    while True:
        results = labels_of_results(body, [*labels[:consts], *carry, *slices], examples)
        joined = [_indirect(join(pair)) for pair in zip(carry, results[:carried], strict=True)]
        if joined == carry:
            break
        carry = joined  # labels only move towards MIXED, so this ends
    return [*carry, *(_shifted(label, 1) for label in results[carried:])]


def _cond(eqn: JaxprEqn, labels: list[Label], examples: int) -> list[Label]:
    index, *operands = labels
    if index is not None:
        return [MIXED] * len(eqn.outvars)
    branches = [
        labels_of_results(_inner(branch), operands, examples) for branch in eqn.params["branches"]
    ]
    return [_indirect(join(labels)) for labels in zip(*branches, strict=True)]


def _while(eqn: JaxprEqn, labels: list[Label], examples: int) -> list[Label]:
    conditions, consts = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    labels = [_indirect(label) for label in labels]
    of_condition, of_body = labels[:conditions], labels[conditions : conditions + consts]
    carry = labels[conditions + consts :]
    body = _inner(eqn.params["body_jaxpr"])
    while True:
        results = labels_of_results(body, [*of_body, *carry], examples)
        joined = [_indirect(join(pair)) for pair in zip(carry, results, strict=True)]
        if joined == carry:
            break
        carry = joined
    condition = _inner(eqn.params["cond_jaxpr"])
    decides = labels_of_results(condition, [*of_condition, *carry], examples)
    return carry if decides == [None] else [MIXED] * len(eqn.outvars)


def _shifted(label: Label, by: int) -> Label:
    """Return a label with the dimensions shifted; a scan along the examples mixes them."""
    if not isinstance(label, Rows):
        return label
    axis = label.axis + by
    return label.moved(axis) if axis >= 0 else MIXED


def _indirect(label: Label) -> Label:
    return label.moved(label.axis) if isinstance(label, Rows) else label


_CALLS: dict[str, Callable[[JaxprEqn, list[Label], int], list[Label]]] = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "remat2", "checkpoint"), _called("jaxpr")),
    **dict.fromkeys(("core_call", "custom_jvp_call", "custom_vjp_call"), _called("call_jaxpr")),
    "scan": _scan,
    "cond": _cond,
    "while": _while,
}
