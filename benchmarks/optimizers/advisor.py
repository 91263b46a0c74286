"""An advisor whose multipliers do not depend on what is measured."""

from __future__ import annotations

from typing import Self

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, profile_service_pb2

_MULTIPLIERS = (0.5, 2.0, 1.0, 0.25)
_LATER_MULTIPLIERS = (2.0, 0.5, 0.25, 1.0)


class ChangingAdvisor:
    """Gives neighboring groups clearly different multipliers, and changes them at each answer.

    Multipliers scale weight decay together with the rest of the update, so that a whole step is
    either scaled or not.

    Args:
        interval: Steps between measurements.
    """

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._groups = 0
        self._answers = 0

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        """Accept any layout."""
        self._groups = len(opening.layout.groups)
        return profile_service_pb2.ValidateLayoutResponse(
            weight_decay=policy_pb2.WEIGHT_DECAY_RULE_COUPLED
        )

    def open_run(self, opening: pb.RunOpening) -> Self:
        """Return the advisor itself."""
        self._groups = len(opening.layout.groups)
        return self

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        """Return the next multipliers."""
        values = _LATER_MULTIPLIERS if self._answers % 2 else _MULTIPLIERS
        self._answers += 1
        return pb.RecommendLRResponse(
            step=measurement.step,
            multipliers=[values[group % len(values)] for group in range(self._groups)],
            recommended=[True] * self._groups,
            next_measurement_step=measurement.step + self._interval,
            weight_decay=policy_pb2.WEIGHT_DECAY_RULE_COUPLED,
        )

    def close(self) -> None:
        """Do nothing."""
