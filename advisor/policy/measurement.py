"""What a run measured at one step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy.arrays import Floats
from advisor.policy.errors import InvalidValueError
from advisor.policy.reference import MAX_STEP


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """Unit rates of one step, in layout order.

    Attributes:
        step: Optimizer steps completed before the measured step, >= 0.
        unit_rates: In output units per learning rate, finite, >= 0, shape [groups].
        relative_errors: Ratios, finite, >= 0, shape [groups].
        multipliers: In force during the measured step, finite, > 0, shape [groups].
        interval_steps: Steps since the measurement before; 0: there was none.
        total_steps: Planned steps of the run; 0: unknown.
        linearity_error: How far the real change of the outputs is from the first-order one, a ratio
            of at least 0; None: not measured.
        probes: Number of probes behind the unit rates; 0: unknown.
        learning_rate: The scheduled learning rate now, the largest over groups; None: unknown.
        advised: Whether each multiplier in force was once recommended, and not only held, shape
            [groups]; None: all if there was a measurement before, else none.
    """

    step: int
    unit_rates: Floats
    relative_errors: Floats
    multipliers: Floats
    interval_steps: int = 0
    total_steps: int = 0
    linearity_error: float | None = None
    probes: int = 0
    learning_rate: float | None = None
    advised: NDArray[np.bool_] | None = None

    @property
    def moves(self) -> NDArray[np.bool_]:
        """Where a multiplier is a successor: where the one in force was recommended, [groups]."""
        if self.advised is not None:
            return self.advised
        return np.full(len(self.multipliers), self.interval_steps > 0)

    def check(self, groups: int) -> None:
        """Check lengths and ranges.

        Args:
            groups: Number of groups of the layout.

        Raises:
            InvalidValueError: An array has another length, or a value is out of its range.
        """
        self._check_numbers()
        if self.advised is not None and self.advised.shape != (groups,):
            raise InvalidValueError(
                "advised", f"{len(self.advised)} entries, but the layout has {groups} groups"
            )
        for field, positive in (
            ("unit_rates", False),
            ("relative_errors", False),
            ("multipliers", True),
        ):
            values = getattr(self, field)
            if values.shape != (groups,):
                raise InvalidValueError(
                    field,
                    f"{len(values)} entries, but the layout has {groups} groups; "
                    "send one entry for each group in layout order",
                )
            good = np.isfinite(values) & ((values > 0) if positive else (values >= 0))
            if np.count_nonzero(good) < groups:
                i = int(np.argmin(good))
                wanted = "above 0" if positive else "of at least 0"
                raise InvalidValueError(
                    f"{field}[{i}]", f"{values[i]} is not a finite number {wanted}"
                )

    def _check_numbers(self) -> None:
        for field in ("linearity_error", "learning_rate"):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InvalidValueError(field, f"{value} is not a finite number of at least 0")
        for field in ("probes", "total_steps"):
            if getattr(self, field) < 0:
                raise InvalidValueError(field, f"{getattr(self, field)} is below 0")
        for field in ("step", "interval_steps"):
            if not 0 <= getattr(self, field) <= MAX_STEP:
                raise InvalidValueError(field, f"{getattr(self, field)} is not in [0, {MAX_STEP}]")


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """Measurements of several runs of one layout, in range (:meth:`Measurement.check`), a row each.

    Attributes:
        steps: As in :class:`Measurement`, shape [runs], and so are the others.
        unit_rates: Shape [runs, groups].
        relative_errors: Shape [runs, groups].
        multipliers: Shape [runs, groups].
        interval_steps: Shape [runs].
        total_steps: Shape [runs].
        linearity_errors: Shape [runs].
        probes: Shape [runs].
        learning_rates: Shape [runs].
        moves: Where a multiplier is a successor, shape [runs, groups].
    """

    steps: Sequence[int]
    unit_rates: Floats
    relative_errors: Floats
    multipliers: Floats
    interval_steps: Sequence[int]
    total_steps: Sequence[int]
    linearity_errors: Sequence[float | None]
    probes: Sequence[int]
    learning_rates: Sequence[float | None]
    moves: NDArray[np.bool_]

    @classmethod
    def of(cls, measurements: Sequence[Measurement]) -> Measurements:
        """Return measurements as rows."""
        return cls(
            steps=[each.step for each in measurements],
            unit_rates=np.stack([each.unit_rates for each in measurements]),
            relative_errors=np.stack([each.relative_errors for each in measurements]),
            multipliers=np.stack([each.multipliers for each in measurements]),
            interval_steps=[each.interval_steps for each in measurements],
            total_steps=[each.total_steps for each in measurements],
            linearity_errors=[each.linearity_error for each in measurements],
            probes=[each.probes for each in measurements],
            learning_rates=[each.learning_rate for each in measurements],
            moves=np.stack([each.moves for each in measurements]),
        )

    def row(self, run: int) -> Measurement:
        """Return the measurement of one run."""
        return Measurement(
            step=self.steps[run],
            unit_rates=self.unit_rates[run],
            relative_errors=self.relative_errors[run],
            multipliers=self.multipliers[run],
            interval_steps=self.interval_steps[run],
            total_steps=self.total_steps[run],
            linearity_error=self.linearity_errors[run],
            probes=self.probes[run],
            learning_rate=self.learning_rates[run],
            advised=self.moves[run],
        )
