r"""The ``per_example`` estimator: unbiased unit rates with one degree of freedom per example.

Theory. Outputs ``f`` hold ``N`` elements over ``B`` examples. For a group with unit update ``U``
the outputs move, to first order, by ``d f = J U``, and the unit rate is ``sqrt(|d f|^2 / N)``. A
probe ``z`` has independent entries of mean 0 and variance 1, so ``E[(z . d f)^2] = |d f|^2``. Write
``z . d f = sum_b u_b`` with ``u_b`` the part of example ``b``. The entries of ``z`` that belong to
different examples are independent, hence ``E[u_b u_c] = 0`` for ``b != c`` and

.. math:: E\Big[\sum_b u_b^2\Big] = E\Big[\big(\sum_b u_b\big)^2\Big] = |d f|^2 .

Squaring per example drops only cross terms of mean zero: the same expectation, ``B`` times the
degrees of freedom.

How ``u_b`` needs no per-example gradient. Where a parameter acts through a function that is linear
in it, ``u_b`` is the sum over the rows of example ``b`` of ``<dL/dy, y(U; x)>``, where ``dL/dy`` is
the cotangent at the function's result and ``y(U; x)`` its local map. The local map does not depend
on ``z``: K probes cost one forward pass, one set of local maps and K backward passes for
activations alone. Which functions those are is found by following the parameters through the
forward pass (:mod:`.tracer`); parts of a parameter that acts in several places are added up before
squaring.

What cannot be measured so takes the slow route, found by checks and never guessed
(:mod:`.route`): a parameter that cannot be followed is projected on its true
gradient, rows that belong to no example are summed, and the degrees of freedom come from cutting
the batch or from more probes.

Source: the probe identity is Milsom, Anson, Aitchison, arXiv 2502.17405; squaring per example and
the checks are this project's (docs/decisions/0002-per-example-estimator.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fslr.errors import MeasurementError
from fslr.torch.estimators.base import Estimator, Probes
from fslr.torch.estimators.gradient import NOTHING_MEASURED
from fslr.torch.estimators.per_example.projector import Projector
from fslr.torch.estimators.per_example.route import AnyRank, Route, find_route, most_chunks
from fslr.torch.estimators.sums import ProjectionSums, sums_of_rows
from fslr.torch.model.batch import Batch
from fslr.torch.model.forward import Output
from fslr.torch.model.groups import ModelGroups
from fslr.torch.model.update import Update

_CHECKS_STRIDE = 500_009  # between the seeds of measurements and of checks


class PerExampleEstimator(Estimator):
    """Estimates unit rates without bias, example by example.

    Relative standard error of a rate: about ``0.5 * sqrt(2 / (B * K))`` for groups measured per
    example, ``0.5 * sqrt(2 / (8 * K))`` for groups whose rows are summed.

    Args:
        model: The model to measure.
        groups: Its groups.
        output: Which tensor, leading dimension B, of what the model returns.
        probes: Number of probes K per measurement, >= 1.
        seed: Seed of the probes' own generators.
        micro_batches: Into how many parts the batch is cut, >= 1, where the model allows it and at
            least 4 examples remain in each: less memory for somewhat more time.
        any_rank: Of a sharded model, tells for each of some flags whether it is set on any rank:
            the ranks then make the same passes, on batches of as many examples. None: this process
            decides alone.

    Raises:
        MeasurementError: ``probes`` or ``micro_batches`` is below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: ModelGroups,
        *,
        output: Output = None,
        probes: int = 1,
        seed: int = 0,
        micro_batches: int = 1,
        any_rank: AnyRank | None = None,
    ) -> None:
        super().__init__(model, groups, output=output, probes=probes, seed=seed)
        if micro_batches < 1:
            raise MeasurementError(f"micro_batches is {micro_batches}; a batch is at least 1 part")
        self._micro_batches = micro_batches
        self._any_rank = any_rank or list
        self._projector = Projector(self._forward, groups)
        # Of their own: a resumed training checks again, and must not draw other probes for it.
        self._check_probes = Probes(seed + _CHECKS_STRIDE)
        self._routes: dict[tuple[object, ...], Route] = {}
        self._measured: dict[tuple[object, ...], int] = {}  # measurements of each pattern

    @property
    def slow_groups(self) -> dict[str, str]:
        """Names of the groups that took the slow route so far, with the reason."""
        names = [group.name for group in self._groups]
        return {
            names[index]: reason
            for route in self._routes.values()
            for index, reason in sorted(route.slow.items())
        }

    def _sums(self, batch: Batch, update: Update) -> ProjectionSums:
        pattern = batch.pattern()
        route = self._routes.get(pattern)
        count = self._measured[pattern] = self._measured.get(pattern, -1) + 1
        # What showed nothing so far is looked at again, more and more seldom.
        again = route is None or (not route.complete and count.bit_count() == 1)
        if self._any_rank([again])[0] or route is None:
            route = find_route(
                self._projector,
                self._check_probes,
                batch,
                update,
                micro_batches=self._micro_batches,
                any_rank=self._any_rank,
            )
            self._routes[pattern] = route
        route = route.agreed(
            self._any_rank, groups=len(self._groups), most_chunks=most_chunks(self._micro_batches)
        )
        sums: ProjectionSums | None = None
        for chunk in batch.chunks(route.chunks):
            # Of the linearity error, which is no matter of digits, one part tells enough.
            part = self._chunk_sums(chunk, update, route, with_real=sums is None)
            sums = part if sums is None else sums + part
        if sums is None:
            raise MeasurementError("the batch has no examples; measure on at least one")
        return sums

    def _chunk_sums(
        self, chunk: Batch, update: Update, route: Route, *, with_real: bool
    ) -> ProjectionSums:
        after = self._projector.outputs_after(chunk, update) if with_real else None
        trace = self._projector.trace(chunk, update, by_gradient=route.by_gradient)
        if not trace.outputs.requires_grad:
            raise MeasurementError(NOTHING_MEASURED)
        layouts = route.layouts_of(trace)
        change = None if after is None else _change(after, trace.outputs.detach())
        rows: list[Tensor] = []
        real: list[Tensor] = []
        probes = route.probe_factor * self.probes
        for probe in range(probes):
            cotangent = self._drawn.cotangent(trace.outputs)
            last = probe == probes - 1
            rows.append(self._projector.rows(trace, cotangent, layouts, last=last))
            if change is not None:
                real.append(torch.linalg.vecdot(cotangent.float().flatten(1), change.flatten(1)))
        learning_rates = update.learning_rates
        return sums_of_rows(
            torch.stack(rows).to("cpu", torch.float64),
            trace.examplewise(layouts),
            elements=trace.outputs.numel(),
            probes=probes,
            learning_rates=None
            if learning_rates is None
            else torch.tensor(learning_rates, dtype=torch.float64, device="cpu"),
            real=torch.stack(real).to("cpu", torch.float64) if real else None,
        )


def _change(after: Tensor, before: Tensor) -> Tensor:
    """Return the real change of the outputs; what is infinite in both (a mask) does not change."""
    masked = after.isinf() & (after == before)
    return after.float().sub_(before).masked_fill_(masked, 0.0)
