r"""The ``full`` estimator: the probe identity without approximation.

:math:`(\sum_{ij} G_{ij} U_{ij})^2` with :math:`G = \nabla_W (z \cdot f)`. It has no bias, but only
one degree of freedom per probe: the relative standard error of a rate from K probes is about
:math:`\frac12 \sqrt{2 / K}`.

Source: Milsom, Anson, Aitchison, arXiv 2502.17405, the estimate before any factorization.
"""

from __future__ import annotations

from torch import Tensor

from fslr.torch.estimators.gradient import GradientEstimator


class FullEstimator(GradientEstimator):
    """Squares the sum of all elements of gradient times update."""

    @staticmethod
    def terms(product: Tensor) -> Tensor:
        """Return ``(sum P)^2`` of the product ``P``."""
        return product.sum().square()[None]
