"""What the estimators that use whole parameter gradients share."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from fslr.errors import MeasurementError
from fslr.torch.batch import Batch
from fslr.torch.estimators.base import Estimator
from fslr.torch.estimators.estimate import ProjectionSums
from fslr.torch.modes import GradientsAsMeasured
from fslr.torch.update import Update


class GradientEstimator(Estimator):
    """One forward pass and K full backward passes; the parameters' size in gradients."""

    @staticmethod
    @abstractmethod
    def square(product: Tensor) -> Tensor:
        """Return the estimate of ``N r^2`` from ``G * U``, a scalar.

        Args:
            product: Gradient of the probed output times unit update, element by element, float32 of
                the parameter's shape.
        """

    def _sums(self, batch: Batch, update: Update) -> ProjectionSums:
        with GradientsAsMeasured():
            outputs = self._forward(batch)
        if not outputs.requires_grad:
            raise MeasurementError(NOTHING_MEASURED)
        parameters = [group.parameter for group in self._groups]
        probes: list[Tensor] = []
        for _ in range(self.probes):
            gradients = torch.autograd.grad(
                outputs,
                parameters,
                self._drawn.cotangent(outputs),
                retain_graph=True,
                allow_unused=True,
            )
            probes.append(
                torch.stack([
                    torch.zeros((), device=outputs.device)
                    if gradient is None
                    else self.square(gradient.float() * update.of_group(i).float())
                    for i, gradient in enumerate(gradients)
                ])
            )
        squares = torch.stack(probes).to("cpu", torch.float64)
        return ProjectionSums(
            squares.sum(0),
            squares.square().sum(0),
            outputs.numel(),
            batch.examples,
            self.probes,
        )


NOTHING_MEASURED = (
    "the output does not depend on any group; select another output (output=...) and check that "
    "the model does not detach it"
)
