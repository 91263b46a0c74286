"""What the estimators that use whole parameter gradients share."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from fslr.errors import MeasurementError
from fslr.torch.estimators.base import Estimator
from fslr.torch.estimators.sums import ProjectionSums
from fslr.torch.model.batch import Batch
from fslr.torch.model.function_modes import GradientsAsMeasured
from fslr.torch.model.update import Update


class GradientEstimator(Estimator):
    """One forward pass and K full backward passes; the parameters' size in gradients."""

    @staticmethod
    @abstractmethod
    def terms(product: Tensor) -> Tensor:
        """Return what a probe gives, to be averaged over probes; shape [terms].

        Args:
            product: Gradient of the probed output times unit update, element by element, float32 of
                the parameter's shape.
        """

    @staticmethod
    def square(terms: Tensor) -> Tensor:
        """Return the estimate of ``N r^2`` from the mean terms of some probes, a scalar.

        Args:
            terms: As of :meth:`terms`. By default there is one, and it is the estimate.
        """
        return terms[0]

    def _sums(self, batch: Batch, update: Update) -> ProjectionSums:
        with GradientsAsMeasured():
            outputs = self._forward(batch)
        if not outputs.requires_grad:
            raise MeasurementError(NOTHING_MEASURED)
        parameters = [group.parameter for group in self._groups]
        probes: list[Tensor] = []
        totals: list[Tensor | None] = [None] * len(parameters)
        for probe in range(self.probes):
            gradients = torch.autograd.grad(
                outputs,
                parameters,
                self._drawn.cotangent(outputs),
                retain_graph=probe < self.probes - 1,
                allow_unused=True,
            )
            alone = [torch.zeros((), device=outputs.device)] * len(parameters)
            for i, gradient in enumerate(gradients):
                if gradient is not None:
                    terms = self.terms(gradient.float() * update.of_group(i).float())
                    alone[i] = self.square(terms)
                    total = totals[i]
                    totals[i] = terms if total is None else total + terms
            del gradients
            probes.append(torch.stack(alone))
        together = [
            torch.zeros((), device=outputs.device)
            if total is None
            else self.square(total / self.probes)
            for total in totals
        ]
        squares = torch.stack(probes).to("cpu", torch.float64)
        return ProjectionSums(
            torch.stack(together).to("cpu", torch.float64) * self.probes,
            squares.square().sum(0),
            outputs.numel(),
            batch.examples,
            self.probes,
        )


NOTHING_MEASURED = (
    "the output does not depend on any group; select another output (output=...) and check that "
    "the model does not detach it"
)
