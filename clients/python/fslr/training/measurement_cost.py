"""What a measurement of some size will take, learned from those that were made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_KEPT = 4  # sizes; older ones are forgotten
_FIXED_PART = 0.2  # of a measurement's time that its size does not change, until it is known
_PROBES_PER_EXAMPLE = 2.0  # whose time an example takes without its probes, until it is known
_PRIOR_WEIGHT = 0.05  # of what is assumed, next to a measurement

_Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a measurement.

    Attributes:
        examples: Number of examples, >= 0.
        repeats: How many times as many probes as otherwise, >= 1.
    """

    examples: int
    repeats: int = 1

    @property
    def counts(self) -> _Floats:
        """How often each part of a measurement's time is spent: fixed, by example, by probe."""
        return np.array([1.0, self.examples, self.examples * self.repeats])


class MeasurementCost:
    """Predicts the time of a measurement: a fixed part, a part per example, and one per probe.

    The three parts are fitted to the latest sizes by least squares of relative deviations. As long
    as these do not determine them, they stay near assumed proportions. The prediction for the
    newest size is always its time.
    """

    def __init__(self) -> None:
        self._known: list[tuple[Size, float]] = []
        self._parts: _Floats | None = None

    @property
    def is_known(self) -> bool:
        """Whether any measurement was added."""
        return bool(self._known)

    @property
    def newest(self) -> Size:
        """The size that was added last.

        Raises:
            IndexError: None was added.
        """
        return self._known[-1][0]

    def clear(self) -> None:
        """Forget all measurements."""
        self._known.clear()

    def add(self, size: Size, seconds: float) -> None:
        """Take note of what a measurement took.

        Args:
            size: Its size.
            seconds: Its time.
        """
        self._known = [known for known in self._known if known[0] != size][1 - _KEPT :]
        self._known.append((size, seconds))
        self._parts = None

    def seconds(self, size: Size) -> float:
        """Return the expected time of a measurement.

        Args:
            size: Its size.

        Raises:
            IndexError: No measurement was added.
        """
        if self._parts is None:
            self._parts = self._fitted()
        return float(self._parts @ size.counts)

    def _fitted(self) -> _Floats:
        newest, seconds = self._known[-1]
        counts = newest.counts
        each = (1 - _FIXED_PART) * seconds / (counts[1] * _PROBES_PER_EXAMPLE + counts[2])
        assumed = np.array([_FIXED_PART * seconds, _PROBES_PER_EXAMPLE * each, each])
        known = [(size, taken) for size, taken in self._known if taken > 0]
        if seconds <= 0 or len(known) == 1:
            return assumed
        # In units of what is assumed; the last rows hold the solution near 1.
        rows = [size.counts * assumed / taken for size, taken in known]
        prior = np.sqrt(_PRIOR_WEIGHT) * np.eye(3)
        wanted = np.concatenate([np.ones(len(rows)), prior.sum(1)])
        factors, *_ = np.linalg.lstsq(np.vstack([*rows, prior]), wanted)
        parts = assumed * np.maximum(factors, 0.0)
        predicted = float(parts @ counts)
        return parts * (seconds / predicted) if predicted > 0 else assumed
