"""The numbers that trackers such as TensorBoard keep of a training, and their names.

The names are part of the interface; docs/how-to/log-to-trackers.md lists them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from statistics import fmean, median

from fslr.training.events import AdviceAdopted, Event, Failed, Measured, Started, Warned
from fslr.training.summaries import is_held


def _unchanged(name: str) -> str:
    return name


class Scalars:
    """Turns events into numbers by name.

    Args:
        groups: Shell patterns of the groups whose own numbers are kept, such as ``("head.*",)``;
            ``()``: only what concerns all groups together.
        prefix: What all names begin with.
        rename: Changes the groups' names, for trackers that do not accept every name.
    """

    def __init__(
        self,
        groups: Sequence[str] = ("*",),
        prefix: str = "fslr/",
        rename: Callable[[str], str] = _unchanged,
    ) -> None:
        self._patterns = (groups,) if isinstance(groups, str) else tuple(groups)
        self._prefix = prefix
        self._rename = rename
        self._names: tuple[str, ...] = ()
        self._kept: dict[int, str] = {}  # names by position in the layout
        self._warnings = self._failures = 0

    def of(self, event: Event) -> dict[str, float]:
        """Return the numbers that an event brings; empty if it brings none.

        Numbers that are unknown or not finite are left out.

        Args:
            event: The event.
        """
        found = {
            f"{self._prefix}{name}": float(value)
            for name, value in self._of(event).items()
            if value is not None
        }
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _of(self, event: Event) -> Mapping[str, float | None]:
        match event:
            case Started(opening=opening):
                self._choose(tuple(group.name for group in opening.layout.groups))
                return {}
            case Measured():
                self._choose(event.groups)
                return self._of_measurement(event)
            case AdviceAdopted():
                return self._of_advice(event)
            case Failed():
                self._failures += 1
                return {"failures": self._failures}
            case Warned(is_hint=False):
                self._warnings += 1
                return {"warnings": self._warnings}
            case _:
                return {}

    def _choose(self, names: tuple[str, ...]) -> None:
        if names == self._names:
            return
        self._names = names
        self._kept = {
            position: self._rename(name)
            for position, name in enumerate(names)
            if any(fnmatchcase(name, pattern) for pattern in self._patterns)
        }

    def _by_group(self, what: str, values: Sequence[float] | None) -> dict[str, float]:
        if values is None:
            return {}
        return {f"{what}/{name}": values[position] for position, name in self._kept.items()}

    def _of_measurement(self, event: Measured) -> Mapping[str, float | None]:
        estimate = event.estimate
        learning_rates = [
            scheduled * multiplier
            for scheduled, multiplier in zip(event.learning_rates, event.multipliers, strict=True)
        ]
        rates = [
            unit_rate * learning_rate
            for unit_rate, learning_rate in zip(estimate.unit_rates, learning_rates, strict=True)
        ]
        return {
            "total_rate": estimate.total_rate,
            "linearity_error": estimate.linearity_error,
            "relative_error": fmean(estimate.relative_errors),
            "measuring_s": event.seconds,
            "overhead": event.overhead,
            **self._by_group("rate", rates),
            **self._by_group("share", estimate.shares),
            **self._by_group("learning_rate", learning_rates),
        }

    def _of_advice(self, event: AdviceAdopted) -> Mapping[str, float | None]:
        answer = event.answer
        return {
            "multiplier_min": min(event.multipliers),
            "multiplier_median": median(event.multipliers),
            "multiplier_max": max(event.multipliers),
            "held_groups": None if answer is None else sum(map(is_held, answer.outcomes)),
            **self._by_group("multiplier", event.multipliers),
        }
