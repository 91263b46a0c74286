r"""The ``per_example`` estimator: unbiased unit rates with one degree of freedom per example.

Theory. The outputs ``f`` have ``N`` elements over ``B`` examples. For a group with unit update
``U``, the outputs move to first order by ``d f = J U``, and the unit rate is ``sqrt(|d f|^2 / N)``.
A probe ``z`` has independent entries of mean 0 and variance 1, so ``E[(z . d f)^2] = |d f|^2``.
Write ``z . d f = sum_b u_b``, where ``u_b`` is the part of example ``b``. The entries of ``z`` that
belong to different examples are independent, hence ``E[u_b u_c] = 0`` for ``b != c`` and

.. math:: E\Big[\sum_b u_b^2\Big] = E\Big[\big(\sum_b u_b\big)^2\Big] = |d f|^2 .

Squaring per example drops only cross terms of mean zero: the expectation is the same, with ``B``
times the degrees of freedom.

Computing ``u_b`` without per-example gradients. Where a parameter acts through a function that is
linear in it, ``u_b`` is the sum over the rows of example ``b`` of ``<dL/dy, y(U; x)>``, where
``dL/dy`` is the cotangent at the function's result and ``y(U; x)`` is its local map. The local map
does not depend on ``z``: K probes cost one forward pass, one set of local maps, and K backward
passes for activations only. The functions are found by following the parameters through the forward
pass (:mod:`.tracer`). If a parameter acts in several places, its parts are added before squaring.

Where a parameter acts directly on the outputs, as the head of a language model does, no probe is
needed: the RMS of its local map is exact. If it also acts elsewhere (tied embeddings), only the
part that involves the other places is estimated (:mod:`.output_uses`).

Groups that cannot be measured in this way take a slow route, which is determined by checks
(:mod:`.route`): a parameter that cannot be followed is projected by its gradient, rows that belong
to no single example are summed, and the degrees of freedom come from cutting the batch or from more
probes.

Source: the probe identity is from Milsom, Anson, Aitchison, arXiv 2502.17405. Squaring per example
and the checks are this project's own (docs/decisions/0002-per-example-estimator.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fslr.errors import MeasurementError
from fslr.torch.estimators.base import AnyRank, Estimator
from fslr.torch.estimators.gradient import NO_DEPENDENCE
from fslr.torch.estimators.per_example.output_uses import OutputParts, exact_parts
from fslr.torch.estimators.per_example.precision import forward_roundoff
from fslr.torch.estimators.per_example.projector import Projector, Trace
from fslr.torch.estimators.per_example.route import (
    CheckedPass,
    Route,
    find_route,
    max_chunks,
    usual_chunks,
)
from fslr.torch.estimators.per_example.rows import RowLayout, inner_products
from fslr.torch.estimators.probes import Probes
from fslr.torch.model.batch import Batch
from fslr.torch.model.forward import Output
from fslr.torch.model.groups import ModelGroups
from fslr.torch.model.isolation import isolated
from fslr.torch.model.mask import Mask
from fslr.torch.model.sums import summed_as
from fslr.torch.model.update import Update
from fslr.training.projections import ProjectionSums, sums_of_rows

_EXAMPLES_LEAD = RowLayout("dimension")
_USES_PER_ROUNDING = 16.0  # as measured on transformers of 1 to 16 blocks in bfloat16
_CHECK_SEED_OFFSET = 500_009  # from the seed of the measurements to that of the checks


class PerExampleEstimator(Estimator):
    """Estimates unit rates without bias, with one degree of freedom per example.

    The relative standard error of a rate is about ``0.5 * sqrt(2 / (B * K))`` for groups measured
    per example, and ``0.5 * sqrt(2 / (8 * K))`` for groups whose rows are summed.

    Args:
        model: The model to measure.
        groups: The groups of the model.
        output: Selects the output, with leading dimension B, from the model's result.
        mask: Weighs the output's elements; None: all count the same.
        probes: Number of probes K per measurement, >= 1.
        seed: Seed of the probes; the global generators are not used.
        micro_batches: Number of parts that the batch is cut into, >= 1, if the model allows it and
            each part keeps at least 4 examples: takes less memory and slightly more time.
        output_dim: The dimension of the output that counts the examples, >= 0.
        any_rank: For a sharded model, returns for each of several flags whether any rank sets it,
            so that all ranks make the same passes; their batches must have equally many examples.
            None: this process decides for itself.

    Raises:
        MeasurementError: ``probes`` or ``micro_batches`` is below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: ModelGroups,
        *,
        output: Output = None,
        mask: Mask = None,
        probes: int = 1,
        seed: int = 0,
        micro_batches: int = 1,
        output_dim: int = 0,
        any_rank: AnyRank | None = None,
    ) -> None:
        super().__init__(
            model,
            groups,
            output=output,
            mask=mask,
            probes=probes,
            seed=seed,
            output_dim=output_dim,
            any_rank=any_rank,
        )
        if micro_batches < 1:
            raise MeasurementError(f"micro_batches is {micro_batches}; it must be at least 1")
        self._micro_batches = micro_batches
        self._projector = Projector(self._forward, groups)
        # Separate: a resumed training repeats the checks, and must still draw the same probes.
        self._check_probes = Probes(seed + _CHECK_SEED_OFFSET)
        self._routes: dict[tuple[object, ...], Route] = {}
        self._measured: dict[tuple[object, ...], int] = {}  # number of measurements by pattern
        self._probe_factor = 1  # of the newest route
        self._is_resumed = False  # after a measurement that is not in this process

    @property
    def slow_groups(self) -> dict[str, str]:
        """The groups that have taken a slow route so far, with the reason for each."""
        names = [group.name for group in self._groups]
        return {
            names[index]: reason
            for route in self._routes.values()
            for index, reason in sorted(route.slow.items())
        }

    def load_probe_states(self, states: Mapping[str, bytes]) -> None:
        """Restore states; if something was measured before, no measurement is a first one."""
        super().load_probe_states(states)
        self._is_resumed = bool(states)

    @property
    def probes_per_requested(self) -> int:
        """How many probes the next measurement uses for each of :attr:`probes`."""
        return self._probe_factor

    def _sums(self, batch: Batch, update: Update) -> ProjectionSums:
        pattern = batch.pattern()
        route = self._routes.get(pattern)
        count = self._measured.get(pattern, -1) + 1
        # Groups without effect so far are checked again, at intervals that double each time.
        needs_check = route is None or (not route.complete and count.bit_count() == 1)
        found: Route | None = None
        checked: CheckedPass | None = None
        if self._any_rank([needs_check])[0] or route is None:
            found, checked = self._found_route(batch, update)
            route = found
        route = route.agreed(
            self._any_rank, groups=len(self._groups), max_chunks=max_chunks(self._micro_batches)
        )
        self._probe_factor = route.probe_factor
        if count == 0 and not self._is_resumed:
            route = route.of_first_measurement(self._micro_batches)
        sums: ProjectionSums | None = None
        start = 0
        for chunk in batch.chunks(self._chunks(route, batch)):
            if checked is not None and checked.examples != chunk.examples:
                checked = None  # its graph takes memory
            # The linearity error needs no precision, so it is measured on one part only: the first
            # in which anything counts.
            part = self._chunk_sums(
                chunk,
                update,
                route,
                start=start,
                with_real=sums is None or sums.changes == 0,
                checked=checked,
            )
            checked = None  # it has the first examples
            sums = part if sums is None else sums + part
            start += chunk.examples
        if sums is None:
            raise MeasurementError("the batch has no examples; it must have at least 1")
        # A batch that may not be cut as it was is measured again, and for the first time.
        self._measured[pattern] = count
        if found is not None:
            self._routes[pattern] = found
        return sums

    def _found_route(self, batch: Batch, update: Update) -> tuple[Route, CheckedPass | None]:
        """Determine by checks how a batch is measured; return the pass of the checks, too."""
        cutting = None if self._cutting is None else self._cutting.of_front(batch)
        # A resumed training repeats the checks, and must still measure with the same dropout.
        with isolated(self._model):
            route, checked = find_route(
                self._projector,
                self._check_probes,
                batch,
                update,
                micro_batches=self._micro_batches,
                any_rank=self._any_rank,
                cutting=cutting,
                check_outputs=self._check_outputs if self._is_tried else None,
            )
        # Parameters of a sharded model are gathered for each pass.
        return route, None if self._is_sharded else checked

    def _chunks(self, route: Route, batch: Batch) -> int:
        """Return into how many chunks a batch is cut, at most ``route.chunks``.

        Slow groups get their degrees of freedom from repeats as well.

        Args:
            route: How the batch is measured.
            batch: The batch.
        """
        if route.slow:
            return math.ceil(route.chunks / self.repeats)
        return min(route.chunks, usual_chunks(batch, self._micro_batches))

    def _chunk_sums(
        self,
        chunk: Batch,
        update: Update,
        route: Route,
        *,
        start: int,
        with_real: bool,
        checked: CheckedPass | None = None,
    ) -> ProjectionSums:
        """Measure a chunk.

        Args:
            chunk: The chunk.
            update: The step to measure.
            route: How it is measured.
            start: Its first example in the batch.
            with_real: Whether the real change of the outputs is compared.
            checked: The checks' forward pass of the same examples, if there was one.

        Raises:
            MeasurementError: The output does not depend on any group.
        """
        after = self._projector.outputs_after(chunk, update) if with_real else None
        trace = None if checked is None else checked.projecting(route.by_gradient)
        if trace is None:
            trace = self._projector.trace(chunk, update, by_gradient=route.by_gradient)
            self._check_outputs(start, trace.outputs)
        if not trace.outputs.requires_grad:
            raise MeasurementError(NO_DEPENDENCE)
        layouts, weights = route.layouts_of(trace), trace.weights
        change = None if after is None else _change(after, trace.outputs.detach())
        if change is not None and weights is not None:
            change = weights.clear(change)
        rows: list[Tensor] = []
        real: list[Tensor] = []
        at_outputs: list[OutputParts] = []
        probes = route.probe_factor * self._probe_count
        for probe in range(probes):
            cotangent = self._probes.cotangent(trace.outputs)
            if weights is not None:
                cotangent = weights.weigh(cotangent)
            last = probe == probes - 1
            projections, parts = self._projector.rows(
                trace,
                cotangent,
                layouts,
                output_uses=route.output_uses,
                with_squares=probe == 0,
                last=last,
            )
            rows.append(projections)
            at_outputs.append(parts)
            if change is not None:
                real.append(inner_products(cotangent, change, _EXAMPLES_LEAD, len(change)))
        learning_rates = update.learning_rates
        return sums_of_rows(
            torch.stack(rows).to("cpu", torch.float64).numpy(),
            trace.examplewise(layouts).numpy(),
            elements=trace.outputs.numel() if weights is None else weights.total(),
            probes=probes,
            learning_rates=None if learning_rates is None else np.array(learning_rates),
            real=torch.stack(real).to("cpu", torch.float64).numpy() if real else None,
            exact=exact_parts(at_outputs),
            rounding=_rounding(trace, chunk) if real else 0.0,
        )


def _rounding(trace: Trace, batch: Batch) -> float:
    """Return the expected sum of the squared rounding errors in a difference of two outputs.

    Rounding errors of a forward pass are about as large as one rounding of the output, and grow
    with the square root of the depth, for which the number of uses stands.
    """
    outputs = trace.outputs.detach()
    outputs = outputs.masked_fill(~outputs.isfinite(), 0.0)
    if trace.weights is not None:
        outputs = trace.weights.weigh(outputs)
    square = float(torch.linalg.vector_norm(outputs, dtype=summed_as(outputs))) ** 2
    computed = [
        outputs,
        *trace.leaves.values(),
        *(change for u in trace.uses for _, change in u.parts),
    ]
    roundings = 1 + len(trace.uses) / _USES_PER_ROUNDING
    return 2 * roundings * forward_roundoff(batch, computed) ** 2 * square


def _change(after: Tensor, before: Tensor) -> Tensor:
    """Return the real change of the outputs; 0 where both are the same infinity (a mask)."""
    masked = after.isinf() & (after == before)
    if not after.is_complex():
        after, before = after.float(), before.float()
    return (after - before).masked_fill_(masked, 0.0)
