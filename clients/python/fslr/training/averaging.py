"""Running averages of unit rates over measurements, with bias correction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fslr.errors import MeasurementError
from fslr.training.estimate import RateEstimate


class RunningAverage:
    r"""Averages squared unit rates over measurements with weights that fall exponentially.

    After measurement :math:`n` of one probe each the weight of measurement :math:`i` is
    :math:`\beta^{n-i} (1 - \beta) / (1 - \beta^n)`: the weights add up to 1 from the first
    measurement on. A measurement of :math:`K` probes counts as :math:`K`. Squares are averaged,
    because single measurements of squares are unbiased. The average lags behind rates that change,
    by about :math:`\beta / (1 - \beta)` measurements of one probe.

    Everything else, such as the total rate or the RMS of weights and updates, is that of the newest
    measurement.

    Args:
        decay: :math:`\beta`, in [0, 1); 0 keeps only the newest measurement.

    Raises:
        MeasurementError: ``decay`` is outside of [0, 1).
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise MeasurementError(
                f"averaging is {decay}; it must be in [0, 1), and 0 means no averaging"
            )
        self._decay = decay
        self._weight = 0.0
        self._squares: NDArray[np.float64] | None = None
        self._variances: NDArray[np.float64] | None = None

    def add(self, estimate: RateEstimate, probes: int = 1) -> RateEstimate:
        """Return the average of all measurements up to this one.

        Args:
            estimate: The newest measurement.
            probes: Number of probes that were requested, >= 1.
        """
        if self._decay == 0:
            return estimate
        squares = np.square(_array(estimate.unit_rates))
        errors = _array(estimate.relative_errors)
        # The relative error of a square is twice that of its root.
        variances = np.square(2 * errors * squares)
        if self._squares is None or self._variances is None:
            self._squares, self._variances = np.zeros_like(squares), np.zeros_like(squares)
        decay = self._decay**probes
        new = 1 - decay
        self._weight = decay * self._weight + new
        self._squares = decay * self._squares + new * squares
        self._variances = decay**2 * self._variances + new**2 * variances
        averaged = self._squares / self._weight
        spread = np.sqrt(self._variances) / self._weight
        errors = np.where(averaged > 0, 0.5 * spread / np.maximum(averaged, 1e-300), 0.0)
        return replace(
            estimate, unit_rates=np.sqrt(averaged).tolist(), relative_errors=errors.tolist()
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs, as plain numbers."""
        squares, variances = self._squares, self._variances
        return {
            "weight": self._weight,
            "squares": None if squares is None else squares.tolist(),
            "variances": None if variances is None else variances.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called.

        Args:
            state: The dictionary that it returned.
        """
        weight, squares, variances = (state[key] for key in ("weight", "squares", "variances"))
        self._weight = float(weight)
        self._squares = None if squares is None else _array(squares)
        self._variances = None if variances is None else _array(variances)


def _array(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
