"""How many examples and probes the measurements of a training use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_MIN_REPEATED_EXAMPLES = 8  # with fewer, the choice of examples would count


class MeasurementSize:
    """How many examples and probes later measurements use.

    Options set it first. The budget then lowers the number of examples, on which it may use more
    probes, and the advisor may say how many probes it wants. A meter asks for both before each
    measurement, and reports what it used.

    Args:
        probes: Number of probes, >= 1.
        max_examples: Maximum number of examples, >= 1, which nothing exceeds. None: no limit.

    Attributes:
        probes: Number of probes to request from the estimator without repeats, >= 1.
        examples: Number of examples of the newest measurement, on this rank; 0: there was none.
        repeats: How many times as many probes the newest measurement used.
    """

    def __init__(self, probes: int, max_examples: int | None = None) -> None:
        self.probes = probes
        self.examples = 0
        self.repeats = 1
        self._used_per_requested = 1.0  # a slow route uses several probes for each requested one
        self._limit = max_examples or math.inf
        self._planned_examples = math.inf
        self._planned_repeats = 1

    def part(self, examples: int) -> tuple[int | None, int]:
        """Return how many examples are measured at most, and how many times as many probes.

        More probes are only used on so many times fewer examples, if at least 8 remain.

        Args:
            examples: How many examples there are.

        Returns:
            The maximum number of examples, or None for no limit; and the factor, >= 1.
        """
        count = min(float(examples), self._limit)
        repeats = max(1, min(self._planned_repeats, int(count) // _MIN_REPEATED_EXAMPLES))
        most = min(self._limit, self._planned_examples)
        if repeats > 1:
            most = min(most, count // repeats)
        return (None if math.isinf(most) else int(most)), repeats

    def set_examples(self, examples: int, repeats: int = 1) -> None:
        """Measure later steps on at most this many examples.

        Args:
            examples: The number; 0: no limit but the one of the options.
            repeats: How many times as many probes are used, >= 1, as in :meth:`part`.
        """
        self._planned_examples = examples or math.inf
        self._planned_repeats = repeats

    def set_probes(self, probes: int) -> None:
        """Set the number of probes of later measurements.

        Args:
            probes: The number, >= 1, as :attr:`.RateEstimate.probes` counts them.
        """
        self.probes = max(1, math.ceil(probes / self._used_per_requested))
        self._planned_repeats = 1

    def used(
        self, examples: int, probes: int, repeats: int, *, least_per_requested: float = 0.0
    ) -> None:
        """Take note of what the newest measurement used.

        Args:
            examples: Number of examples on this rank.
            probes: Number of probes, repeats included.
            repeats: How many times as many probes as otherwise, >= 1.
            least_per_requested: How many probes are used at least for each requested one next time.
        """
        self.examples, self.repeats = examples, repeats
        per_requested = probes / (self.probes * repeats)
        self._used_per_requested = max(per_requested, least_per_requested)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs; the budget plans examples and repeats anew."""
        return {"probe_count": self.probes, "probes_per_requested": self._used_per_requested}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called.

        Args:
            state: The dictionary that it returned; further entries have no effect.

        Raises:
            KeyError: An entry is missing.
        """
        self.probes = int(state["probe_count"])
        self._used_per_requested = float(state["probes_per_requested"])
