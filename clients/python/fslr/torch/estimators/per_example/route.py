"""Determines how the batches of a pattern are measured, at the first measurement.

The checks of :mod:`.checks` find where the examples are and how each group is measured, on a few
examples. One more check compares the model's outputs for a part of the batch with those for the
whole batch. If they are equal, the batch may be cut: to save memory, and because summed groups get
one degree of freedom from each chunk at no extra cost. Otherwise (batch norm) they get them from
more probes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fslr.errors import MeasurementError
from fslr.torch.estimators.base import AnyRank
from fslr.torch.estimators.cutting import REFUSALS, CutCheck
from fslr.torch.estimators.gradient import NO_DEPENDENCE
from fslr.torch.estimators.per_example.checks import check
from fslr.torch.estimators.per_example.projector import Projector, Trace
from fslr.torch.estimators.per_example.rows import RowLayout
from fslr.torch.estimators.per_example.tracer import UseKey
from fslr.torch.estimators.probes import Probes
from fslr.torch.model.batch import Batch
from fslr.torch.model.isolation import SideEffects
from fslr.torch.model.update import Update

_SUMMED_ROWS = 8  # degrees of freedom per probe for groups whose rows are summed
_FIRST_CHUNKS, _FIRST_PROBES = 4, 3  # instead, in a measurement that also makes the checks
_MIN_PART_EXAMPLES = 4  # in a part of a batch that is cut to save memory
_CHECKED_EXAMPLES = 4  # more examples would not show more structure
_MAX_TRIES = 2  # of a model that does not accept few examples
_MAX_KEPT_EXAMPLES = 2 * _CHECKED_EXAMPLES  # in a graph that is kept for the measurement


@dataclass(frozen=True, slots=True)
class Route:
    """How the batches of one pattern are measured.

    Attributes:
        layouts: The layout of each use; the rows of uses without a layout are summed.
        output_uses: The groups that act directly on the outputs, by use: their squares are exact.
        by_gradient: Groups that are projected by their gradients.
        slow: Groups that take a slow route, with the reason.
        chunks: Number of chunks that the batch is cut into.
        probe_factor: Number of probes on each chunk per requested probe.
        complete: Whether every group had an effect during the checks. A group without one (an
            expert without tokens, an adapter initialized to zero) is projected by its gradient,
            which is always correct, until the checks are repeated and it has an effect.
    """

    layouts: dict[UseKey, RowLayout]
    output_uses: dict[UseKey, frozenset[int]]
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

    def of_first_measurement(self, micro_batches: int) -> Route:
        """Return the route of the measurement that also makes the checks.

        It spends less on slow groups, so that their errors are larger, but the checks do not make
        it much longer than later measurements.

        Args:
            micro_batches: As in :func:`find_route`.
        """
        return replace(
            self,
            chunks=min(self.chunks, max(micro_batches, _FIRST_CHUNKS)),
            probe_factor=min(self.probe_factor, _FIRST_PROBES),
        )


@dataclass(frozen=True, slots=True)
class CheckedPass:
    """The forward pass of the checks, which a measurement of the same examples need not repeat.

    Attributes:
        examples: Number of examples, from the front of the batch.
        trace: The pass.
        versions: The versions of its leaves. They change if a leaf is written to, and then there
            can be no more backward passes.
    """

    examples: int
    trace: Trace
    versions: list[int]

    @classmethod
    def of(cls, trace: Trace) -> CheckedPass:
        """Return a pass that was made right now."""
        return cls(trace.outputs.shape[0], trace, _versions(trace))

    def projecting(self, by_gradient: Collection[int]) -> Trace | None:
        """Return the pass with groups that are projected by their gradients, if it is still valid.

        Args:
            by_gradient: The groups.
        """
        if _versions(self.trace) != self.versions:
            return None
        return self.trace.projecting(by_gradient)


def _versions(trace: Trace) -> list[int]:
    return [leaf._version for leaf in trace.leaves.values()]  # noqa: SLF001 - the only way


def max_chunks(micro_batches: int) -> int:
    """Return the maximum number of chunks that a route cuts a batch into."""
    return max(micro_batches, _SUMMED_ROWS)


def usual_chunks(batch: Batch, micro_batches: int) -> int:
    """Return into how many chunks a batch is cut to save memory, where the model allows it.

    Few examples of a large batch need no chunks.

    Args:
        batch: The batch.
        micro_batches: Number of chunks for a whole batch.
    """
    return math.ceil(micro_batches * batch.part)


def find_route(
    projector: Projector,
    probes: Probes,
    batch: Batch,
    update: Update,
    *,
    micro_batches: int,
    any_rank: AnyRank = list,
    cutting: CutCheck | None = None,
    check_outputs: Callable[[int, Tensor], None] | None = None,
) -> tuple[Route, CheckedPass | None]:
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
        cutting: Compares outputs for parts of the batch. Default: a new one.
        check_outputs: Raises an exception if the outputs for a part of the batch, given by its
            first example, are not those that they should be. It is also called for all chunks that
            are measured. None: nothing is known of the outputs.

    Returns:
        The route, and the forward pass of the checks if it may be used again.

    Raises:
        MeasurementError: The output does not depend on any group.
    """
    cutting = cutting or CutCheck(projector.forward, batch)

    def may_be_cut(pieces: int) -> bool:
        size = max(1, batch.examples // pieces)
        # The part is in the middle, so that both earlier and later examples are missing.
        start = (batch.examples - size) // 2
        return not any_rank([not cutting.passes(start, start + size)])[0]

    effects = SideEffects(projector.forward.model)
    part, trace = _trace_few_examples(projector, batch, update)
    if not trace.outputs.requires_grad:
        raise MeasurementError(NO_DEPENDENCE)
    if check_outputs is not None:
        check_outputs(0, trace.outputs)
    known = None if effects.are_random else trace.outputs.detach()
    is_reusable = part.examples <= _MAX_KEPT_EXAMPLES and not (
        effects.are_random or effects.are_in_model  # the next chunk starts from what it leaves
    )
    found = check(trace, probes, part, any_rank)
    kept = CheckedPass.of(trace) if is_reusable else None
    del trace  # a large graph is not needed any more, and the next passes need memory
    pieces = max(1, min(micro_batches, batch.examples // _MIN_PART_EXAMPLES))
    wanted = max(pieces, min(_SUMMED_ROWS, batch.examples))
    probe_factor = 1
    if any_rank([bool(found.slow)])[0] and batch.examples > 1:
        # Pairs of examples may interact, for instance. But mostly all do, as in batch norm. Not in
        # the front of a batch, which gives the same outputs alone.
        interacts = any_rank([found.interacts and not batch.whole_examples])[0]
        never = interacts and not CutCheck(projector.forward, part, known).passes(0, 2)
        if any_rank([never])[0]:
            pieces, probe_factor = 1, _SUMMED_ROWS
        elif may_be_cut(wanted):
            pieces = wanted
        elif pieces == 1 or not may_be_cut(pieces):
            pieces, probe_factor = 1, _SUMMED_ROWS
    elif pieces > 1:
        # The chunks that are measured now are all compared with the whole batch anyway.
        are_compared = check_outputs is not None and usual_chunks(batch, micro_batches) >= pieces
        if not (are_compared or may_be_cut(pieces)):
            pieces = 1
    route = Route(
        found.layouts,
        found.output_uses,
        found.by_gradient,
        found.slow,
        pieces,
        probe_factor,
        complete=found.is_complete,
    )
    return route, kept


def _trace_few_examples(projector: Projector, batch: Batch, update: Update) -> tuple[Batch, Trace]:
    """Trace a few examples of a batch, or all if the model does not accept fewer; return both."""
    few = _CHECKED_EXAMPLES
    counts = [count for count in (few, few + 1, few + 2, 2 * few) if count < batch.examples]
    counts = [count for count in counts if batch.may_be_tried_in_parts_of(count)]
    parts = [batch.select(0, count) for count in counts]
    # No other dimension may have this size by chance.
    parts = [part for part in parts if part.pattern() == batch.pattern()]
    for part in parts[:_MAX_TRIES]:
        try:
            return part, projector.trace(part, update)
        except torch.OutOfMemoryError:
            raise
        except REFUSALS:
            continue
    return batch, projector.trace(batch, update)
