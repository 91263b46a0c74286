"""How many examples and probes the measurements of a training use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class MeasurementSize:
    """How many examples and probes later measurements use.

    Options set it first. The budget then lowers the number of examples, and the advisor may say
    how many probes it wants. A meter asks for both before each measurement, and reports what it
    used.

    Args:
        probes: Number of probes, >= 1.
        max_examples: Maximum number of examples, >= 1, which nothing exceeds. None: no limit.

    Attributes:
        examples: Number of examples of the newest measurement, on this rank; 0: there was none.
    """

    def __init__(self, probes: int, max_examples: int | None = None) -> None:
        self.examples = 0
        self._requested = probes
        self._repeats = 1
        self._used_per_requested = 1.0  # a slow route uses several probes for each requested one
        self._limits = [max_examples or math.inf, math.inf]

    @property
    def probes(self) -> int:
        """Number of probes to request from the estimator, >= 1."""
        return self._requested * self._repeats

    @property
    def max_examples(self) -> int | None:
        """Maximum number of examples to measure on, >= 1; None: no limit."""
        limit = min(self._limits)
        return None if math.isinf(limit) else int(limit)

    def set_examples(self, examples: int, repeats: int = 1) -> None:
        """Measure later steps on at most this many examples.

        Args:
            examples: The number; 0: no limit but the one of the options.
            repeats: How many times as many probes as were set are used, >= 1.
        """
        self._limits[1] = examples or math.inf
        self._repeats = repeats

    def set_probes(self, probes: int) -> None:
        """Set the number of probes of later measurements.

        Args:
            probes: The number, >= 1, as :attr:`.RateEstimate.probes` counts them.
        """
        self._requested = max(1, math.ceil(probes / self._used_per_requested))
        self._repeats = 1

    def note_probes(self, used: int, *, least_per_requested: float = 0.0) -> None:
        """Take note of how many probes the newest measurement used.

        Args:
            used: The number.
            least_per_requested: How many are used at least for each requested one next time.
        """
        self._used_per_requested = max(used / self.probes, least_per_requested)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs; the limit of examples is found anew."""
        return {
            "probe_count": self.probes,
            "probes_per_requested": self._used_per_requested,
            "repeats": self._repeats,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called.

        Args:
            state: The dictionary that it returned; further entries have no effect.

        Raises:
            KeyError: An entry is missing.
        """
        self._repeats = int(state["repeats"])
        self._requested = int(state["probe_count"]) // self._repeats
        self._used_per_requested = float(state["probes_per_requested"])
