"""The base class of the estimators that use gradients of whole parameters."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from fslr.errors import MeasurementError
from fslr.torch.estimators.backward import edges_beside
from fslr.torch.estimators.base import Estimator
from fslr.torch.model.batch import Batch
from fslr.torch.model.complex_numbers import as_real
from fslr.torch.model.function_modes import UnmodifiedGradients
from fslr.torch.model.update import Update
from fslr.training.projections import ProjectionSums


class GradientEstimator(Estimator):
    """Takes one forward pass and K full backward passes, and memory for all gradients.

    Subclasses define the terms that are averaged over probes, and the estimate from their means.
    """

    @staticmethod
    @abstractmethod
    def terms(product: Tensor) -> Tensor:
        """Return the terms of one probe, which are averaged over probes; shape [terms].

        Args:
            product: Element-wise product of the gradient of ``z . f`` and the unit update, float32
                of the parameter's shape. For a complex parameter it is the real part of
                ``conj(gradient) * update``.
        """

    @staticmethod
    def square(terms: Tensor) -> Tensor:
        """Return the estimate of ``N r^2``, a scalar; by default the only term.

        Args:
            terms: The mean over probes of what :meth:`terms` returns, shape [terms].
        """
        return terms[0]

    def _sums(self, batch: Batch, update: Update) -> ProjectionSums:
        with UnmodifiedGradients():
            outputs, weights = self._forward.with_weights(batch)
        if not outputs.requires_grad:
            raise MeasurementError(NO_DEPENDENCE)
        self._check_outputs(0, outputs)
        edges = [get_gradient_edge(group.parameter) for group in self._groups]
        edges += edges_beside(outputs, edges, [group.parameter for group in self._groups])
        squares_by_probe: list[Tensor] = []
        totals: list[Tensor | None] = [None] * len(self._groups)
        for probe in range(self._probe_count):
            cotangent = self._probes.cotangent(outputs)
            gradients = torch.autograd.grad(
                outputs,
                edges,
                cotangent if weights is None else weights.weigh(cotangent),
                retain_graph=probe < self._probe_count - 1,
                allow_unused=True,
            )
            squares = [torch.zeros((), device=outputs.device)] * len(self._groups)
            for i, gradient in enumerate(gradients[: len(squares)]):
                if gradient is not None:
                    terms = self.terms(_product(gradient, update.unit_update(i)))
                    squares[i] = self.square(terms)
                    total = totals[i]
                    totals[i] = terms if total is None else total + terms
            del gradients
            squares_by_probe.append(torch.stack(squares))
        mean_squares = [
            torch.zeros((), device=outputs.device)
            if total is None
            else self.square(total / self._probe_count)
            for total in totals
        ]
        by_probe = torch.stack(squares_by_probe).to("cpu", torch.float64)
        totals_by_group = torch.stack(mean_squares).to("cpu", torch.float64) * self._probe_count
        return ProjectionSums(
            totals_by_group.numpy(),
            by_probe.square().sum(0).numpy(),
            outputs.numel() if weights is None else weights.total(),
            batch.examples,
            self._probe_count,
        )


def _product(gradient: Tensor, unit_update: Tensor) -> Tensor:
    """Return ``Re(conj(gradient) * unit_update)`` by element, in float32."""
    if not gradient.is_complex():
        return gradient.float() * unit_update.float()
    pairs, of_update = as_real(gradient, unit_update)
    return (pairs.float() * of_update.float()).sum(-1)


NO_DEPENDENCE = (
    "the output does not depend on any group; select another output (output=...) and check that "
    "the model does not detach it"
)
