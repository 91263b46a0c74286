"""The result of one measurement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RateEstimate:
    """Unit rates of all groups, estimated from ``probes`` probes over ``examples`` examples.

    Attributes:
        unit_rates: One per group in layout order, in output units per learning rate, >= 0.
        relative_errors: Standard error of each unit rate divided by it, in [0, 0.71]; 0 where the
            unit rate is 0 or exact. It does not include the bias of an estimator.
        probes: Number of probes K, >= 1.
        examples: Number of examples B, >= 1.
        gram: Inner products of the groups' output changes per output element, float64 of shape
            [groups, groups], in (output units per learning rate)^2; its diagonal holds the squared
            unit rates. It is unbiased, so single entries may exceed the bounds of a true Gram
            matrix. None: the estimator does not provide one.
        total_rate: RMS change of the outputs by all groups together, in output units, >= 0. None:
            not known.
        shares: Signed share of each group in the squared total rate; they add up to 1. None: not
            known, or nothing moved.
        linearity_error: RMS difference between the real change of the outputs and the first-order
            one, divided by the total rate, >= 0. None: not measured, nothing moved, the real
            change is not finite, or the difference may be the rounding of the outputs.
        weight_rms: RMS of each group's weights before the step, >= 0. None: not measured.
        update_rms: RMS of each group's update of an lr = 1 step, >= 0; 0 where the learning rate
            is. None: not measured.
        weight_decays: Part of each group's weights that the scheduled step takes away as weight
            decay, >= 0; 0 where there is none, or none apart from the rest of the update. None:
            not known.
        excludes_weight_decay: Whether unit rates and ``update_rms`` are those of the update without
            its weight decay.
        mask: What weighs the output elements that all rates are averages over: a key of the batch,
            or the name of a function. Empty: all count the same.
    """

    unit_rates: list[float]
    relative_errors: list[float]
    probes: int
    examples: int
    gram: NDArray[np.float64] | None = None
    total_rate: float | None = None
    shares: list[float] | None = None
    linearity_error: float | None = None
    weight_rms: list[float] | None = None
    update_rms: list[float] | None = None
    weight_decays: list[float] | None = None
    excludes_weight_decay: bool = False
    mask: str = ""
