"""What a run measured at one step, and the ranges of its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.policy.arrays import Floats
from advisor.policy.counts import count_of
from advisor.policy.errors import InvalidValueError
from advisor.policy.ranges import COUNT, FINITE, NON_NEGATIVE, POSITIVE, STEP, Range

NUMBER_RANGES = {
    "step": STEP,
    "interval_steps": STEP,
    "total_steps": COUNT,
    "probes": COUNT,
    "examples": COUNT,
    "linearity_error": NON_NEGATIVE,
    "learning_rate": NON_NEGATIVE,
    "total_rate": NON_NEGATIVE,
    "measuring_seconds": NON_NEGATIVE,
    "measuring_overhead": NON_NEGATIVE,
    "loss": Range("is not finite; leave it out instead"),
}
"""Ranges of the numbers of a measurement, those that only the wire carries included."""
ARRAY_RANGES = {
    "unit_rates": NON_NEGATIVE,
    "relative_errors": NON_NEGATIVE,
    "learning_rates": NON_NEGATIVE,
    "multipliers": POSITIVE,
    "shares": FINITE,
    "weight_rms": NON_NEGATIVE,
    "update_rms": NON_NEGATIVE,
    "weight_decays": NON_NEGATIVE,
}
"""Ranges of the entries of its arrays."""


def check_array(field: str, values: NDArray[Any], groups: int) -> None:
    """Check the length and the range of an array of a measurement.

    Args:
        field: The array's name in ``ARRAY_RANGES``.
        values: The array.
        groups: Number of groups of the layout.

    Raises:
        InvalidValueError: The array has the wrong length, or an entry is out of its range.
    """
    if values.shape != (groups,):
        raise InvalidValueError(
            field,
            f"{count_of(len(values), 'entry')}, but the layout has {count_of(groups, 'group')}; "
            "send one entry for each group in layout order",
        )
    ARRAY_RANGES[field].check_each(field, values)


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """Unit rates of one step, in layout order.

    Attributes:
        step: Optimizer steps completed before the measured step, >= 0.
        unit_rates: In output units per learning rate, finite, >= 0, shape [groups].
        relative_errors: Ratios, finite, >= 0, shape [groups].
        multipliers: In force during the measured step, finite, > 0, shape [groups].
        interval_steps: Steps since the previous measurement; 0: this is the first one.
        total_steps: Planned steps of the run; 0: unknown.
        linearity_error: Relative difference between the real change of the outputs and the
            first-order one, >= 0; None: not measured.
        probes: Number of probes behind the unit rates; 0: unknown.
        learning_rate: The scheduled learning rate now, the largest over groups; None: unknown.
        advised: Whether each multiplier in force was recommended at some time, rather than only
            held, shape [groups]; None: all were if there was a previous measurement, else none.
        weight_rms: RMS of the weights before the measured step, finite, >= 0, shape [groups]; None:
            unknown.
        update_rms: RMS of the update of an lr = 1 step, finite, >= 0, shape [groups]; None:
            unknown.
        excludes_weight_decay: Whether the unit rates are those of the update without its weight
            decay.
        mask: What weighs the output elements that the unit rates are averages over; empty: all
            count the same.
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
    weight_rms: Floats | None = None
    update_rms: Floats | None = None
    excludes_weight_decay: bool = False
    mask: str = ""

    @property
    def moves(self) -> NDArray[np.bool_]:
        """Whether a new multiplier succeeds a recommended one, shape [groups]."""
        if self.advised is not None:
            return self.advised
        return np.full(len(self.multipliers), self.interval_steps > 0)

    def check(self, groups: int) -> None:
        """Check lengths and ranges.

        Args:
            groups: Number of groups of the layout.

        Raises:
            InvalidValueError: An array has the wrong length, or a value is out of its range.
        """
        for field in ("linearity_error", "learning_rate"):
            if getattr(self, field) is not None:
                NUMBER_RANGES[field].check(field, getattr(self, field))
        for field in ("probes", "total_steps", "step", "interval_steps"):
            NUMBER_RANGES[field].check(field, getattr(self, field))
        if self.advised is not None and self.advised.shape != (groups,):
            raise InvalidValueError(
                "advised",
                f"{count_of(len(self.advised), 'entry')}, but the layout has "
                f"{count_of(groups, 'group')}",
            )
        for field in ("unit_rates", "relative_errors", "multipliers"):
            check_array(field, getattr(self, field), groups)
        for field in ("weight_rms", "update_rms"):
            if getattr(self, field) is not None:
                check_array(field, getattr(self, field), groups)


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """Checked measurements of several runs of one layout, one row each; see :class:`Measurement`.

    Attributes:
        steps: Shape [runs].
        unit_rates: Shape [runs, groups].
        relative_errors: Shape [runs, groups].
        multipliers: Shape [runs, groups].
        interval_steps: Shape [runs].
        total_steps: Shape [runs].
        linearity_errors: Shape [runs].
        probes: Shape [runs].
        learning_rates: Shape [runs].
        moves: See :attr:`Measurement.moves`, shape [runs, groups].
        excludes_weight_decay: Shape [runs].
        masks: Shape [runs].
        weight_rms: Shape [runs, groups]; a row of NaN: unknown for that run; None: unknown for all.
        update_rms: The same.
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
    excludes_weight_decay: Sequence[bool]
    masks: Sequence[str]
    weight_rms: Floats | None = None
    update_rms: Floats | None = None

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
            excludes_weight_decay=[each.excludes_weight_decay for each in measurements],
            masks=[each.mask for each in measurements],
            weight_rms=_rows_of_known([each.weight_rms for each in measurements]),
            update_rms=_rows_of_known([each.update_rms for each in measurements]),
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
            weight_rms=_known_row(self.weight_rms, run),
            update_rms=_known_row(self.update_rms, run),
            excludes_weight_decay=self.excludes_weight_decay[run],
            mask=self.masks[run],
        )


def _rows_of_known(arrays: Sequence[Floats | None]) -> Floats | None:
    """Return arrays as rows, with NaN where one is unknown; None if all are unknown."""
    size = next((len(array) for array in arrays if array is not None), None)
    if size is None:
        return None
    unknown = np.full(size, np.nan)
    return np.stack([unknown if array is None else array for array in arrays])


def _known_row(rows: Floats | None, run: int) -> Floats | None:
    return None if rows is None or np.isnan(rows[run]).all() else rows[run]
