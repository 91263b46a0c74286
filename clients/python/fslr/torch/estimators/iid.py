r"""The ``iid`` estimator: as if the elements of a gradient were independent.

:math:`\sum_{ij} (G_{ij} U_{ij})^2`. Hardly any variance, and a large bias: elements of one layer
move the outputs together, and every product of two of them is left out.

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
