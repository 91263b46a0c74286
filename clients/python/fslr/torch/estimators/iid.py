r"""The ``iid`` estimator: treats the elements of a gradient as independent.

:math:`\sum_{ij} (G_{ij} U_{ij})^2`. It has little variance, but a large bias: the elements of a
layer move the outputs together, and the products of different elements are left out.

Source: Milsom, Anson, Aitchison, arXiv 2502.17405, the independence assumption.
"""

from __future__ import annotations

from torch import Tensor

from fslr.torch.estimators.gradient import GradientEstimator


class IidEstimator(GradientEstimator):
    """Sums the squares of the elements of gradient times update."""

    @staticmethod
    def terms(product: Tensor) -> Tensor:
        """Return ``sum P^2`` of the product ``P``."""
        return product.square().sum()[None]
