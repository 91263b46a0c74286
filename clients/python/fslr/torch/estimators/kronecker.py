r"""The ``kronecker`` estimator: the one that the paper proposes.

With :math:`P = G * U`, a tensor of :math:`n` dimensions:
:math:`\prod_d \sum (\sum_d P)^2 \, / \, (\sum P^2)^{n - 1}`, where :math:`\sum_d` sums over
dimension :math:`d` only. With several probes, each of these sums is averaged over the probes first,
and then the sums are multiplied and divided, as in the authors' code. The estimate is exact if the
covariance of the gradient is a Kronecker product with one factor per dimension. Otherwise it is
biased by up to tens of per cent, with a sign that depends on the layer. For vectors it equals the
``full`` estimator.

Source: Milsom, Anson, Aitchison, arXiv 2502.17405, the Kronecker-factored estimate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fslr.torch.estimators.gradient import GradientEstimator


class KroneckerEstimator(GradientEstimator):
    """Multiplies one factor for each dimension of gradient times update."""

    @staticmethod
    def terms(product: Tensor) -> Tensor:
        """Return ``sum (sum_d P)^2`` for each dimension, followed by ``sum P^2``."""
        product = product.reshape(product.shape or (1,))
        factors = [product.sum(d).square().sum() for d in range(product.dim())]
        return torch.stack([*factors, product.square().sum()])

    @staticmethod
    def square(terms: Tensor) -> Tensor:
        """Return the product over dimensions, in logarithms so that no power overflows."""
        factors, whole = terms[:-1], terms[-1]
        estimate = (factors.log().sum() - (len(factors) - 1) * whole.log()).exp()
        return torch.where(whole > 0, estimate, 0.0)
