"""Checks of a traced forward pass: where the examples are, and whether all uses are visible.

They take one backward pass for everything that training computes, and one or a few more for the
activations only, on a few examples.

1. Which rows belong to which example. A second backward pass repeats the first with a different
   power of two for each example as the scale of its probe. At each use, the rows of an example must
   have its scale. All layouts that the shape allows are tried. If none passes, the rows of the
   groups that act there are summed: one degree of freedom per probe, still without bias.
2. Whether all uses are visible. The parts of each group must add up to ``<dL/dW, U>`` with the
   gradient of the parameter, up to the rounding of the least precise type on the way. A group that
   fails is measured by its gradient from then on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from fslr.torch.estimators.backward import gradients_visited
from fslr.torch.estimators.base import AnyRank
from fslr.torch.estimators.per_example.output_uses import find_output_uses
from fslr.torch.estimators.per_example.precision import forward_roundoff, roundoff
from fslr.torch.estimators.per_example.projector import Trace
from fslr.torch.estimators.per_example.rows import (
    RowLayout,
    possible_layouts,
    scales_by_example,
    sums_of_terms,
)
from fslr.torch.estimators.per_example.tracer import UseKey
from fslr.torch.estimators.probes import Probes
from fslr.torch.model.batch import Batch

_SCALES = (1.0, -1.0, 0.5, -0.5, 0.25, -0.25, 0.125, -0.125)
_MAX_PASSES = 11  # for 8 ** 11 examples
_LEAK = 1e-5  # relative to an example's rows; kernels whose order of summation varies stay below
_LEAK_ROUNDOFFS = 4.0  # scaled numbers are rounded differently if they are below float16's range
_MISSED = 1e-3  # relative to the norm of the terms; float32 rounding stays below 1e-5
_MISSED_ROUNDOFFS = 8.0  # errors of several roundings add up to one or two
_MISSED_ROUNDOFFS_BY_TERMS = 3.0  # for a sum of n terms in low precision, times the root of n
_MISSED_AT_MOST = 0.5

_NOT_FOLLOWED = "its path to the output cannot be followed, so its gradient is projected"
_NOT_VISIBLE = "part of its path to the output is not visible, so its gradient is projected"
_NO_DIMENSION = "no dimension of a result counts the examples, so its rows are summed"
_MIXED = "the rows of a result depend on several examples, so they are summed"


@dataclass(frozen=True, slots=True)
class Findings:
    """What the checks found.

    Attributes:
        layouts: Where the examples are in the rows of each use that has them.
        output_uses: The groups that act directly on the outputs, by use.
        by_gradient: The groups that are measured by their gradient.
        slow: The groups that are measured by the slow route, with the reason.
        is_complete: Whether every group had an effect on the output.
        interacts: Whether the rows of some use depend on several examples.
    """

    layouts: dict[UseKey, RowLayout]
    output_uses: dict[UseKey, frozenset[int]]
    by_gradient: frozenset[int]
    slow: dict[int, str]
    is_complete: bool
    interacts: bool


def check(trace: Trace, probes: Probes, batch: Batch, any_rank: AnyRank) -> Findings:
    """Check a traced forward pass; all ranks of a sharded model make the same passes.

    Args:
        trace: The forward pass.
        probes: Draws the probes.
        batch: The examples of the pass.
        any_rank: Returns for each of several flags whether any rank sets it.
    """
    cotangent = probes.cotangent(trace.outputs)
    at_uses, gradients = _whole_backward(trace, cotangent)
    missed, without_effect = _compare(trace, at_uses, gradients)
    rows = _check_rows(trace, cotangent, at_uses, batch, any_rank, hidden=missed)
    for use in trace.uses:
        if use.key in rows.inactive:
            without_effect |= {index for index, _ in use.parts}
    # All ranks of a sharded model must compute the same gradients.
    missed = _any_of(missed, trace, any_rank)
    without_effect = _any_of(without_effect, trace, any_rank)
    output_uses = find_output_uses(trace.outputs, trace.uses)
    slow = {
        index: rows.summed[use.key]
        for use in trace.uses
        if use.key in rows.summed
        for index, _ in use.parts
        if index not in output_uses.get(use.key, ())
    }
    slow |= dict.fromkeys(trace.by_gradient, _NOT_FOLLOWED) | dict.fromkeys(missed, _NOT_VISIBLE)
    by_gradient = frozenset({*trace.by_gradient, *missed, *without_effect})
    return Findings(
        rows.layouts,
        output_uses,
        by_gradient,
        slow,
        is_complete=not without_effect,
        interacts=_MIXED in rows.summed.values(),
    )


def _any_of(indices: set[int], trace: Trace, any_rank: AnyRank) -> set[int]:
    """Return the groups that are in a set on any rank."""
    flags = any_rank([index in indices for index in range(trace.groups)])
    return {index for index, flag in enumerate(flags) if flag}


@dataclass(frozen=True, slots=True)
class _Projection:
    """A group's projection on a probe, and the norm of the terms that it sums."""

    total: float
    norm: float


def _whole_backward(
    trace: Trace, cotangent: Tensor
) -> tuple[tuple[Tensor | None, ...], dict[int, _Projection]]:
    """Compute all gradients that training computes, in one backward pass.

    Returns:
        The cotangent at each use, and the projection of the gradient of each followed group.
    """
    leaves = list(trace.leaves.items())
    found: dict[int, Tensor] = {}

    def project(position: int, gradient: Tensor) -> None:
        index, _ = leaves[position]
        if index in trace.by_gradient:
            return
        found[index] = sums_of_terms(gradient, trace.update.unit_update(index))

    tensors = [leaf for _, leaf in leaves]
    with gradients_visited(tensors, project):
        at_uses, _ = trace.backward(cotangent, tensors)
    sums = _on_host(found.values())
    projections = (_Projection(total, square**0.5) for total, square in sums)
    return at_uses, dict(zip(found, projections, strict=True))


def _on_host(pairs: Iterable[Tensor]) -> list[list[float]]:
    """Return tensors of two elements as numbers, with one transfer for each device."""
    pairs = list(pairs)
    found: list[list[float]] = [[]] * len(pairs)
    places: dict[torch.device, list[int]] = {}
    for place, pair in enumerate(pairs):
        places.setdefault(pair.device, []).append(place)
    for on_device in places.values():
        values = torch.stack([pairs[place] for place in on_device]).tolist()
        for place, value in zip(on_device, values, strict=True):
            found[place] = value
    return found


def _compare(
    trace: Trace, at_uses: tuple[Tensor | None, ...], gradients: dict[int, _Projection]
) -> tuple[set[int], set[int]]:
    """Compare the projections of the followed groups with those of their gradients.

    Returns:
        The groups whose parts do not add up to the projection of their gradient, and the groups
        that had no effect on the outputs.
    """
    totals, squares = [0.0] * trace.groups, [0.0] * trace.groups
    tolerances = {i: _tolerance(leaf, leaf.numel(), leaf) for i, leaf in trace.leaves.items()}
    parts: list[tuple[int, Tensor]] = []
    for use, at_result in zip(trace.uses, at_uses, strict=True):
        if at_result is None:
            continue
        for index, change in use.parts:
            parts.append((index, sums_of_terms(at_result, change)))
            found = _tolerance(at_result, at_result.numel(), trace.leaves[index])
            tolerances[index] = max(tolerances[index], found)
    for (index, _), (total, square) in zip(parts, _on_host(s for _, s in parts), strict=True):
        scale = float(trace.scales.get(index, 1.0))
        totals[index] += total * scale
        squares[index] += square * scale**2
    missed: set[int] = set()
    without_effect = {index for index in range(trace.groups) if index not in trace.leaves}
    for index in trace.leaves:
        if index in trace.by_gradient:
            continue
        gradient = gradients.get(index, _Projection(0.0, 0.0))
        scale = max(squares[index] ** 0.5, gradient.norm) + abs(gradient.total)
        if scale == 0:
            without_effect.add(index)
        is_unseen = squares[index] == 0 < gradient.norm
        if is_unseen or abs(totals[index] - gradient.total) > tolerances[index] * scale:
            missed.add(index)
    return missed, without_effect


def _tolerance(tensor: Tensor, terms: int, leaf: Tensor) -> float:
    """Return how far two projections of a group may differ by rounding, relative to their terms.

    Some kernels add up the gradient of a vector, such as a bias, in the type of the vector. Then
    errors grow with the number of rows.

    Args:
        tensor: A tensor in the type that sums are rounded to.
        terms: Number of terms in all elements of the gradient.
        leaf: The group's tensor.
    """
    rounded = max(roundoff(tensor.dtype), roundoff(leaf.dtype))
    by_terms = _MISSED_ROUNDOFFS_BY_TERMS * math.sqrt(terms / max(1, leaf.numel()))
    return max(_MISSED, min(_MISSED_AT_MOST, rounded * max(_MISSED_ROUNDOFFS, by_terms)))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Where the examples are in the rows of each use.

    Attributes:
        layouts: The layouts that passed the check.
        inactive: The uses whose cotangents are zero.
        summed: Why the rows of the other uses are summed.
    """

    layouts: dict[UseKey, RowLayout]
    inactive: set[UseKey]
    summed: dict[UseKey, str]


def _check_rows(
    trace: Trace,
    cotangent: Tensor,
    at_uses: tuple[Tensor | None, ...],
    batch: Batch,
    any_rank: AnyRank,
    *,
    hidden: set[int],
) -> _Rows:
    """Compare the cotangents at the uses with those of a probe that is scaled by example."""
    if batch.examples == 1:
        return _Rows({}, set(), {})  # all rows are that example's, and summing them is not slow
    flattened = batch.flattened_sizes()
    possible = [possible_layouts(use.shape, batch.examples, flattened) for use in trace.uses]
    inactive = {
        use.key
        for use, before in zip(trace.uses, at_uses, strict=True)
        if before is None or not bool(before.any())
    }
    summed = {
        use.key: _MIXED if layouts else _NO_DIMENSION
        for use, layouts in zip(trace.uses, possible, strict=True)
    }
    computed = [trace.outputs, *trace.leaves.values(), *(c for c in at_uses if c is not None)]
    leak = max(_LEAK, _LEAK_ROUNDOFFS * forward_roundoff(batch, computed))
    gradients = [trace.leaves[i] for i in {*trace.by_gradient, *hidden} if i in trace.leaves]
    sets = list(_scales_of_examples(batch.examples, any_rank, trace.outputs.device))
    for number, scales in enumerate(sets, 1):
        by_example = scales.view(-1, *[1] * (cotangent.dim() - 1))
        scaled = cotangent * by_example.to(cotangent.dtype)
        scaled_at_uses, _ = trace.backward(scaled, gradients)
        for position, (before, after) in enumerate(zip(at_uses, scaled_at_uses, strict=True)):
            if before is not None and after is not None:
                passing = (
                    layout
                    for layout in possible[position]
                    if scales_by_example(before, after, layout, scales, leak)
                )
                # In the end, one layout is needed.
                possible[position] = list(islice(passing, 1 if number == len(sets) else None))
    layouts = {
        use.key: passed[0]
        for use, passed in zip(trace.uses, possible, strict=True)
        if passed and use.key not in inactive
    }
    decided = {*layouts, *inactive}
    return _Rows(layouts, inactive, {k: why for k, why in summed.items() if k not in decided})


def _scales_of_examples(examples: int, any_rank: AnyRank, device: torch.device) -> Iterator[Tensor]:
    """Yield scales of the examples, shape [B], of which some set separates any two examples.

    There are as many sets as an example's index has digits to the base 8, the maximum over all
    ranks.
    """
    base = len(_SCALES)
    values = torch.tensor(_SCALES, device=device)
    index = torch.arange(examples, device=device)
    passes = sum(any_rank([examples > base**digit for digit in range(_MAX_PASSES)]))
    for digit in range(passes):
        yield values[torch.div(index, base**digit, rounding_mode="floor") % base]
