"""What an estimator returns: unit rates with their relative errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RateEstimate:
    """Unit rates of all groups, estimated from ``probes`` probes over ``examples`` examples.

    Attributes:
        unit_rates: One per group in layout order, in output units per learning rate, >= 0.
        relative_errors: Standard error of each unit rate divided by it, in [0, 0.71]; 0 where the
            unit rate is 0.
        probes: Number of probes K, >= 1.
        examples: Number of examples B, >= 1.
    """

    unit_rates: list[float]
    relative_errors: list[float]
    probes: int
    examples: int


def rates_of_rows(rows: Tensor, *, probes: int, elements: int) -> tuple[Tensor, Tensor]:
    r"""Turn the projections ``u`` of a measurement into unit rates and their relative errors.

    The rate is :math:`\sqrt{\sum u^2 / (K N)}`; its square is unbiased. For the error each row
    counts as Gaussian with a variance :math:`v` of its own, so :math:`\mathrm{Var}(u^2) = 2 v^2`
    and :math:`E u^4 = 3 v^2`. Of :math:`n` equal rows the ratio
    :math:`\rho = \sum u^4 / (\sum u^2)^2` has the mean :math:`3 / (n + 2)`, so
    :math:`n = 3 / \rho - 2` is the number of effective rows (at least 1, because
    :math:`\rho \le 1`), and the relative error of the rate is :math:`\frac12 \sqrt{2 / n}`.

    Args:
        rows: Projections ``u``, shape [rows, groups]; rows of zeros do not count.
        probes: Number of probes K that the rows come from.
        elements: Number of output elements N that each probe covers.

    Returns:
        Unit rates and relative errors, each of shape [groups], float32.
    """
    peak = rows.abs().amax(0)
    some = peak > 0
    # Normalised first, so that the fourth powers of small projections do not underflow.
    scaled = (rows / torch.where(some, peak, 1.0)).square()
    squares = scaled.sum(0)
    rates = peak * (squares / (probes * elements)).sqrt()
    ratio = torch.where(some, scaled.square().sum(0) / squares.square(), 1.0)
    errors = 0.5 * math.sqrt(2.0) / (3.0 / ratio - 2.0).clamp(min=1.0).sqrt()
    return rates, torch.where(some, errors, 0.0)
