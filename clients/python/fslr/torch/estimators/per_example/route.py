"""Determines how the batches of a pattern are measured, by checks at the first measurement.

1. Which rows belong to which example. With the probe set to zero on some examples, the rows of
   those examples must be exactly zero at each use. All layouts that the shape allows are tried. If
   none passes, the rows of the groups that act there are summed: one degree of freedom per probe,
   still without bias. The sets of silent examples separate any two examples, so that mixing between
   neighbours, or from earlier to later time steps, is always detected.
2. Whether all uses are visible. For one probe, the parts of each group must add up to
   ``<dL/dW, U>`` with the gradient of the parameter. A group that fails is measured by its gradient
   from then on.
3. Whether the batch may be cut. If the model returns the same outputs for chunks of the batch as
   for the whole batch, summed groups get one degree of freedom per chunk at no extra cost.
   Otherwise (batch norm) they get them from more probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fslr.errors import MeasurementError
from fslr.torch.estimators.base import Probes
from fslr.torch.estimators.gradient import NO_DEPENDENCE
from fslr.torch.estimators.per_example.projector import Projector, Trace
from fslr.torch.estimators.per_example.rows import (
    RowLayout,
    inner_products,
    is_silent,
    possible_layouts,
)
from fslr.torch.estimators.per_example.tracer import UseKey
from fslr.torch.model.batch import Batch
from fslr.torch.model.forward import Forward
from fslr.torch.model.function_modes import WithoutDropout
from fslr.torch.model.update import Update

_SUMMED_ROWS = 8  # degrees of freedom per probe for groups whose rows are summed
_MIN_PART_EXAMPLES = 4  # in a part of a batch that is cut to save memory
_MAX_CHECKED_EXAMPLES = 8  # for checks 1 and 2; more examples would not show more structure
_MAX_INDEX_BITS = 32
_CUT_TOLERANCE = 1e-3  # relative to the largest output; different kernels for shapes stay below
_CUT_TOLERANCE_16_BIT = 0.05
_MISSED_TOLERANCE = 1e-3  # relative to the norm of the terms; float32 rounding stays below 1e-5
_MISSED_TOLERANCE_16_BIT = 0.03
_GRADIENT_SLICE = 0.2  # share of all parameters whose gradients are held at the same time

_REFUSALS = RuntimeError, ValueError, IndexError, AssertionError, MeasurementError
"""Exceptions of a model that does not accept a batch of some size."""

_NOT_FOLLOWED = "its path to the output cannot be followed, so its gradient is projected"
_MISSED = "part of its path to the output is not visible, so its gradient is projected"
_NO_EXAMPLES = "its rows belong to no single example, or examples interact, so they are summed"


@dataclass(frozen=True, slots=True)
class Route:
    """How the batches of one pattern are measured.

    Attributes:
        layouts: The layout of each use; the rows of uses without a layout are summed.
        by_gradient: Groups that are projected by their gradients.
        slow: Groups that take a slow route, with the reason.
        chunks: Number of chunks that the batch is cut into.
        probe_factor: Number of probes on each chunk per requested probe.
        complete: Whether every group had an effect during the checks. A group without one (an
            expert without tokens, an adapter initialized to zero) is projected by its gradient,
            which is always correct, until the checks are repeated and it has an effect.
    """

    layouts: dict[UseKey, RowLayout]
    by_gradient: frozenset[int]
    slow: dict[int, str]
    chunks: int
    probe_factor: int
    complete: bool

    def layouts_of(self, trace: Trace) -> list[RowLayout | None]:
        """Return the layout of each use of a trace; None if it is unknown or does not fit."""
        examples = trace.outputs.shape[0]
        known = (self.layouts.get(use.key) for use in trace.uses)
        return [
            layout if layout is not None and layout.fits(use.shape, examples) else None
            for use, layout in zip(trace.uses, known, strict=True)
        ]

    def agreed(self, any_rank: AnyRank, *, groups: int, max_chunks: int) -> Route:
        """Return a route with the same passes on all ranks; each rank keeps its own layouts.

        The ranks' batches may have different patterns (sequences of different lengths), whose
        routes were found at different times.

        Args:
            any_rank: Returns for each of several flags whether any rank sets it.
            groups: Number of groups.
            max_chunks: Maximum number of chunks that a batch is cut into.
        """
        flags = any_rank([
            *(index in self.by_gradient for index in range(groups)),
            self.probe_factor > 1,
            *(self.chunks <= count for count in range(1, max_chunks + 1)),
        ])
        return replace(
            self,
            by_gradient=frozenset(index for index in range(groups) if flags[index]),
            probe_factor=_SUMMED_ROWS if flags[groups] else 1,
            chunks=flags[groups + 1 :].index(True) + 1,
        )


AnyRank = Callable[[list[bool]], list[bool]]
"""Returns for each of several flags whether any rank sets it."""


def max_chunks(micro_batches: int) -> int:
    """Return the maximum number of chunks that a route cuts a batch into."""
    return max(micro_batches, _SUMMED_ROWS)


def find_route(
    projector: Projector,
    probes: Probes,
    batch: Batch,
    update: Update,
    *,
    micro_batches: int,
    any_rank: AnyRank = list,
) -> Route:
    """Determine by checks how batches of the given batch's pattern are measured.

    With ``any_rank``, all ranks must have batches of equally many examples, and then make the same
    passes.

    Args:
        projector: Runs the model.
        probes: Draws the probes.
        batch: The measurement batch.
        update: The step to measure.
        micro_batches: Number of parts that the batch is cut into, if the model allows it.
        any_rank: Returns for each of several flags whether any rank sets it.

    Raises:
        MeasurementError: The output does not depend on any group.
    """

    def may_be_cut(pieces: int) -> bool:
        return not any_rank([not _may_be_cut(projector.forward, batch, pieces)])[0]

    pieces = max(1, min(micro_batches, batch.examples // _MIN_PART_EXAMPLES))
    if pieces > 1 and not may_be_cut(pieces):
        pieces = 1
    few = max(_MIN_PART_EXAMPLES, min(_MAX_CHECKED_EXAMPLES, batch.examples // micro_batches))
    methods = _group_methods(projector, probes, batch, update, few=few, any_rank=any_rank)
    probe_factor = 1
    if any_rank([bool(methods.slow)])[0] and batch.examples > 1:
        wanted = max(pieces, min(_SUMMED_ROWS, batch.examples))
        if wanted == pieces or may_be_cut(wanted):
            pieces = wanted
        elif pieces == 1:
            probe_factor = _SUMMED_ROWS
    return Route(
        methods.layouts,
        methods.by_gradient,
        methods.slow,
        pieces,
        probe_factor,
        complete=methods.is_complete,
    )


class _Methods(NamedTuple):
    """How each group is measured.

    Attributes:
        layouts: Where the examples are in the rows of each use that has them.
        by_gradient: The groups that are measured by their gradient.
        slow: The groups that are measured by the slow route, with the reason.
        is_complete: Whether every group had an effect on the output.
    """

    layouts: dict[UseKey, RowLayout]
    by_gradient: frozenset[int]
    slow: dict[int, str]
    is_complete: bool


def _group_methods(
    projector: Projector,
    probes: Probes,
    batch: Batch,
    update: Update,
    *,
    few: int,
    any_rank: AnyRank,
) -> _Methods:
    """Determine how each group is measured, by tracing a few examples.

    Raises:
        MeasurementError: The output does not depend on any group.
    """
    part, trace = _trace_few_examples(projector, batch, update, few)
    if not trace.outputs.requires_grad:
        raise MeasurementError(NO_DEPENDENCE)
    layouts, inactive = _check_rows(trace, probes, part, _index_bits(part.examples, any_rank))
    missed, without_effect = _check_all_uses_visible(trace, probes)
    for use in trace.uses:
        if use.key in inactive:
            without_effect |= {index for index, _ in use.parts}
    # All ranks of a sharded model must compute the same gradients and make the same passes.
    missed = _any_of(missed, trace, any_rank)
    without_effect = _any_of(without_effect, trace, any_rank)
    summed = [use for use in trace.uses if use.key not in layouts and use.key not in inactive]
    slow = dict.fromkeys((index for use in summed for index, _ in use.parts), _NO_EXAMPLES)
    slow |= dict.fromkeys(trace.by_gradient, _NOT_FOLLOWED) | dict.fromkeys(missed, _MISSED)
    by_gradient = frozenset({*trace.by_gradient, *missed, *without_effect})
    return _Methods(layouts, by_gradient, slow, is_complete=not without_effect)


def _any_of(indices: set[int], trace: Trace, any_rank: AnyRank) -> set[int]:
    """Return the groups that are in a set on any rank."""
    flags = any_rank([index in indices for index in range(trace.groups)])
    return {index for index, flag in enumerate(flags) if flag}


def _trace_few_examples(
    projector: Projector, batch: Batch, update: Update, few: int
) -> tuple[Batch, Trace]:
    """Trace a few examples of a batch, or all if the model does not accept fewer; return both."""
    for count in (few, few + 1, few + 2, *range(few - 1, _MIN_PART_EXAMPLES - 1, -1)):
        if count >= batch.examples:
            continue
        part = batch.select(0, count)
        if part.pattern() == batch.pattern():  # no other dimension has this size by chance
            try:
                return part, projector.trace(part, update)
            except torch.OutOfMemoryError:
                raise
            except _REFUSALS:
                break
    return batch, projector.trace(batch, update)


def _index_bits(examples: int, any_rank: AnyRank) -> int:
    """Return the number of bits of an example's index, the maximum over all ranks."""
    return sum(any_rank([examples > 1 << bit for bit in range(_MAX_INDEX_BITS)]))


def _check_rows(
    trace: Trace, probes: Probes, batch: Batch, bits: int
) -> tuple[dict[UseKey, RowLayout], set[UseKey]]:
    """Return the layouts that pass the check, and the uses whose cotangents are all zero."""
    if batch.examples == 1:
        return {}, set()
    flattened = batch.flattened_sizes()
    possible = [possible_layouts(use.shape, batch.examples, flattened) for use in trace.uses]
    inactive = {use.key for use in trace.uses}
    for silent in _silent_examples(batch.examples, bits, trace.outputs.device):
        cotangent = probes.cotangent(trace.outputs)
        cotangent[silent] = 0
        found = trace.cotangents_at_uses(cotangent)
        for position, (use, at_result) in enumerate(zip(trace.uses, found, strict=True)):
            if at_result is not None and bool(at_result.any()):
                inactive.discard(use.key)
                possible[position] = [
                    layout for layout in possible[position] if is_silent(at_result, layout, silent)
                ]
    layouts = {
        use.key: passed[0]
        for use, passed in zip(trace.uses, possible, strict=True)
        if passed and use.key not in inactive
    }
    return layouts, inactive


def _silent_examples(examples: int, bits: int, device: torch.device) -> Iterator[Tensor]:
    """Yield sets of examples, bool [B], that separate any example from any other.

    For each bit of the index there are two sets: the examples with the bit set, and the others. If
    there are more bits than needed, the additional sets contain no examples or all of them.
    """
    index = torch.arange(examples, device=device)
    for bit in range(bits):
        for value in (0, 1):
            yield (index >> bit) & 1 == value


def _check_all_uses_visible(trace: Trace, probes: Probes) -> tuple[set[int], set[int]]:
    """Compare the projections of the followed groups with those of their gradients.

    Returns:
        The groups whose parts do not add up to the projection of their gradient, and the groups
        that had no effect on the outputs.
    """
    outputs = trace.outputs
    cotangent = probes.cotangent(outputs)
    totals, norms = _sums_and_norms(trace, cotangent)
    followed = [i for i in range(trace.groups) if i not in trace.by_gradient]
    followed = [index for index in followed if index in trace.leaves]
    missed: set[int] = set()
    without_effect = {index for index in range(trace.groups) if index not in trace.leaves}
    is_16_bit = outputs.element_size() <= 2
    tolerance = _MISSED_TOLERANCE_16_BIT if is_16_bit else _MISSED_TOLERANCE
    for some in _slices(followed, trace.leaves):
        gradients = torch.autograd.grad(
            outputs,
            [trace.leaves[i] for i in some],
            cotangent,
            retain_graph=True,
            allow_unused=True,
        )
        for index, gradient in zip(some, gradients, strict=True):
            expected = 0.0
            if gradient is not None:
                unit = trace.update.unit_update(index)
                expected = float(inner_products(gradient, unit, None, 1))
            scale = norms[index] + abs(expected)
            if scale == 0:
                without_effect.add(index)
            if abs(totals[index] - expected) > tolerance * scale:
                missed.add(index)
    return missed, without_effect


def _sums_and_norms(trace: Trace, cotangent: Tensor) -> tuple[list[float], list[float]]:
    """Return each group's projection, and the norm of the terms that it sums."""
    sums, norms = [0.0] * trace.groups, [0.0] * trace.groups
    for use, at_result in zip(trace.uses, trace.cotangents_at_uses(cotangent), strict=True):
        if at_result is None:
            continue
        for index, change in use.parts:
            scale = float(trace.scales.get(index, 1.0))
            terms = at_result.float().square(), change.float().square()
            sums[index] += float(inner_products(at_result, change, None, 1)) * scale
            norms[index] += float(inner_products(*terms, None, 1)) ** 0.5 * scale
    return sums, norms


def _slices(indices: list[int], leaves: dict[int, Tensor]) -> Iterator[list[int]]:
    """Cut a list of groups into slices that each contain a bounded share of all parameters."""
    sizes = {index: leaf.numel() for index, leaf in leaves.items()}
    limit = _GRADIENT_SLICE * sum(sizes.values())
    some: list[int] = []
    held = 0
    for index in indices:
        if some and held + sizes[index] > limit:
            yield some
            some, held = [], 0
        some.append(index)
        held += sizes[index]
    if some:
        yield some


@torch.no_grad()
def _may_be_cut(forward: Forward, batch: Batch, pieces: int) -> bool:
    """Return whether the model's outputs for chunks equal those for the whole batch.

    Dropout is disabled meanwhile. A model that draws random numbers elsewhere gives different
    outputs each time, so its batches are not cut.

    Raises:
        OutOfMemoryError: The whole batch does not fit into memory.
    """
    try:
        with WithoutDropout():
            whole = forward(batch)
            parts = [forward(chunk) for chunk in batch.chunks(pieces)]
    except torch.OutOfMemoryError:
        raise
    except _REFUSALS:
        return False  # for example batch norm, which refuses a single example
    if any(part.shape[1:] != whole.shape[1:] for part in parts):
        return False
    difference = (torch.cat(parts).float() - whole.float()).abs().max()
    tolerance = _CUT_TOLERANCE_16_BIT if whole.element_size() <= 2 else _CUT_TOLERANCE
    return bool(difference <= tolerance * whole.abs().max().float())
