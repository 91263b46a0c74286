"""How a batch of some pattern is measured, found by checks instead of guesses.

Three checks at the first measurement of each pattern of batches:

1. Which row is whose: with the probe zero on some of the examples, a use's rows of those must be
   exactly zero. Every way in which the result's shape may carry the examples is tried; if none
   passes, the rows of the groups that act there are summed: one degree of freedom a probe, and
   still no bias. The sets of silent examples separate any two: neighbours that see each other, or
   time steps of which the later see the earlier, do not hide in a half.
2. Nothing is missed: for one probe the parts of each group must add up to ``<dL/dW, U>`` of the
   true parameter gradient. A group that fails is from then on measured by that.
3. Whether the batch may be cut: if the model gives the same outputs on chunks of the batch as on
   all of it, summed groups get a row a chunk at no further cost; else (batch norm) from more
   probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fslr.errors import MeasurementError
from fslr.torch.estimators.base import Probes
from fslr.torch.estimators.gradient import NOTHING_MEASURED
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

_SUMMED_ROWS = 8  # rows a probe for groups whose rows belong to no example
_LEAST_EXAMPLES = 4  # in a part of a batch that is cut to save memory
_CHECKED_EXAMPLES = 8  # at most, for rows and gradients: structure does not show better on more
_MOST_INDEX_BITS = 32
_CUT_TOLERANCE = 1e-3  # relative to the largest output; other kernels for other shapes stay below
_CUT_TOLERANCE_16_BIT = 0.05
_MISSED_TOLERANCE = 1e-3  # relative to the norm of the terms; float32 rounding stays below 1e-5
_MISSED_TOLERANCE_16_BIT = 0.03
_GRADIENT_SLICE = 0.2  # part of all parameters whose true gradients are held at a time

_REFUSALS = RuntimeError, ValueError, IndexError, AssertionError, MeasurementError
"""What a model raises that does not take a batch of some size."""

_NOT_FOLLOWED = "its way to the output cannot be followed, so its gradient is projected"
_MISSED = "not all of its way to the output is seen, so its gradient is projected"
_NO_EXAMPLES = "its rows belong to no example, or examples see each other, so they are summed"


@dataclass(frozen=True, slots=True)
class Route:
    """How batches of some pattern are measured.

    Attributes:
        layouts: Where each use carries its examples; uses that are not in it are summed.
        by_gradient: Groups that are projected on their true gradients.
        slow: Groups whose rows are summed, with the reason.
        chunks: Into how many chunks the batch is cut.
        probe_factor: Probes on each chunk for each one that is asked for.
        complete: Whether every group showed something. If not (an expert without tokens, an adapter
            that begins at zero), the others are projected on their true gradients, which is always
            right, until the checks are repeated and show something.
    """

    layouts: dict[UseKey, RowLayout]
    by_gradient: frozenset[int]
    slow: dict[int, str]
    chunks: int
    probe_factor: int
    complete: bool

    def layouts_of(self, trace: Trace) -> list[RowLayout | None]:
        """Return the layout of each use of a forward pass, as far as it is known and fits."""
        examples = trace.outputs.shape[0]
        found = (self.layouts.get(use.key) for use in trace.uses)
        return [
            layout if layout is not None and layout.fits(use.shape, examples) else None
            for use, layout in zip(trace.uses, found, strict=True)
        ]

    def agreed(self, any_rank: AnyRank, *, groups: int, most_chunks: int) -> Route:
        """Return the route whose passes every rank can make, each with layouts of its own.

        Batches of several ranks may be of several patterns (sequences of other lengths), the routes
        of which were found at other times.

        Args:
            any_rank: Tells for each of some flags whether it is set on any rank.
            groups: Number of groups.
            most_chunks: Into how many chunks a batch is cut at most.
        """
        flags = any_rank([
            *(index in self.by_gradient for index in range(groups)),
            self.probe_factor > 1,
            *(self.chunks <= count for count in range(1, most_chunks + 1)),
        ])
        return replace(
            self,
            by_gradient=frozenset(index for index in range(groups) if flags[index]),
            probe_factor=_SUMMED_ROWS if flags[groups] else 1,
            chunks=flags[groups + 1 :].index(True) + 1,
        )


AnyRank = Callable[[list[bool]], list[bool]]
"""Tells for each of some flags whether it is set on any rank that trains the model."""


def most_chunks(micro_batches: int) -> int:
    """Return into how many chunks a route cuts a batch at most."""
    return max(micro_batches, _SUMMED_ROWS)


def find_route(
    projector: Projector,
    drawn: Probes,
    batch: Batch,
    update: Update,
    *,
    micro_batches: int,
    any_rank: AnyRank = list,
) -> Route:
    """Check how batches like this one are to be measured.

    Ranks that agree have batches of as many examples each; then they make as many passes.

    Args:
        projector: Runs the model.
        drawn: Draws the probes.
        batch: The measurement batch.
        update: The step.
        micro_batches: Into how many parts the batch is cut, where the model allows it.
        any_rank: Tells for each of some flags whether it is set on any rank.

    Raises:
        MeasurementError: The output does not depend on any group.
    """

    def may_be_cut(pieces: int) -> bool:
        return not any_rank([not _may_be_cut(projector.forward, batch, pieces)])[0]

    pieces = max(1, min(micro_batches, batch.examples // _LEAST_EXAMPLES))
    if pieces > 1 and not may_be_cut(pieces):
        pieces = 1
    few = max(_LEAST_EXAMPLES, min(_CHECKED_EXAMPLES, batch.examples // micro_batches))
    part, trace = _few_traced(projector, batch, update, few)
    if not trace.outputs.requires_grad:
        raise MeasurementError(NOTHING_MEASURED)
    layouts, dark = _check_rows(trace, drawn, part, _index_bits(part.examples, any_rank))
    missed, silent = _check_nothing_missed(trace, drawn)
    for use in trace.uses:
        if use.key in dark:
            silent |= {index for index, _ in use.parts}
    # The ranks of a sharded model agree on whose gradients are asked for, and on passes below.
    missed, silent = _any_of(missed, trace, any_rank), _any_of(silent, trace, any_rank)
    summed = [use for use in trace.uses if use.key not in layouts and use.key not in dark]
    slow = dict.fromkeys((index for use in summed for index, _ in use.parts), _NO_EXAMPLES)
    slow |= dict.fromkeys(trace.by_gradient, _NOT_FOLLOWED) | dict.fromkeys(missed, _MISSED)
    by_gradient = frozenset({*trace.by_gradient, *missed, *silent})
    del trace
    probe_factor = 1
    if any_rank([bool(slow)])[0] and batch.examples > 1:
        wanted = max(pieces, min(_SUMMED_ROWS, batch.examples))
        if wanted == pieces or may_be_cut(wanted):
            pieces = wanted
        elif pieces == 1:
            probe_factor = _SUMMED_ROWS
    return Route(layouts, by_gradient, slow, pieces, probe_factor, complete=not silent)


def _any_of(indices: set[int], trace: Trace, any_rank: AnyRank) -> set[int]:
    """Return the groups that are in a set on any rank."""
    flags = any_rank([index in indices for index in range(trace.groups)])
    return {index for index, flag in enumerate(flags) if flag}


def _few_traced(
    projector: Projector, batch: Batch, update: Update, few: int
) -> tuple[Batch, Trace]:
    """Return few examples of a batch, or all where the model takes no others, and their trace."""
    for count in (few, few + 1, few + 2, *range(few - 1, _LEAST_EXAMPLES - 1, -1)):
        if count >= batch.examples:
            continue
        part = batch.select(0, count)
        if part.pattern() == batch.pattern():  # nothing coincides that did not before
            try:
                return part, projector.trace(part, update)
            except torch.OutOfMemoryError:
                raise
            except _REFUSALS:
                break
    return batch, projector.trace(batch, update)


def _index_bits(examples: int, any_rank: AnyRank) -> int:
    """Return how many bits tell the examples apart, on the rank that needs the most."""
    return sum(any_rank([examples > 1 << bit for bit in range(_MOST_INDEX_BITS)]))


def _check_rows(
    trace: Trace, drawn: Probes, batch: Batch, bits: int
) -> tuple[dict[UseKey, RowLayout], set[UseKey]]:
    """Return the layouts that pass, and the uses whose cotangents showed nothing."""
    if batch.examples == 1:
        return {}, set()
    flattened = batch.flattened_sizes()
    possible = [possible_layouts(use.shape, batch.examples, flattened) for use in trace.uses]
    dark = {use.key for use in trace.uses}
    for silent in _silent_examples(batch.examples, bits, trace.outputs.device):
        cotangent = drawn.cotangent(trace.outputs)
        cotangent[silent] = 0
        found = trace.at_uses(cotangent)
        for place, (use, at_result) in enumerate(zip(trace.uses, found, strict=True)):
            if at_result is not None and bool(at_result.any()):
                dark.discard(use.key)
                possible[place] = [
                    layout for layout in possible[place] if is_silent(at_result, layout, silent)
                ]
    layouts = {
        use.key: passed[0]
        for use, passed in zip(trace.uses, possible, strict=True)
        if passed and use.key not in dark
    }
    return layouts, dark


def _silent_examples(examples: int, bits: int, device: torch.device) -> Iterator[Tensor]:
    """Yield sets of examples, bool [B], such that of any two each is once silent alone.

    The sets are those whose index has some bit set, or not set: twice the binary logarithm of B.
    With more bits than that, the further sets are all examples, or none.
    """
    index = torch.arange(examples, device=device)
    for bit in range(bits):
        for value in (0, 1):
            yield (index >> bit) & 1 == value


def _check_nothing_missed(trace: Trace, drawn: Probes) -> tuple[set[int], set[int]]:
    """Compare what was followed with true gradients.

    Returns:
        The groups whose parts do not add up to the projection of their gradient, and the followed
        groups that showed nothing.
    """
    outputs = trace.outputs
    cotangent = drawn.cotangent(outputs)
    totals, norms = _sums_and_norms(trace, cotangent)
    followed = [i for i in range(trace.groups) if i not in trace.by_gradient]
    followed = [index for index in followed if index in trace.leaves]
    missed: set[int] = set()
    silent = {index for index in range(trace.groups) if index not in trace.leaves}
    sixteen_bit = outputs.element_size() <= 2
    tolerance = _MISSED_TOLERANCE_16_BIT if sixteen_bit else _MISSED_TOLERANCE
    for some in _slices(followed, trace.leaves):
        gradients = torch.autograd.grad(
            outputs,
            [trace.leaves[i] for i in some],
            cotangent,
            retain_graph=True,
            allow_unused=True,
        )
        for index, gradient in zip(some, gradients, strict=True):
            true = 0.0
            if gradient is not None:
                unit = trace.update.of_group(index)
                true = float(inner_products(gradient, unit, None, 1))
            scale = norms[index] + abs(true)
            if scale == 0:
                silent.add(index)
            if abs(totals[index] - true) > tolerance * scale:
                missed.add(index)
    return missed, silent


def _sums_and_norms(trace: Trace, cotangent: Tensor) -> tuple[list[float], list[float]]:
    """Return each group's projection, and the norm of the terms that it is the sum of."""
    sums, norms = [0.0] * trace.groups, [0.0] * trace.groups
    for use, at_result in zip(trace.uses, trace.at_uses(cotangent), strict=True):
        if at_result is None:
            continue
        for index, change in use.parts:
            scale = float(trace.scales.get(index, 1.0))
            terms = at_result.float().square(), change.float().square()
            sums[index] += float(inner_products(at_result, change, None, 1)) * scale
            norms[index] += float(inner_products(*terms, None, 1)) ** 0.5 * scale
    return sums, norms


def _slices(indices: list[int], leaves: dict[int, Tensor]) -> Iterator[list[int]]:
    """Cut a list of groups so that each slice holds a bounded part of all parameters."""
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
    """Return whether the model's outputs on chunks are those on the whole batch.

    Nothing is dropped meanwhile; a model that draws random numbers elsewhere differs from itself
    and counts as one that must not be cut.

    Raises:
        OutOfMemoryError: There is no room for the whole batch.
    """
    try:
        with WithoutDropout():
            whole = forward(batch)
            parts = [forward(chunk) for chunk in batch.chunks(pieces)]
    except torch.OutOfMemoryError:
        raise
    except _REFUSALS:
        return False  # such as batch norm, which refuses a single example
    if any(part.shape[1:] != whole.shape[1:] for part in parts):
        return False
    difference = (torch.cat(parts).float() - whole.float()).abs().max()
    tolerance = _CUT_TOLERANCE_16_BIT if whole.element_size() <= 2 else _CUT_TOLERANCE
    return bool(difference <= tolerance * whole.abs().max().float())
