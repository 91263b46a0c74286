"""The messages that tell an advisor what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import SupportsFloat

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.training.estimate import RateEstimate
from fslr.training.stopwatch import Stopwatch


class MeasurementMessages:
    """Makes the messages of a run's measurements.

    Args:
        groups: Number of groups of the run.
        stopwatch: Times the steps and their measurements.
        warn: Receives what a person should know.

    Attributes:
        advised: Whether the advisor has recommended a multiplier for each group so far.
        loss: The loss to send with the next message, which belongs to one measurement only. None:
            none was reported.
    """

    def __init__(self, groups: int, stopwatch: Stopwatch, warn: Callable[[str], None]) -> None:
        self.advised = [False] * groups
        self.loss: SupportsFloat | None = None
        self._stopwatch = stopwatch
        self._warn = warn

    def message(
        self,
        estimate: RateEstimate,
        *,
        step: int,
        interval_steps: int,
        multipliers: Sequence[float],
        learning_rates: Sequence[float],
    ) -> pb.Measurement:
        """Return the message of a measurement; it takes the loss.

        Args:
            estimate: The measurement.
            step: The measured step.
            interval_steps: Steps since the measurement before; 0: this is the first one.
            multipliers: The factors that applied to the learning rates, in layout order.
            learning_rates: The scheduled learning rate of each group, without multipliers.
        """
        return pb.Measurement(
            step=step,
            unit_rates=estimate.unit_rates,
            relative_errors=estimate.relative_errors,
            multipliers=multipliers,
            learning_rates=learning_rates,
            interval_steps=interval_steps,
            probes=estimate.probes,
            examples=estimate.examples,
            loss=self._take_loss(),
            total_rate=estimate.total_rate,
            shares=estimate.shares,
            linearity_error=estimate.linearity_error,
            advised=self.advised,
            weight_rms=estimate.weight_rms,
            update_rms=estimate.update_rms,
            weight_decays=_if_any(estimate.weight_decays),
            excludes_weight_decay=estimate.excludes_weight_decay,
            mask=estimate.mask,
            measuring_seconds=self._stopwatch.seconds_under_way,
            measuring_overhead=self._stopwatch.measuring_overhead,
        )

    def recommended(self, groups: Iterable[bool]) -> None:
        """Take note of the groups that an answer recommends a multiplier for.

        Args:
            groups: Whether it does, in layout order.
        """
        pairs = zip(self.advised, groups, strict=False)
        self.advised = [before or now for before, now in pairs]

    def _take_loss(self) -> float | None:
        loss, self.loss = self.loss, None
        if loss is None:
            return None
        try:
            value = float(loss)
        except Exception as error:  # noqa: BLE001 - a loss is for people only, and may be deleted
            self._warn(
                f"the reported loss cannot be read ({error}), so it is not sent; report a number, "
                "or an array with one that stays valid until the step ends"
            )
            return None
        return value if math.isfinite(value) else None


def _if_any(decays: Sequence[float] | None) -> Sequence[float]:
    """Return the decays if any group has one, else nothing: most of them need not be sent."""
    return decays if decays is not None and any(decays) else ()
